package tuf

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// set is the trusted metadata: the one on disk, or the one that a look works on.
//
//	DIR/trusted -> set-1           the set that counts, moved by one rename
//	DIR/set-1/anchor.json          Root= as it was
//	DIR/set-1/metadata/ROLE.json   the newest of each role, as go-tuf keeps it
//	DIR/set-1/roots/N.root.json    the roots that led from the anchor to the newest
//	DIR/set-1/SHA256SUMS           of all of these: a set that does not agree is damaged
//
// A look works on a copy, whose files are links to those of the set until go-tuf
// renames others over them. The copy takes the set's place once it is on disk as a
// whole, so that a power cut leaves the one or the other.
type set struct {
	dir  string // DIR
	name string // of this set in DIR
	old  string // of the set that counts, "" for none
	sums []byte // of old
	root []byte // that a look begins with
}

const (
	link     = "trusted"
	setPre   = "set-"
	sumsName = "SHA256SUMS"
	anchor   = "anchor.json"
)

func (s *set) path(name string) string { return filepath.Join(s.dir, s.name, name) }
func (s *set) metadata() string        { return s.path("metadata") }

// open makes the copy to work on.
func (r *Repository) open() (*set, error) {
	s := &set{dir: r.Dir}
	if r.Dir == "" {
		return nil, fault.New(fault.ConfigTrust, errors.New("no directory to keep trusted metadata in"), "")
	}
	if err := os.Mkdir(r.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fault.Local(err)
	}
	old, err := os.Readlink(filepath.Join(r.Dir, link))
	switch {
	case err == nil && strings.HasPrefix(old, setPre) && filepath.IsLocal(old):
		s.old = old
	case !errors.Is(err, fs.ErrNotExist):
		r.damaged(fmt.Errorf("%s is not a link to a set", link))
		if err := os.RemoveAll(filepath.Join(r.Dir, link)); err != nil {
			return nil, fault.Local(err)
		}
	}
	if err := s.begin(r); err != nil {
		s.drop()
		return nil, fault.Local(err)
	}
	return s, nil
}

func (r *Repository) damaged(err error) {
	r.Log.Error("trusted metadata is damaged, begun anew from Root=: what this host has seen before is forgotten, versions of the service are not",
		"directory", r.Dir, "reason", err.Error())
}

// begin fills the copy.
func (s *set) begin(r *Repository) error {
	if err := s.sweep(); err != nil {
		return err
	}
	made, err := os.MkdirTemp(s.dir, setPre)
	if err != nil {
		return err
	}
	s.name = filepath.Base(made)
	for _, dir := range []string{"metadata", "roots"} {
		if err := os.Mkdir(s.path(dir), 0o700); err != nil {
			return err
		}
	}
	s.root = r.Root
	if err := s.take(r); err != nil {
		return err
	}
	if version := rootVersion(r.Root); version > 0 {
		if err := s.write(fmt.Sprintf("roots/%d.root.json", version), r.Root); err != nil {
			return err
		}
	}
	return s.write(anchor, r.Root)
}

// take links what is trusted into the copy, and finds the root to begin with. A
// damaged set is told, and not taken.
func (s *set) take(r *Repository) error {
	if s.old == "" {
		return nil
	}
	of := &set{dir: s.dir, name: s.old}
	sums, err := of.read()
	if err == nil && !bytes.Equal(sums, of.listed()) {
		err = fmt.Errorf("%s does not agree with %s", s.old, sumsName)
	}
	var root []byte
	if err == nil {
		root, err = os.ReadFile(of.path("metadata/root.json"))
	}
	if err == nil {
		_, err = trustedmetadata.New(root)
	}
	var disk *fs.PathError
	switch {
	case errors.As(err, &disk) && !errors.Is(err, fs.ErrNotExist):
		return err // a disk that fails is not a set that is wrong
	case err != nil:
		r.damaged(err)
		return nil
	}
	s.sums, s.root = sums, root
	was, err := os.ReadFile(of.path(anchor))
	if err != nil {
		return err
	}
	if !bytes.Equal(was, r.Root) {
		seen, err := os.ReadFile(of.path(fmt.Sprintf("roots/%d.root.json", rootVersion(r.Root))))
		if err != nil || !bytes.Equal(seen, r.Root) {
			r.Log.Warn("Root= is another one: the chain of roots begins with it", "was", rootVersion(was), "is", rootVersion(r.Root))
			s.root = r.Root
		}
	}
	files, err := of.files()
	if err != nil {
		return err
	}
	for _, name := range files {
		if name == anchor || bytes.Equal(s.root, r.Root) && !bytes.Equal(root, r.Root) && (name == "metadata/root.json" || strings.HasPrefix(name, "roots/")) {
			continue
		}
		if err := os.Link(of.path(name), s.path(name)); err != nil {
			return err
		}
	}
	return nil
}

