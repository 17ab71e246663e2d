package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

func TestFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "app")
	r, err := Found(t.Context(), dir, "0-installed", "bin/app", strings.NewReader("program"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := View(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.removeAll(s.dir); err != nil {
			t.Error(err)
		}
	})
	if got, ok, err := s.Link(Current); got != r || !ok || err != nil || r.Version != "0-installed" {
		t.Errorf("current is %v, %v, %v; want %v", got, ok, err, r)
	}
	if err := s.Verify(t.Context(), r); err != nil {
		t.Error(err)
	}
	program, err := s.Program(r, "bin/app")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(program); string(text) != "program" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), incomingPre) {
			t.Errorf("left: %s", e.Name())
		}
	}
	// What is there stays.
	again, err := Found(t.Context(), dir, "1", "bin/app", strings.NewReader("other"))
	if again != r || err != nil {
		t.Errorf("a second time: %v, %v; want %v", again, err, r)
	}
	if _, err := Found(t.Context(), dir+"2", "not a version", "bin/app", strings.NewReader("x")); err == nil {
		t.Error("a bad version was taken")
	}
	unlock, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Found(t.Context(), dir, "1", "bin/app", strings.NewReader("other")); err == nil {
		t.Error("a store that somebody holds was changed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Erase(ctx, dir); !errors.Is(err, ErrLocked) {
		t.Errorf("a store that somebody holds: got %v, want ErrLocked", err)
	}
	erased := make(chan error)
	go func() { erased <- Erase(t.Context(), dir) }()
	unlock()
	if err := <-erased; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after it was erased: %v", err)
	}
	if err := Erase(t.Context(), dir); err != nil {
		t.Error(err)
	}
}

// TestEraseIsNotLedAway has the user of a daemon that was taken over put a link in the
// place of the store that root removes, and a directory of root's beside it.
func TestEraseIsNotLedAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has rights to lose")
	}
	const user = 4711
	parent := t.TempDir()
	state, victim := filepath.Join(parent, "state"), filepath.Join(parent, "victim")
	for _, dir := range []string{state, victim, filepath.Join(victim, "releases")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lock := filepath.Join(victim, lockName)
	if err := os.WriteFile(lock, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	app := filepath.Join(state, "app")
	if err := errors.Join(os.Symlink(victim, app), os.Lchown(app, user, user), os.Chown(state, user, user)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chown(state, 0, 0) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := Erase(ctx, app)
	if text, rerr := os.ReadFile(lock); rerr != nil || string(text) != "precious" {
		t.Errorf("root was led to a file of its own: now %q, %v (erase: %v)", text, rerr, err)
	}

	// A name below a directory of that user's may be root's for a moment: that lends
	// no rights.
	s := &Store{dir: victim, fs: osFS{}}
	if err := os.Chown(parent, user, user); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chown(parent, 0, 0) })
	if err := s.PlaceOrder("x"); reason.Of(err) != reason.Permission {
		t.Errorf("an order in root's directory below another's: %v", err)
	}
}
