package fetcher

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
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

// signers are both kinds of minisign signature: over the text, as minisign made
// them until 0.10 and with -l, and over its BLAKE2b hash.
func signers(private minisign.PrivateKey) map[string]func(raw []byte) []byte {
	return map[string]func(raw []byte) []byte{
		"legacy": func(raw []byte) []byte { return minisign.Sign(private, raw) },
		"hashed": func(raw []byte) []byte {
			r := minisign.NewReader(bytes.NewReader(raw))
			r.Read(make([]byte, len(raw)))
			return r.Sign(private)
		},
	}
}

func TestVerify(t *testing.T) {
	public, private := newKey(t)
	other, stranger := newKey(t)
	manifest := []byte(someDigest + "  app_1.bin\n")
	ring, err := loadKeys([]string{other.String(), public.String()})
	if err != nil {
		t.Fatal(err)
	}
	_, unknown := newKey(t)
	for kind, sign := range signers(private) {
		good := sign(manifest)
		for name, signature := range map[string][]byte{
			"as it is":             good,
			"without last newline": bytes.TrimSuffix(good, []byte("\n")),
			"from Windows":         bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")),
		} {
			if key, err := ring.verify(manifest, signature); err != nil || key.ID() != public.ID() {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
		for _, c := range []struct {
			name      string
			manifest  []byte
			signature []byte
			code      fault.Code
		}{
			{"no signature", manifest, nil, fault.SigMissing},
			{"blank signature", manifest, []byte(" \n\n"), fault.SigMissing},
			{"only comments", manifest, []byte("untrusted comment: x\n\ntrusted comment: y\n\n"), fault.SigSyntax},
			{"cut", manifest, good[:len(good)/2], fault.SigSyntax},
			{"text behind", manifest, append(bytes.Clone(good), "more\n"...), fault.SigSyntax},
			{"signature twice", manifest, append(bytes.Clone(good), good...), fault.SigSyntax},
			{"newline twice", manifest, append(bytes.Clone(good), '\n'), fault.SigSyntax},
			{"web page", manifest, []byte("\n <!DOCTYPE html>"), fault.MetaNotSigned},
			{"unknown key", manifest, minisign.Sign(unknown, manifest), fault.SigKey},
			{"other manifest", append(bytes.Clone(manifest), '\n'), good, fault.SigBad},
			{"shorter manifest", manifest[:len(manifest)-1], good, fault.SigBad},
			{"empty manifest", nil, good, fault.SigBad},
			{"of the file's name", manifest, sign([]byte(manifestName)), fault.SigBad},
			{"by another, with our key's number", manifest, withKeyID(t, minisign.Sign(stranger, manifest), public.ID()), fault.SigBad},
		} {
			_, err := ring.verify(c.manifest, c.signature)
			if fault.CodeOf(err) != c.code {
				t.Errorf("%s, %s: %v, want %s", kind, c.name, err, c.code)
			}
			if c.name == "unknown key" && !strings.Contains(err.Error(), fmt.Sprintf("%016X", unknown.ID())) {
				t.Errorf("%q does not name key %016X", err, unknown.ID())
			}
		}
	}
	// No key means no trust, not no check.
	if _, err := (keyring{}).verify(manifest, minisign.Sign(private, manifest)); err == nil {
		t.Error("no keys, but verified")
	}
}

// withKeyID puts a key's number on another's signature.
func withKeyID(t *testing.T, signature []byte, id uint64) []byte {
	t.Helper()
	var s minisign.Signature
	if err := s.UnmarshalText(signature); err != nil {
		t.Fatal(err)
	}
	s.KeyID = id
	return []byte(s.String())
}

// TestVerifyRefusesEveryFlippedBit is exhaustive. What follows "untrusted
// comment: " is not signed by minisign and trusted by nobody; every other bit
// of manifest and signature counts.
func TestVerifyRefusesEveryFlippedBit(t *testing.T) {
	public, private := newKey(t)
	ring, err := loadKeys([]string{public.String()})
	if err != nil {
		t.Fatal(err)
	}
	manifest := []byte(someDigest + "  app_1.bin\n" + someDigest + " *app_2.bin\n")
	for kind, sign := range signers(private) {
		signature := sign(manifest)
		for i := range len(manifest) * 8 {
			flipped := bytes.Clone(manifest)
			flipped[i/8] ^= 1 << (i % 8)
			if _, err := ring.verify(flipped, signature); fault.CodeOf(err) != fault.SigBad {
				t.Fatalf("%s: bit %d of the manifest: %v", kind, i, err)
			}
		}
		from, to := len("untrusted comment: "), bytes.IndexByte(signature, '\n')
		for i := range len(signature) * 8 {
			flipped := bytes.Clone(signature)
			flipped[i/8] ^= 1 << (i % 8)
			_, err := ring.verify(manifest, flipped)
			if err == nil && (i/8 < from || i/8 >= to) {
				t.Fatalf("%s: bit %d of the signature (byte %d, %q) does not count", kind, i, i/8, signature[i/8])
			}
		}
	}
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
		{"the same twice", []string{public.String(), public.String()}, 1},
		{"file", []string{file("good.pub", string(pub)+"\n", 0o644)}, 1},
		{"file without comment", []string{file("bare.pub", public.String(), 0o600)}, 1},
		{"link to a file", []string{filepath.Join(dir, "link.pub")}, 1},
		{"file and inline", []string{file("two.pub", second.String()+"\n", 0o444), public.String()}, 2},

		{"none", nil, 0},
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
		{"two keys in a file", []string{file("both.pub", public.String()+"\n"+second.String()+"\n", 0o644)}, 0},
		{"file that all can write", []string{file("open.pub", string(pub), 0o666)}, 0},
		{"file that its group can write", []string{file("group.pub", string(pub), 0o664)}, 0},
		{"large file", []string{file("large.pub", strings.Repeat("x", 5000), 0o644)}, 0},
		{"directory", []string{dir}, 0},
		{"FIFO", []string{filepath.Join(dir, "fifo.pub")}, 0},
		{"device", []string{"/dev/zero"}, 0},
	} {
		ring, err := loadKeys(c.keys)
		if len(ring.keys) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s: %d keys, %v; want %d", c.name, len(ring.keys), err, c.want)
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

// TestKeysOfSmallOrder forges a signature for each point of the list, with
// nothing but the public key, to show that the library would accept it; and
// makes sure that we do not take the key.
func TestKeysOfSmallOrder(t *testing.T) {
	for _, point := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		raw := append([]byte("Ed"), make([]byte, 8)...)
		y, err := hex.DecodeString(point)
		if err != nil {
			t.Fatal(err)
		}
		text := base64.StdEncoding.EncodeToString(append(raw, y...))
		if _, err := loadKeys([]string{text}); fault.CodeOf(err) != fault.ConfigTrust {
			t.Errorf("%s was taken as a key: %v", point, err)
		}
		var key minisign.PublicKey
		if err := key.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if !forge(key) {
			t.Errorf("%s: no forged signature verifies, so it need not be refused", point)
		}
	}
}

// forge tries R = identity, S = 0: that verifies when the hash is a multiple of
// the key's order, which one manifest in eight is.
func forge(key minisign.PublicKey) bool {
	var s minisign.Signature
	s.Algorithm, s.KeyID = minisign.EdDSA, key.ID()
	s.Signature[0], s.CommentSignature[0] = 1, 1
	for i := range 5000 {
		var counter [8]byte
		binary.LittleEndian.PutUint64(counter[:], uint64(i))
		message := sha256.Sum256(counter[:])
		s.TrustedComment = fmt.Sprint(i)
		if minisign.Verify(key, message[:], []byte(s.String())) {
			return true
		}
	}
	return false
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
		if err != nil || !strings.Contains(string(text), " "+strings.TrimLeft(listing.KeyID, "0")+"\n") {
			t.Errorf("key %s is not that of %q", listing.KeyID, text)
		}
	}
}

func FuzzSignature(f *testing.F) {
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	ring := keyring{keys: []minisign.PublicKey{public}}
	manifest := []byte(someDigest + "  app_1.bin\n")
	good := minisign.Sign(private, manifest)
	f.Add(good)
	f.Add([]byte("untrusted comment: \n\ntrusted comment: \n\n"))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, signature []byte) {
		_, err := ring.verify(manifest, signature)
		if err == nil && !sameButUntrusted(signature, good) {
			t.Fatalf("verified %q", signature)
		}
	})
}

func sameButUntrusted(a, b []byte) bool {
	rest := func(s []byte) string {
		_, after, _ := strings.Cut(strings.ReplaceAll(string(s), "\r\n", "\n"), "\n")
		return strings.TrimSuffix(after, "\n")
	}
	return rest(a) == rest(b)
}