func rootVersion(raw []byte) int64 {
	trusted, err := trustedmetadata.New(raw)
	if err != nil {
		return 0
	}
	return trusted.Root.Signed.Version
}

// write puts a file into the copy, as a file of its own.
func (s *set) write(name string, raw []byte) error {
	os.Remove(s.path(name))
	return os.WriteFile(s.path(name), raw, 0o600)
}

// forget removes roles that play no part any more.
func (s *set) forget(stays func(role string) bool) error {
	entries, err := os.ReadDir(s.metadata())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !stays(strings.TrimSuffix(e.Name(), ".json")) {
			if err := os.Remove(s.path("metadata/" + e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// files names what a set holds, beside its sums.
func (s *set) files() ([]string, error) {
	var names []string
	top := s.path("")
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if name, err := filepath.Rel(top, path); err == nil && name != sumsName {
			names = append(names, name)
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// read hashes what a set holds; sha256sum(1) says the same.
func (s *set) read() ([]byte, error) {
	names, err := s.files()
	if err != nil {
		return nil, err
	}
	var sums bytes.Buffer
	for _, name := range names {
		raw, err := os.ReadFile(s.path(name))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(raw), name)
	}
	return sums.Bytes(), nil
}

// listed gives the sums that the set was kept with.
func (s *set) listed() []byte {
	raw, err := os.ReadFile(s.path(sumsName))
	if err != nil {
		return nil
	}
	return raw
}

// keep puts the copy in the set's place, unless both are the same.
func (s *set) keep() error {
	sums, err := s.read()
	if err != nil || bytes.Equal(sums, s.sums) {
		return err
	}
	if err := s.write(sumsName, sums); err != nil {
		return err
	}
	names, err := s.files()
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, s.flushed)
	next := filepath.Join(s.dir, link+".new")
	if err := os.Symlink(s.name, next); err != nil {
		return err
	}
	// The link counts once it is renamed, and until then the order is no matter.
	if err := s.flush(append(names, sumsName, "metadata", "roots", "", "..")...); err != nil {
		return err
	}
	if err := os.Rename(next, filepath.Join(s.dir, link)); err != nil {
		return err
	}
	first := s.old == ""
	s.old, s.name = s.name, ""
	if err := flush(s.dir); err != nil || !first {
		return err
	}
	return flush(filepath.Dir(s.dir))
}

// flushed tells that a file is one of the set that counts.
func (s *set) flushed(name string) bool {
	old, err := os.Lstat(filepath.Join(s.dir, s.old, name))
	if s.old == "" || err != nil {
		return false
	}
	now, err := os.Lstat(s.path(name))
	return err == nil && os.SameFile(old, now)
}

// flush puts files of the copy on the disk, several at once: a journal commits
// them as fast as one.
func (s *set) flush(names ...string) error {
	var errs []error
	for some := range slices.Chunk(names, 16) {
		var all sync.WaitGroup
		failed := make([]error, len(some))
		for i, name := range some {
			all.Go(func() { failed[i] = flush(s.path(name)) })
		}
		all.Wait()
		errs = append(errs, failed...)
	}
	return errors.Join(errs...)
}

// drop ends the work on the copy, and removes what does not count.
func (s *set) drop() { _ = s.sweep() } // the next look tries again

func (s *set) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != link && e.Name() != s.old {
			errs = append(errs, os.RemoveAll(filepath.Join(s.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func flush(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
