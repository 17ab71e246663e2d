// Package guide reads the pages of the documentation as tests play them: by chapter,
// and in each the blocks of commands. Who writes a command into a page has it run by a
// test, or the test of the pages fails.
package guide

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// Block is an indented one of a page.
type Block struct {
	// Chapter is the heading above it.
	Chapter string
	// Text has lines without the indentation.
	Text string
}

// Root is the top of this module.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Read gives the blocks of a page, such as "docs/holds.md".
func Read(page string) ([]Block, error) {
	text, err := os.ReadFile(filepath.Join(Root(), page))
	if err != nil {
		return nil, err
	}
	var (
		blocks  []Block
		chapter string
		blank   = true
		inside  bool
	)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		code, ok := strings.CutPrefix(line, "    ")
		switch {
		case ok && inside:
			blocks[len(blocks)-1].Text += code + "\n"
		case ok && blank:
			blocks = append(blocks, Block{chapter, code + "\n"})
			inside = true
		default:
			inside = false
			if head := strings.TrimLeft(line, "#"); head != line {
				chapter = strings.TrimSpace(head)
			}
		}
		blank = line == ""
	}
	return blocks, nil
}

// programs begin a line that somebody may type after a page. What an operator has of
// the system is named as it is met.
var programs = []string{
	"upgraderd", "./upgraderd", "bin/upgraderd", "systemctl", "journalctl", "busctl", "loginctl", "apt-get", "curl", "docker", "ssh",
	"printf", "mkdir", "cp", "mv", "ln", "rm", "cat", "tar", "cd", "echo", "export", "sha256sum", "minisign", "gpg", "ssh-keygen",
	"s3cmd", "oras", "rsync", "bsdiff", "zstd", "make", "go", "CGO_ENABLED=0",
}

// Commands reports whether a block is one of commands.
func (b Block) Commands() bool {
	first, _, _ := strings.Cut(b.Text, "\n")
	word, rest, _ := strings.Cut(strings.TrimSpace(first), " ")
	// What a program prints is told from what is typed by no sign but this: the first
	// word of a message of ours has none of a verb's letters behind it.
	return slices.Contains(programs, word) && !output.MatchString(word+" "+rest) || assignment.MatchString(first)
}

var (
	output     = regexp.MustCompile(`^upgraderd (started|:)|\{[A-Z]+\}|^upgraderd_`)
	assignment = regexp.MustCompile(`^[a-z]+=\$\(`)
)
