package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// Error is what this package says when it refuses an artifact or a program.
type Error = reason.Error

// Reasons to refuse an artifact.
const (
	CodeFormat    reason.Code = "ARCHIVE_FORMAT"  // of a kind that is not read here
	CodeCorrupt   reason.Code = "ARCHIVE_CORRUPT" // cut short, damaged, or against its own format
	CodePath      reason.Code = "ARCHIVE_PATH"    // a name or link that leaves the tree
	CodeEntryType reason.Code = "ARCHIVE_TYPE"    // an entry that is no file, directory or symlink
	CodeLimit     reason.Code = "ARCHIVE_LIMIT"   // more than the options allow
)

// Options bound what an artifact may turn into. The zero value of each field
// means the default named beside it.
type Options struct {
	// Program is where a plain executable goes, relative to the tree.
	// Required for artifacts that are not archives.
	Program string
	// Config says that what goes there is a configuration, which nobody executes.
	Config bool
	// MaxBytes bounds the sum of all files, in bytes. Default 4 GiB.
	MaxBytes int64
	// MaxFiles bounds the number of files, directories and links. Default
	// 100,000.
	MaxFiles int
	// MaxRatio bounds how many times larger than what was read of the
	// artifact the files may be; the first 16 MiB are free. Default 100.
	MaxRatio int64
}

const (
	defaultMaxBytes = 4 << 30
	defaultMaxFiles = 100_000
	defaultMaxRatio = 100      // programs reach 5, text 20, a bomb 1000
	ratioFree       = 16 << 20 // bytes: a small file of zeros is no bomb
	copyBuffer      = 256 << 10
)

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MaxFiles <= 0 {
		o.MaxFiles = defaultMaxFiles
	}
	if o.MaxRatio <= 0 {
		o.MaxRatio = defaultMaxRatio
	}
	return o
}

// Unpack fills the empty directory into with what the artifact holds; name is
// the artifact's file name at its source and tells the format. It reads the
// artifact from its start, by pread(2), and leaves its offset and the file
// itself to the caller: give the very file whose digest was checked.
//
// Memory does not grow with the artifact, but up to 128 MiB may be taken for
// the window that a .zst or .xz asks for. After an error or the end of ctx the
// directory is empty again. Errors about the artifact are *Error with one of
// the codes above; errors of the file system carry theirs.
func Unpack(ctx context.Context, artifact *os.File, name string, into string, o Options) error {
	op := fmt.Sprintf("unpack %q", clip(name))
	format, err := formatOf(name)
	if err != nil {
		return withOp(op, err)
	}
	root, err := os.OpenRoot(into)
	if err != nil {
		return reason.FS(op, err)
	}
	defer func() { _ = root.Close() }() // nothing is written through it
	if err := mustBeEmpty(root); err != nil {
		return reason.FS(op, err)
	}
	u := &unpacking{ctx: ctx, root: root, opts: o.withDefaults(), src: &source{r: artifact}}
	if err := u.run(format); err != nil {
		if rest := removeContents(root); rest != nil {
			err = errors.Join(err, rest)
		}
		return withOp(op, err)
	}
	return nil
}

// unpacking is one call of Unpack.
type unpacking struct {
	ctx   context.Context
	root  *os.Root
	opts  Options
	src   *source
	bytes int64 // written so far
	files int   // made so far
	buf   []byte
}

func (u *unpacking) run(f format) error {
	data, err := f.decompress(u.src)
	if err != nil {
		return u.readError(err)
	}
	defer data.Close()
	u.buf = make([]byte, copyBuffer)
	if f.tar {
		return u.tree(data)
	}
	return u.program(data)
}

// program writes the whole of data to the place of the program.
func (u *unpacking) program(data io.Reader) error {
	name, err := cleanName(u.opts.Program, false)
	if err != nil {
		return &Error{Code: CodePath, Err: fmt.Errorf("place of the program: %w", err), Hint: "set Program= to a path inside the release"}
	}
	if err := newTree(u).parents(path.Dir(name)); err != nil {
		return err
	}
	mode := fs.FileMode(0o755)
	if u.opts.Config {
		mode = 0o644
	}
	if err := u.write(name, mode, data); err != nil {
		return err
	}
	if u.bytes == 0 {
		return refuse(CodeEmpty, "publish it again", "it is empty")
	}
	return nil
}

