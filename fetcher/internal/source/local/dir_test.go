package local

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// dirPublisher publishes as it should be done: complete, by rename.
type dirPublisher struct {
	t   *testing.T
	dir string
}

func (p dirPublisher) Publish(name string, content []byte) {
	p.t.Helper()
	temp := filepath.Join(p.t.TempDir(), "new")
	if err := os.WriteFile(temp, content, 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(p.dir, name)); err != nil {
		p.t.Fatal(err)
	}
}

func (p dirPublisher) Remove(name string) {
	p.t.Helper()
	if err := os.Remove(filepath.Join(p.dir, name)); err != nil {
		p.t.Fatal(err)
	}
}

func newDir(t *testing.T) (*Dir, dirPublisher) {
	t.Helper()
	parent := t.TempDir()
	if err := os.WriteFile(filepath.Join(parent, "outside"), []byte("outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "source")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub", "inside"), []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
	return New(dir), dirPublisher{t, dir}
}

func TestDirConforms(t *testing.T) {
	sourcetest.Conform(t, func(t *testing.T) (source.Source, sourcetest.Publisher) { return newDir(t) })
}

func TestDirMissing(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), "/dev/null", "/proc/self/environ/x"} {
		d := New(path)
		_, _, err := d.Read(context.Background(), "SHA256SUMS", 10, "")
		sourcetest.WantCode(t, err, fault.SourceMissing, true)
		_, err = d.List(context.Background(), 10)
		sourcetest.WantCode(t, err, fault.SourceMissing, true)
		if state := d.State(); state != "" {
			t.Errorf("%s has the state %q", path, state)
		}
	}
}

// TestDirTakesRegularFilesOnly puts everything else there is into a directory.
// A FIFO without a writer would block an open for ever.
func TestDirTakesRegularFilesOnly(t *testing.T) {
	d, p := newDir(t)
	p.Publish("file", []byte("x"))
	at := func(name string) string { return filepath.Join(d.path, name) }
	for name, err := range map[string]error{
		"fifo":     unix.Mkfifo(at("fifo"), 0o666),
		"socket":   unix.Mknod(at("socket"), unix.S_IFSOCK|0o666, 0),
		"link":     os.Symlink("file", at("link")),
		"dangling": os.Symlink("none", at("dangling")),
		"dir":      os.Mkdir(at("dir"), 0o755),
	} {
		if err != nil {
			t.Fatalf("make %s: %v", name, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err := d.Open(ctx, name, source.Position{})
		sourcetest.WantCode(t, err, fault.SourceNotFile, false)
		_, _, err = d.Read(ctx, name, 10, "")
		sourcetest.WantCode(t, err, fault.SourceNotFile, false)
		cancel()
	}
	files, err := d.List(context.Background(), 100)
	if err != nil || len(files) != 1 || files[0] != (source.File{Name: "file", Size: 1}) {
		t.Errorf("listing %v, %v; want the one file", files, err)
	}
}

func TestDirListIsBounded(t *testing.T) {
	d, p := newDir(t)
	for i := range 20 {
		p.Publish(fmt.Sprint("app_", i), nil)
	}
	_, err := d.List(context.Background(), 10)
	sourcetest.WantCode(t, err, fault.MetaTooLarge, false)
}

func TestDirNoticesAChangeWhileReading(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(name string) error
		code   fault.Code
	}{
		{"overwritten", func(name string) error {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("y"), 5)
			return err
		}, fault.SourceChanged},
		{"longer", func(name string) error { return os.Truncate(name, 2_000_000) }, fault.SourceChanged},
		{"shorter", func(name string) error { return os.Truncate(name, 20) }, fault.SourceChanged},
		{"replaced", func(name string) error {
			return os.Rename(filepath.Join(filepath.Dir(name), "sub", "inside"), name)
		}, ""},
		{"linked", func(name string) error { return os.Link(name, name+".2") }, ""},
		{"removed", os.Remove, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, p := newDir(t)
			p.Publish("app", make([]byte, 1_000_000))
			stream := sourcetest.MustOpen(t, d, "app", source.Position{})
			defer stream.Body.Close()
			if _, err := io.ReadFull(stream.Body, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond) // beyond the clock tick of file times
			if err := c.change(filepath.Join(d.path, "app")); err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, stream.Body)
			if c.code != "" {
				sourcetest.WantCode(t, err, c.code, true)
			} else if err != nil || n != 1_000_000-10 {
				t.Errorf("read %d bytes, %v; want the file as it was opened", n, err)
			}
		})
	}
}

// TestDirLeavesOutWhatIsBeingWritten needs the lease that the kernel gives to a
// file's owner.
func TestDirLeavesOutWhatIsBeingWritten(t *testing.T) {
	d, p := newDir(t)
	p.Publish("done", []byte("x"))
	f, err := os.Create(filepath.Join(d.path, "upload"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if names := listNames(t, d); !slices.Equal(names, []string{"done"}) {
		t.Errorf("listed %q while upload is open for writing", names)
	}
	during := d.State()
	f.Close()
	if names := listNames(t, d); !slices.Equal(names, []string{"done", "upload"}) {
		t.Errorf("listed %q after upload was closed", names)
	}
	if d.State() == during {
		t.Error("the state does not tell that upload is complete")
	}
}

func listNames(t *testing.T, d *Dir) []string {
	t.Helper()
	files, err := d.List(context.Background(), 100)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	return names
}
