package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// ErrLocked is what Lock's error is when another process, or another part of
// this one, holds the lock.
var ErrLocked = errors.New("locked")

// LockedError is an ErrLocked that knows who. PID is 0 where the holder has
// not said yet.
type LockedError struct{ PID int }

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return "locked by another process"
	}
	return fmt.Sprintf("locked by process %d", e.PID)
}

// Is makes a LockedError an ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// Lock takes the target's lock or says at once who holds it. Whoever calls a
// writing method holds it. The kernel lets go of it when the process ends,
// however it ends (flock(2)), so a PID that is taken again by somebody else
// never keeps it; the PID in the file is for people only.
//
// The unlock function may be called more than once.
func (s *Store) Lock() (unlock func(), err error) {
	return s.lock(lockName, "wait for it, or stop the other upgraderd")
}

// LockDeploy takes the turn of those who deploy to the target, in the same way. It
// needs no Lock. Root does it with the rights of the store's owner.
func (s *Store) LockDeploy() (unlock func(), err error) {
	err = s.asOwner(func() error {
		unlock, err = s.lock(deployName, "wait for it")
		return err
	})
	return unlock, err
}

func (s *Store) lock(name, hint string) (unlock func(), err error) {
	op := "lock " + s.path(name)
	if name == lockName {
		op = "lock " + s.dir
	}
	for {
		f, err := os.OpenFile(s.path(name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, reason.FS(op, err)
		}
		if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = &Error{Op: op, Code: CodeLocked, Err: &LockedError{PID: lockHolder(f)}, Hint: hint}
			}
			f.Close()
			return nil, reason.FS(op, err)
		}
		// Somebody may have removed the file between our open and our
		// flock; a lock on a file without a name keeps nobody out.
		if same, err := sameFile(f, s.path(name)); err != nil || !same {
			f.Close()
			if err != nil {
				return nil, reason.FS(op, err)
			}
			continue
		}
		// The PID is a courtesy: a full disk must not keep us out.
		if f.Truncate(0) == nil {
			_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		}
		return sync.OnceFunc(func() {
			_ = f.Truncate(0)
			_ = f.Close()
		}), nil
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func sameFile(f *os.File, name string) (bool, error) {
	ours, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(ours, named), nil
}

func lockHolder(f *os.File) int {
	data, _ := io.ReadAll(io.LimitReader(f, 32))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(data)))
	if err != nil || pid < 1 {
		return 0
	}
	return pid
}
