package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// Incoming makes sure of the directory in which the artifact with this digest
// is fetched and unpacked, ".incoming-<digest12>", mode 0700. What an
// interrupted run left in it is still there.
func (s *Store) Incoming(d Digest) (dir string, err error) {
	dir = s.path(incomingPre + d.Short())
	return dir, reason.FS("make "+filepath.Base(dir), s.makeDir(dir, 0o700))
}

// IncomingTree makes an empty directory inside Incoming(d) to unpack into, and
// removes what an interrupted run left of an earlier one.
func (s *Store) IncomingTree(d Digest) (tree string, err error) {
	dir, err := s.Incoming(d)
	if err != nil {
		return "", err
	}
	tree = filepath.Join(dir, treeName)
	err = s.removeAll(tree)
	if err == nil {
		err = s.makeDir(tree, 0o755)
	}
	return tree, reason.FS("make an empty tree for "+d.Short(), err)
}

// Install turns a tree, as IncomingTree made and the unpacker filled it, into
// release r of the artifact with digest d, and returns when it is durable:
//
//  1. every file gets mode 0444 or 0555 by its owner's exec bit, is hashed
//     and fsynced; every directory below the tree gets 0555 and is fsynced
//     after what is in it;
//  2. the hashes and d are written, durably, beside the release-to-be;
//  3. the tree is renamed to releases/.new-NAME, which the kernel allows only
//     while its directory is writable; then that gets 0555 and is fsynced;
//  4. it is renamed to releases/NAME, and releases/ is fsynced.
//
// So a release is complete or absent at every moment and after every crash.
// Where r is there already and intact, nothing is done; where it is there
// and damaged, it is exchanged for the new one.
//
// The tree belongs to Install from the call on. After an error it is not to be
// used again: call IncomingTree, unpack once more, and install that.
func (s *Store) Install(ctx context.Context, tree string, r Release, d Digest) error {
	return reason.FS("install release "+r.Name, s.install(ctx, tree, r, d, nil))
}

// install is Install; where want is given, the tree has to be what that
// manifest says.
func (s *Store) install(ctx context.Context, tree string, r Release, d Digest, want []byte) error {
	if named, err := NewRelease(r.Version, d); err != nil || named != r {
		return fmt.Errorf("got a name that does not belong to version %q and digest %s: %w", clip(r.Version), d, errors.Join(err, fs.ErrInvalid))
	}
	there, err := s.intact(ctx, r, d)
	if err != nil || there {
		return err
	}
	manifest, err := s.seal(ctx, tree, d)
	if err != nil {
		return err
	}
	if want != nil && !bytes.Equal(manifest, want) {
		return s.corruptRelease(r, firstDifference(manifest, want))
	}
	// Not with the reserve's help: that is for saying that this went wrong.
	if err := s.replaceFresh(s.manifestName(r), manifest); err != nil {
		return err
	}
	return s.publish(tree, r)
}

// publish is steps 3 and 4 of Install.
func (s *Store) publish(tree string, r Release) error {
	fresh := s.path(releasesDir, newPre+r.Name)
	if err := s.removeAll(fresh); err != nil {
		return err
	}
	if err := s.fs.Rename(tree, fresh); err != nil {
		return err
	}
	err := s.fs.Chmod(fresh, 0o555)
	if err == nil {
		err = s.syncDir(fresh)
	}
	if err != nil {
		return errors.Join(err, s.removeAll(fresh))
	}
	// What is there already is damaged, but a link may point at it: then it
	// must not be missing for a moment.
	move := s.fs.Rename
	mend := s.present(r) == nil
	if mend {
		move = s.fs.Exchange
	}
	if err := move(fresh, s.Dir(r)); err != nil {
		return errors.Join(err, s.removeAll(fresh))
	}
	if err := s.syncDir(s.path(releasesDir)); err != nil {
		// What the disk holds is unknown, and no second fsync would tell.
		// It is undone, so that the next attempt begins anew; see vanish.
		if undo := move(s.Dir(r), fresh); undo != nil {
			return errors.Join(err, undo)
		}
		return errors.Join(err, s.removeAll(fresh))
	}
	if mend {
		return s.removeAll(fresh)
	}
	return nil
}

