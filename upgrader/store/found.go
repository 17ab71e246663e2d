package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// Found makes the store of a target that has none, with one release, current: the
// file program, as the executable rel of this version. Where a release is current
// already nothing is done, and that is returned.
//
// Root acts with the rights of the owner of the directory above, as the store is
// to be the daemon's.
func Found(ctx context.Context, dir, version, rel string, program io.ReadSeeker) (r Release, err error) {
	above := &Store{dir: filepath.Dir(dir), fs: osFS{}}
	err = above.asOwner(func() error {
		s, err := Open(dir)
		if err != nil {
			return err
		}
		unlock, err := s.Lock()
		if err != nil {
			return err
		}
		defer unlock()
		r, err = s.found(ctx, version, rel, program)
		return err
	})
	return r, reason.FS("make the first release of "+filepath.Base(dir), err)
}

func (s *Store) found(ctx context.Context, version, rel string, program io.ReadSeeker) (Release, error) {
	if r, has, err := s.Link(Current); err != nil || has {
		return r, err
	}
	h := sha256.New()
	size, err := io.Copy(h, program)
	if err != nil {
		return Release{}, err
	}
	d := Digest(h.Sum(nil))
	r, err := NewRelease(version, d)
	if err != nil {
		return Release{}, err
	}
	if err := s.Preflight(2 * size); err != nil {
		return Release{}, err
	}
	tree, err := s.IncomingTree(d)
	if err != nil {
		return Release{}, err
	}
	defer func() { _ = s.CleanIncoming(nil) }()
	if _, err := program.Seek(0, io.SeekStart); err != nil {
		return Release{}, err
	}
	if err := copyProgram(filepath.Join(tree, rel), program, d); err != nil {
		return Release{}, err
	}
	if err := s.Install(ctx, tree, r, d); err != nil {
		return Release{}, err
	}
	return r, s.SetLink(Current, r)
}

// copyProgram copies an executable, which has to be what was looked at before.
func copyProgram(name string, from io.Reader, d Digest) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), from)
	if err := errors.Join(err, f.Chmod(0o755), f.Close()); err != nil {
		return err
	}
	if got := Digest(h.Sum(nil)); got != d {
		return fmt.Errorf("it changed while it was copied; got digest %s, want %s", got, d)
	}
	return nil
}

// erasePatience bounds the wait for a daemon that has yet to let go of a target.
const erasePatience = 30 * time.Second

// Erase removes a target's directory, and all releases in it. What runs from it is
// the caller's to know. A store that is not there is no error.
func Erase(ctx context.Context, dir string) error {
	op := "remove the releases in " + dir
	s, err := View(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, erasePatience)
	defer cancel()
	for {
		err := s.asOwner(func() error {
			unlock, err := s.Lock()
			if err != nil {
				return err
			}
			defer unlock()
			return s.removeAll(s.dir)
		})
		if !errors.Is(err, ErrLocked) {
			return reason.FS(op, err)
		}
		select {
		case <-ctx.Done():
			return reason.FS(op, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
