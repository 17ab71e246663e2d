package fetcher

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/signature"
)

const (
	// sizeMax bounds what is kept to be verified.
	sizeMax = 1 << 30
	// signatureMax bounds the signatures beside it.
	signatureMax = 64 << 10
)

// errNotThere says that there is no such file beside the binary.
var errNotThere = errors.New("not there")

// ring is who must have signed.
type ring struct{ keys *signature.Ring }

// newRing reads keys: each a line of minisign or SSH, or the absolute name of a
// file of keys. None gives nil.
func newRing(keys []string) (*ring, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	var all []signature.Key
	for _, k := range keys {
		text := []byte(k)
		if filepath.IsAbs(k) {
			var err error
			if text, err = readLimited(k, signature.TextMax); err != nil {
				return nil, fmt.Errorf("read key: %w", err)
			}
		}
		parsed, err := signature.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("key %.80q: %w", k, err)
		}
		all = append(all, parsed...)
	}
	r, err := signature.New(all, nil, 1)
	if err != nil {
		return nil, err
	}
	return &ring{r}, nil
}

func readLimited(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return b, err
}

// verify keeps the body in a file without a name and gives it back if it is signed.
func (r *ring) verify(name string, body io.Reader, beside func(string) ([]byte, error)) (io.ReadCloser, error) {
	f, err := os.CreateTemp("", "overseer-fetched-")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	n, err := io.Copy(f, io.LimitReader(body, sizeMax+1))
	switch {
	case err != nil:
	case n > sizeMax:
		err = fmt.Errorf("more than %d bytes", int64(sizeMax))
	case n == 0:
		err = errors.New("an empty file")
	default:
		err = r.check(name, f, int(n), beside)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (r *ring) check(name string, f *os.File, size int, beside func(string) ([]byte, error)) error {
	raw, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer func() { _ = unix.Munmap(raw) }()
	count := r.keys.Count(name, raw, time.Now())
	for _, file := range r.keys.Files(name) {
		if count.Enough() {
			break
		}
		content, err := beside(file)
		if errors.Is(err, errNotThere) {
			continue
		}
		if err != nil {
			count.Note(err)
			continue
		}
		count.Add(file, content)
	}
	_, err = count.Result()
	return err
}

// unpack undoes gzip where the name says so and the bytes are.
func unpack(name string, r io.Reader) (io.Reader, error) {
	if !strings.HasSuffix(name, ".gz") {
		return r, nil
	}
	magic := make([]byte, 2)
	n, err := io.ReadFull(r, magic)
	if err != nil && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	r = io.MultiReader(bytes.NewReader(magic[:n]), r)
	if !bytes.Equal(magic, []byte{0x1f, 0x8b}) { // a server has undone it already
		return r, nil
	}
	return gzip.NewReader(r)
}
