package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// watching runs Watch, and gives what it returned and when.
func watching(t *testing.T, d *Dir, since source.Mark) (done <-chan error, cancel context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- d.Watch(ctx, since) }()
	t.Cleanup(cancel)
	return result, cancel
}

// quietly tells that Watch has not returned. It waits longer than Watch needs
// to notice a change.
func quietly(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("returned (%v) although nothing was published", err)
	case <-time.After(4 * settle):
	}
}

func promptly(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(pollEvery * 3 / 4):
		t.Fatal("did not return: what was published went unnoticed")
	}
}

func TestWatchReturnsOnPublishing(t *testing.T) {
	for _, c := range []struct {
		name    string
		publish func(dir string) error
	}{
		{"written", func(dir string) error { return os.WriteFile(filepath.Join(dir, "app_2"), []byte("x"), 0o644) }},
		{"moved in", func(dir string) error { return os.Rename(dir+"/sub/inside", dir+"/app_2") }},
		{"linked", func(dir string) error { return os.Link(dir+"/sub/inside", dir+"/app_2") }},
		{"rewritten", func(dir string) error { return os.WriteFile(filepath.Join(dir, "app_1"), []byte("y"), 0o644) }},
		{"linked symbolically", func(dir string) error { return os.Symlink("app_1", dir+"/current") }},
		{"removed", func(dir string) error { return os.Remove(filepath.Join(dir, "app_1")) }},
		{"made readable", func(dir string) error { return os.Chmod(filepath.Join(dir, "app_1"), 0o604) }},
		{"directory replaced", func(dir string) error {
			if err := os.Rename(dir, dir+".old"); err != nil {
				return err
			}
			return os.Mkdir(dir, 0o755)
		}},
		{"directory removed", os.RemoveAll},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, p := newDir(t)
			p.Publish("app_1", []byte("x"))
			before := sourcetest.OpenFiles(t)
			done, _ := watching(t, d, d.State())
			quietly(t, done)
			if err := c.publish(d.path); err != nil {
				t.Fatal(err)
			}
			promptly(t, done)
			sourcetest.Settled(t, before)
		})
	}
}

// TestWatchMissesNothing publishes between the look and the watch.
func TestWatchMissesNothing(t *testing.T) {
	d, p := newDir(t)
	since := d.State()
	p.Publish("app_2", []byte("x"))
	done, _ := watching(t, d, since)
	promptly(t, done)
}

// TestWatchWaitsForTheEndOfAnUpload is why IN_CLOSE_WRITE is used: a file that
// grows is no release yet.
func TestWatchWaitsForTheEndOfAnUpload(t *testing.T) {
	d, _ := newDir(t)
	done, _ := watching(t, d, d.State())
	quietly(t, done)
	f, err := os.Create(filepath.Join(d.path, "app_2"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 5 {
		if _, err := f.WriteString("more"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(settle)
	}
	quietly(t, done)
	f.Close()
	promptly(t, done)
}

// TestWatchComesBackOnce publishes as release scripts do, in several steps.
func TestWatchComesBackOnce(t *testing.T) {
	d, p := newDir(t)
	done, _ := watching(t, d, d.State())
	quietly(t, done)
	for _, name := range []string{"app_2", "SHA256SUMS", "SHA256SUMS.minisig"} {
		p.Publish(name, []byte(name))
		time.Sleep(settle / 4)
	}
	promptly(t, done)
	again, _ := watching(t, d, d.State())
	quietly(t, again)
}

// TestWatchReturnsInABusyDirectory makes sure that waiting for quiet ends.
func TestWatchReturnsInABusyDirectory(t *testing.T) {
	d, p := newDir(t)
	done, _ := watching(t, d, d.State())
	begin := time.Now()
	last, gap := begin, time.Duration(0)
	for range 500 {
		p.Publish("busy", nil)
		gap, last = max(gap, time.Since(last)), time.Now()
		select {
		case err := <-done:
			// On a machine that is busy, too, the directory may have been quiet.
			if err != nil || time.Since(begin) < settleMax/2 && gap < settle/2 {
				t.Fatalf("returned %v after %v, with at most %v between two files", err, time.Since(begin), gap)
			}
			return
		case <-time.After(settle / 5):
		}
	}
	t.Fatalf("did not return in %v", time.Since(begin))
}

func TestWatchEndsWithItsContext(t *testing.T) {
	missing := New(filepath.Join(t.TempDir(), "none"))
	present, _ := newDir(t)
	for _, d := range []*Dir{missing, present} {
		before := sourcetest.OpenFiles(t)
		done, cancel := watching(t, d, d.State())
		quietly(t, done)
		cancel()
		sourcetest.WantCode(t, <-done, fault.Canceled, true)
		sourcetest.Settled(t, before)
	}
}

// TestWatchPolls covers what inotify cannot do: a directory that does not exist
// yet, and a link that is pointed elsewhere.
func TestWatchPolls(t *testing.T) {
	t.Run("created", func(t *testing.T) {
		d := New(filepath.Join(t.TempDir(), "later"))
		done, _ := watching(t, d, d.State())
		quietly(t, done)
		if err := os.Mkdir(d.path, 0o755); err != nil {
			t.Fatal(err)
		}
		wantNilWithin(t, done, 3*pollEvery)
	})
	t.Run("link", func(t *testing.T) {
		old, _ := newDir(t)
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(old.path, link); err != nil {
			t.Fatal(err)
		}
		d := New(link)
		done, _ := watching(t, d, d.State())
		quietly(t, done)
		now, _ := newDir(t)
		if err := os.Symlink(now.path, link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
		wantNilWithin(t, done, 3*pollEvery)
	})
	t.Run("pointed elsewhere", func(t *testing.T) {
		d, p := newDir(t)
		p.Publish("app_1", []byte("x"))
		p.Publish("app_2", []byte("x"))
		current := filepath.Join(d.path, "current")
		if err := os.Symlink("app_1", current); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		done := make(chan error, 1)
		since := d.State()
		go func() { done <- d.poll(ctx, since) }()
		if err := errors.Join(os.Symlink("app_2", current+".new"), os.Rename(current+".new", current)); err != nil {
			t.Fatal(err)
		}
		wantNilWithin(t, done, 3*pollEvery)
	})
	t.Run("growing", func(t *testing.T) {
		d, p := newDir(t)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		done := make(chan error, 1)
		since := d.State()
		go func() { done <- d.poll(ctx, since) }()
		p.Publish("app_2", []byte("x"))
		wantNilWithin(t, done, 3*pollEvery)
	})
}

func wantNilWithin(t *testing.T, done <-chan error, d time.Duration) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(d):
		t.Fatalf("nothing noticed within %v", d)
	}
}

// TestNoInotifyOnRemoteFileSystems names those where another host's writes make
// no event here.
func TestNoInotifyOnRemoteFileSystems(t *testing.T) {
	for _, magic := range []int64{unix.NFS_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC} {
		if !remote(magic) {
			t.Errorf("%#x is taken for local", magic)
		}
	}
	for _, magic := range []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC} {
		if remote(magic) {
			t.Errorf("%#x is taken for remote", magic)
		}
	}
}