// write makes one file out of everything r has.
func (u *unpacking) write(name string, perm fs.FileMode, r io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, perm)
	if err != nil {
		return err
	}
	err = f.Chmod(perm) // the daemon's umask is 0077
	if err == nil {
		w := &writeBehind{f: f}
		err = u.copy(w, r)
		w.flush()
	}
	return errors.Join(err, f.Close())
}

// writeBehind has the disk begin to write what it was given while the rest is
// still being decompressed, so that the fsync of each file in store.Install
// finds little to do: for 1,000 files of 8 KiB on ext4 that was 85 ms instead of
// 151. It makes nothing durable (sync_file_range(2)) and reports no error of the
// disk; that fsync does both.
type writeBehind struct {
	f         *os.File
	begun, at int64
}

func (w *writeBehind) Write(p []byte) (int, error) {
	const step = 8 << 20
	n, err := w.f.Write(p)
	if w.at += int64(n); w.at-w.begun >= step {
		w.flush()
	}
	return n, err
}

func (w *writeBehind) flush() {
	// Where a file system cannot do it, nothing is lost but time.
	_ = unix.SyncFileRange(int(w.f.Fd()), w.begun, w.at-w.begun, unix.SYNC_FILE_RANGE_WRITE)
	w.begun = w.at
}

// copy moves bytes until r ends, within all the limits.
func (u *unpacking) copy(w io.Writer, r io.Reader) error {
	for {
		if err := u.ctx.Err(); err != nil {
			return context.Cause(u.ctx)
		}
		n, err := r.Read(u.buf)
		if n > 0 {
			u.bytes += int64(n)
			if err := u.checkSize(); err != nil {
				return err
			}
			if _, err := w.Write(u.buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return u.readError(err)
		}
	}
}

func (u *unpacking) checkSize() error {
	if u.bytes > u.opts.MaxBytes {
		return limit("it unpacks to more than %d bytes", u.opts.MaxBytes)
	}
	if u.bytes <= ratioFree {
		return nil
	}
	if read, _ := u.src.state(); u.bytes-ratioFree > read*u.opts.MaxRatio {
		return limit("it unpacks to more than %d times its size", u.opts.MaxRatio)
	}
	return nil
}

// count accounts for one more file, directory or link.
func (u *unpacking) count() error {
	if u.files++; u.files > u.opts.MaxFiles {
		return limit("it holds more than %d files", u.opts.MaxFiles)
	}
	return u.ctx.Err()
}

// readError tells a damaged artifact from a damaged disk.
func (u *unpacking) readError(err error) error {
	var known *Error
	_, failed := u.src.state()
	switch {
	case failed != nil:
		return failed
	case errors.As(err, &known):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return corrupt(errors.New("it ends too early"))
	}
	return corrupt(err)
}

// source reads the artifact by offset, counts, and remembers what went wrong
// below the decompressor, which may swallow or rename it. The decompressor
// may read ahead in a goroutine of its own.
type source struct {
	r io.ReaderAt

	mu  sync.Mutex
	n   int64
	err error
}

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.r.ReadAt(p, s.n)
	s.n += int64(n)
	if err == io.EOF && n > 0 {
		err = nil // said again at the next call
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// state tells how many bytes were read, and what failed.
func (s *source) state() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n, s.err
}

func mustBeEmpty(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	if names, err := d.Readdirnames(1); len(names) > 0 || err != io.EOF {
		return errors.Join(fmt.Errorf("directory %s is not empty", root.Name()), err, fs.ErrExist)
	}
	return nil
}

// removeContents empties the directory again. Nothing in it is read-only yet.
func removeContents(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	for _, name := range names {
		err = errors.Join(err, root.RemoveAll(name))
	}
	return err
}

func corrupt(err error) error {
	return &Error{Code: CodeCorrupt, Err: err, Hint: "publish it again; the signature holds, so it was damaged before it was signed"}
}

func limit(format string, args ...any) error {
	return &Error{Code: CodeLimit, Err: fmt.Errorf(format, args...), Hint: "publish a smaller one"}
}

// withOp names what was being done, once.
func withOp(op string, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Op == "" {
		e.Op = op
		return err
	}
	return reason.FS(op, err)
}

// clip keeps a hostile name from filling the journal.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
