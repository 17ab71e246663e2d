package local

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestRemote publishes into a mounted file system by its other end, where this
// kernel's inotify sees nothing, as the clients of one NFS server do.
func TestRemote(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
	served, mounted := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(served, "app_1"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := fs.NewLoopbackRoot(served)
	if err != nil {
		t.Fatal(err)
	}
	server, err := fs.Mount(mounted, root, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
		server.Wait()
	})
	d := New(mounted)
	done, _ := watching(t, d, d.State())
	quietly(t, done)
	if err := os.WriteFile(filepath.Join(served, ".app_2"), []byte("y"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(served, ".app_2"), filepath.Join(served, "app_2")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("what was published at the other end went unnoticed")
	}
}
