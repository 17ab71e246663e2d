package delta

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A BSDIFF40 patch, as bsdiff(1) writes and bspatch(1) reads it: numbers are 64
// bits, little-endian, a sign and a magnitude.
//
//	 0  "BSDIFF40"
//	 8  length of the control block
//	16  length of the difference block
//	24  length of the result
//	32  control block, difference block, extra block; each of them bzip2
//
// The control block holds steps of three numbers: add so many bytes of the base to
// as many of the difference block, then take so many of the extra block as they
// are, then move that far in the base.
const (
	bsdiffMagic  = "BSDIFF40"
	bsdiffHeader = 32
	bsdiffStep   = 24
	patchBuffer  = 32 << 10
	baseBuffer   = 128 << 10
)

type bsdiffReader struct {
	ctx     context.Context
	base    *io.SectionReader
	control io.Reader
	diff    io.Reader
	extra   io.Reader

	left   int64 // bytes of the result still to come
	steps  int64 // that may still come
	add    int64 // of this step
	insert int64
	move   int64
	at     int64 // in the base
	buf    []byte
	err    error
}

func openBSDiff(ctx context.Context, base, patch *io.SectionReader, size int64) (io.Reader, error) {
	var head [bsdiffHeader]byte
	if n, err := patch.ReadAt(head[:], 0); n < len(head) {
		return nil, brokenPatch(err)
	}
	if !bytes.HasPrefix(head[:], []byte(bsdiffMagic)) {
		return nil, brokenPatch(fmt.Errorf("it begins with %q, not %q", head[:8], bsdiffMagic))
	}
	control, diff, result := number(head[8:]), number(head[16:]), number(head[24:])
	rest := patch.Size() - bsdiffHeader
	if control < 0 || diff < 0 || control > rest || diff > rest-control {
		return nil, brokenPatch(fmt.Errorf("its blocks of %d and %d bytes do not fit into %d", control, diff, patch.Size()))
	}
	if result != size {
		return nil, brokenPatch(fmt.Errorf("it makes %d bytes, want %d", result, size))
	}
	block := func(at, length int64) io.Reader {
		return bzip2.NewReader(bufio.NewReaderSize(io.NewSectionReader(patch, at, length), patchBuffer))
	}
	return &bsdiffReader{
		ctx: ctx, base: base, left: size,
		control: block(bsdiffHeader, control),
		diff:    block(bsdiffHeader+control, diff),
		extra:   block(bsdiffHeader+control+diff, rest-control-diff),
		// bsdiff makes a step for a byte at the least. Without a limit, one that
		// adds nothing could come for ever out of a few bytes of bzip2.
		steps: size + 1,
	}, nil
}

// number reads eight bytes, sign and magnitude.
func number(b []byte) int64 {
	u := binary.LittleEndian.Uint64(b)
	magnitude := int64(u &^ (1 << 63))
	if u>>63 == 1 {
		return -magnitude
	}
	return magnitude
}

func (r *bsdiffReader) Read(buf []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.read(buf)
	r.err = err
	return n, err
}

func (r *bsdiffReader) read(buf []byte) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	for r.add == 0 && r.insert == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		if err := r.step(); err != nil {
			return 0, err
		}
	}
	if r.add > 0 {
		n := int(min(int64(len(buf)), r.add, baseBuffer))
		return n, r.addTo(buf[:n])
	}
	n := int(min(int64(len(buf)), r.insert))
	if _, err := io.ReadFull(r.extra, buf[:n]); err != nil {
		return 0, brokenPatch(err)
	}
	r.insert -= int64(n)
	return n, nil
}

// step reads what is to be done next.
func (r *bsdiffReader) step() error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if r.steps--; r.steps < 0 {
		return brokenPatch(errors.New("it has more steps than the result has bytes"))
	}
	var raw [bsdiffStep]byte
	if _, err := io.ReadFull(r.control, raw[:]); err != nil {
		return brokenPatch(err)
	}
	add, insert := number(raw[:]), number(raw[8:])
	at := r.at + r.move // both are within the base, or refused below
	size := r.base.Size()
	switch {
	case add < 0 || insert < 0 || add > r.left || insert > r.left-add:
		return brokenPatch(fmt.Errorf("a step makes %d and %d bytes, and %d are left", add, insert, r.left))
	case r.move < -size || r.move > size || at < 0 || at > size || add > size-at:
		return brokenPatch(fmt.Errorf("a step reads %d bytes at %d of a base of %d", add, at, size))
	}
	r.add, r.insert, r.move, r.at = add, insert, number(raw[16:]), at
	r.left -= add + insert
	return nil
}

// addTo fills buf with the sum of base and difference, byte by byte.
func (r *bsdiffReader) addTo(buf []byte) error {
	if r.buf == nil {
		r.buf = make([]byte, baseBuffer)
	}
	old := r.buf[:len(buf)]
	if n, err := r.base.ReadAt(old, r.at); n < len(old) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // it is shorter than it was
		}
		return fmt.Errorf("%w: %w", ErrBase, err)
	}
	if _, err := io.ReadFull(r.diff, buf); err != nil {
		return brokenPatch(err)
	}
	for i, b := range old {
		buf[i] += b
	}
	r.at += int64(len(buf))
	r.add -= int64(len(buf))
	return nil
}

// brokenPatch never is the end of the result.
func brokenPatch(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the patch is damaged: it ends too early")
	}
	return fmt.Errorf("the patch is damaged: %w", err)
}
