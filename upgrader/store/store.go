package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// Error is what the store says when it refuses: what it was doing, a code, and
// what a person can do. Errors of the file system come as one, too.
type Error = reason.Error

// Reasons of the store, beside those of the file system in package reason.
const (
	CodeLocked         reason.Code = "LOCKED"           // another process holds the lock
	CodeLinkBroken     reason.Code = "LINK_BROKEN"      // a link is not one of ours
	CodeReleaseMissing reason.Code = "RELEASE_MISSING"  // not, or not wholly, on disk
	CodeReleaseInUse   reason.Code = "RELEASE_IN_USE"   // a link points at it
	CodeReleaseCorrupt reason.Code = "RELEASE_CORRUPT"  // the disk holds other bytes than were installed
	CodeReleaseTree    reason.Code = "RELEASE_TREE"     // what is to be installed cannot be a release
	CodeRecordCorrupt  reason.Code = "RECORD_CORRUPT"   // cut short or changed
	CodeRecordNewer    reason.Code = "RECORD_NEWER"     // written by a later upgraderd
	CodeRecordTooLarge reason.Code = "RECORD_TOO_LARGE" // more than the reserve can hold
	CodeProgram        reason.Code = "ARTIFACT_MISSING" // the release lacks the program it is there for
	CodeSpoolTooLarge  reason.Code = "SPOOL_TOO_LARGE"  // a file of an import beyond its limit
	CodeStateDir       reason.Code = "CONFIG_STATE_DIR" // the target's directory cannot be used
)

// Names inside a target's directory.
const (
	releasesDir  = "releases"
	knownBadDir  = "known-bad"
	recordName   = "record.json"
	lockName     = "lock"
	deployName   = "deploy.lock"
	incomingPre  = ".incoming-"
	spoolPre     = ".import-"
	tempPre      = ".tmp-" // coming or going, in any of the directories
	newPre       = ".new-" // in releases/: complete, but not yet durable
	oldPre       = ".old-" // in releases/: on its way out
	manifestTail = ".sha256"
	treeName     = "tree"
)

// Store is one target's directory. It keeps no state of its own: every answer
// comes from the disk. Methods may be called from several goroutines and
// processes as long as the writing ones run under Lock.
type Store struct {
	dir string
	fs  fsys
}

// Open makes dir, its parts and its reserve where they are missing, and heals
// their modes. The parent has to exist. It takes no lock. The name has to be
// absolute.
//
// Open refuses a directory that users other than its owner may write to.
func Open(dir string) (*Store, error) { return openOn(osFS{}, dir) }

// View opens an existing store for reading: for whoever shows what is there
// and must not change it. The error is fs.ErrNotExist where there is no store.
// Writing methods then end in whatever the kernel says.
func View(dir string) (*Store, error) {
	s := &Store{dir: filepath.Clean(dir), fs: osFS{}}
	if err := checkDirName(dir); err != nil {
		return nil, err
	}
	if _, err := s.fs.Lstat(s.path(releasesDir)); err != nil {
		return nil, reason.FS("view store", err)
	}
	return s, nil
}

// Path is the target's directory.
func (s *Store) Path() string { return s.dir }

func openOn(fsys fsys, dir string) (*Store, error) {
	if err := checkDirName(dir); err != nil {
		return nil, err
	}
	s := &Store{dir: filepath.Clean(dir), fs: fsys}
	for _, d := range []string{s.dir, s.path(releasesDir), s.path(knownBadDir)} {
		if err := s.makeDir(d, 0o755); err != nil {
			return nil, reason.FS("open store", err)
		}
	}
	// A directory made by a run that died before this line may not be on the
	// disk yet, so the parents are made durable whoever made the children.
	for _, d := range []string{filepath.Dir(s.dir), s.dir} {
		if err := s.syncDir(d); err != nil {
			if errors.Is(err, syscall.EINVAL) {
				err = &Error{Code: reason.Unsupported, Err: err, Hint: "its file system cannot make a rename durable; keep the state on ext4, xfs, btrfs or tmpfs"}
			}
			return nil, reason.FS("open store", err)
		}
	}
	// A full disk must not keep the daemon from starting: the reserve is
	// filled up again when there is room. See Preflight.
	_ = s.fillReserve()
	return s, nil
}

