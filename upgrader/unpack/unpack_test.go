package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// pack makes a tar archive. A header without a type is a file with mode 0755
// and its name for content, unless it says otherwise.
func pack(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		text := ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			text = h.Name
			h.Size = int64(len(text))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name string) tar.Header { return tar.Header{Name: name} }
func dir(name string) tar.Header  { return tar.Header{Name: name, Typeflag: tar.TypeDir} }
func symlinkTo(name, to string) tar.Header {
	return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
}

func gz(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	return compressed(t, w, &b, data)
}

func zst(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	return compressed(t, w, &b, data)
}

func xzOf(t testing.TB, data []byte, c xz.WriterConfig) []byte {
	var b bytes.Buffer
	if c.DictCap == 0 {
		c.DictCap = 1 << 16
	}
	w, err := c.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	return compressed(t, w, &b, data)
}

func compressed(t testing.TB, w io.WriteCloser, b *bytes.Buffer, data []byte) []byte {
	t.Helper()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// yard is a directory to unpack into, with something beside it that must stay
// as it is.
type yard struct {
	top, into string
	before    map[string]string
}

func newYard(t testing.TB) *yard {
	t.Helper()
	y := &yard{top: t.TempDir()}
	y.into = filepath.Join(y.top, "tree")
	if err := errors.Join(os.Mkdir(y.into, 0o755), os.WriteFile(y.top+"/precious", []byte("here before"), 0o644), os.Mkdir(y.top+"/dir", 0o755)); err != nil {
		t.Fatal(err)
	}
	y.before = y.listing(t, y.top)
	return y
}

// listing tells what is below a directory: name → mode, and content or target.
func (y *yard) listing(t testing.TB, dir string) map[string]string {
	t.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			text += " " + string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(name)
			if err != nil {
				return err
			}
			text += " " + to
		}
		rel, err := filepath.Rel(dir, name)
		list[rel] = text
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// unpack unpacks data, checks what has to hold whatever it is, and empties
// the directory again.
func (y *yard) unpack(t testing.TB, name string, data []byte, o Options) (map[string]string, error) {
	t.Helper()
	f := artifact(t, data)
	defer f.Close()
	err := Unpack(context.Background(), f, name, y.into, o)
	got := y.listing(t, y.into)
	root, rerr := os.OpenRoot(y.into)
	if rerr != nil {
		t.Fatal(rerr)
	}
	defer root.Close()
	for rel, text := range got {
		switch mode, _, _ := strings.Cut(text, " "); mode {
		case "drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x":
		case "Lrwxrwxrwx":
			if _, err := root.Stat(rel); err != nil {
				t.Errorf("%q: a link that leads out or nowhere: %v", rel, err)
			}
		default:
			t.Errorf("%q: got mode %s", rel, mode)
		}
	}
	if err := removeContents(root); err != nil {
		t.Fatal(err)
	}
	if err != nil && len(got) > 0 {
		t.Errorf("error %v, but left %v", err, slices.Collect(maps.Keys(got)))
	}
	if err != nil && reason.Of(err) == "" {
		t.Errorf("got an error without a code: %v", err)
	}
	if after := y.listing(t, y.top); !maps.Equal(after, y.before) {
		t.Fatalf("outside the directory: got %v, want %v", after, y.before)
	}
	return got, err
}

func artifact(t testing.TB, data []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("artifact", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "artifact")
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFormats(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	program := []byte("#!/bin/sh\n" + strings.Repeat("echo hello\n", 100))
	archive := pack(t, dir("./"), dir("./bin/"), file("./bin/app"), tar.Header{Name: "share/doc/motd", Mode: 0o600}, symlinkTo("run", "bin/app"), symlinkTo("bin/up", "../share"))
	wantTree := map[string]string{
		"bin":            "drwxr-xr-x",
		"bin/app":        "-rwxr-xr-x ./bin/app",
		"share":          "drwxr-xr-x",
		"share/doc":      "drwxr-xr-x",
		"share/doc/motd": "-rw-r--r-- share/doc/motd",
		"run":            "Lrwxrwxrwx bin/app",
		"bin/up":         "Lrwxrwxrwx ../share",
	}
	wantProgram := map[string]string{"bin": "drwxr-xr-x", "bin/app": "-rwxr-xr-x " + string(program)}
	two := func(b []byte) []byte { return append(slices.Clone(b), b...) }
	tests := []struct {
		name string
		data []byte
		want map[string]string
	}{
		{"app_1.4.2", program, wantProgram},
		{"app_1.4.2.gz", gz(t, program), wantProgram},
		{"app_1.4.2.zst", zst(t, program), wantProgram},
		{"app_1.4.2.xz", xzOf(t, program, xz.WriterConfig{}), wantProgram},
		{"app.gz", append(gz(t, program[:50]), gz(t, program[50:])...), wantProgram},
		{"app.zst", append(zst(t, program[:50]), zst(t, program[50:])...), wantProgram},
		{"app.xz", append(append(xzOf(t, program[:50], xz.WriterConfig{}), 0, 0, 0, 0, 0, 0, 0, 0), xzOf(t, program[50:], xz.WriterConfig{CheckSum: xz.SHA256})...), wantProgram},
		{"crc32.xz", xzOf(t, program, xz.WriterConfig{CheckSum: xz.CRC32}), wantProgram},
		{"none.xz", xzOf(t, program, xz.WriterConfig{NoCheckSum: true}), wantProgram},
		{"blocks.xz", xzOf(t, program, xz.WriterConfig{BlockSize: 100}), wantProgram},
		{"padded.xz", append(xzOf(t, program, xz.WriterConfig{}), 0, 0, 0, 0), wantProgram},
		{"app.tar", archive, wantTree},
		{"app.tar.gz", gz(t, archive), wantTree},
		{"app.tgz", gz(t, archive), wantTree},
		{"app.tar.zst", zst(t, archive), wantTree},
		{"app.tar.xz", xzOf(t, archive, xz.WriterConfig{}), wantTree},
		{"padded.tar", append(slices.Clone(archive), make([]byte, 20*512)...), wantTree},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := newYard(t).unpack(t, tt.name, tt.data, Options{Program: "bin/app"})
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(got, tt.want) {
				t.Errorf("got %v\nwant %v", got, tt.want)
			}
		})
	}
	t.Run("two archives", func(t *testing.T) {
		if _, err := newYard(t).unpack(t, "app.tar", two(archive), Options{}); reason.Of(err) != CodeCorrupt {
			t.Errorf("got %v, want %s", err, CodeCorrupt)
		}
	})
}

