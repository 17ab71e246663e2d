package delta

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// MemoryMax bounds what base, patch and result of a zstd patch have together, in
// bytes. A program of 100 MB fits; for larger ones there is bsdiff.
const MemoryMax = 256 << 20

func openZstd(ctx context.Context, base *io.SectionReader, of [sha256.Size]byte, patch *io.SectionReader, size int64) (io.Reader, error) {
	if most := int64(MemoryMax); base.Size() > most || patch.Size() > most || size > most || base.Size()+patch.Size()+size > most {
		return nil, fmt.Errorf("base, patch and result have %d, %d and %d bytes, at most %d are held in memory", base.Size(), patch.Size(), size, most)
	}
	old, err := whole(ctx, baseReader{io.NewSectionReader(base, 0, base.Size())}, base.Size())
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	h.Write(old) // what is hashed is what is used
	if err := compare(h, of); err != nil {
		return nil, err
	}
	frames, err := whole(ctx, io.NewSectionReader(patch, 0, patch.Size()), patch.Size())
	if err != nil {
		return nil, err
	}
	// The window is no memory of its own here: DecodeAll looks back into what it
	// gives. zstd(1) has it span base and result, rounded up.
	window := uint64(max(zstd.MinWindowSize, 2*(base.Size()+size)))
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderDictRaw(0, old),
		zstd.WithDecoderMaxWindow(window),
		zstd.WithDecoderMaxMemory(window),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	result, err := d.DecodeAll(frames, make([]byte, 0, size))
	if err != nil {
		return nil, brokenPatch(err)
	}
	return bytes.NewReader(result), nil
}

// whole reads exactly size bytes.
func whole(ctx context.Context, r io.Reader, size int64) ([]byte, error) {
	buf := make([]byte, size)
	if _, err := io.ReadFull(withContext{ctx, r}, buf); err != nil {
		return nil, err
	}
	return buf, nil
}
