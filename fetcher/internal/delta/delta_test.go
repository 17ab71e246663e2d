package delta

import (
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// pair is two versions of something.
type pair struct {
	name     string
	old, new []byte
}

// pairs are what patches have to be made of, small and large.
func pairs() []pair {
	noise := func(size int) []byte {
		b := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(size), byte(size >> 8)}).Read(b)
		return b
	}
	edited := func(b []byte, every int) []byte {
		b = bytes.Clone(b)
		for i := every; i < len(b); i += every {
			b[i] += 3
		}
		return b
	}
	large := noise(3 << 17)
	moved := append(bytes.Clone(large[1<<17:]), large[:1<<17]...)
	return []pair{
		{"same", large, large},
		{"edited", large, edited(large, 1000)},
		{"longer", large, append(edited(large, 5000), noise(100_000)...)},
		{"shorter", large, edited(large[:1<<18], 700)},
		{"moved", large, moved},
		{"inserted", large, append(append(bytes.Clone(large[:1<<17]), noise(777)...), large[1<<17:]...)},
		{"other", noise(100_000), noise(99_999)},
		{"a byte", []byte("a"), []byte("b")},
		{"zeros", make([]byte, 10_000), make([]byte, 20_000)},
		{"from little", []byte("x"), large},
		{"to little", large, []byte("x")},
	}
}

