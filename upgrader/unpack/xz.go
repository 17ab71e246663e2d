package unpack

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The container of xz (https://tukaani.org/xz/xz-file-format.txt) is read here,
// and only the LZMA2 data in it by the library. Any block may ask for a
// dictionary of up to 4 GiB, and the library's own container reader takes
// the memory at once, so the request has to be seen before the library sees it.
//
//	stream = header block* index footer; a file is streams and zeros between
var (
	xzHeaderMagic = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	xzFooterMagic = []byte{'Y', 'Z'}
)

type xzReader struct {
	in      *byteCounter
	newHash func() hash.Hash // of the stream's checks; nil: it has none
	flags   [2]byte
	block   *xzBlock // nil between blocks
	index   hash.Hash32
	blocks  uint64
	err     error
}

type xzBlock struct {
	data             io.Reader
	check            hash.Hash
	begin            int64 // offset of the header
	dataBegin        int64
	plain            int64 // bytes handed out
	wantRaw, wantLen int64 // from the header; -1: it does not say
}

// unxz reads .xz files of any number of streams and blocks. Of the filters
// only LZMA2 is known; xz(1) uses others only when told to.
func unxz(r io.Reader) (io.ReadCloser, error) {
	x := &xzReader{in: &byteCounter{r: bufio.NewReaderSize(r, copyBuffer)}}
	if err := x.beginStream(); err != nil {
		return nil, noEOF(err)
	}
	return io.NopCloser(x), nil
}

func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.data.Read(p)
		x.block.plain += int64(n)
		if x.block.check != nil {
			x.block.check.Write(p[:n])
		}
		if errors.Is(err, io.EOF) {
			err = x.endBlock()
		}
		x.err = noEOF(err)
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// next begins the next block, or ends the stream and begins the next one.
// io.EOF is the end of the file.
func (x *xzReader) next() error {
	begin := x.in.n
	size, err := x.in.ReadByte()
	if err != nil {
		return noEOF(err)
	}
	if size != 0 {
		return noEOF(x.beginBlock(begin, size))
	}
	if err := x.endStream(begin); err != nil {
		return noEOF(err)
	}
	// Streams may follow, with zeros in fours before and after.
	for {
		b, err := x.in.peek(4)
		switch {
		case len(b) == 0:
			return err // io.EOF: the end
		case len(b) == 4 && bytes.Equal(b, make([]byte, 4)):
			x.in.discard(4)
		default:
			return noEOF(x.beginStream())
		}
	}
}

func (x *xzReader) beginStream() error {
	var b [12]byte
	if _, err := io.ReadFull(x.in, b[:]); err != nil {
		return err
	}
	if !bytes.Equal(b[:6], xzHeaderMagic) {
		return errors.New("xz: no stream header where one should be")
	}
	if crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return errors.New("xz: checksum of the stream header")
	}
	x.flags = [2]byte(b[6:8])
	switch b[7] {
	case 0x00:
		x.newHash = nil
	case 0x01:
		x.newHash = func() hash.Hash { return littleEndian{crc32.NewIEEE()} }
	case 0x04:
		x.newHash = func() hash.Hash { return littleEndian{crc64.New(crc64.MakeTable(crc64.ECMA))} }
	case 0x0a:
		x.newHash = sha256.New
	default:
		return fmt.Errorf("xz: check of kind %#x is unknown", b[7])
	}
	if b[6] != 0 {
		return errors.New("xz: stream flags are unknown")
	}
	x.index, x.blocks = crc32.NewIEEE(), 0
	return nil
}

