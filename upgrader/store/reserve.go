package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// The reserve: a few files whose blocks and inodes are ours already, so that
// "it failed" can be written down when the disk is full. A small one is
// overwritten in place and renamed to what was to be written, which on ext4
// and xfs needs neither a block nor an inode. Where even overwriting needs
// room (btrfs, zfs), and for a symlink, one is removed instead and what that
// frees is used.
//
// A reserve file never becomes one again after it has been renamed, so what
// is overwritten in place can never be what the disk still knows under
// another name, whatever part of the last rename a power cut undid.
const (
	reservePre   = ".reserve-"
	reserveSize  = 32 << 10 // bytes of a small one; nothing we write this way may be longer
	reserveFiles = 4        // small ones: rolling back takes two records and a known-bad entry
	// The large one is for a symlink: before it makes one, xfs wants enough
	// blocks for the worst case. With 32 KiB given back it still refused.
	reserveLarge = 1 << 20
)

// reserve tells the name and the size of the i-th file; the last is the large
// one.
func (s *Store) reserve(i int) (name string, size int64) {
	if i == reserveFiles {
		return s.path(reservePre + "link"), reserveLarge
	}
	return s.path(fmt.Sprint(reservePre, i)), reserveSize
}

// fillReserve makes the reserve files that are missing.
func (s *Store) fillReserve() error {
	for i := range reserveFiles + 1 {
		if s.haveReserve(i) {
			continue
		}
		name, size := s.reserve(i)
		if err := s.removeAll(name); err != nil {
			return err
		}
		// Noise: zeros would take no room where they are compressed.
		data := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{}).Read(data)
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
	}
	return nil
}

func (s *Store) haveReserve(i int) bool {
	name, size := s.reserve(i)
	info, err := s.fs.Lstat(name)
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// takeReserve names a small reserve file, or reports that none is left.
func (s *Store) takeReserve() (string, bool) {
	for i := range reserveFiles {
		if s.haveReserve(i) {
			name, _ := s.reserve(i)
			return name, true
		}
	}
	return "", false
}

// dropReserve gives the largest reserve file's room back to the disk, and
// reports whether there was one. The fsync is what ends the wait for the
// journal: until its commit, freed blocks are not free.
func (s *Store) dropReserve() bool {
	for i := reserveFiles; i >= 0; i-- {
		if s.haveReserve(i) {
			name, _ := s.reserve(i)
			return s.fs.Remove(name) == nil && s.syncDir(s.dir) == nil
		}
	}
	return false
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
	f, err := s.createPublic(name)
	if err != nil {
		return err
	}
	return writeSync(f, data)
}

// writeUnsynced is writeNew for what need not last.
func (s *Store) writeUnsynced(name string, data []byte) error {
	f, err := s.createPublic(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func (s *Store) createPublic(name string) (file, error) {
	f, err := s.fs.Create(name, 0o644)
	if err != nil {
		return nil, err
	}
	if err := s.fs.Chmod(name, 0o644); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func writeSync(f file, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
