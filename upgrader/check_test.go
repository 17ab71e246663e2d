package upgrader

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

// stagedScript makes a store whose staged release is one script, bin/app.
func stagedScript(t *testing.T, body string) string {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "app"))
	if err != nil {
		t.Fatal(err)
	}
	digest := store.Digest{1}
	r, err := store.NewRelease("1.5.0", digest)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := s.IncomingTree(digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(tree, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "bin/app"), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Install(t.Context(), tree, r, digest); err != nil {
		t.Fatal(err)
	}
	if err := s.SetLink(store.Staged, r); err != nil {
		t.Fatal(err)
	}
	return s.Path()
}

func TestRunCheck(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		check      []string
		timeout    time.Duration
		want       int
		out        string
	}{
		{"passes", `echo "$1 $UPGRADERD_VERSION $(basename "$PWD")"`, []string{"bin/app", "a b"}, 0, 0, "a b 1.5.0 1.5.0-010000000000"},
		{"fails", "exit 3", []string{"bin/app"}, 0, 3, ""},
		{"78 is ours", "exit 78", []string{"bin/app"}, 0, 1, ""},
		{"203 is systemd's", "exit 203", []string{"bin/app"}, 0, 1, ""},
		{"killed", "kill -SEGV $$", []string{"bin/app"}, 0, CheckSignaled + int(syscall.SIGSEGV), ""},
		{"hangs, with children", "sleep 1000 & sleep 1000", []string{"bin/app"}, 100 * time.Millisecond, CheckTimedOut, ""},
		{"no such command", "", []string{"bin/other"}, 0, CheckNotExec, ""},
		{"not inside", "", []string{"../../../../bin/true"}, 0, CheckUnable, ""},
		{"of the host", "", []string{"/bin/sh", "-c", "echo $0 $PWD", "bin/app"}, 0, 0, "bin/app "},
		{"of the host, not there", "", []string{"/usr/bin/no-such-command"}, 0, CheckUnable, ""},
		{"from PATH", "", []string{"true"}, 0, 0, ""},
		{"no command", "", nil, 0, CheckUnable, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := stagedScript(t, tt.body)
			var out, errs bytes.Buffer
			began := time.Now()
			got := RunCheck(t.Context(), &Target{Name: "app", Check: tt.check, CheckTimeout: tt.timeout}, dir, &out, &errs)
			if got != tt.want || !strings.Contains(out.String(), tt.out) {
				t.Errorf("got %d, %q, %q; want %d, %q", got, &out, &errs, tt.want, tt.out)
			}
			if got != 0 && !strings.HasPrefix(errs.String(), "check app: ") {
				t.Errorf("stderr %q does not say what failed", &errs)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestRunCheckWithoutRelease(t *testing.T) {
	target := &Target{Name: "app", Check: []string{"true"}}
	var out, errs bytes.Buffer
	if got := RunCheck(t.Context(), target, filepath.Join(t.TempDir(), "none"), &out, &errs); got != CheckUnable {
		t.Errorf("no store: got %d, want %d", got, CheckUnable)
	}
	s, err := store.Open(filepath.Join(t.TempDir(), "app"))
	if err != nil {
		t.Fatal(err)
	}
	if got := RunCheck(t.Context(), target, s.Path(), &out, &errs); got != CheckUnable {
		t.Errorf("nothing staged: got %d, want %d", got, CheckUnable)
	}
}

func TestRunCheckEndsWithItsContext(t *testing.T) {
	dir := stagedScript(t, "sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var out, errs bytes.Buffer
	if got := RunCheck(ctx, &Target{Name: "app", Check: []string{"bin/app"}}, dir, &out, &errs); got == 0 {
		t.Error("a check that was cut short passed")
	}
}

func TestCheckUnit(t *testing.T) {
	// By systemd-escape(1).
	for in, want := range map[string]string{
		"app":    "upgraderd-check@app.service",
		"my-app": `upgraderd-check@my\x2dapp.service`,
		"a b":    `upgraderd-check@a\x20b.service`,
	} {
		if got := CheckUnit(in); got != want {
			t.Errorf("CheckUnit(%q) = %q, want %q", in, got, want)
		}
	}
}