// intact tells whether release r is on disk with digest d and unharmed.
// A damaged one counts as absent.
func (s *Store) intact(ctx context.Context, r Release, d Digest) (bool, error) {
	if _, err := s.fs.Lstat(s.Dir(r)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	got, err := s.Digest(r)
	if err == nil && got != d {
		return false, &Error{Code: CodeReleaseTree, Err: fmt.Errorf("release %s is there with digest %s, want %s", r, got, d), Hint: "publish the artifact under another version"}
	}
	err = s.Verify(ctx, r)
	if reason.Of(err) == CodeReleaseCorrupt {
		return false, nil
	}
	return err == nil, err
}

// Releases lists the releases on disk by name, which says nothing about which
// version is newer.
func (s *Store) Releases() ([]Release, error) {
	entries, err := s.fs.ReadDir(s.path(releasesDir))
	if err != nil {
		return nil, reason.FS("list releases", err)
	}
	var list []Release
	for _, e := range entries {
		if r, err := ParseRelease(e.Name()); err == nil && e.IsDir() {
			list = append(list, r)
		}
	}
	return list, nil
}

// Remove takes a release off the disk. It refuses one that a link points at,
// with ErrInUse; whether a process still runs it is the caller's to know. A
// release that is not there is no error.
//
// The release vanishes in one step and for good, and is taken to pieces only
// then: no crash leaves half of it under its name.
func (s *Store) Remove(r Release) error {
	op := "remove release " + r.Name
	if _, err := ParseRelease(r.Name); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	for _, which := range LinkNames() {
		to, ok, err := s.Link(which)
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		if ok && to == r {
			return &Error{Op: op, Code: CodeReleaseInUse, Err: fmt.Errorf("%w: %s points at it", ErrInUse, which), Hint: "swap to another release first"}
		}
	}
	return reason.FS(op, s.discard(r))
}

func (s *Store) discard(r Release) error {
	if err := s.vanish(s.Dir(r), oldPre); err != nil {
		return err
	}
	return s.removeAll(s.manifestName(r))
}

// vanish takes a name away for good before it takes away what it stood for.
// The name is hidden by a rename within its directory, and only when that is
// durable is the rest removed. Where it cannot be made durable the name comes
// back, so that a later attempt has something to do: an fsync with nothing
// new to write would succeed, and tell nothing about what the failed one
// left out. A name that is not there is no error.
func (s *Store) vanish(name, hidden string) error {
	dir, base := filepath.Split(name)
	away := dir + hidden + base
	if err := s.removeAll(away); err != nil {
		return err
	}
	err := s.fs.Rename(name, away)
	gone := errors.Is(err, fs.ErrNotExist)
	if err != nil && !gone {
		return err
	}
	if err := s.syncDir(filepath.Clean(dir)); err != nil {
		if !gone {
			err = errors.Join(err, s.fs.Rename(away, name))
		}
		return err
	}
	return s.removeAll(away)
}

// CleanIncoming removes what interrupted runs left: incoming directories whose
// digest keep does not want (a nil keep wants none), releases half in or half
// out, temporary files, and hashes of releases that are gone. It goes on after
// an error and returns all of them.
func (s *Store) CleanIncoming(keep func(digest12 string) bool) error {
	var errs []error
	sweep := func(dir string, leftover func(name string) bool) {
		entries, err := s.fs.ReadDir(dir)
		if err != nil {
			errs = append(errs, err)
		}
		names := make(map[string]bool, len(entries))
		for _, e := range entries {
			names[e.Name()] = true
		}
		for _, e := range entries {
			orphan := false
			if of, ok := strings.CutSuffix(e.Name(), manifestTail); ok && dir == s.path(releasesDir) {
				orphan = !names[of]
			}
			if orphan || leftover(e.Name()) {
				errs = append(errs, s.removeAll(filepath.Join(dir, e.Name())))
			}
		}
	}
	sweep(s.dir, func(name string) bool {
		if short, ok := strings.CutPrefix(name, incomingPre); ok {
			return keep == nil || !keep(short)
		}
		return strings.HasPrefix(name, tempPre)
	})
	sweep(s.path(knownBadDir), func(name string) bool { return strings.HasPrefix(name, tempPre) })
	sweep(s.path(releasesDir), func(name string) bool {
		return strings.HasPrefix(name, newPre) || strings.HasPrefix(name, oldPre)
	})
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	return reason.FS("clean "+s.dir, errors.Join(errs...))
}
