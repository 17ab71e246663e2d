package fetcher

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

func newKey(t *testing.T) (minisign.PublicKey, minisign.PrivateKey) {
	t.Helper()
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

func TestLoadKeys(t *testing.T) {
	public, private := newKey(t)
	second, _ := newKey(t)
	dir := t.TempDir()
	file := func(name string, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pub, err := public.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("good.pub", filepath.Join(dir, "link.pub")); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(filepath.Join(dir, "fifo.pub")); err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 42)
	copy(raw, "Ed")
	for _, c := range []struct {
		name string
		keys []string
		want int // 0: refused
	}{
		{"inline", []string{public.String()}, 1},
		{"two", []string{public.String(), second.String()}, 2},
		{"file", []string{file("good.pub", string(pub)+"\n", 0o644)}, 1},
		{"file without comment", []string{file("bare.pub", public.String(), 0o600)}, 1},
		{"link to a file", []string{filepath.Join(dir, "link.pub")}, 1},
		{"two keys in a file", []string{file("both.pub", public.String()+"\n"+second.String()+"\n", 0o644)}, 2},
		{"file and inline", []string{file("two.pub", second.String()+"\n", 0o444), public.String()}, 2},

		{"empty", []string{""}, 0},
		{"one good, one bad", []string{public.String(), "RWx"}, 0},
		{"not base64", []string{"RW!" + public.String()[3:]}, 0},
		{"shorter", []string{public.String()[:52]}, 0},
		{"spare bits", []string{"RW" + strings.Repeat("A", 54)}, 0},
		{"another algorithm", []string{base64.StdEncoding.EncodeToString(append([]byte("ED"), raw[2:]...))}, 0},
		{"all zero", []string{base64.StdEncoding.EncodeToString(raw)}, 0},
		{"secret key", []string{secretKey(t, private)}, 0},
		{"relative file", []string{"good.pub"}, 0},
		{"no such file", []string{filepath.Join(dir, "none.pub")}, 0},
		{"empty file", []string{file("empty.pub", "", 0o644)}, 0},
		{"cut file", []string{file("cut.pub", string(pub[:60]), 0o644)}, 0},
		{"file that all can write", []string{file("open.pub", string(pub), 0o666)}, 0},
		{"file that its group can write", []string{file("group.pub", string(pub), 0o664)}, 0},
		{"large file", []string{file("large.pub", strings.Repeat(public.String()+"\n", 1<<15), 0o644)}, 0},
		{"directory", []string{dir}, 0},
		{"FIFO", []string{filepath.Join(dir, "fifo.pub")}, 0},
		{"device", []string{"/dev/zero"}, 0},
	} {
		keys, err := loadKeys(c.keys)
		if len(keys) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s: %d keys, %v; want %d", c.name, len(keys), err, c.want)
		}
		if err != nil && fault.CodeOf(err) != fault.ConfigTrust {
			t.Errorf("%s: %v, want %s", c.name, err, fault.ConfigTrust)
		}
	}
}

func secretKey(t *testing.T, key minisign.PrivateKey) string {
	t.Helper()
	text, err := key.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")[1]
}

// TestRealMinisign signs with the command that publishers use.
func TestRealMinisign(t *testing.T) {
	command, err := exec.LookPath("minisign")
	if err != nil {
		t.Fatal("minisign is missing: install it")
	}
	s := newShop(t)
	s.release("app_1.bin", []byte("one"))
	keys := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
			t.Fatalf("minisign %q: %v: %s", args, err, out)
		}
	}
	public := filepath.Join(keys, "app.pub")
	run("-G", "-W", "-p", public, "-s", filepath.Join(keys, "app.key"))
	if err := os.Chmod(public, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, kind := range [][]string{nil, {"-l"}, {"-H"}, {"-t", "release of today"}} {
		run(append([]string{"-S", "-W", "-s", filepath.Join(keys, "app.key"), "-m", filepath.Join(s.dir, manifestName)}, kind...)...)
		o := s.options()
		o.Keys = []string{public}
		f := mustNew(t, o)
		listing := mustCheck(t, f)
		if v := mustFetch(t, f, listing.Candidates[0], t.TempDir()); string(content(t, v)) != "one" {
			t.Errorf("%q: another artifact", kind)
		}
		// The number under which minisign knows the key, which it prints without
		// leading zeros: one key in sixteen has some.
		text, err := os.ReadFile(public)
		if err != nil || !strings.Contains(string(text), " "+strings.TrimLeft(listing.Signers[0], "0")+"\n") {
			t.Errorf("key %s is not that of %q", listing.Signers, text)
		}
	}
}
