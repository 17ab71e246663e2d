//go:build integration

package packages

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// guide is docs/first-upgrade.md: chapters of commands, which are played in a
// machine.
type guide struct {
	t        *testing.T
	m        *kit.Machine
	chapters []chapter
}

type chapter struct {
	title string
	steps []step
}

// step is a block of commands, and what its output has to say.
type step struct{ commands, says string }

const home = "/root/first"

func readGuide(t *testing.T) []chapter {
	t.Helper()
	text, err := os.ReadFile("../../../docs/first-upgrade.md")
	if err != nil {
		t.Fatal(err)
	}
	says := regexp.MustCompile(`^<!-- says: (.*) -->$`)
	var (
		chapters []chapter
		inside   bool // of a block
	)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if title, ok := strings.CutPrefix(line, "## "); ok {
			chapters = append(chapters, chapter{title: title})
		}
		if len(chapters) == 0 {
			continue
		}
		c := &chapters[len(chapters)-1]
		command, ok := strings.CutPrefix(line, "    ")
		switch m := says.FindStringSubmatch(line); {
		case m != nil:
			c.steps[len(c.steps)-1].says = m[1]
		case ok && inside:
			c.steps[len(c.steps)-1].commands += command + "\n"
		case ok:
			c.steps = append(c.steps, step{commands: command + "\n"})
		case line == "" && inside: // one that goes on
			c.steps[len(c.steps)-1].commands += "\n"
			continue
		}
		inside = ok
	}
	return chapters
}

// play runs the next chapter, which has this title.
func (g *guide) play(title string) {
	g.t.Helper()
	if len(g.chapters) == 0 || g.chapters[0].title != title {
		g.t.Fatalf("the next chapter is not %q", title)
	}
	c := g.chapters[0]
	g.chapters = g.chapters[1:]
	for _, s := range c.steps {
		out, err := g.m.Machine.Run(g.t.Context(), "sh", "-ec", "exec 2>&1; cd "+home+"\n"+g.outside(s.commands)+"\n")
		if err != nil || !strings.Contains(out, s.says) {
			g.t.Fatalf("%s: %v, want %q in\n%s", title, err, s.says, out)
		}
	}
}

// outside builds what the guide builds, and gives the commands without that: the
// machine has no compiler.
func (g *guide) outside(commands string) string {
	g.t.Helper()
	build := regexp.MustCompile(`(?m)^CGO_ENABLED=0 go build -ldflags '-X main.version=(\S+?)(?: -X main.fault=(\S+))?' \./examples/hello$`)
	if m := build.FindStringSubmatch(commands); m != nil {
		g.m.Copy(kit.Hello(g.t, m[1], m[2]), filepath.Join(home, "hello"))
	}
	return build.ReplaceAllString(commands, "")
}

// curl stands for the real one, which the machines have not.
const curl = `#!/usr/bin/python3
import socket, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
with socket.create_connection((url.hostname, url.port)) as s:
    s.sendall(f"GET {url.path} HTTP/1.0\r\nHost: {url.hostname}\r\n\r\n".encode())
    print(s.makefile().read().partition("\n\n")[2], end="")
`