func TestRefuses(t *testing.T) {
	ok := file("bin/app")
	deep := strings.Repeat("d/", maxDepth) + "f"
	tests := []struct {
		name    string
		headers []tar.Header
		want    reason.Code
	}{
		{"nothing", nil, CodeCorrupt},
		{"directories only", []tar.Header{dir("bin")}, CodeCorrupt},
		{"parent", []tar.Header{file("../x")}, CodePath},
		{"parent inside", []tar.Header{file("a/../x")}, CodePath},
		{"parent twice", []tar.Header{file("a/../../x")}, CodePath},
		{"parent after ./", []tar.Header{file("./../x")}, CodePath},
		{"parent alone", []tar.Header{dir("..")}, CodePath},
		{"absolute", []tar.Header{file("/abs")}, CodePath},
		{"absolute directory", []tar.Header{dir("/")}, CodePath},
		{"absolute after ./", []tar.Header{file(".//abs")}, ""},
		{"backslash", []tar.Header{file(`..\x`)}, CodePath},
		{"drive", []tar.Header{file("C:x")}, CodePath},
		{"file called dot", []tar.Header{file(".")}, CodePath},
		{"file with a slash", []tar.Header{{Name: "a/", Typeflag: tar.TypeSymlink, Linkname: "b"}}, CodePath},
		{"empty component", []tar.Header{file("a//b")}, CodePath},
		{"dot component", []tar.Header{file("a/./b")}, CodePath},
		{"line break", []tar.Header{file("a\nb")}, CodePath},
		{"escape", []tar.Header{file("a\x1b[2Jb")}, CodePath},
		{"not UTF-8", []tar.Header{{Name: "a\xffb", Format: tar.FormatGNU}}, CodePath},
		{"long component", []tar.Header{file(strings.Repeat("n", 256))}, CodePath},
		{"long name", []tar.Header{file(strings.Repeat(strings.Repeat("n", 100)+"/", 11) + "x")}, CodePath},
		{"deep", []tar.Header{file(deep)}, CodePath},
		{"deep enough", []tar.Header{file(deep[2:])}, ""},
		{"very deep", []tar.Header{file(strings.Repeat("d/", 10_000) + "f")}, CodePath},

		{"link out, then through it", []tar.Header{symlinkTo("d", "/etc"), file("d/x")}, CodePath},
		{"link in, then through it", []tar.Header{dir("bin"), symlinkTo("d", "bin"), file("d/x")}, CodePath},
		{"file, then below it", []tar.Header{file("d"), file("d/x")}, CodePath},
		{"absolute link", []tar.Header{ok, symlinkTo("l", "/etc/passwd")}, CodePath},
		{"link to proc", []tar.Header{ok, symlinkTo("l", "/proc/self/fd/0")}, CodePath},
		{"link out", []tar.Header{ok, symlinkTo("l", "../precious")}, CodePath},
		{"link out and back in", []tar.Header{ok, symlinkTo("l", "../tree/bin/app")}, CodePath},
		{"chain out", []tar.Header{ok, dir("a/b"), symlinkTo("l", "a/b"), symlinkTo("m", "l/../..")}, CodePath}, // in truth the tree itself, but who can see that
		{"chain out by one", []tar.Header{ok, dir("a/b"), symlinkTo("up", "a/b/.."), symlinkTo("a/b/out", "../../up/../../precious")}, CodePath},
		{"looks inside, is not", []tar.Header{ok, dir("a/b"), symlinkTo("a/b/top", "../.."), symlinkTo("m", "a/b/top/../precious")}, CodePath},
		{"dangling", []tar.Header{ok, symlinkTo("l", "none")}, CodePath},
		{"loop", []tar.Header{ok, symlinkTo("l", "m"), symlinkTo("m", "l")}, CodePath},
		{"itself", []tar.Header{ok, symlinkTo("l", "l")}, CodePath},
		{"empty link", []tar.Header{ok, {Name: "l", Typeflag: tar.TypeSymlink}}, CodePath},
		{"line break in a link", []tar.Header{ok, file("a b"), symlinkTo("l", "a\nb")}, CodePath},

		{"hard link inside", []tar.Header{ok, {Name: "h", Linkname: "bin/app", Typeflag: tar.TypeLink}}, CodeEntryType},
		{"hard link outside", []tar.Header{ok, {Name: "h", Linkname: "../precious", Typeflag: tar.TypeLink}}, CodeEntryType},
		{"character device", []tar.Header{ok, {Name: "n", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}}, CodeEntryType},
		{"block device", []tar.Header{ok, {Name: "n", Typeflag: tar.TypeBlock}}, CodeEntryType},
		{"FIFO", []tar.Header{ok, {Name: "n", Typeflag: tar.TypeFifo}}, CodeEntryType},
		{"contiguous file", []tar.Header{ok, {Name: "n", Typeflag: tar.TypeCont}}, CodeEntryType},
		{"setuid", []tar.Header{{Name: "s", Mode: 0o4755}}, CodeEntryType},
		{"setgid", []tar.Header{{Name: "s", Mode: 0o2755}}, CodeEntryType},
		{"sticky", []tar.Header{{Name: "s", Mode: 0o1755}}, CodeEntryType},
		{"setgid directory", []tar.Header{{Name: "d", Mode: 0o2755, Typeflag: tar.TypeDir}, file("d/x")}, CodeEntryType},
		{"capabilities", []tar.Header{{Name: "c", PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "x"}}}, CodeEntryType},
		{"another attribute", []tar.Header{{Name: "c", PAXRecords: map[string]string{"SCHILY.xattr.security.selinux": "x"}}}, ""},
		{"owner and time", []tar.Header{{Name: "c", Uid: 1 << 32, Gid: -1, ModTime: time.Unix(-1, 0), Format: tar.FormatPAX}}, ""},

		{"same file twice", []tar.Header{ok, ok}, CodeCorrupt},
		{"same directory twice", []tar.Header{ok, dir("d"), dir("d/")}, CodeCorrupt},
		{"tree itself twice", []tar.Header{ok, dir("."), dir("./")}, CodeCorrupt},
		{"file, then directory", []tar.Header{file("d"), dir("d")}, CodeCorrupt},
		{"directory, then file", []tar.Header{dir("d"), file("d")}, CodeCorrupt},
		{"directory after what is in it", []tar.Header{file("d/f"), dir("d")}, ""},
		{"case only", []tar.Header{file("README"), file("readme")}, ""},
		{"git's comment", []tar.Header{{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "c0ffee"}, Mode: -1}, ok}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.headers {
				if tt.headers[i].Typeflag == tar.TypeXGlobalHeader {
					tt.headers[i] = tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: tt.headers[i].PAXRecords}
				}
			}
			_, err := newYard(t).unpack(t, "app.tar", packRaw(t, tt.headers), Options{})
			if reason.Of(err) != tt.want {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("got more than a line: %v", err)
			}
			if err != nil && len(err.Error()) > 600 {
				t.Errorf("got %d bytes of text", len(err.Error()))
			}
		})
	}
}

