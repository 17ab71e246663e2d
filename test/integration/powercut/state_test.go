//go:build integration

package powercut

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// image is the content of a disk. Its blocks are never changed, only replaced,
// so that images share them; nil is a block of zeros.
type image []*[blockSize]byte

const blockSize = 4096

// readImage reads a file whose size is a number of whole blocks.
func readImage(f *os.File) (image, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	m := make(image, size/blockSize)
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return nil, err
		}
		b := new([blockSize]byte)
		if _, err := f.ReadAt(b[:], data/blockSize*blockSize); err != nil {
			return nil, err
		}
		if *b != [blockSize]byte{} {
			m[data/blockSize] = b
		}
		at = (data/blockSize + 1) * blockSize
	}
	return m, nil
}

// writeTo makes the image the content of a file, with holes where zeros are.
func (m image) writeTo(f *os.File) error {
	if err := errors.Join(f.Truncate(0), f.Truncate(int64(len(m)*blockSize))); err != nil {
		return err
	}
	for i, b := range m {
		if b == nil {
			continue
		}
		if _, err := f.WriteAt(b[:], int64(i*blockSize)); err != nil {
			return err
		}
	}
	return nil
}

// write puts data at an offset.
func (m image) write(offset int64, data []byte) {
	for len(data) > 0 {
		within := offset % blockSize
		b := new([blockSize]byte)
		if old := m[offset/blockSize]; old != nil && (within > 0 || len(data) < blockSize) {
			*b = *old
		}
		n := copy(b[within:], data)
		m[offset/blockSize] = b
		data, offset = data[n:], offset+int64(n)
	}
}

// cut is a place in a log, and what may be left of what was not flushed there.
type cut struct {
	at   int // how many entries of the log are before it
	left left
}

type left byte

const (
	everything left = iota // a disk that writes in order
	some                   // of the writes: one that does not
	sectors                // of the writes: one that was in the middle of them
)

func (l left) String() string {
	return [...]string{"everything", "some writes", "some sectors"}[l]
}

// shuffledCuts are the cuts of a log that leave different disks: at each place all that
// was written since the last flush, and where that is two writes or more some of
// them, and some sectors of some. Which of them comes first is left to chance.
func shuffledCuts(log []entry, random *rand.Rand) []cut {
	all := []cut{{0, everything}}
	pending := 0
	for i, e := range log {
		switch e.Kind {
		case wrote:
			pending++
			all = append(all, cut{i + 1, everything}, cut{i + 1, sectors})
			if pending > 1 {
				all = append(all, cut{i + 1, some})
			}
		case flushed:
			pending = 0
		}
	}
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// crashState is what a cut leaves of a disk that began as an image. A sector is
// what the disk writes whole or not at all, in bytes.
func crashState(start image, log []entry, c cut, sector int, random *rand.Rand) image {
	m := slices.Clone(start)
	log = log[:c.at]
	safe := 0 // entries up to the last flush
	for i, e := range log {
		if e.Kind == flushed {
			safe = i
		}
	}
	for i, e := range log {
		switch {
		case e.Kind != wrote:
		case i < safe || c.left == everything:
			m.write(e.Offset, e.Data)
		case random.IntN(2) == 0: // lost
		case c.left == some:
			m.write(e.Offset, e.Data)
		default:
			for at, data := e.Offset, e.Data; len(data) > 0; {
				n := min(sector-int(at)%sector, len(data))
				if random.IntN(2) == 0 {
					m.write(at, data[:n])
				}
				at, data = at+int64(n), data[n:]
			}
		}
	}
	return m
}

// stepsBefore is how many steps were acknowledged before a cut, of a log that
// began after some.
func stepsBefore(c cut, log []entry, begun int) int {
	for _, e := range log[:c.at] {
		if e.Kind == acknowledged {
			begun = e.Steps
		}
	}
	return begun
}