// make runs the stock tool.
func (f Format) make(t testing.TB, old, new []byte, options ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, data := range map[string][]byte{"old": old, "new": new} {
		if err := os.WriteFile(in(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	line := []string{"bsdiff", in("old"), in("new"), in("patch")}
	if f == Zstd {
		line = append([]string{"zstd", "-q", "--patch-from=" + in("old"), in("new"), "-o", in("patch")}, options...)
	}
	if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", line, err, out)
	}
	patch, err := os.ReadFile(in("patch"))
	if err != nil {
		t.Fatal(err)
	}
	return patch
}

func section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

func fileOf(b []byte) File { return File{Digest: sha256.Sum256(b), Size: int64(len(b))} }

func apply(f Format, old, patch []byte, want File) ([]byte, error) {
	r, err := Open(context.Background(), f, section(old), sha256.Sum256(old), section(patch), want)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// TestStockPatches applies what bsdiff(1) and zstd(1) make.
func TestStockPatches(t *testing.T) {
	for _, p := range pairs() {
		for _, c := range []struct {
			format  Format
			options []string
		}{{BSDiff, nil}, {Zstd, nil}, {Zstd, []string{"-19"}}, {Zstd, []string{"-1", "--long=27"}}, {Zstd, []string{"-9", "--no-check"}}} {
			t.Run(fmt.Sprint(p.name, "/", c.format, c.options), func(t *testing.T) {
				patch := c.format.make(t, p.old, p.new, c.options...)
				got, err := apply(c.format, p.old, patch, fileOf(p.new))
				if err != nil || !bytes.Equal(got, p.new) {
					t.Fatalf("%d bytes, %v; want %d", len(got), err, len(p.new))
				}
			})
		}
	}
}

func TestCopy(t *testing.T) {
	content := []byte("the same")
	r, err := Copy(t.Context(), section(content), fileOf(content))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%q, %v", got, err)
	}
	r, err = Copy(t.Context(), section([]byte("the sane")), fileOf(content))
	if err == nil {
		_, err = io.ReadAll(r)
	}
	if !errors.Is(err, ErrBase) {
		t.Errorf("another file of that size: %v", err)
	}
	if _, err := Copy(t.Context(), section(nil), fileOf(content)); !errors.Is(err, ErrBase) {
		t.Errorf("an empty file: %v", err)
	}
}

// TestDoubt has every wrong input end in an error, and says of a base that it is
// the base.
func TestDoubt(t *testing.T) {
	old := pairs()[1].old
	new := pairs()[1].new
	patches := map[Format][]byte{BSDiff: BSDiff.make(t, old, new), Zstd: Zstd.make(t, old, new)}
	changed := bytes.Clone(old)
	changed[len(changed)/2]++
	for format, patch := range patches {
		for _, c := range []struct {
			name  string
			old   []byte
			of    [32]byte
			patch []byte
			want  File
			base  bool
		}{
			{"base with a flipped bit", changed, sha256.Sum256(old), patch, fileOf(new), true},
			{"base cut short", old[:len(old)-1], sha256.Sum256(old), patch, fileOf(new), true},
			{"base empty", nil, sha256.Sum256(old), patch, fileOf(new), true},
			{"patch for another base", changed, sha256.Sum256(changed), patch, fileOf(new), false},
			{"patch empty", old, sha256.Sum256(old), nil, fileOf(new), false},
			{"patch cut to its header", old, sha256.Sum256(old), patch[:min(32, len(patch))], fileOf(new), false},
			{"patch cut in half", old, sha256.Sum256(old), patch[:len(patch)/2], fileOf(new), false},
			{"no patch", old, sha256.Sum256(old), []byte("<html>not found</html>, said at length"), fileOf(new), false},
			{"other digest promised", old, sha256.Sum256(old), patch, File{sha256.Sum256(old), int64(len(new))}, false},
			{"less promised", old, sha256.Sum256(old), patch, File{sha256.Sum256(new), int64(len(new)) - 1}, false},
			{"more promised", old, sha256.Sum256(old), patch, File{sha256.Sum256(new), int64(len(new)) + 1}, false},
			{"nothing promised", old, sha256.Sum256(old), patch, File{}, false},
			{"negative promise", old, sha256.Sum256(old), patch, File{Size: -1}, false},
		} {
			t.Run(string(format)+"/"+c.name, func(t *testing.T) {
				var got []byte
				r, err := Open(t.Context(), format, section(c.old), c.of, section(c.patch), c.want)
				if err == nil {
					got, err = io.ReadAll(r)
				}
				if err == nil || errors.Is(err, io.EOF) || errors.Is(err, ErrBase) != c.base {
					t.Errorf("%v, want an error, of the base: %v", err, c.base)
				}
				if int64(len(got)) > max(0, c.want.Size) {
					t.Errorf("%d bytes came, %d were promised", len(got), c.want.Size)
				}
			})
		}
	}
	if _, err := apply("courgette", old, patches[Zstd], fileOf(new)); err == nil || !strings.Contains(err.Error(), "courgette") {
		t.Errorf("a format nobody reads: %v", err)
	}
}

// shrinking is a base that loses its end once it was hashed.
type shrinking struct {
	data  []byte
	reads int
}

func (s *shrinking) ReadAt(b []byte, at int64) (int, error) {
	if s.reads--; s.reads < 0 {
		return 0, io.EOF
	}
	return bytes.NewReader(s.data).ReadAt(b, at)
}

func TestBaseThatChangesUnderUs(t *testing.T) {
	p := pairs()[1]
	patch := BSDiff.make(t, p.old, p.new)
	for _, c := range []struct {
		name   string
		harm   func(*shrinking)
		isBase bool
	}{
		{"cut short", func(s *shrinking) { s.reads = 0 }, true},
		{"overwritten", func(s *shrinking) { s.data = make([]byte, len(s.data)) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := &shrinking{data: p.old, reads: 1 << 30}
			r, err := Open(t.Context(), BSDiff, io.NewSectionReader(base, 0, int64(len(p.old))), sha256.Sum256(p.old), section(patch), fileOf(p.new))
			if err != nil {
				t.Fatal(err)
			}
			c.harm(base)
			if _, err := io.ReadAll(r); err == nil || errors.Is(err, ErrBase) != c.isBase {
				t.Errorf("got %v, want an error, of the base: %v", err, c.isBase)
			}
		})
	}
}

func TestCanceled(t *testing.T) {
	p := pairs()[1]
	for _, format := range []Format{BSDiff, Zstd} {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := Open(ctx, format, section(p.old), sha256.Sum256(p.old), section(format.make(t, p.old, p.new)), fileOf(p.new))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want %v", format, err, context.Canceled)
		}
		if _, err := Open(ctx, format, section(p.old), sha256.Sum256(p.old), section(nil), fileOf(p.new)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want %v", format, err, context.Canceled)
		}
	}
}

// bsdiffOf makes a patch of any steps. The blocks are bzip2, which nothing here
// writes, so bzip2(1) does.
func bsdiffOf(t testing.TB, size int64, steps [][3]int64, diff, extra []byte) []byte {
	t.Helper()
	var control []byte
	for _, step := range steps {
		for _, n := range step {
			control = binary.LittleEndian.AppendUint64(control, signed(n))
		}
	}
	c, d, e := bzip2Of(t, control), bzip2Of(t, diff), bzip2Of(t, extra)
	patch := []byte(bsdiffMagic)
	for _, n := range []int64{int64(len(c)), int64(len(d)), size} {
		patch = binary.LittleEndian.AppendUint64(patch, signed(n))
	}
	return append(append(append(patch, c...), d...), e...)
}

func signed(n int64) uint64 {
	if n < 0 {
		return uint64(-n) | 1<<63
	}
	return uint64(n)
}

func bzip2Of(t testing.TB, b []byte) []byte {
	t.Helper()
	cmd := exec.Command("bzip2", "-c")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := io.ReadAll(bzip2.NewReader(bytes.NewReader(out))); err != nil || !bytes.Equal(back, b) {
		t.Fatalf("bzip2: %v", err)
	}
	return out
}

// TestHostileSteps has a signer's worst patches end in an error, soon.
func TestHostileSteps(t *testing.T) {
	old := []byte("0123456789")
	const most = 1<<63 - 1
	none := make([][3]int64, 100_000)
	for _, c := range []struct {
		name  string
		size  int64
		steps [][3]int64
		extra []byte
		says  string
	}{
		{"good", 6, [][3]int64{{3, 1, -3}, {1, 1, 0}}, []byte("xy"), ""},
		{"reads before the base", 2, [][3]int64{{1, 0, -5}, {1, 0, 0}}, nil, "a base of 10"},
		{"reads behind the base", 2, [][3]int64{{1, 0, 9}, {1, 0, 0}}, nil, "a base of 10"},
		{"reads more than the base", 11, [][3]int64{{11, 0, 0}}, nil, "a base of 10"},
		{"moves by all there is", 2, [][3]int64{{1, 0, most}, {1, 0, 0}}, nil, "a base of 10"},
		{"moves back by all there is", 2, [][3]int64{{1, 0, -most}, {1, 0, 0}}, nil, "a base of 10"},
		{"adds less than nothing", 2, [][3]int64{{-1, 0, 0}}, nil, "are left"},
		{"inserts less than nothing", 2, [][3]int64{{0, -1, 0}}, nil, "are left"},
		{"makes too much", 2, [][3]int64{{1, 2, 0}}, []byte("xy"), "are left"},
		{"makes more than there is", 2, [][3]int64{{most, most, 0}}, nil, "are left"},
		{"never gets on", 2, none, nil, "more steps"},
		{"has too few steps", 2, [][3]int64{{1, 0, 0}}, nil, "too early"},
		{"has too little to insert", 2, [][3]int64{{0, 2, 0}}, []byte("x"), "too early"},
	} {
		t.Run(c.name, func(t *testing.T) {
			patch := bsdiffOf(t, c.size, c.steps, make([]byte, 100), c.extra)
			r, err := openBSDiff(t.Context(), section(old), section(patch), c.size)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			switch {
			case c.says == "" && (err != nil || string(got) != "012x0y"):
				t.Errorf("%q, %v", got, err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("%v, want it to say %q", err, c.says)
			}
		})
	}
}

// TestHostileLengths allocates nothing that only a header says.
func TestHostileLengths(t *testing.T) {
	good := bsdiffOf(t, 1, [][3]int64{{1, 0, 0}}, []byte{0}, nil)
	for _, at := range []int{8, 16, 24} {
		for _, n := range []int64{-1, 1 << 40, 1<<63 - 1, -(1<<63 - 1)} {
			patch := bytes.Clone(good)
			binary.LittleEndian.PutUint64(patch[at:], signed(n))
			if _, err := apply(BSDiff, []byte("a"), patch, fileOf([]byte("a"))); err == nil {
				t.Errorf("%d at byte %d was taken", n, at)
			}
		}
	}
	// A zstd frame that announces 2^40 bytes, and a window of as much.
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0}
	if _, err := apply(Zstd, []byte("a"), frame, File{Size: 100}); err == nil {
		t.Error("a frame of 2^40 bytes was taken for 100")
	}
	if _, err := apply(Zstd, []byte("a"), frame, File{Size: 1 << 40}); err == nil || !strings.Contains(err.Error(), "in memory") {
		t.Errorf("a result of 2^40 bytes: %v", err)
	}
}

func FuzzBSDiff(f *testing.F) {
	for _, p := range pairs()[6:9] {
		f.Add(p.old[:min(4096, len(p.old))], BSDiff.make(f, p.old[:min(4096, len(p.old))], p.new[:min(4096, len(p.new))]), int64(min(4096, len(p.new))))
	}
	f.Add([]byte("0123456789"), bsdiffOf(f, 2, [][3]int64{{1, 0, 1<<63 - 1}, {1, 0, 0}}, []byte{0, 0}, nil), int64(2))
	f.Fuzz(func(t *testing.T, old, patch []byte, size int64) {
		r, err := openBSDiff(t.Context(), section(old), section(patch), size)
		if err != nil {
			return
		}
		fuzzRead(t, r, size)
	})
}

func FuzzZstd(f *testing.F) {
	for _, p := range pairs()[6:9] {
		f.Add(p.old[:min(4096, len(p.old))], Zstd.make(f, p.old[:min(4096, len(p.old))], p.new[:min(4096, len(p.new))]), int64(min(4096, len(p.new))))
	}
	f.Fuzz(func(t *testing.T, old, patch []byte, size int64) {
		if size < 0 || size > 1<<20 {
			return
		}
		r, err := openZstd(t.Context(), section(old), sha256.Sum256(old), section(patch), size)
		if err != nil {
			return
		}
		fuzzRead(t, r, size)
	})
}

// fuzzRead reads what may be a mebibyte and must not be more than size.
func fuzzRead(t *testing.T, r io.Reader, size int64) {
	if n, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20)); n > size {
		t.Errorf("%d bytes, %v; want at most %d", n, err, size)
	}
}