func (x *xzReader) beginBlock(begin int64, size byte) error {
	head := make([]byte, (int(size)+1)*4)
	head[0] = size
	if _, err := io.ReadFull(x.in, head[1:]); err != nil {
		return err
	}
	body := head[:len(head)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(head[len(body):]) {
		return errors.New("xz: checksum of a block header")
	}
	flags, rest := body[1], body[2:]
	if flags&^0xc0 != 0 {
		return errors.New("xz: filters other than LZMA2 are not read here")
	}
	b := &xzBlock{begin: begin, dataBegin: x.in.n, wantRaw: -1, wantLen: -1}
	var err error
	if flags&0x40 != 0 {
		if b.wantRaw, rest, err = uvarint(rest); err != nil {
			return err
		}
	}
	if flags&0x80 != 0 {
		if b.wantLen, rest, err = uvarint(rest); err != nil {
			return err
		}
	}
	const lzma2 = 0x21
	if len(rest) < 3 || rest[0] != lzma2 || rest[1] != 1 {
		return errors.New("xz: filters other than LZMA2 are not read here")
	}
	if len(bytes.Trim(rest[3:], "\x00")) != 0 {
		return errors.New("xz: padding of a block header")
	}
	dict, err := lzma.DecodeDictCap(rest[2])
	if err != nil {
		return err
	}
	if dict > maxWindow {
		return limit("it needs a window of %d MiB, want at most %d", dict>>20, maxWindow>>20)
	}
	b.data, err = lzma.Reader2Config{DictCap: int(max(dict, lzma.MinDictCap))}.NewReader2(x.in)
	if err != nil {
		return err
	}
	if x.newHash != nil {
		b.check = x.newHash()
	}
	x.block = b
	return nil
}

func (x *xzReader) endBlock() error {
	b := x.block
	raw := x.in.n - b.dataBegin
	if b.wantRaw >= 0 && b.wantRaw != raw || b.wantLen >= 0 && b.wantLen != b.plain {
		return errors.New("xz: size of a block")
	}
	unpadded := x.in.n - b.begin
	if err := x.zeros(unpadded); err != nil {
		return err
	}
	if b.check != nil {
		want := make([]byte, b.check.Size())
		if _, err := io.ReadFull(x.in, want); err != nil {
			return err
		}
		if !bytes.Equal(b.check.Sum(nil), want) {
			return errors.New("xz: checksum of a block")
		}
		unpadded += int64(len(want))
	}
	// The index repeats the sizes of all blocks. A running sum of what it
	// has to say takes no memory, whatever the number of blocks.
	x.index.Write(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(unpadded)), uint64(b.plain)))
	x.blocks++
	x.block = nil
	return nil
}

// endStream reads the index, whose indicator has been read already, and the
// footer.
func (x *xzReader) endStream(begin int64) error {
	sum := crc32.NewIEEE() // of the index as it stands
	sum.Write([]byte{0})
	records := crc32.NewIEEE()
	count, err := x.uvarint(sum)
	if err != nil {
		return err
	}
	if count != x.blocks {
		return fmt.Errorf("xz: index of %d blocks, want %d", count, x.blocks)
	}
	for range 2 * count {
		if _, err := x.uvarint(io.MultiWriter(sum, records)); err != nil {
			return err
		}
	}
	if records.Sum32() != x.index.Sum32() {
		return errors.New("xz: index does not fit its blocks")
	}
	pad := int((4 - (x.in.n-begin)%4) % 4)
	if err := x.zeros(x.in.n - begin); err != nil {
		return err
	}
	sum.Write(make([]byte, pad))
	size := x.in.n - begin + 4
	var b [16]byte
	if _, err := io.ReadFull(x.in, b[:]); err != nil {
		return err
	}
	switch foot := b[4:]; {
	case sum.Sum32() != binary.LittleEndian.Uint32(b[:4]):
		return errors.New("xz: checksum of the index")
	case crc32.ChecksumIEEE(foot[4:10]) != binary.LittleEndian.Uint32(foot[:4]):
		return errors.New("xz: checksum of the stream footer")
	case (int64(binary.LittleEndian.Uint32(foot[4:]))+1)*4 != size:
		return errors.New("xz: size of the index")
	case [2]byte(foot[8:10]) != x.flags || !bytes.Equal(foot[10:], xzFooterMagic):
		return errors.New("xz: stream footer")
	}
	return nil
}

// zeros reads the padding that fills n bytes up to a multiple of four.
func (x *xzReader) zeros(n int64) error {
	for range (4 - n%4) % 4 {
		b, err := x.in.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return errors.New("xz: padding is not zero")
		}
	}
	return nil
}

// uvarint reads a number from the index, in its one shortest form.
func (x *xzReader) uvarint(copyTo io.Writer) (uint64, error) {
	var v uint64
	for shift := 0; shift < 63; shift += 7 {
		b, err := x.in.ReadByte()
		if err != nil {
			return 0, err
		}
		_, _ = copyTo.Write([]byte{b}) // hashes take everything
		if b == 0 && shift > 0 {
			break
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
	}
	return 0, errors.New("xz: number in the index")
}

// uvarint takes a size off the front of a block header.
func uvarint(b []byte) (int64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || v >= 1<<63 {
		return 0, nil, errors.New("xz: size in a block header")
	}
	return int64(v), b[n:], nil
}

// littleEndian turns a CRC's sum round: xz stores it the other way than Go.
type littleEndian struct{ hash.Hash }

func (l littleEndian) Sum(b []byte) []byte {
	sum := l.Hash.Sum(nil)
	for i := len(sum) - 1; i >= 0; i-- {
		b = append(b, sum[i])
	}
	return b
}

// byteCounter counts what has been read.
type byteCounter struct {
	r *bufio.Reader
	n int64
}

func (c *byteCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *byteCounter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func (c *byteCounter) peek(n int) ([]byte, error) { return c.r.Peek(n) }

func (c *byteCounter) discard(n int) {
	k, _ := c.r.Discard(n)
	c.n += int64(k)
}

// noEOF is for places where the file must not end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
