// Package local is a source: a directory of this host, local or mounted. Its
// promise: what it hands out was complete, and stayed as it was until the last
// byte of it was read.
package local

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// Dir is a directory of this host, local or mounted. It hands out regular
// files only, and opens none that could block or act on being opened.
type Dir struct {
	path string
	seed maphash.Seed
}

var (
	_ source.Source  = (*Dir)(nil)
	_ source.Lister  = (*Dir)(nil)
	_ source.Watcher = (*Dir)(nil)
	_ source.Linker  = (*Dir)(nil)
)

// New reads the directory path. It need not exist yet.
func New(path string) *Dir {
	return &Dir{path: path, seed: maphash.MakeSeed()}
}

// String gives the path.
func (d *Dir) String() string { return d.path }

// Read gives a small file whole.
func (d *Dir) Read(ctx context.Context, name string, max int64, since source.Mark) ([]byte, source.Mark, error) {
	f, st, err := d.open(name)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	mark := markOf(st)
	if since != "" && since == mark {
		return nil, mark, source.ErrUnchanged
	}
	if st.Size > max {
		return nil, "", source.TooLarge(name, st.Size, max)
	}
	raw, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, "", d.fault(err)
	}
	if int64(len(raw)) > max {
		return nil, "", source.TooLarge(name, -1, max)
	}
	if err := unchangedSince(f, mark); err != nil {
		return nil, "", err
	}
	return raw, mark, nil
}

// Open starts to read a file.
func (d *Dir) Open(ctx context.Context, name string, from source.Position) (*source.Stream, error) {
	f, st, err := d.open(name)
	if err != nil {
		return nil, err
	}
	s := &source.Stream{Size: st.Size, Mark: markOf(st)}
	if from.Offset < st.Size && (from.Mark == "" || from.Mark == s.Mark) {
		s.Offset = from.Offset
	}
	if _, err := f.Seek(s.Offset, io.SeekStart); err != nil {
		f.Close()
		return nil, d.fault(err)
	}
	// The whole file is read once from front to back: let the kernel read
	// ahead further than it would by itself. Advice, so its failure is none.
	_ = unix.Fadvise(int(f.Fd()), s.Offset, 0, unix.FADV_SEQUENTIAL)
	s.Body = &dirBody{ctx: ctx, file: f, mark: s.Mark, left: st.Size - s.Offset}
	return s, nil
}

// List names the regular files that nobody is writing.
func (d *Dir) List(ctx context.Context, max int) ([]source.File, error) {
	var files []source.File
	err := d.each(max, func(name string, st *unix.Stat_t) {
		if st.Mode&unix.S_IFMT == unix.S_IFREG && !d.beingWritten(name) {
			files = append(files, source.File{Name: name, Size: st.Size})
		}
	})
	return files, err
}

// Link reads a link that leads to a file of the directory.
func (d *Dir) Link(name string) (string, bool) {
	if source.CheckName(name) != nil {
		return "", false
	}
	to, err := os.Readlink(filepath.Join(d.path, name))
	if err != nil {
		return "", false
	}
	if dir, base := filepath.Split(to); dir == "" || dir == "./" || filepath.Clean(dir) == d.path {
		return base, source.CheckName(base) == nil
	}
	return "", false
}

// each calls do for every entry; one that vanishes meanwhile is left out.
func (d *Dir) each(max int, do func(name string, st *unix.Stat_t)) error {
	dir, err := os.Open(d.path)
	if err != nil {
		return d.fault(err)
	}
	defer dir.Close()
	seen := 0
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if seen++; seen > max {
				return fault.New(fault.MetaTooLarge, fmt.Errorf("more than %d files", max), "remove old releases from the directory")
			}
			var st unix.Stat_t
			if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
				do(name, &st)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return d.fault(err)
		}
	}
}

