package unpack

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

func TestAdd(t *testing.T) {
	tree, from := t.TempDir(), filepath.Join(t.TempDir(), "app.conf")
	if err := os.WriteFile(from, []byte("answer = 42\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 { // the second time from the start as well
		if err := Add(f, tree, "config"); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(tree, "config"))
		if err != nil || string(got) != "answer = 42\n" {
			t.Errorf("got %q, %v", got, err)
		}
		if err := os.Remove(filepath.Join(tree, "config")); err != nil {
			t.Fatal(err)
		}
	}
	// What the artifact has itself is neither replaced nor followed.
	for _, make := range []func(string) error{
		func(path string) error { return os.WriteFile(path, nil, 0o644) },
		func(path string) error { return os.Mkdir(path, 0o755) },
		func(path string) error { return os.Symlink("elsewhere", path) },
	} {
		path := filepath.Join(tree, "config")
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if err := Add(f, tree, "config"); reason.Of(err) != CodePath {
			t.Errorf("got %v, want %s", err, CodePath)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(tree, "elsewhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link was followed: %v", err)
	}
}