// packRaw is pack for headers that Go's writer takes for good, and those with
// owners it would refuse.
func packRaw(t *testing.T, headers []tar.Header) []byte {
	t.Helper()
	for i := range headers {
		if headers[i].Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if headers[i].Gid < 0 {
			headers[i].Gid = 0
		}
	}
	var b bytes.Buffer
	for _, h := range headers {
		one := []byte(nil)
		if h.Typeflag == tar.TypeXGlobalHeader {
			var w bytes.Buffer
			tw := tar.NewWriter(&w)
			if err := tw.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if err := tw.Flush(); err != nil {
				t.Fatal(err)
			}
			one = w.Bytes()
		} else {
			one = pack(t, h)
			one = one[:len(one)-1024]
		}
		b.Write(one)
	}
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

// Sparse files in both of their forms, which Go reads but does not write.
func TestRefusesSparse(t *testing.T) {
	gnu := pack(t, file("sparse"))
	gnu[156] = 'S'
	fixChecksum(gnu)
	if _, err := newYard(t).unpack(t, "a.tar", gnu, Options{}); err == nil {
		t.Error("took an old GNU sparse file")
	}
	pax := pack(t, tar.Header{Name: "sparse", PAXRecords: map[string]string{"VENDOR.keyword": "x"}})
	pax = bytes.Replace(pax, []byte("20 VENDOR.keyword=x\n"), []byte("20 GNU.sparse.name=x"), 1)
	if _, err := newYard(t).unpack(t, "a.tar", pax, Options{}); err == nil {
		t.Error("took a PAX sparse file")
	}
}

// A name does not end where C has it end.
func TestRefusesNUL(t *testing.T) {
	long := strings.Repeat("n", 120) // more than the header of ustar holds
	for _, name := range []string{"QQ" + long, long + "QQ" + long, long + "QQ"} {
		archive := pack(t, file(name))
		if !bytes.Contains(archive, []byte("path="+name)) {
			t.Fatal("the name is not where it was looked for")
		}
		archive = bytes.ReplaceAll(archive, []byte("QQ"), []byte("\x00Q"))
		if _, err := newYard(t).unpack(t, "a.tar", archive, Options{}); err == nil {
			t.Errorf("took a name with a NUL in %q", name)
		}
	}
}

func fixChecksum(header []byte) {
	copy(header[148:156], "        ")
	sum := 0
	for _, b := range header[:512] {
		sum += int(b)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		name string
		want reason.Code
	}{
		{"app.zip", CodeFormat}, {"app.tar.bz2", CodeFormat}, {"app.deb", CodeFormat}, {"SHA256SUMS.minisig", CodeFormat},
		{"app.gz", CodeCorrupt}, {"app.zst", CodeCorrupt}, {"app.xz", CodeCorrupt}, {"app.tar", CodeCorrupt}, {"app.tar.gz", CodeCorrupt},
		{"app", ""}, {"app-1.2.3", ""}, {"tar", ""},
	} {
		if _, err := newYard(t).unpack(t, tt.name, []byte(strings.Repeat("not what its name says\n", 100)), Options{Program: "app"}); reason.Of(err) != tt.want {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	for _, program := range []string{"", ".", "..", "/bin/app", "../app", "bin/", "a//b", "a\nb"} {
		if _, err := newYard(t).unpack(t, "app", []byte("x"), Options{Program: program}); reason.Of(err) != CodePath {
			t.Errorf("Program=%q: got %v, want %s", program, err, CodePath)
		}
	}
}

// Cut anywhere, an artifact is noticed; with any bit flipped it is noticed or
// makes no difference, as far as its format has checksums.
func TestDamage(t *testing.T) {
	tree := pack(t, file("bin/app"), dir("share"), tar.Header{Name: "share/motd", Mode: 0o644})
	text := []byte(strings.Repeat("#!/bin/sh\n", 3))
	tests := []struct {
		name   string
		data   []byte
		summed bool
	}{
		{"app.tar", tree, false},
		{"app.tar.gz", gz(t, tree), true},
		{"app.tar.zst", zst(t, tree), true},
		{"app.tar.xz", xzOf(t, tree, xz.WriterConfig{CheckSum: xz.CRC64}), true},
		{"app.gz", gz(t, text), true},
		{"app.zst", zst(t, text), true},
		{"app.xz", xzOf(t, text, xz.WriterConfig{CheckSum: xz.SHA256}), true},
		{"blocks.xz", xzOf(t, text, xz.WriterConfig{BlockSize: 9}), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			y := newYard(t)
			o := Options{Program: "bin/app"}
			want, err := y.unpack(t, tt.name, tt.data, o)
			if err != nil {
				t.Fatal(err)
			}
			step := 1
			if !tt.summed {
				step = 64
			}
			for n := 0; n < len(tt.data); n += step {
				if got, err := y.unpack(t, tt.name, tt.data[:n], o); err == nil {
					t.Errorf("cut to %d of %d bytes: got %v", n, len(tt.data), got)
				}
			}
			for i := 0; i < len(tt.data); i += step {
				bad := slices.Clone(tt.data)
				bad[i] ^= 1 << (i % 8)
				if got, err := y.unpack(t, tt.name, bad, o); tt.summed && err == nil && !maps.Equal(got, want) {
					t.Errorf("bit flipped in byte %d: got %v", i, got)
				}
			}
			for _, tail := range []string{"x", "garbage", strings.Repeat("\x01", 1024)} {
				if _, err := y.unpack(t, tt.name, append(slices.Clone(tt.data), tail...), o); err == nil {
					t.Errorf("took %q after the end", tail)
				}
			}
		})
	}
}

func TestLimits(t *testing.T) {
	zeros := make([]byte, 20<<20)
	many := make([]tar.Header, 0, 101)
	for i := range 101 {
		many = append(many, file(fmt.Sprint("f", i)))
	}
	dirs := []tar.Header{}
	for i := range 50 {
		dirs = append(dirs, file(fmt.Sprintf("d%d/e/f", i)))
	}
	bigWindow := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0x00, 0x00, 'x'} // 2 GiB, one raw block
	tests := []struct {
		name string
		file string
		data []byte
		o    Options
		want reason.Code
	}{
		{"bytes", "app", zeros, Options{MaxBytes: 20<<20 - 1}, CodeLimit},
		{"bytes, just so", "app", zeros, Options{MaxBytes: 20 << 20}, ""},
		{"ratio gz", "app.gz", gz(t, zeros), Options{}, CodeLimit},
		{"ratio zst", "app.zst", zst(t, zeros), Options{}, CodeLimit},
		{"ratio xz", "app.xz", xzOf(t, zeros, xz.WriterConfig{}), Options{}, CodeLimit},
		{"ratio granted", "app.zst", zst(t, zeros), Options{MaxRatio: 1 << 20}, ""},
		{"ratio of an archive", "app.tar.zst", zst(t, packZeros(t, zeros)), Options{}, CodeLimit},
		{"files", "app.tar", pack(t, many...), Options{MaxFiles: 100}, CodeLimit},
		{"files, just so", "app.tar", pack(t, many...), Options{MaxFiles: 101}, ""},
		{"directories nobody named", "app.tar", pack(t, dirs...), Options{MaxFiles: 149}, CodeLimit},
		{"directories, just so", "app.tar", pack(t, dirs...), Options{MaxFiles: 150}, ""},
		{"zst window", "app.zst", bigWindow, Options{}, CodeLimit},
		{"xz dictionary", "app.xz", withDict(t, xzOf(t, []byte("x"), xz.WriterConfig{}), 0, 40), Options{}, CodeLimit},
		{"xz dictionary of a later block", "app.xz", withDict(t, xzOf(t, []byte("xyz"), xz.WriterConfig{BlockSize: 1}), 2, 40), Options{}, CodeLimit},
		{"xz dictionary of xz -9", "app.xz", withDict(t, xzOf(t, []byte("x"), xz.WriterConfig{}), 0, 28), Options{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Program = "app"
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := newYard(t).unpack(t, tt.file, tt.data, tt.o)
			runtime.ReadMemStats(&after)
			if reason.Of(err) != tt.want {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 2*maxWindow {
				t.Errorf("took %d bytes of memory", got)
			}
		})
	}
}

// packZeros is an archive of one large file.
func packZeros(t *testing.T, zeros []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(zeros))}); err != nil {
		t.Fatal(err)
	}
	return compressed(t, w, &b, zeros)
}

