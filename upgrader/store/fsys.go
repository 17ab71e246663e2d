package store

import (
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// fsys is every file-system call of this package that a crash or an error
// may fall upon. There are three: the kernel's (osFS), one whose n-th call
// fails, and one that loses what was not fsynced; the last two live in the
// tests. Names are absolute.
type fsys interface {
	Lstat(name string) (fs.FileInfo, error)
	Readlink(name string) (string, error)
	ReadDir(name string) ([]fs.DirEntry, error) // sorted by name
	// Open opens a file or a directory for reading and for Sync; it must
	// not follow a symlink at the end of name.
	Open(name string) (file, error)
	// Create makes a file that must not exist yet, for writing.
	Create(name string, perm fs.FileMode) (file, error)
	// Overwrite opens an existing file for writing from its start, and
	// must leave its length and its blocks as they are.
	Overwrite(name string) (file, error)
	Mkdir(name string, perm fs.FileMode) error
	Chmod(name string, mode fs.FileMode) error
	Rename(from, to string) error
	// Exchange swaps what two names mean, in one step.
	Exchange(a, b string) error
	Symlink(target, name string) error
	Remove(name string) error // one file, link or empty directory
	// Space tells how many bytes and how many files the daemon may still
	// put on the file system that holds name. Negative: it does not say.
	Space(name string) (bytes, files int64, err error)
}

// file is an open file. Writers must Sync before Close for the bytes to last.
type file interface {
	io.ReadWriteCloser
	Sync() error
}

// osFS is the kernel's file system.
type osFS struct{}

var _ fsys = osFS{}

func (osFS) Lstat(name string) (fs.FileInfo, error)     { return os.Lstat(name) }
func (osFS) Readlink(name string) (string, error)       { return os.Readlink(name) }
func (osFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }
func (osFS) Mkdir(name string, perm fs.FileMode) error  { return os.Mkdir(name, perm) }
func (osFS) Chmod(name string, mode fs.FileMode) error  { return os.Chmod(name, mode) }
func (osFS) Rename(from, to string) error               { return os.Rename(from, to) }
func (osFS) Symlink(target, name string) error          { return os.Symlink(target, name) }
func (osFS) Remove(name string) error                   { return os.Remove(name) }

func (osFS) Exchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

func (osFS) Open(name string) (file, error) {
	// O_NONBLOCK: a FIFO somebody left here must not hold us for ever.
	return open(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

func (osFS) Create(name string, perm fs.FileMode) (file, error) {
	return open(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, perm)
}

func (osFS) Overwrite(name string) (file, error) {
	return open(name, os.O_WRONLY|unix.O_NOFOLLOW, 0)
}

// open keeps a nil *os.File from becoming a file that is not nil.
func open(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osFS) Space(name string) (bytes, files int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(name, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	files = int64(st.Ffree)
	if st.Files == 0 {
		files = -1 // btrfs makes inodes as it goes
	}
	return int64(st.Bavail) * st.Bsize, files, nil
}
