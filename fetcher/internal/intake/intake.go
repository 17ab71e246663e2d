// Package intake turns a stream into a durable file: every byte is read once,
// hashed once and written once, each by its own goroutine at the same time,
// and the file has its final name only when it is on disk and its digest is
// what was promised. What a broken transfer left is taken up again.
package intake

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// rehashBuffer is large enough that reading costs little beside hashing.
const rehashBuffer = 256 << 10

// Part is an artifact on its way: a file of a directory that grows at its end,
// and the digest of what is in it. Its methods are for one goroutine.
type Part struct {
	root *os.Root
	name string
	file *os.File
	hash hash.Hash
	size int64
}

// Begin opens the part name in root, or creates it, and hashes what is there.
// The caller ends it with Commit, Keep or Discard. root stays the caller's.
func Begin(ctx context.Context, root *os.Root, name string) (*Part, error) {
	// What is not a file of ours is not taken up.
	if st, err := root.Lstat(name); err == nil && !st.Mode().IsRegular() {
		if err := root.RemoveAll(name); err != nil {
			return nil, fault.Local(err)
		}
	}
	open := func() (*os.File, error) {
		return root.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	}
	f, err := open()
	if errors.Is(err, unix.EACCES) && root.Chmod(name, 0o600) == nil {
		f, err = open() // a Commit died between the last two of its steps
	}
	if errors.Is(err, unix.ENOSPC) && outOfInodes(root) {
		return nil, noInodes()
	}
	if err != nil {
		return nil, fault.Local(err)
	}
	p := &Part{root: root, name: name, file: f, hash: sha256.New()}
	if err := p.rehash(ctx); err != nil {
		p.Keep()
		return nil, err
	}
	return p, nil
}

// Find opens the whole file name of root, for reading only, and hashes it.
// It is there from an earlier Commit whose caller died: Commit may be called
// again, with the same name.
func Find(ctx context.Context, root *os.Root, name string) (*Part, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fault.Local(err)
	}
	p := &Part{root: root, name: name, file: f, hash: sha256.New()}
	if err := p.rehash(ctx); err != nil {
		p.Keep()
		return nil, err
	}
	return p, nil
}

// rehash reads what is there. It is not trusted to be what was written: a power
// cut may have left zeros.
func (p *Part) rehash(ctx context.Context) error {
	n, err := io.CopyBuffer(p.hash, ctxReader{ctx, p.file}, make([]byte, rehashBuffer))
	if ctx.Err() != nil {
		return fault.Context(ctx)
	}
	if err != nil {
		return fault.Local(err)
	}
	p.size = n
	return nil
}

// Size is the number of bytes so far.
func (p *Part) Size() int64 { return p.size }

// Sum is the SHA-256 of the bytes so far.
func (p *Part) Sum() (sum [sha256.Size]byte) {
	p.hash.Sum(sum[:0])
	return sum
}

// Reset empties the part.
func (p *Part) Reset() error {
	p.hash.Reset()
	p.size = 0
	if err := p.file.Truncate(0); err != nil {
		return fault.Local(err)
	}
	return nil
}

// Commit makes the part durable under its final name: fsync, rename, fsync of
// the directory. It gives the very file that was hashed, open for reading
// only; the caller closes it. After an error the part is gone: what a failed
// fsync left on disk cannot be known, and a second one would not tell.
func (p *Part) Commit(name string) (*os.File, error) {
	f, err := p.commit(name)
	if err != nil {
		return nil, fault.Local(err).Also(p.Discard())
	}
	p.file.Close()
	return f, nil
}

func (p *Part) commit(name string) (*os.File, error) {
	// The digest is of what passed through memory. That all of it went into
	// the file, and nothing else, is not left to belief.
	st, err := p.file.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() != p.size {
		return nil, fmt.Errorf("%s has %d bytes, want %d", p.name, st.Size(), p.size)
	}
	if err := p.file.Chmod(0o400); err != nil {
		return nil, err
	}
	if err := p.file.Sync(); err != nil {
		return nil, err
	}
	// A file that is open for writing cannot be executed, so it is opened
	// anew; that it is the same inode shows that nobody put another there.
	f, err := p.root.OpenFile(p.name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := sameFile(p.file, f); err != nil {
		f.Close()
		return nil, err
	}
	if err := p.root.Rename(p.name, name); err != nil {
		f.Close()
		return nil, err
	}
	p.name = name
	if err := SyncDir(p.root); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func sameFile(a, b *os.File) error {
	x, err := a.Stat()
	if err != nil {
		return err
	}
	y, err := b.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(x, y) {
		return fmt.Errorf("%s was replaced by another file", b.Name())
	}
	return nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Keep closes the part and leaves it to be taken up again.
func (p *Part) Keep() { p.file.Close() }

// Discard closes and removes the part.
func (p *Part) Discard() error {
	p.file.Close()
	if err := p.root.Remove(p.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Local(err)
	}
	return nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Inspect has look see the bytes so far, as they are in the file, without bringing
// all of them into memory at once. They are gone when look returns.
func (p *Part) Inspect(look func(raw []byte) error) error {
	if p.size == 0 {
		return look(nil)
	}
	raw, err := unix.Mmap(int(p.file.Fd()), 0, int(p.size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fault.Local(err)
	}
	defer func() { _ = unix.Munmap(raw) }() // of our own mapping
	return look(raw)
}
