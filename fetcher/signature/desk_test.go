package signature

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const (
	manifestName = "SHA256SUMS"
	minisig      = manifestName + ".minisig"
)

// manifest is what all tests sign.
var manifest = []byte(strings.Repeat("5ca1ab1e", 8) + "  app_1.bin\n" + strings.Repeat("0ddba11c", 8) + " *app_2.bin\n")

func newMinisign(t testing.TB) (minisign.PublicKey, minisign.PrivateKey) {
	t.Helper()
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

func parse(t testing.TB, text string) []Key {
	t.Helper()
	keys, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// ringOf trusts the keys of all texts.
func ringOf(t testing.TB, threshold int, texts ...string) *Ring {
	t.Helper()
	var keys []Key
	for _, text := range texts {
		keys = append(keys, parse(t, text)...)
	}
	ring, err := New(keys, nil, threshold)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// count asks who signed raw today, by a single file.
func count(ring *Ring, raw []byte, file string, content []byte) ([]string, error) {
	return countAt(ring, raw, time.Now(), file, content)
}

func countAt(ring *Ring, raw []byte, now time.Time, file string, content []byte) ([]string, error) {
	c := ring.Count(manifestName, raw, now)
	if slices.Contains(ring.Files(manifestName), file) {
		c.Add(file, content)
	}
	signed, err := c.Result()
	return signed.By, err
}

// desk is a directory in which a publisher works with the tools of a
// distribution; HOME is its own.
type desk struct {
	t   testing.TB
	dir string
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	// gpg's socket needs a short name, and t.TempDir() makes long ones.
	dir, err := os.MkdirTemp("", "desk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{t, dir}
	d.write(manifestName, manifest)
	return d
}

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) write(name string, content []byte) {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), content, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) read(name string) []byte {
	d.t.Helper()
	content, err := os.ReadFile(d.path(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return content
}

// run gives what a command writes to its standard output.
func (d *desk) run(command string, args ...string) []byte {
	d.t.Helper()
	out, err := d.try(command, args...)
	if err != nil {
		d.t.Fatalf("%s %q: %v", command, args, err)
	}
	return out
}

func (d *desk) try(command string, args ...string) ([]byte, error) {
	d.t.Helper()
	path, err := exec.LookPath(command)
	if err != nil {
		d.t.Fatalf("%s is missing: install it", command)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = d.dir, append(os.Environ(), "HOME="+d.dir, "GNUPGHOME="+d.dir)
	return cmd.Output()
}

// refused wants an error with a code, a hint and one line.
func refused(t testing.TB, what string, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "; ") {
		t.Errorf("%s: %v, want one line with %s and a hint", what, err, code)
	}
}

// everyBit flips each bit of good in turn, and wants none of the results
// accepted.
func everyBit(t *testing.T, what string, good []byte, accepts func(flipped []byte) error) {
	t.Helper()
	if err := accepts(good); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for i := range len(good) * 8 {
		flipped := slices.Clone(good)
		flipped[i/8] ^= 1 << (i % 8)
		if accepts(flipped) == nil {
			t.Errorf("%s: bit %d (byte %d, %q) does not count", what, i, i/8, good[i/8])
		}
	}
}
