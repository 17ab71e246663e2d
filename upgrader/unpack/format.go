package unpack

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxWindow is the memory an artifact may ask for to be decompressed, in
// bytes. It is what zstd(1) grants by default, enough for zstd -22 and xz -9.
const maxWindow = 128 << 20

// format is what a file's name says of its content.
type format struct {
	tar        bool
	decompress func(io.Reader) (io.ReadCloser, error)
}

// formats by the end of a name; the longest that fits counts.
var formats = []struct {
	tail string
	format
}{
	{".tar.gz", format{true, gunzip}},
	{".tgz", format{true, gunzip}},
	{".tar.zst", format{true, unzstd}},
	{".tzst", format{true, unzstd}},
	{".tar.xz", format{true, unxz}},
	{".txz", format{true, unxz}},
	{".tar", format{true, asIs}},
	{".gz", format{false, gunzip}},
	{".zst", format{false, unzstd}},
	{".xz", format{false, unxz}},
}

// refused are names that promise something we would otherwise install as if it
// were a program.
var refused = []string{".zip", ".bz2", ".tbz2", ".7z", ".rar", ".lz4", ".lz", ".lzma", ".Z", ".deb", ".rpm", ".apk", ".iso", ".raw", ".img", ".sig", ".asc", ".minisig"}

func formatOf(name string) (format, error) {
	for _, f := range formats {
		if strings.HasSuffix(name, f.tail) {
			return f.format, nil
		}
	}
	for _, tail := range refused {
		if strings.HasSuffix(name, tail) {
			return format{}, &Error{Code: CodeFormat, Err: fmt.Errorf("%s files are not read here", path.Ext(name)), Hint: "publish the program itself, .gz, .zst, .xz, .tar or .tar.{gz,zst,xz}, and let MatchPattern= match that"}
		}
	}
	return format{false, asIs}, nil
}

func asIs(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(r), nil }

func gunzip(r io.Reader) (io.ReadCloser, error) {
	return gzip.NewReader(bufio.NewReaderSize(r, copyBuffer))
}

func unzstd(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r,
		zstd.WithDecoderMaxWindow(maxWindow),
		zstd.WithDecoderMaxMemory(maxWindow),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderConcurrency(2)) // decode the next block while one is written
	if err != nil {
		return nil, err
	}
	return zstdReader{d}, nil
}

type zstdReader struct{ d *zstd.Decoder }

func (z zstdReader) Read(p []byte) (int, error) {
	n, err := z.d.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = limit("it needs a window of more than %d MiB", maxWindow>>20)
	}
	return n, err
}

// Close ends the decoder's goroutines.
func (z zstdReader) Close() error {
	z.d.Close()
	return nil
}