// withDict asks for another dictionary in the n-th block header. Bits is the
// code of its size (40: 4 GiB - 1; 28: 64 MiB).
func withDict(t *testing.T, data []byte, n int, bits byte) []byte {
	t.Helper()
	for at := 12; at+12 <= len(data); at += 4 {
		size := (int(data[at]) + 1) * 4
		if data[at] == 0 || at+size > len(data) {
			continue
		}
		head := data[at : at+size]
		if crc32.ChecksumIEEE(head[:size-4]) != binary.LittleEndian.Uint32(head[size-4:]) {
			continue
		}
		if n--; n >= 0 {
			continue
		}
		i := bytes.Index(head, []byte{0x21, 0x01})
		head[i+2] = bits
		binary.LittleEndian.PutUint32(head[size-4:], crc32.ChecksumIEEE(head[:size-4]))
		return data
	}
	t.Fatal("no such block")
	return nil
}

// endAfter is a context that ends at the n-th look.
type endAfter struct {
	context.Context
	n int
}

func (c *endAfter) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

func TestCancel(t *testing.T) {
	headers := []tar.Header{}
	for i := range 20 {
		headers = append(headers, file(fmt.Sprint("f", i)))
	}
	for name, data := range map[string][]byte{"app": make([]byte, 2<<20), "app.tar.zst": zst(t, pack(t, headers...)), "app.tar.xz": xzOf(t, pack(t, headers...), xz.WriterConfig{})} {
		for n := range 5 {
			y := newYard(t)
			f := artifact(t, data)
			err := Unpack(&endAfter{context.Background(), n}, f, name, y.into, Options{Program: "app"})
			f.Close()
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s, look %d: got %v, want %v", name, n, err, context.Canceled)
			}
			if left := y.listing(t, y.into); len(left) > 0 {
				t.Errorf("%s, look %d: left %v", name, n, left)
			}
		}
	}
}