// open opens name if it is a regular file, and never waits for it: a FIFO
// without a writer would block, a device could do anything.
func (d *Dir) open(name string) (*os.File, *unix.Stat_t, error) {
	if err := source.CheckName(name); err != nil {
		return nil, nil, err
	}
	dir, err := os.Open(d.path)
	if err != nil {
		return nil, nil, d.fault(err)
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, nil, d.noFile("stat", name, err)
	}
	if err := regular(name, &st); err != nil {
		return nil, nil, err
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, d.noFile("open", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	// Between the two calls somebody may have put another file there.
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, nil, d.fault(err)
	}
	if err := regular(name, &st); err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, &st, nil
}

func regular(name string, st *unix.Stat_t) error {
	kind := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFLNK:
		kind = "symbolic link"
	case unix.S_IFDIR:
		kind = "directory"
	case unix.S_IFIFO:
		kind = "FIFO"
	case unix.S_IFSOCK:
		kind = "socket"
	default:
		kind = "device"
	}
	return fault.New(fault.SourceNotFile, fmt.Errorf("%s is a %s, want a regular file", name, kind), "put the file itself into the directory")
}

// beingWritten asks the kernel by way of a read lease, which is refused with
// EAGAIN while anybody has the file open for writing. Leases are for the
// file's owner (and CAP_LEASE): where we are neither, nobody is assumed to
// write, and the comparison after the copy is what guards.
func (d *Dir) beingWritten(name string) bool {
	f, _, err := d.open(name)
	if err != nil {
		return false // reported when it is opened to be read
	}
	defer f.Close() // gives the lease back
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	return errors.Is(err, unix.EAGAIN)
}

// markOf tells states of a file apart. The change time cannot be set by a
// program, so a file rewritten in place with its old times shows.
func markOf(st *unix.Stat_t) source.Mark {
	return source.Mark(fmt.Sprintf("%d:%d:%d:%d.%09d:%d.%09d", st.Dev, st.Ino, st.Size,
		st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec))
}

func unchangedSince(f *os.File, mark source.Mark) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fault.Passing(fault.SourceIO, err, "check the disk or mount that Path= is on")
	}
	// A link or unlink changes the change time but no byte.
	if contents(markOf(&st)) != contents(mark) {
		return fault.Passing(fault.SourceChanged, fmt.Errorf("%s changed while it was read", f.Name()),
			"write it under another name and rename it when it is complete")
	}
	return nil
}

func contents(m source.Mark) source.Mark { return m[:strings.LastIndexByte(string(m), ':')] }

// dirBody ends with the length that the file had at the start, and then makes
// sure that it is still the same file.
type dirBody struct {
	ctx  context.Context
	file *os.File
	mark source.Mark
	left int64
}

func (b *dirBody) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, fault.Context(b.ctx)
	}
	if b.left == 0 {
		if err := unchangedSince(b.file, b.mark); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	n, err := b.file.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case err == io.EOF:
		return n, fault.Passing(fault.SourceChanged, fmt.Errorf("%s became shorter while it was read", b.file.Name()),
			"write it under another name and rename it when it is complete")
	case err != nil:
		return n, fault.Passing(fault.SourceIO, err, "check the disk or mount that holds the source")
	}
	return n, nil
}

func (b *dirBody) Close() error { return b.file.Close() }

// noFile says why a file of the directory cannot be opened.
func (d *Dir) noFile(op, name string, err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return fault.Passing(fault.NotFound, fmt.Errorf("no %s", name), "check Path=, and that the file is published")
	}
	return d.fault(&os.PathError{Op: op, Path: name, Err: err})
}

func (d *Dir) fault(err error) error {
	return fault.Bare(err, func(err error) *fault.Error {
		switch {
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
			return fault.Passing(fault.SourceMissing, err, "create it, or correct Path=")
		case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
			return fault.New(fault.SourceDenied, err, "let the daemon's user read it")
		case errors.Is(err, syscall.ELOOP):
			return fault.New(fault.SourceNotFile, err, "put the file itself into the directory")
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
			return fault.Local(err)
		}
		return fault.Passing(fault.SourceIO, err, "check the disk or mount that holds the source")
	})
}