func checkDirName(dir string) error {
	switch {
	case !filepath.IsAbs(dir):
		return &Error{Op: "open store", Code: CodeStateDir, Err: fmt.Errorf("directory %q is not absolute", clip(dir)), Hint: "name it from the root"}
	case strings.ContainsFunc(dir, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return &Error{Op: "open store", Code: CodeStateDir, Err: fmt.Errorf("directory %q has a control character in its name", clip(dir)), Hint: "choose another name"}
	}
	return nil
}

// makeDir makes sure that a directory is there with exactly the mode given,
// whatever the umask says (ours is 0077).
func (s *Store) makeDir(name string, perm fs.FileMode) error {
	if err := s.fs.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := s.fs.Lstat(name)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return &Error{Code: CodeStateDir, Err: fmt.Errorf("%s is not a directory (%s)", name, kind(info.Mode())), Hint: "move it away; to keep releases elsewhere, use a bind mount"}
	case info.Mode().Perm()&0o022 != 0:
		return &Error{Code: reason.UnsafePerms, Err: fmt.Errorf("%s has mode %04o: others may write to it", name, info.Mode().Perm()), Hint: fmt.Sprintf("look who changed it, then chmod %o %s", perm, name)}
	case info.Mode().Perm() != perm:
		return s.fs.Chmod(name, perm)
	}
	return nil
}

// Preflight is asked before anything is fetched. It tells whether bytes more
// can be stored, and fills the reserve, so that whatever happens afterwards
// can be recorded (see SaveRecord).
func (s *Store) Preflight(bytes int64) error {
	if err := s.Room(bytes); err != nil {
		return err
	}
	return reason.FS("make sure of room in "+s.dir, s.fillReserve())
}

// Room tells whether bytes more can be stored. Unlike Preflight it only looks.
func (s *Store) Room(bytes int64) error {
	const fewFiles = 32 // a small tree, the record, a link
	op := "make sure of room in " + s.dir
	have, files, err := s.fs.Space(s.dir)
	switch {
	case err != nil:
		return reason.FS(op, err)
	case have >= 0 && have < bytes:
		return &Error{Op: op, Code: reason.NoSpace, Err: fmt.Errorf("need %d bytes, have %d: %w", bytes, have, syscall.ENOSPC), Hint: "make room on it or lower InstancesMax=, then it goes on by itself"}
	case files >= 0 && files < fewFiles:
		return &Error{Op: op, Code: reason.NoInodes, Err: fmt.Errorf("need %d inodes, have %d: %w", fewFiles, files, syscall.ENOSPC), Hint: "df -i tells; remove small files from it, then it goes on by itself"}
	}
	return nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// syncDir makes the entries of a directory durable. It is never called
// again for the same change after an error: the second call would succeed
// and mean nothing, see fsync(2) and https://lwn.net/Articles/752063/.
func (s *Store) syncDir(name string) error {
	f, err := s.fs.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// readFile reads a small regular file of ours, whole.
func (s *Store) readFile(name string, most int64) ([]byte, error) {
	info, err := s.fs.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file (%s)", name, kind(info.Mode()))
	}
	f, err := s.fs.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, most)
	}
	return data, nil
}

// removeAll removes name and what is below it, read-only directories too. It
// follows no link, and what is gone already is no error.
func (s *Store) removeAll(name string) error {
	info, err := s.fs.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		if info.Mode().Perm()&0o700 != 0o700 {
			if err := s.fs.Chmod(name, 0o700); err != nil {
				return err
			}
		}
		entries, err := s.fs.ReadDir(name)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := s.removeAll(filepath.Join(name, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// kind says in a word what a directory entry is.
func kind(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "a file"
	case m.IsDir():
		return "a directory"
	case m&fs.ModeSymlink != 0:
		return "a symlink"
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}
