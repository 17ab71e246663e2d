package intake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const noLimit = 1 << 40

func openRoot(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func begin(t *testing.T, root *os.Root) *Part {
	t.Helper()
	p, err := Begin(context.Background(), root, "x.part")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Keep)
	return p
}

func noise(size int) []byte {
	b := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(b)
	return b
}

// sizes lie around every boundary of the pipeline.
var sizes = []int{0, 1, 2, blockSize - 1, blockSize, blockSize + 1, blocks*blockSize - 1, blocks * blockSize, blocks*blockSize + 1,
	writeBack - 1, writeBack, writeBack + 1, 3*writeBack + 12345}

// TestAppend compares what is in the file, not only the digest of what passed.
func TestAppend(t *testing.T) {
	whole := noise(4 * writeBack)
	for name, reader := range map[string]func(io.Reader) io.Reader{
		"plain":           func(r io.Reader) io.Reader { return r },
		"halves":          iotest.HalfReader,
		"end with data":   iotest.DataErrReader,
		"small pieces":    func(r io.Reader) io.Reader { return pieces{r, 1371} },
		"end on its own":  func(r io.Reader) io.Reader { return io.MultiReader(r, bytes.NewReader(nil)) },
		"nothing at once": func(r io.Reader) io.Reader { return &stutter{r: r} },
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range sizes {
				for _, start := range []int{0, min(size, 4097)} {
					root := openRoot(t)
					p := begin(t, root)
					if err := p.Append(bytes.NewReader(whole[:start]), noLimit, nil); err != nil {
						t.Fatal(err)
					}
					p.Keep()
					p = begin(t, root) // takes up what is there
					if p.Size() != int64(start) || p.Sum() != sha256.Sum256(whole[:start]) {
						t.Fatalf("took up %d bytes, want %d", p.Size(), start)
					}
					if err := p.Append(reader(bytes.NewReader(whole[start:size])), noLimit, nil); err != nil {
						t.Fatal(err)
					}
					if p.Size() != int64(size) || p.Sum() != sha256.Sum256(whole[:size]) {
						t.Fatalf("size %d, want %d, or the digest is another", p.Size(), size)
					}
					f, err := p.Commit("x")
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(f)
					f.Close()
					if err != nil || !bytes.Equal(got, whole[:size]) {
						t.Fatalf("size %d from %d: the file holds other bytes (%d, %v)", size, start, len(got), err)
					}
				}
			}
		})
	}
}

type pieces struct {
	r    io.Reader
	size int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.size)]) }

// stutter gives no byte and no error every other time, as io.Reader allows.
type stutter struct {
	r  io.Reader
	on bool
}

func (s *stutter) Read(b []byte) (int, error) {
	if s.on = !s.on; s.on {
		return 0, nil
	}
	return s.r.Read(b[:min(len(b), 100_000)])
}

func TestAppendKeepsWhatCameBeforeAnError(t *testing.T) {
	whole := noise(2*blockSize + 999)
	broken := fault.Passing(fault.Broken, errors.New("cut"), "")
	for _, size := range []int{0, 1, blockSize, 2*blockSize + 5} {
		root := openRoot(t)
		p := begin(t, root)
		err := p.Append(io.MultiReader(bytes.NewReader(whole[:size]), iotest.ErrReader(broken)), noLimit, nil)
		if !errors.Is(err, broken) || fault.CodeOf(err) != fault.Broken {
			t.Fatalf("got %v, want the error of the source as it is", err)
		}
		p.Keep()
		if p = begin(t, root); p.Size() != int64(size) || p.Sum() != sha256.Sum256(whole[:size]) {
			t.Errorf("%d bytes are there, want %d", p.Size(), size)
		}
		if err := p.Append(bytes.NewReader(whole[size:]), noLimit, nil); err != nil || p.Sum() != sha256.Sum256(whole) {
			t.Errorf("going on: %v, or the digest is another", err)
		}
	}
}

func TestAppendLimit(t *testing.T) {
	const max = blockSize + 7
	for size, refused := range map[int]bool{max - 1: false, max: false, max + 1: true, 20 * max: true} {
		root := openRoot(t)
		p := begin(t, root)
		err := p.Append(bytes.NewReader(make([]byte, size)), max, nil)
		if (fault.CodeOf(err) == fault.TooLarge) != refused || !refused && err != nil {
			t.Errorf("%d bytes, limit %d: %v", size, max, err)
		}
		st, err := root.Stat("x.part")
		if err != nil || st.Size() > max+1 {
			t.Errorf("%d bytes are on disk, limit %d (%v)", st.Size(), max, err)
		}
		// A part from before the limit was lowered.
		if err := p.Append(bytes.NewReader(nil), int64(min(size, max))-1, nil); fault.CodeOf(err) != fault.TooLarge {
			t.Errorf("part of %d bytes, lower limit: %v", size, err)
		}
	}
}