// What is wrong with the disk is not blamed on the publisher.
func TestDiskErrors(t *testing.T) {
	y := newYard(t)
	f := artifact(t, gz(t, []byte("x")))
	f.Close()
	if err := Unpack(context.Background(), f, "app.gz", y.into, Options{Program: "app"}); !errors.Is(err, os.ErrClosed) || reason.Of(err) == CodeCorrupt {
		t.Errorf("closed artifact: got %v, want %v", err, os.ErrClosed)
	}
	f = artifact(t, []byte("x"))
	defer f.Close()
	if err := Unpack(context.Background(), f, "app", y.into+"/none", Options{Program: "app"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: got %v, want %v", err, fs.ErrNotExist)
	}
	if err := os.WriteFile(y.into+"/left", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Unpack(context.Background(), f, "app", y.into, Options{Program: "app"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("not empty: got %v, want %v", err, fs.ErrExist)
	}
	if got := y.listing(t, y.into); len(got) != 1 {
		t.Errorf("got %v, want what was there left alone", got)
	}
}

func TestNoLeaks(t *testing.T) {
	fds := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	y := newYard(t)
	good := pack(t, file("bin/app"))
	use := func() {
		for _, data := range [][]byte{zst(t, good), zst(t, good)[:40], xzOf(t, good, xz.WriterConfig{}), gz(t, good), []byte("x")} {
			for _, name := range []string{"a.tar.zst", "a.tar.xz", "a.tar.gz", "a"} {
				_, _ = y.unpack(t, name, data, Options{Program: "app"})
			}
		}
	}
	use()
	before, goroutines := fds(), runtime.NumGoroutine()
	for range 5 {
		use()
	}
	if got := fds(); got != before {
		t.Errorf("got %d open files, want %d", got, before)
	}
	for range 100 { // a decoder's goroutines end on their own time
		if runtime.NumGoroutine() <= goroutines {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("got %d goroutines, want %d", runtime.NumGoroutine(), goroutines)
}

func FuzzUnpack(f *testing.F) {
	good := pack(f, dir("bin"), file("bin/app"), symlinkTo("run", "bin/app"))
	for kind, data := range [][]byte{good, gz(f, good), zst(f, good), xzOf(f, good, xz.WriterConfig{}), []byte("#!/bin/sh\n"), gz(f, []byte("x")), zst(f, []byte("x")), xzOf(f, []byte("x"), xz.WriterConfig{})} {
		f.Add(byte(kind), data)
	}
	for _, h := range []tar.Header{file("../x"), file("/x"), symlinkTo("l", "../x"), symlinkTo("l", "/"), {Name: "h", Linkname: "/etc/passwd", Typeflag: tar.TypeLink}} {
		f.Add(byte(0), pack(f, file("a"), h, file(h.Name+"/y")))
	}
	kinds := []string{"a.tar", "a.tar.gz", "a.tar.zst", "a.tar.xz", "a", "a.gz", "a.zst", "a.xz"}
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		y := newYard(t)
		_, _ = y.unpack(t, kinds[int(kind)%len(kinds)], data, Options{Program: "bin/app", MaxBytes: 1 << 20, MaxFiles: 100})
	})
}

// What we read as xz, the library reads the same way.
func FuzzXZ(f *testing.F) {
	text := []byte(strings.Repeat("some text ", 20))
	f.Add(xzOf(f, text, xz.WriterConfig{}))
	f.Add(xzOf(f, text, xz.WriterConfig{BlockSize: 30, CheckSum: xz.SHA256}))
	f.Add(append(xzOf(f, text, xz.WriterConfig{NoCheckSum: true}), xzOf(f, nil, xz.WriterConfig{CheckSum: xz.CRC32})...))
	f.Fuzz(func(t *testing.T, data []byte) {
		const most = 1 << 20
		r, err := unxz(bytes.NewReader(data))
		if err != nil {
			return
		}
		got, err := io.ReadAll(io.LimitReader(r, most))
		if err != nil || len(got) == most {
			return
		}
		theirs, err := xz.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("we took what the library does not: %v", err)
		}
		want, err := io.ReadAll(io.LimitReader(theirs, most))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %q, want %q, %v", got, want, err)
		}
	})
}

// 100 MiB that compress about as programs do, 3 to 1.
func benchmarkProgram() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 100<<20)
	for i := 0; i < len(data); i += 64 {
		if rng.IntN(3) == 0 {
			for k := range 8 {
				binary.LittleEndian.PutUint64(data[i+8*k:], rng.Uint64())
			}
		} else if i > 1<<16 {
			copy(data[i:i+64], data[i-64*(1+rng.IntN(1000)):])
		}
	}
	return data
}

func BenchmarkUnpack(b *testing.B) {
	program := benchmarkProgram()
	for _, bm := range []struct {
		name string
		data []byte
	}{{"app", program}, {"app.zst", zst(b, program)}, {"app.gz", gz(b, program)}} {
		b.Run(bm.name, func(b *testing.B) {
			into := filepath.Join(b.TempDir(), "tree")
			f := artifact(b, bm.data)
			defer f.Close()
			b.SetBytes(int64(len(program)))
			b.ReportAllocs()
			for b.Loop() {
				if err := errors.Join(os.RemoveAll(into), os.Mkdir(into, 0o755), Unpack(context.Background(), f, bm.name, into, Options{Program: "app"})); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
