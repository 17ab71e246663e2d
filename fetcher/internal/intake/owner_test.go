package intake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBeginAfterAHalfCommit takes up a part that Commit has made read-only and not
// renamed, as a daemon that is not root finds it. Root could open it anyway.
func TestBeginAfterAHalfCommit(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("run as root: it takes another user's place on one thread")
	}
	const nobody = 65534
	dir := t.TempDir()
	part := filepath.Join(dir, "app.part")
	if err := os.WriteFile(part, []byte("all of it"), 0o400); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, part} {
		if err := os.Chown(name, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- takeUp(root, nobody)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func takeUp(root *os.Root, user int) error {
	if err := unix.Setfsuid(user); err != nil {
		return err
	}
	if f, err := root.OpenFile("app.part", os.O_RDWR, 0); err == nil {
		f.Close()
		return errors.New("the part can be written, so the test tests nothing")
	}
	p, err := Begin(context.Background(), root, "app.part")
	if err != nil {
		return err
	}
	if p.Size() != int64(len("all of it")) {
		return fmt.Errorf("%d bytes are there", p.Size())
	}
	f, err := p.Commit("app")
	if err != nil {
		return err
	}
	return f.Close()
}
