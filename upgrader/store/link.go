package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// LinkName is one of the links by which a listing tells the state.
type LinkName string

const (
	Current  LinkName = "current"  // what any start of the service runs
	Next     LinkName = "next"     // only while a handover is on trial
	Beside   LinkName = "beside"   // in place of next while two releases serve
	Previous LinkName = "previous" // what a rollback returns to
	Staged   LinkName = "staged"   // verified, and waits to be swapped in
	Tried    LinkName = "tried"    // was next, and had the one start that upgraderd itself gets on trial
)

// LinkNames are all of them.
func LinkNames() []LinkName { return []LinkName{Current, Next, Beside, Previous, Staged, Tried} }

// ErrInUse is a release that a link points at.
var ErrInUse = errors.New("release is in use")

// Link tells the release a link points at, and false where there is no such
// link. A link that is not a symlink, leads anywhere else than to
// releases/NAME, or dangles is an error with CodeLinkBroken: nothing but a
// person or the record can say what was meant.
func (s *Store) Link(which LinkName) (Release, bool, error) {
	op := "read link " + string(which)
	info, err := s.fs.Lstat(s.path(string(which)))
	if errors.Is(err, fs.ErrNotExist) {
		return Release{}, false, nil
	}
	if err != nil {
		return Release{}, false, reason.FS(op, err)
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return Release{}, false, s.brokenLink(op, fmt.Errorf("%s is %s, want a symlink", which, kind(info.Mode())))
	}
	to, err := s.fs.Readlink(s.path(string(which)))
	if err != nil {
		return Release{}, false, reason.FS(op, err)
	}
	dir, name := filepath.Split(to)
	r, err := ParseRelease(name)
	if dir != releasesDir+"/" || err != nil {
		return Release{}, false, s.brokenLink(op, fmt.Errorf("it points at %q, want %s/NAME", clip(to), releasesDir))
	}
	if err := s.present(r); err != nil {
		return Release{}, false, s.brokenLink(op, fmt.Errorf("it points at %s: %w", r, err))
	}
	return r, true, nil
}

// SetLink points a link at a release that is on disk, in one step: whoever
// reads it meanwhile sees the old release or the new one. It returns when
// the change is durable. It replaces a symlink of any kind, which is how a
// broken one is repaired, but never a file or a directory.
func (s *Store) SetLink(which LinkName, r Release) error {
	op := fmt.Sprintf("point %s at %s", which, r)
	if err := s.present(r); err != nil {
		return reason.FS(op, err)
	}
	if err := s.replaceable(op, which); err != nil {
		return err
	}
	err := s.relink(which, r)
	if reason.Full(err) && s.dropReserve() {
		err = s.relink(which, r)
	}
	return reason.FS(op, err)
}

func (s *Store) relink(which LinkName, r Release) error {
	tmp := s.temp(string(which))
	if err := s.removeAll(tmp); err != nil {
		return err
	}
	if err := s.fs.Symlink(releasesDir+"/"+r.Name, tmp); err != nil {
		return err
	}
	if err := s.fs.Rename(tmp, s.path(string(which))); err != nil {
		return errors.Join(err, s.removeAll(tmp))
	}
	return s.syncDir(s.dir)
}

// ClearLink removes a link, and returns when that is durable. A link that is
// not there is no error.
func (s *Store) ClearLink(which LinkName) error {
	op := "clear link " + string(which)
	if err := s.replaceable(op, which); err != nil {
		return err
	}
	return reason.FS(op, s.vanish(s.path(string(which)), tempPre))
}

// MoveLink gives a link another name, in one step, and returns when that is
// durable. A link that is not there is no error, and none may be there under the
// other name.
func (s *Store) MoveLink(from, to LinkName) error {
	op := fmt.Sprintf("make %s of link %s", to, from)
	if err := s.replaceable(op, from); err != nil {
		return err
	}
	if _, err := s.fs.Lstat(s.path(string(from))); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return reason.FS(op, err)
	}
	if _, err := s.fs.Lstat(s.path(string(to))); !errors.Is(err, fs.ErrNotExist) {
		return reason.FS(op, cmp.Or(err, fs.ErrExist))
	}
	if err := s.fs.Rename(s.path(string(from)), s.path(string(to))); err != nil {
		return reason.FS(op, err)
	}
	if err := s.syncDir(s.dir); err != nil {
		return reason.FS(op, errors.Join(err, s.fs.Rename(s.path(string(to)), s.path(string(from)))))
	}
	return nil
}

// replaceable refuses what we did not make and might not be able to bring back.
func (s *Store) replaceable(op string, which LinkName) error {
	info, err := s.fs.Lstat(s.path(string(which)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return reason.FS(op, err)
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return s.brokenLink(op, fmt.Errorf("%s is %s, want a symlink", which, kind(info.Mode())))
	}
	return nil
}

func (s *Store) brokenLink(op string, err error) error {
	return &Error{Op: op, Code: CodeLinkBroken, Err: err, Hint: fmt.Sprintf("see upgraderd status %s; move it away, and it is made again", filepath.Base(s.dir))}
}

// present tells whether a release is on disk.
func (s *Store) present(r Release) error {
	if _, err := ParseRelease(r.Name); err != nil {
		return err
	}
	info, err := s.fs.Lstat(s.Dir(r))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Error{Code: CodeReleaseMissing, Err: fmt.Errorf("release %s: %w", r, fs.ErrNotExist), Hint: "it is fetched again at the next check"}
	case err != nil:
		return err
	case !info.IsDir():
		return &Error{Code: CodeReleaseMissing, Err: fmt.Errorf("release %s is %s, want a directory", r, kind(info.Mode())), Hint: "move it away, and it is fetched again"}
	}
	return nil
}
