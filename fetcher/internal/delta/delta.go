// Package delta makes a file out of one that is here and a patch. Its promise:
// what Open gives are exactly the bytes whose digest was asked for, or an error;
// and neither base nor patch, whatever they hold, makes it take more memory or
// give more bytes than was said before.
//
//	base ── hashed ──▶ ┐
//	                   ├─▶ Open ──▶ result, hashed ──▶ io.EOF
//	patch ───────────▶ ┘
//
// Two formats are read, as their tools write them: BSDIFF40 of bsdiff(1), and
// Zstandard frames (RFC 8878) of zstd(1) --patch-from, where the base is a
// dictionary of raw content.
//
// A bsdiff patch is applied as it is read, in a few buffers. For a zstd patch base,
// patch and result are held in memory, at most MemoryMax in all.
//
// The base is read, never mapped: it is a file of somebody else, and one that is
// cut short while it is mapped kills the process that looks at it (SIGBUS). What
// changes under us is caught by the digest of the result.
//
// An Index is what a publisher says of the patches to one artifact.
package delta

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Format is how a patch is written.
type Format string

// The formats, by the names that an Index has for them.
const (
	BSDiff Format = "bsdiff" // BSDIFF40, bsdiff(1)
	Zstd   Format = "zstd"   // zstd(1) --patch-from
)

// ErrBase is in each error about the base: it cannot be read, or is not what it
// was said to be.
var ErrBase = errors.New("the base is of no use")

// File is what is in a file, by length and SHA-256.
type File struct {
	Digest [sha256.Size]byte
	Size   int64
}

// Open gives what patch makes of base, which has to have the digest of; of want
// nothing is given beyond its size, and io.EOF only if the digest is want's, too.
// Reads end with an error when ctx does. Base and patch stay the caller's, who
// leaves them alone until the last read.
func Open(ctx context.Context, format Format, base *io.SectionReader, of [sha256.Size]byte, patch *io.SectionReader, want File) (io.Reader, error) {
	if want.Size < 0 {
		return nil, fmt.Errorf("a result of %d bytes", want.Size)
	}
	var result io.Reader
	var err error
	switch format {
	case BSDiff:
		if err = check(ctx, base, of); err == nil {
			result, err = openBSDiff(ctx, base, patch, want.Size)
		}
	case Zstd:
		result, err = openZstd(ctx, base, of, patch, want.Size)
	default:
		err = fmt.Errorf("patches of format %q are not read", format)
	}
	if err != nil {
		return nil, err
	}
	return &promised{ctx: ctx, r: result, want: want, hash: sha256.New()}, nil
}

// Copy gives base itself, by the same promise.
func Copy(ctx context.Context, base *io.SectionReader, want File) (io.Reader, error) {
	if base.Size() != want.Size {
		return nil, fmt.Errorf("%w: it has %d bytes, want %d", ErrBase, base.Size(), want.Size)
	}
	whole := io.NewSectionReader(base, 0, base.Size())
	return &promised{ctx: ctx, r: baseReader{whole}, want: want, hash: sha256.New(), copied: true}, nil
}

// check hashes the base.
func check(ctx context.Context, base *io.SectionReader, of [sha256.Size]byte) error {
	h := sha256.New()
	if _, err := io.Copy(h, withContext{ctx, baseReader{io.NewSectionReader(base, 0, base.Size())}}); err != nil {
		return err
	}
	return compare(h, of)
}

func compare(h hash.Hash, of [sha256.Size]byte) error {
	if got := sum(h); got != of {
		return fmt.Errorf("%w: it has SHA-256 %x, want %x", ErrBase, got, of)
	}
	return nil
}

func sum(h hash.Hash) (digest [sha256.Size]byte) {
	h.Sum(digest[:0])
	return digest
}

// promised gives what r has if it is what was promised.
type promised struct {
	ctx    context.Context
	r      io.Reader
	want   File
	hash   hash.Hash
	size   int64
	copied bool // r is a base
}

func (p *promised) Read(buf []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, context.Cause(p.ctx)
	}
	n, err := p.r.Read(buf)
	p.size += int64(n)
	if p.size > p.want.Size {
		return 0, fmt.Errorf("the result has more than the %d bytes that are promised", p.want.Size)
	}
	p.hash.Write(buf[:n])
	if err != io.EOF { // bare: an error that wraps it is no end
		return n, err
	}
	switch {
	case p.size != p.want.Size:
		return n, fmt.Errorf("the result has %d bytes, want %d", p.size, p.want.Size)
	case sum(p.hash) == p.want.Digest:
		return n, io.EOF
	case p.copied:
		return n, compare(p.hash, p.want.Digest)
	}
	return n, fmt.Errorf("the result has SHA-256 %x, want %x", sum(p.hash), p.want.Digest)
}

// baseReader says of the errors of a base that they are.
type baseReader struct{ r io.Reader }

func (b baseReader) Read(buf []byte) (int, error) {
	n, err := b.r.Read(buf)
	if err != nil && err != io.EOF { //nolint:errorlint // bare: what wraps it is no end
		err = fmt.Errorf("%w: %w", ErrBase, err)
	}
	return n, err
}

type withContext struct {
	ctx context.Context
	r   io.Reader
}

func (w withContext) Read(buf []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.r.Read(buf)
}