// TestAppendReportsTheDisk writes to a file that does not take it.
func TestAppendReportsTheDisk(t *testing.T) {
	root := openRoot(t)
	p := begin(t, root)
	p.file.Close()
	read, err := os.Open(filepath.Join(root.Name(), "x.part"))
	if err != nil {
		t.Fatal(err)
	}
	p.file = read
	source := &counter{r: bytes.NewReader(make([]byte, 100*blocks*blockSize))}
	if err := p.Append(source, noLimit, nil); fault.CodeOf(err) != fault.IO {
		t.Errorf("got %v, want %s", err, fault.IO)
	}
	if source.n > 10*blocks*blockSize {
		t.Errorf("read %d bytes after the disk had failed", source.n)
	}
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

// TestAppendWritesASlowTransferSoon takes a crash in the middle of one: what
// came more than a second ago is on disk although no block is full.
func TestAppendWritesASlowTransferSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := openRoot(t)
		p := begin(t, root)
		r, w := io.Pipe()
		done := make(chan error)
		var shown []int64
		go func() { done <- p.Append(r, noLimit, func(n int64) { shown = append(shown, n) }) }()
		for range 100 {
			w.Write(make([]byte, 10))
			time.Sleep(time.Second / 10)
		}
		synctest.Wait()
		st, err := root.Stat("x.part")
		if err != nil || st.Size() < 900 {
			t.Errorf("%d of 1000 bytes are on disk, %v", st.Size(), err)
		}
		w.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := len(shown); n < 9 || n > 12 || shown[n-1] != 1000 {
			t.Errorf("progress was shown %d times: %v", n, shown)
		}
	})
}

// TestCommitRefusesAnotherFile replaces the part while it is written, and writes
// into it from elsewhere.
func TestCommitRefusesAnotherFile(t *testing.T) {
	for name, change := range map[string]func(part string) error{
		"replaced": func(part string) error {
			if err := os.WriteFile(part+".evil", []byte("evil"), 0o600); err != nil {
				return err
			}
			return os.Rename(part+".evil", part)
		},
		"removed":   os.Remove,
		"truncated": func(part string) error { return os.Truncate(part, 1) },
		"longer":    func(part string) error { return os.Truncate(part, 100) },
	} {
		root := openRoot(t)
		p := begin(t, root)
		if err := p.Append(strings.NewReader("good"), noLimit, nil); err != nil {
			t.Fatal(err)
		}
		if err := change(filepath.Join(root.Name(), "x.part")); err != nil {
			t.Fatal(err)
		}
		if f, err := p.Commit("x"); err == nil {
			f.Close()
			t.Errorf("%s: committed", name)
		}
		if _, err := root.Stat("x"); err == nil {
			t.Errorf("%s: the final name exists", name)
		}
	}
}

func TestBeginEndsWithItsContext(t *testing.T) {
	root := openRoot(t)
	if err := root.WriteFile("x.part", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Begin(ctx, root, "x.part"); fault.CodeOf(err) != fault.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestReserveAsksForTwiceAndMore(t *testing.T) {
	p := begin(t, openRoot(t))
	err := p.Reserve(1 << 60)
	if fault.CodeOf(err) != fault.NoSpace || !strings.Contains(err.Error(), fmt.Sprint((2<<60+spare)>>20)) {
		t.Errorf("got %v, want it to say that twice 2^60 bytes and 64 MiB are needed", err)
	}
	for _, size := range []int64{-1, 0, 1 << 20} {
		if err := p.Reserve(size); err != nil {
			t.Errorf("reserve %d: %v", size, err)
		}
	}
	if st, err := p.file.Stat(); err != nil || st.Size() != 0 {
		t.Errorf("reserving made the part %d bytes long (%v): the next transfer would go on from there", st.Size(), err)
	}
}

// TestInspect sees what is in the file, of every size that a page ends in.
func TestInspect(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, writeBack + 1} {
		whole := noise(size)
		p := begin(t, openRoot(t))
		if err := p.Append(bytes.NewReader(whole), noLimit, nil); err != nil {
			t.Fatal(err)
		}
		refusal := errors.New("no")
		err := p.Inspect(func(raw []byte) error {
			if !bytes.Equal(raw, whole) {
				t.Errorf("saw %d bytes, want those %d", len(raw), size)
			}
			return refusal
		})
		if !errors.Is(err, refusal) {
			t.Errorf("got %v, want what look says", err)
		}
	}
}
