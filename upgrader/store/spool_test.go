package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

const orderID = "ABCDEFGH234567"

func newSpool(t *testing.T, s *Store, id string) *Spool {
	t.Helper()
	p, err := s.NewSpool(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSpool(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "app"))
	if err != nil {
		t.Fatal(err)
	}
	p := newSpool(t, s, orderID)
	for name, text := range map[string]string{"SHA256SUMS": "list", "targets/a/app": "bytes"} {
		if err := p.Add(t.Context(), name, strings.NewReader(text), int64(len(text))); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Add(t.Context(), "large", strings.NewReader("12345"), 4); reason.Of(err) != CodeSpoolTooLarge {
		t.Errorf("too large: %v", err)
	}
	for _, name := range []string{"../outside", "/etc/outside", "SHA256SUMS"} {
		if err := p.Add(t.Context(), name, strings.NewReader("x"), 4); err == nil {
			t.Errorf("%q was added", name)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Add(ended, "late", strings.NewReader("x"), 4); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	if err := p.Sync(); err != nil {
		t.Error(err)
	}
	if err := s.CleanSpools(func(string) bool { return false }); err != nil { // while it is ours
		t.Error(err)
	}
	p.Close()
	if err := s.CleanSpools(func(id string) bool { return id == orderID }); err != nil { // and while it is wanted
		t.Error(err)
	}
	dir, err := s.Spool(orderID)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "targets/a/app")); string(got) != "bytes" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := s.CleanSpools(func(string) bool { return false }); err != nil {
		t.Error(err)
	}
	if _, err := s.Spool(orderID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	p = newSpool(t, s, orderID)
	if err := p.Discard(); err != nil {
		t.Error(err)
	}
	if _, err := s.Spool(orderID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	for _, id := range []string{"", "short", "../../../etc", "ABCDEFGH/ABCDEFGH", "abcdefghijkl", strings.Repeat("A", 65)} {
		if p, err := s.NewSpool(id); err == nil {
			t.Errorf("there is a spool %q", id)
			_ = p.Discard()
		}
		if _, err := s.Spool(id); err == nil {
			t.Errorf("spool %q was found", id)
		}
	}
}

// What lies there under the name of a spool and is none is removed, and what a
// link leads to is not.
func TestCleanSpoolsFollowsNoLink(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "app"))
	if err != nil {
		t.Fatal(err)
	}
	precious := t.TempDir()
	file := filepath.Join(precious, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(string) error{
		"link":   func(at string) error { return os.Symlink(precious, at) },
		"fifo":   func(at string) error { return syscall.Mkfifo(at, 0o600) },
		"file":   func(at string) error { return os.WriteFile(at, nil, 0o600) },
		"inside": func(at string) error { return errors.Join(os.Mkdir(at, 0o700), os.Symlink(precious, at+"/link")) },
	} {
		if err := make(filepath.Join(s.Path(), spoolPre+name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CleanSpools(func(string) bool { return false }); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(s.Path(), spoolPre+"*")); len(left) > 0 || err != nil {
		t.Errorf("left %q, %v", left, err)
	}
	if _, err := os.Lstat(file); err != nil {
		t.Error(err)
	}
}

// TestRootActsAsTheOwner has a daemon whose user was taken over wait for root: what
// root writes goes by that user's rights, and is that user's.
func TestRootActsAsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has rights to give away")
	}
	const user = 4711
	parent := t.TempDir()
	for dir := parent; dir != "/"; dir = filepath.Dir(dir) { // the test's own directories are root's alone
		if strings.HasPrefix(dir, os.TempDir()+"/") {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, err := Open(filepath.Join(parent, "app"))
	if err != nil {
		t.Fatal(err)
	}
	forbidden := filepath.Join(parent, "forbidden")
	if err := os.Mkdir(forbidden, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(s.Path(), user, user); err != nil {
		t.Fatal(err)
	}
	// The tests of this package have no right to look, see TestMain.
	t.Cleanup(func() {
		there := &Store{dir: s.Path() + "-moved", fs: osFS{}}
		if err := there.asOwner(func() error {
			return errors.Join(os.RemoveAll(filepath.Join(there.dir, orderName)), os.RemoveAll(filepath.Join(there.dir, spoolPre+orderID)))
		}); err != nil {
			t.Error(err)
		}
		if err := os.Chown(there.dir, 0, 0); err != nil {
			t.Error(err)
		}
	})
	owner := func(name string) (uid uint32) {
		t.Helper()
		if err := s.asOwner(func() error {
			info, err := os.Lstat(name)
			if err == nil {
				uid = info.Sys().(*syscall.Stat_t).Uid
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return uid
	}
	if err := s.PlaceOrder("x"); err != nil {
		t.Fatal(err)
	}
	if got := owner(filepath.Join(s.Path(), orderName)); got != user {
		t.Errorf("the order is user %d's", got)
	}
	p := newSpool(t, s, orderID)
	if err := p.Add(t.Context(), "sub/file", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	if err := p.Sync(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", "sub", "sub/file"} {
		if got := owner(filepath.Join(s.Path(), spoolPre+orderID, name)); got != user {
			t.Errorf("%q of the spool is user %d's", name, got)
		}
	}
	p.Close()
	// Its directory becomes a link to one where only root may write.
	if err := os.Rename(s.Path(), s.Path()+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(forbidden, s.Path()); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(s.Path(), user, user); err != nil {
		t.Fatal(err)
	}
	if err := s.PlaceOrder("x"); reason.Of(err) != reason.Permission {
		t.Errorf("an order in root's directory: %v", err)
	}
	if p, err := s.NewSpool(orderID); reason.Of(err) != reason.Permission {
		t.Errorf("a spool in root's directory: %v", err)
		if err == nil {
			_ = p.Discard()
		}
	}
	if entries, err := os.ReadDir(forbidden); err != nil || len(entries) > 0 {
		t.Errorf("root was led to write %v, %v", entries, err)
	}
	// And this process has its rights still.
	if err := os.WriteFile(filepath.Join(forbidden, "file"), nil, 0o600); err != nil {
		t.Error(err)
	}
}

func TestProgressOnDisk(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "app"))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]int
	if ok, err := s.Progress(&got); ok || err != nil {
		t.Errorf("before: %v, %v", ok, err)
	}
	for i := range 3 {
		if err := s.SaveProgress(map[string]int{"done": i}); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := s.Progress(&got); !ok || err != nil || got["done"] != 2 {
		t.Errorf("got %v, %v, %v", got, ok, err)
	}
	for range 2 {
		if err := s.ClearProgress(); err != nil {
			t.Error(err)
		}
	}
	if ok, err := s.Progress(&got); ok || err != nil {
		t.Errorf("after: %v, %v", ok, err)
	}
}
