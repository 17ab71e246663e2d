package overseer

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// binary is the program on disk. Only what has served takes its place for good:
//
//	NAME              what the next start runs
//	.NAME.overseer-…  fetched, and on trial
//	.NAME.before      what NAME was before one that was fetched and has not
//	                  been tried: with NoRestartAfterFetch
type binary struct {
	path string
	mode fs.FileMode
	uid  int
	gid  int

	mu  sync.Mutex
	id  string // SHA-1 of what is at path
	bad string // SHA-1 of what did not come up last
}

// openBinary finds the binary that runs; fetching says that it will be replaced.
func openBinary(fetching bool) (*binary, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the binary that runs: %w", err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("find the binary that runs: %w", err)
	}
	b := &binary{path: path, mode: fi.Mode().Perm(), uid: -1, gid: -1}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		b.uid, b.gid = int(st.Uid), int(st.Gid)
	}
	if b.id, err = hashFile(path); err != nil {
		return nil, fmt.Errorf("read the binary that runs: %w", err)
	}
	if !fetching {
		return b, nil
	}
	b.tidy() // after a main process that was killed
	f, err := b.create()
	if err != nil {
		return nil, fmt.Errorf("binaries cannot be replaced here: %w", err)
	}
	f.Close()
	os.Remove(f.Name())
	return b, nil
}

// tidy removes what is left of attempts.
func (b *binary) tidy() {
	stale, _ := filepath.Glob(globEscape(b.beside("overseer-")) + "*")
	for _, s := range stale {
		os.Remove(s)
	}
}

func globEscape(path string) string {
	var out []rune
	for _, r := range path {
		switch r {
		case '*', '?', '[', '\\':
			out = append(out, '\\')
		}
		out = append(out, r)
	}
	return string(out)
}

func (b *binary) beside(suffix string) string {
	return filepath.Join(filepath.Dir(b.path), "."+filepath.Base(b.path)+"."+suffix)
}

func (b *binary) before() string { return b.beside("before") }

// create makes a file that can be renamed to where the binary is.
func (b *binary) create() (*os.File, error) {
	return os.CreateTemp(filepath.Dir(b.path), "."+filepath.Base(b.path)+".overseer-")
}

// settled is the binary in place.
func (b *binary) settled() choice {
	b.mu.Lock()
	defer b.mu.Unlock()
	return choice{b.id, b.path}
}

// isNews tells if a binary with this hash may be tried.
func (b *binary) isNews(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return id != b.id && id != b.bad
}

// condemn has a binary not be tried again until another comes.
func (b *binary) condemn(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad = id
}

func (b *binary) settle(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.id = id
}

// receive writes what a fetcher brings beside the binary. Whoever gets a path
// removes it, or moves it. There is none where nothing new came.
func (b *binary) receive(r io.Reader, limit int64) (c choice, err error) {
	f, err := b.create()
	if err != nil {
		return c, err
	}
	defer func() {
		f.Close()
		if err != nil || c.path == "" {
			os.Remove(f.Name())
		}
	}()
	h := sha1.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, limit+1))
	if err != nil {
		return c, fmt.Errorf("receive: %w", err)
	}
	if n > limit {
		return c, fmt.Errorf("receive: more than %d bytes: raise SizeMax if that is right", limit)
	}
	if n == 0 {
		return c, errors.New("receive: an empty file")
	}
	id := hex.EncodeToString(h.Sum(nil))
	if !b.isNews(id) {
		return c, nil
	}
	_ = f.Chown(b.uid, b.gid) // who may not give it away owns it already, or must
	if err := errors.Join(f.Chmod(b.mode|0o100), f.Sync()); err != nil {
		return c, err
	}
	return choice{id, f.Name()}, nil
}

// put moves a fetched binary to where the old one is. keep leaves that beside it, until
// proved or revert.
func (b *binary) put(c choice, keep bool) error {
	if keep {
		if _, err := os.Lstat(b.before()); errors.Is(err, fs.ErrNotExist) { // else it holds the last that served
			if err := os.Link(b.path, b.before()); err != nil {
				return fmt.Errorf("keep the old binary: %w", err)
			}
		}
	}
	if err := os.Rename(c.path, b.path); err != nil {
		return err
	}
	b.settle(c.id)
	return syncDir(filepath.Dir(b.path))
}

// proved forgets the binary before.
func (b *binary) proved() { os.Remove(b.before()) }

// revert puts the binary before back, if there is one.
func (b *binary) revert() (bool, error) {
	id, err := hashFile(b.before())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = os.Rename(b.before(), b.path)
	}
	if err != nil {
		return false, err
	}
	b.condemn(b.settled().id)
	b.settle(id)
	return true, syncDir(filepath.Dir(b.path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some file systems have no such thing
		return err
	}
	return nil
}
