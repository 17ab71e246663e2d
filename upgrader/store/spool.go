package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// Spool is a directory of the target, ".import-<id>", in which somebody leaves
// files for the daemon, as a source of their own. Its maker holds a lock on it
// until Close, by which CleanSpools tells one that is being filled from one that
// nobody will. Its methods are for one goroutine.
type Spool struct {
	store *Store
	dir   string
	root  *os.Root
	lock  *os.File
}

// NewSpool makes one. id is that of the order to come, see CheckSpoolID.
func (s *Store) NewSpool(id string) (*Spool, error) {
	if err := CheckSpoolID(id); err != nil {
		return nil, err
	}
	p := &Spool{store: s, dir: s.path(spoolPre + id)}
	return p, reason.FS("make "+filepath.Base(p.dir), s.asOwner(p.make))
}

// make may be overtaken by a CleanSpools that saw the directory before its lock.
func (p *Spool) make() error {
	for {
		if err := os.Mkdir(p.dir, 0o700); err != nil {
			return err
		}
		f, err := os.OpenFile(p.dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		ours, err := p.take(f)
		if err == nil && ours {
			return nil
		}
		f.Close()
		if err != nil {
			return err
		}
	}
}

// take locks the directory that f is, unless it lost its name meanwhile.
func (p *Spool) take(f *os.File) (bool, error) {
	if err := flock(f, unix.LOCK_EX); err != nil {
		return false, err
	}
	if same, err := sameFile(f, p.dir); err != nil || !same {
		return false, err
	}
	root, err := os.OpenRoot(p.dir)
	p.root, p.lock = root, f
	return err == nil, err
}

// Add puts what from gives under a name, which may have directories before it,
// and returns when it is on disk. More than max bytes are an error.
func (p *Spool) Add(ctx context.Context, name string, from io.Reader, max int64) error {
	return reason.FS("copy "+name, p.store.asOwner(func() error { return p.add(ctx, name, from, max) }))
}

func (p *Spool) add(ctx context.Context, name string, from io.Reader, max int64) error {
	if err := p.root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := p.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	// One system call moves a megabyte, and ctx is asked between two.
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{ctxReader{ctx, io.LimitReader(from, max+1)}}, make([]byte, 1<<20))
	if err == nil && n > max {
		err = &Error{Code: CodeSpoolTooLarge, Err: fmt.Errorf("%s has more than %d bytes", name, max), Hint: "raise SizeMax= if it is meant to be that large"}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Sync returns when the names of all that was added are on disk, too.
func (p *Spool) Sync() error {
	return reason.FS("keep "+filepath.Base(p.dir), p.store.asOwner(func() error {
		dirs := []string{p.store.dir}
		err := filepath.WalkDir(p.dir, func(name string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, name)
			}
			return err
		})
		for _, dir := range dirs {
			if err == nil {
				err = p.store.syncDir(dir)
			}
		}
		return err
	}))
}

// Close leaves the spool to the daemon.
func (p *Spool) Close() {
	p.root.Close()
	p.lock.Close()
}

// Discard takes the spool away.
func (p *Spool) Discard() error {
	defer p.Close()
	return reason.FS("remove "+filepath.Base(p.dir), p.store.asOwner(func() error { return p.store.removeAll(p.dir) }))
}

// Spool names the directory that an order's files are in.
func (s *Store) Spool(id string) (dir string, err error) {
	if err := CheckSpoolID(id); err != nil {
		return "", err
	}
	dir = s.path(spoolPre + id)
	if _, err := s.fs.Lstat(dir); err != nil {
		return "", reason.FS("find the files of the order", err)
	}
	return dir, nil
}

// CleanSpools removes all spools but those of orders that keep tells to be kept,
// and those that somebody fills right now. keep is asked of one that nobody fills
// any more: if an order was placed for it, that was before.
func (s *Store) CleanSpools(keep func(id string) bool) error {
	entries, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return reason.FS("clean spools", err)
	}
	var errs []error
	for _, e := range entries {
		id, ok := strings.CutPrefix(e.Name(), spoolPre)
		if ok {
			errs = append(errs, s.removeUnlocked(s.path(e.Name()), func() bool { return keep(id) }))
		}
	}
	return reason.FS("clean spools", errors.Join(errs...))
}

func (s *Store) removeUnlocked(dir string, keep func() bool) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		return s.removeAll(dir) // none of ours
	case err != nil:
		return err
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		return err
	}
	if keep() {
		return nil
	}
	return s.removeAll(dir)
}

// CheckSpoolID refuses what cannot be part of a name: an order's ID is random
// letters and digits.
func CheckSpoolID(id string) error {
	if len(id) < 8 || len(id) > 64 || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return fmt.Errorf("%q is no order's ID", clip(id))
	}
	return nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
