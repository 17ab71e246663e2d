package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// The reserve: a few files whose blocks and inodes are ours already, so that
// "it failed" can be written down when the disk is full. One of them is
// overwritten in place and renamed to what was to be written, which on ext4
// and xfs needs neither a block nor an inode. Where even overwriting needs
// room (btrfs, zfs), it is removed instead and what that frees is used.
//
// A reserve file never becomes one again after it has been renamed, so what
// is overwritten in place can never be what the disk still knows under
// another name, whatever part of the last rename a power cut undid.
const (
	reservePre   = ".reserve-"
	reserveFiles = 3        // a record, a known-bad entry, a link
	reserveSize  = 32 << 10 // bytes; nothing we write this way may be longer
)

func (s *Store) reserveName(i int) string { return s.path(fmt.Sprint(reservePre, i)) }

// fillReserve makes the reserve files that are missing.
func (s *Store) fillReserve() error {
	for i := range reserveFiles {
		name := s.reserveName(i)
		info, err := s.fs.Lstat(name)
		if err == nil && info.Mode().IsRegular() && info.Size() == reserveSize {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.removeAll(name); err != nil {
			return err
		}
		// Random bytes: zeros would take no room where they are compressed.
		data := make([]byte, reserveSize)
		if _, err := rand.Read(data); err != nil {
			return err
		}
		tmp := s.temp(name)
		if err := s.writeNew(tmp, data); err != nil {
			return errors.Join(err, s.removeAll(tmp))
		}
		if err := s.fs.Rename(tmp, name); err != nil {
			return errors.Join(err, s.removeAll(tmp))
		}
	}
	return nil
}

// takeReserve names a reserve file, or reports that none is left.
func (s *Store) takeReserve() (string, bool) {
	for i := range reserveFiles {
		name := s.reserveName(i)
		if info, err := s.fs.Lstat(name); err == nil && info.Mode().IsRegular() && info.Size() == reserveSize {
			return name, true
		}
	}
	return "", false
}

// dropReserve gives one reserve file's room back to the disk, and reports
// whether there was one. The fsync is what ends the wait for the journal:
// until its commit, freed blocks are not free.
func (s *Store) dropReserve() bool {
	name, ok := s.takeReserve()
	return ok && s.fs.Remove(name) == nil && s.syncDir(s.dir) == nil
}

// temp is where the next content of name is prepared: in the target's
// directory, hidden, the same every time, so that a leftover is found again.
func (s *Store) temp(name string) string { return s.path(tempPre + filepath.Base(name)) }

// replace puts data into the file called name, which then holds the old
// bytes or the new ones at every moment and after every crash. It returns
// when they are durable. Data may be padded with spaces.
//
// On an error nobody may rely on either; an fsync that failed is not tried
// again, neither on the file, which is abandoned, nor on the directory.
func (s *Store) replace(name string, data []byte) error {
	err := s.replaceFresh(name, data)
	if err == nil {
		_ = s.fillReserve() // there is room: make up for a day when there was not
		return nil
	}
	if !reason.Full(err) || len(data) > reserveSize {
		return err
	}
	if err2 := s.replaceReserved(name, data); err2 == nil || !reason.Full(err2) {
		return err2
	}
	if !s.dropReserve() {
		return err
	}
	return s.replaceFresh(name, data)
}

func (s *Store) replaceFresh(name string, data []byte) error {
	tmp := s.temp(name)
	if err := s.removeAll(tmp); err != nil {
		return err
	}
	if err := s.writeNew(tmp, data); err != nil {
		return errors.Join(err, s.removeAll(tmp))
	}
	if err := s.fs.Rename(tmp, name); err != nil {
		return errors.Join(err, s.removeAll(tmp))
	}
	return s.syncDir(filepath.Dir(name))
}

// replaceReserved is replace for a disk without a free block.
func (s *Store) replaceReserved(name string, data []byte) error {
	reserve, ok := s.takeReserve()
	if !ok {
		return fmt.Errorf("no reserve left in %s: %w", s.dir, errNoReserve)
	}
	padded := append(bytes.Clone(data), bytes.Repeat([]byte{' '}, reserveSize-len(data))...)
	f, err := s.fs.Overwrite(reserve)
	if err != nil {
		return err
	}
	if err := writeSync(f, padded); err != nil {
		if !reason.Full(err) { // its blocks are in doubt
			err = errors.Join(err, s.removeAll(reserve))
		}
		return err
	}
	if err := s.fs.Rename(reserve, name); err != nil {
		return err
	}
	return s.syncDir(filepath.Dir(name))
}

// writeNew makes a durable file, readable by everybody whatever the umask.
// Its name is not durable yet.
func (s *Store) writeNew(name string, data []byte) error {
	f, err := s.fs.Create(name, 0o644)
	if err != nil {
		return err
	}
	if err := s.fs.Chmod(name, 0o644); err != nil {
		return errors.Join(err, f.Close())
	}
	return writeSync(f, data)
}

func writeSync(f file, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
