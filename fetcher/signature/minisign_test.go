package signature

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// minisignSigners are both kinds of minisign signature: over the text, as minisign made
// them until 0.10 and with -l, and over its BLAKE2b hash.
func minisignSigners(private minisign.PrivateKey) map[string]func(raw []byte) []byte {
	return map[string]func(raw []byte) []byte{
		"legacy": func(raw []byte) []byte { return minisign.Sign(private, raw) },
		"hashed": func(raw []byte) []byte {
			r := minisign.NewReader(bytes.NewReader(raw))
			r.Read(make([]byte, len(raw)))
			return r.Sign(private)
		},
	}
}

func TestMinisign(t *testing.T) {
	public, private := newMinisign(t)
	other, stranger := newMinisign(t)
	ring := ringOf(t, 1, other.String(), public.String())
	_, unknown := newMinisign(t)
	for kind, sign := range minisignSigners(private) {
		good := sign(manifest)
		for name, signature := range map[string][]byte{
			"as it is":             good,
			"without last newline": bytes.TrimSuffix(good, []byte("\n")),
			"from Windows":         bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")),
		} {
			if got, err := count(ring, manifest, minisig, signature); err != nil || !slices.Equal(got, []string{minisignID(public.ID())}) {
				t.Errorf("%s, %s: %q, %v", kind, name, got, err)
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
			{"unknown key", manifest, minisign.Sign(unknown, manifest), fault.SigKey},
			{"other manifest", append(bytes.Clone(manifest), '\n'), good, fault.SigBad},
			{"shorter manifest", manifest[:len(manifest)-1], good, fault.SigBad},
			{"empty manifest", nil, good, fault.SigBad},
			{"of the file's name", manifest, sign([]byte(manifestName)), fault.SigBad},
			{"by another, with our key's number", manifest, withKeyID(t, minisign.Sign(stranger, manifest), public.ID()), fault.SigBad},
		} {
			_, err := count(ring, c.manifest, minisig, c.signature)
			if fault.CodeOf(err) != c.code {
				t.Errorf("%s, %s: %v, want %s", kind, c.name, err, c.code)
			}
			if c.name == "unknown key" && !strings.Contains(err.Error(), fmt.Sprintf("%016X", unknown.ID())) {
				t.Errorf("%q does not name key %016X", err, unknown.ID())
			}
		}
	}
	// No key means no trust, not no check.
	if _, err := count(&Ring{}, manifest, minisig, minisign.Sign(private, manifest)); err == nil {
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

// TestMinisignRefusesEveryFlippedBit is exhaustive. What follows "untrusted
// comment: " is not signed by minisign and trusted by nobody; every other bit
// of manifest and signature counts.
func TestMinisignRefusesEveryFlippedBit(t *testing.T) {
	public, private := newMinisign(t)
	ring := ringOf(t, 1, public.String())
	for kind, sign := range minisignSigners(private) {
		signature := sign(manifest)
		for i := range len(manifest) * 8 {
			flipped := bytes.Clone(manifest)
			flipped[i/8] ^= 1 << (i % 8)
			if _, err := count(ring, flipped, minisig, signature); fault.CodeOf(err) != fault.SigBad {
				t.Fatalf("%s: bit %d of the manifest: %v", kind, i, err)
			}
		}
		from, to := len("untrusted comment: "), bytes.IndexByte(signature, '\n')
		for i := range len(signature) * 8 {
			flipped := bytes.Clone(signature)
			flipped[i/8] ^= 1 << (i % 8)
			_, err := count(ring, manifest, minisig, flipped)
			if err == nil && (i/8 < from || i/8 >= to) {
				t.Fatalf("%s: bit %d of the signature (byte %d, %q) does not count", kind, i, i/8, signature[i/8])
			}
		}
	}
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
		if _, err := Parse([]byte(text)); fault.CodeOf(err) != fault.ConfigTrust {
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

func FuzzMinisign(f *testing.F) {
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	ring := ringOf(f, 1, public.String())
	good := minisign.Sign(private, manifest)
	f.Add(good)
	f.Add([]byte("untrusted comment: \n\ntrusted comment: \n\n"))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, signature []byte) {
		_, err := count(ring, manifest, minisig, signature)
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
