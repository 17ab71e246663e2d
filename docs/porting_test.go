// Package docs checks what the documentation shows against what is built.
package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The program that a page of porting shows is the one that is built, and that
// test/integration/port runs.
func TestPortingShowsThePrograms(t *testing.T) {
	pages, err := filepath.Glob("porting/*.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		source, err := os.ReadFile(filepath.Join("..", "examples", "porting", name, "main.go"))
		if os.IsNotExist(err) {
			continue // its program is in another language
		}
		if err != nil {
			t.Fatal(err)
		}
		_, program, _ := strings.Cut(string(source), "package main\n")
		var block strings.Builder
		for line := range strings.Lines("package main\n" + program) {
			if line != "\n" {
				block.WriteString("    ")
			}
			block.WriteString(line)
		}
		if !strings.Contains(string(text), block.String()) {
			t.Errorf("%s does not show examples/porting/%s/main.go as it is", page, name)
		}
		shown++
	}
	if shown < 3 {
		t.Errorf("got %d pages with a program, want at least 3", shown)
	}
}

// What porting/unmodified.md shows in other languages is what test/integration/programs
// runs, but for its comments.
func TestUnmodifiedShowsThePrograms(t *testing.T) {
	page, err := os.ReadFile("porting/unmodified.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"wsgi", "asgi.py", "starlet"} {
		source, err := os.ReadFile(filepath.Join("..", "test", "integration", "programs", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		var block strings.Builder
		for line := range strings.Lines(string(source)) {
			switch {
			case strings.HasPrefix(line, "# "):
				continue
			case line != "\n":
				block.WriteString("    ")
			}
			block.WriteString(line)
		}
		if !strings.Contains(string(page), block.String()) {
			t.Errorf("unmodified.md does not show %s as it is", name)
		}
	}
}
