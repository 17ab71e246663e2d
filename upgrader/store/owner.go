package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// asOwner has root act on files with the rights of the store's owner: root would
// follow where the daemon's user leads it, and that user may be somebody else by
// now. Anybody else acts as who they are. f must not start goroutines that act on
// files, since the rights are those of one thread (setfsuid(2)), which ends with
// it.
func (s *Store) asOwner(f func() error) error {
	uid, gid := 0, 0
	// Who owns the directory above says what the name means, at any moment: only
	// below a directory of root's is the owner of the store itself a fact.
	for _, dir := range []string{filepath.Dir(s.dir), s.dir} {
		info, err := s.fs.Lstat(dir)
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			uid, gid = int(st.Uid), int(st.Gid)
			break
		}
	}
	if uid == 0 || os.Geteuid() != 0 {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := actAs(uid, gid)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// actAs gives the file-system rights of this thread away. Since the user is no
// more root, the capabilities that overrule permissions go with them, see
// capabilities(7).
func actAs(uid, gid int) error {
	const self = -1 // no such user, so that only the answer counts
	err := unix.Setgroups(nil)
	if err == nil {
		_, err = unix.SetfsgidRetGid(gid)
	}
	if err == nil {
		_, err = unix.SetfsuidRetUid(uid)
	}
	if err != nil {
		return fmt.Errorf("act as user %d: %w", uid, err)
	}
	nowUID, err1 := unix.SetfsuidRetUid(self)
	nowGID, err2 := unix.SetfsgidRetGid(self)
	if err := errors.Join(err1, err2); err != nil || nowUID != uid || nowGID != gid {
		return fmt.Errorf("act as user %d, group %d: got %d, %d: %w", uid, gid, nowUID, nowGID, errors.Join(err, unix.EPERM))
	}
	return nil
}
