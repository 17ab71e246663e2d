package upgrader

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher"
)

func TestPack(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"app_1.0", "app_1.10", "app_1.9", "program", "empty/other"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, tc := range []struct {
		file, version, pattern string
		want, as, wrong        string
	}{
		{file: "app_1.0", want: "1.0"},
		{file: "app_1.0", version: "1.0", want: "1.0"},
		{file: "app_1.0", version: "1.1", wrong: "is 1.0 by its name, and not 1.1"},
		{file: "program", version: "1.2", want: "1.2", as: "app_1.2"},
		{file: "program", wrong: "--version=VERSION"},
		{file: "program", version: "../1", wrong: "version"},
		{file: "program", version: "1.2", pattern: "app_@v_@h", wrong: "says more than a version"},
		{file: "program", version: "1.2", pattern: "sub/app_@v", want: "1.2", as: "app_1.2"},
		{file: ".", want: "1.10"},
		{file: ".", version: "1.9", want: "1.9"},
		{file: ".", version: "2.0", wrong: "holds no file of 2.0"},
		{file: "empty", wrong: "holds no file that matches"},
		{file: "nothing", wrong: "no such file"},
	} {
		pattern := tc.pattern
		if pattern == "" {
			pattern = "app_@v"
		}
		target := &Target{Name: "app", Source: fetcher.Options{Patterns: []string{pattern}, Verify: fetcher.VerifyNo}}
		p, err := Pack(t.Context(), target, at(tc.file), tc.version)
		switch {
		case tc.wrong != "":
			if err == nil || !strings.Contains(err.Error(), tc.wrong) {
				t.Errorf("%s %s: got %v, want %q", tc.file, tc.version, err, tc.wrong)
			}
		case err != nil || p.Version != tc.want || p.as != tc.as:
			t.Errorf("%s %s: got %s as %q, %v", tc.file, tc.version, p.Version, p.as, err)
		}
	}
}

// TestDeployUnderAnotherName takes a file as what it is said to be.
func TestDeployUnderAnotherName(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.start()
		w.looked()
		built := filepath.Join(scratch(t), "built")
		if err := os.WriteFile(built, []byte("#!/bin/sh\n# new\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		p, err := Pack(t.Context(), w.target, built, "1.1")
		if err != nil {
			t.Fatal(err)
		}
		if _, is, err := p.Installed(w.state); is || err != nil {
			t.Fatalf("installed before: %v, %v", is, err)
		}
		id, _, err := p.Import(t.Context(), w.state, func() error { return nil }, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.daemon.Reload(t.Context(), []*Target{w.target}); err != nil {
			t.Fatal(err)
		}
		w.answered(id, VerdictStaged)
		id = w.order(Order{Verb: OrderUpgrade, Version: p.Version})
		w.eventually("it is on trial", func(st TargetStatus) bool { return st.State == Confirming })
		if state, _ := p.Trial(w.state); state != Confirming {
			t.Errorf("on trial: got %q", state)
		}
		w.answered(id, VerdictGood)
		if state, last := p.Trial(w.state); state != "" || last == nil || last.Verdict != VerdictGood {
			t.Errorf("after it: %q, %+v", state, last)
		}
		if name, is, err := p.Installed(w.state); !is || err != nil || !strings.HasPrefix(name, "1.1-") {
			t.Errorf("installed: %s, %v, %v", name, is, err)
		}
		again, err := Pack(t.Context(), w.target, built, "1.2")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := again.Installed(w.state); err == nil || !strings.Contains(err.Error(), "these are the bytes of 1.1") {
			t.Errorf("the same bytes as another version: %v", err)
		}
	})
}
