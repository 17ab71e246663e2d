package signature

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const (
	gpgFile = manifestName + ".gpg"
	ascFile = manifestName + ".asc"
)

// gpg runs it without questions. Its agent ends with the test.
func (d *desk) gpg(args ...string) []byte {
	d.t.Helper()
	return d.run("gpg", append(gpgBatch, args...)...)
}

var gpgBatch = []string{"--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always"}

func newGPG(t testing.TB) *desk {
	d := newDesk(t)
	t.Cleanup(func() { d.run("gpgconf", "--kill", "all") })
	return d
}

// key makes a key that signs and gives its fingerprint.
func (d *desk) key(name, algorithm, expire string, more ...string) string {
	d.t.Helper()
	usage := "cert,sign"
	d.gpg(append(slices.Clone(more), "--quick-generate-key", name, algorithm, usage, expire)...)
	return d.fingerprint(name)
}

func (d *desk) fingerprint(name string) string {
	d.t.Helper()
	for line := range strings.Lines(string(d.gpg("--list-keys", "--with-colons", name))) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			return f[9]
		}
	}
	d.t.Fatalf("no key %s", name)
	return ""
}

func (d *desk) export(names ...string) string {
	d.t.Helper()
	return string(d.gpg(append([]string{"--export"}, names...)...))
}

// sign gives a detached signature of the manifest.
func (d *desk) sign(args ...string) []byte {
	d.t.Helper()
	os.Remove(d.path("out"))
	d.gpg(append(args, "--output", "out", "--detach-sign", manifestName)...)
	return d.read("out")
}

func TestRealGPG(t *testing.T) {
	d := newGPG(t)
	for _, algorithm := range []string{"ed25519", "rsa2048", "nistp256", "nistp521", "brainpoolP256r1"} {
		want := []string{d.key(algorithm, algorithm, "never")}
		armoured := string(d.gpg("--armor", "--export", algorithm))
		for _, text := range []string{d.export(algorithm), armoured, "Our key:\n\n" + armoured + "\nThat was it.\n"} {
			ring := ringOf(t, 1, text)
			for _, c := range []struct {
				file string
				args []string
			}{
				{gpgFile, nil},
				{gpgFile, []string{"--digest-algo", "SHA512"}},
				{ascFile, []string{"--armor"}},
				{ascFile, []string{"--armor", "--comment", "by hand"}},
				{gpgFile, []string{"--armor"}}, // the name does not matter
				{gpgFile, []string{"--default-sig-expire", "1d"}},
			} {
				signature := d.sign(append(c.args, "--local-user", algorithm)...)
				if got, err := count(ring, manifest, c.file, signature); err != nil || !slices.Equal(got, want) {
					t.Errorf("%s %q: %q, %v", algorithm, c.args, got, err)
				}
				if _, err := count(ring, manifest, c.file, bytes.ReplaceAll(signature, []byte("\n"), []byte("\r\n"))); c.args != nil && c.args[0] == "--armor" && err != nil {
					t.Errorf("%s %q from Windows: %v", algorithm, c.args, err)
				}
				_, err := count(ring, append(slices.Clone(manifest), '\n'), c.file, signature)
				refused(t, algorithm+" over other bytes", err, fault.SigBad)
			}
		}
	}
}

func TestOpenPGPRefusesEveryFlippedBit(t *testing.T) {
	d := newGPG(t)
	for _, algorithm := range []string{"ed25519", "rsa2048", "nistp256"} {
		d.key(algorithm, algorithm, "never")
		ring := ringOf(t, 1, d.export(algorithm))
		binary := d.sign("--local-user", algorithm)
		everyBit(t, algorithm+" binary", binary, func(flipped []byte) error {
			_, err := count(ring, manifest, gpgFile, flipped)
			return err
		})
		everyBit(t, algorithm+" armoured", bytes.TrimSuffix(d.sign("--armor", "--local-user", algorithm), []byte("\n")), func(flipped []byte) error {
			_, err := count(ring, manifest, ascFile, flipped)
			return err
		})
		everyBit(t, algorithm+" manifest", manifest, func(flipped []byte) error {
			_, err := count(ring, flipped, gpgFile, binary)
			return err
		})
	}
}

// TestOpenPGPSigners has several sign in one file, in each way that gpg has, and a
// subkey sign for its key.
func TestOpenPGPSigners(t *testing.T) {
	d := newGPG(t)
	alice, bob, carol := d.key("alice", "ed25519", "never"), d.key("bob", "rsa2048", "never"), d.key("carol", "ed25519", "never")
	d.gpg("--quick-add-key", carol, "ed25519", "sign", "never")
	d.gpg("--quick-add-key", carol, "cv25519", "encr", "never")
	ring := ringOf(t, 2, d.export()) // one keyring of all
	a, b, c := d.sign("-u", "alice"), d.sign("-u", "bob"), d.sign("-u", "carol")
	for name, got := range map[string]struct {
		file    string
		content []byte
		want    []string
	}{
		"at once":           {gpgFile, d.sign("-u", "alice", "-u", "bob"), []string{alice, bob}},
		"at once, in text":  {ascFile, d.sign("--armor", "-u", "alice", "-u", "bob"), []string{alice, bob}},
		"cat":               {gpgFile, slices.Concat(a, b), []string{alice, bob}},
		"cat, in text":      {ascFile, slices.Concat(d.sign("--armor", "-u", "alice"), d.sign("--armor", "-u", "bob")), []string{alice, bob}},
		"by a subkey":       {gpgFile, slices.Concat(c, a), []string{carol, alice}},
		"one of them twice": {gpgFile, slices.Concat(a, a, b), []string{alice, bob}},
	} {
		signers, err := count(ring, manifest, got.file, got.content)
		slices.Sort(signers)
		slices.Sort(got.want)
		if err != nil || !slices.Equal(signers, got.want) {
			t.Errorf("%s: %q, %v; want %q", name, signers, err, got.want)
		}
	}
	primary := d.sign("-u", carol+"!") // though it has a subkey for that
	for name, content := range map[string][]byte{
		"one":                        a,
		"one, twice":                 slices.Concat(a, a),
		"one, by two of its subkeys": slices.Concat(c, primary),
		"one, anew":                  slices.Concat(a, d.sign("-u", "alice", "--digest-algo", "SHA384")),
	} {
		_, err := count(ring, manifest, gpgFile, content)
		refused(t, name, err, fault.SigThreshold)
	}
	_, err := count(ring, manifest, gpgFile, bytes.Repeat(a, signaturesMax+1))
	refused(t, "very many", err, fault.SigSyntax)
}

// TestOpenPGPTime moves the clock of gpg, and of whoever verifies.
func TestOpenPGPTime(t *testing.T) {
	d := newGPG(t)
	at := func(day string) string { return "--faked-system-time=" + day + "T000000" }
	clock := func(day string) time.Time {
		tm, err := time.Parse("20060102", day)
		if err != nil {
			t.Fatal(err)
		}
		return tm.Add(time.Hour)
	}
	d.key("short", "ed25519", "2020-02-01", at("20200101"))
	sub := d.key("sub", "ed25519", "2030-01-01", at("20200101"))
	d.gpg(at("20200101"), "--quick-add-key", sub, "ed25519", "sign", "2020-02-01")
	short, withSub := ringOf(t, 1, d.export("short")), ringOf(t, 1, d.export("sub"))
	for _, c := range []struct {
		name      string
		ring      *Ring
		signature []byte
		today     string
		code      fault.Code // "": accepted
	}{
		{"key in its time", short, d.sign(at("20200110"), "-u", "short"), "20200115", ""},
		{"key that has expired since", short, d.sign(at("20200110"), "-u", "short"), "20200301", fault.SigExpired},
		{"dated back to before that", short, d.sign(at("20200102"), "-u", "short"), "20260101", fault.SigExpired},
		{"before the key was made", short, d.sign(at("20200110"), "-u", "short"), "20190101", fault.SigExpired},
		{"from the future", short, d.sign(at("20200120"), "-u", "short"), "20200115", fault.SigExpired},
		{"signature that has expired", short, d.sign(at("20200105"), "--default-sig-expire", "2d", "-u", "short"), "20200110", fault.SigExpired},
		{"subkey in its time", withSub, d.sign(at("20200110"), "-u", "sub"), "20200115", ""},
		{"subkey that has expired", withSub, d.sign(at("20200110"), "-u", "sub"), "20200301", fault.SigExpired},
	} {
		_, err := countAt(c.ring, manifest, clock(c.today), gpgFile, c.signature)
		if c.code == "" && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.code != "" {
			refused(t, c.name, err, c.code)
		}
	}
	// Extended, and exported anew.
	before := d.sign(at("20200110"), "-u", "short")
	d.gpg(at("20200115"), "--quick-set-expire", d.fingerprint("short"), "2021-01-01")
	if _, err := countAt(ringOf(t, 1, d.export("short")), manifest, clock("20200301"), gpgFile, before); err != nil {
		t.Errorf("extended: %v", err)
	}
}

// TestOpenPGPRevoked lets owners take keys back: because somebody has them, because
// they are retired, and a subkey alone.
func TestOpenPGPRevoked(t *testing.T) {
	d := newGPG(t)
	d.key("lost", "ed25519", "never")
	d.key("retired", "ed25519", "never")
	d.key("other", "ed25519", "never")
	sub := d.key("sub", "ed25519", "never")
	d.gpg("--quick-add-key", sub, "ed25519", "sign", "never")
	signatures, unrevoked := map[string][]byte{}, map[string]string{}
	for _, name := range []string{"lost", "retired", "sub"} {
		signatures[name], unrevoked[name] = d.sign("-u", name), d.export(name)
	}
	edit := func(name, script string) {
		t.Helper()
		d.write("script", []byte(script))
		d.run("sh", "-c", "gpg --pinentry-mode loopback --passphrase '' --quiet --no-tty --command-fd 0 --edit-key "+name+" < script 2>edit.log")
	}
	revocation := d.read("openpgp-revocs.d/" + d.fingerprint("lost") + ".rev")
	d.write("lost.rev", bytes.ReplaceAll(revocation, []byte(":-----BEGIN"), []byte("-----BEGIN")))
	d.gpg("--import", "lost.rev")
	edit("retired", "revkey\ny\n3\n\ny\nsave\n")
	edit("sub", "key 1\nrevkey\ny\n0\n\ny\nsave\n")
	for _, name := range []string{"lost", "retired"} {
		if _, err := count(ringOf(t, 1, unrevoked[name]), manifest, gpgFile, signatures[name]); err != nil {
			t.Errorf("%s, before: %v", name, err)
		}
		_, err := count(ringOf(t, 1, d.export(name, "other")), manifest, gpgFile, signatures[name])
		refused(t, name, err, fault.SigRevoked)
		if _, err := New(parse(t, d.export(name)), nil, 1); fault.CodeOf(err) != fault.ConfigTrust {
			t.Errorf("%s alone is trusted: %v", name, err)
		}
		if _, err := New(append(parse(t, unrevoked[name]), parse(t, d.export(name))...), nil, 1); fault.CodeOf(err) != fault.ConfigTrust {
			t.Errorf("%s is trusted in its older state: %v", name, err)
		}
	}
	_, err := count(ringOf(t, 1, d.export("sub")), manifest, gpgFile, signatures["sub"])
	refused(t, "subkey", err, fault.SigRevoked)
	if _, err := count(ringOf(t, 1, d.export("sub")), manifest, gpgFile, d.sign("-u", sub+"!")); err != nil {
		t.Errorf("the key of a revoked subkey: %v", err)
	}
}

func TestOpenPGPRefuses(t *testing.T) {
	d := newGPG(t)
	d.key("alice", "ed25519", "never")
	d.key("bob", "ed25519", "never")
	ring := ringOf(t, 1, d.export("alice"))
	good := d.sign("-u", "alice")
	d.gpg("-u", "alice", "--output", "whole", "--sign", manifestName)
	d.gpg("-u", "alice", "--output", "clear", "--clearsign", manifestName)
	for _, c := range []struct {
		name    string
		content []byte
		code    fault.Code
	}{
		{"nothing", nil, fault.SigMissing},
		{"a stranger", d.sign("-u", "bob"), fault.SigKey},
		{"SHA-1", d.sign("--digest-algo", "SHA1", "-u", "alice"), fault.SigWeak},
		{"SHA-224", d.sign("--digest-algo", "SHA224", "-u", "alice"), fault.SigWeak},
		{"text", d.sign("--textmode", "-u", "alice"), fault.SigSyntax},
		{"a signed message", d.read("whole"), fault.SigSyntax},
		{"text with a signature below", d.read("clear"), fault.SigSyntax},
		{"a keyring", []byte(d.export("alice")), fault.SigSyntax},
		{"cut", good[:len(good)-1], fault.SigSyntax},
		{"bytes behind", append(slices.Clone(good), 0), fault.SigSyntax},
		{"a broken one behind", slices.Concat(good, good[:20]), fault.SigSyntax},
		{"minisign", []byte("untrusted comment: x\nRWQ\n"), fault.SigSyntax},
		{"something unsigned added", addUnhashed(good), fault.SigSyntax},
	} {
		_, err := count(ring, manifest, gpgFile, c.content)
		refused(t, c.name, err, c.code)
	}
	for name, how := range map[string][]string{
		"RSA with 1024 bits": {"rsa1024", "--quick-generate-key"},
		"DSA":                {"dsa2048", "--quick-generate-key"},
		"secp256k1":          {"secp256k1", "--quick-generate-key"},
	} {
		d.gpg("--quick-generate-key", name, how[0], "cert,sign", "never")
		_, err := Parse([]byte(d.export(name)))
		refused(t, name, err, fault.ConfigTrust)
		_, err = Parse([]byte(d.export("alice", name)))
		refused(t, name+" beside a good key", err, fault.ConfigTrust)
	}
	d.gpg("--cert-digest-algo", "SHA1", "--quick-generate-key", "old", "ed25519", "cert,sign", "never")
	_, err := Parse([]byte(d.export("old")))
	refused(t, "certified with SHA-1", err, fault.ConfigTrust)
	for name, text := range map[string]string{
		"secret key":           string(d.gpg("--export-secret-keys", "alice")),
		"secret key, armoured": string(d.gpg("--armor", "--export-secret-keys", "alice")),
		"cut":                  d.export("alice")[:40],
		"armour cut":           string(d.gpg("--armor", "--export", "alice")[:200]),
		"signature":            string(good),
		"large":                strings.Repeat("\x99", TextMax+1),
	} {
		if _, err := Parse([]byte(text)); fault.CodeOf(err) != fault.ConfigTrust {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// addUnhashed puts a subpacket into the part of a signature that is not signed: the
// expiry of the signature, say.
func addUnhashed(signature []byte) []byte {
	// Old packet format, a length of one byte; a v4 signature.
	hashed := int(signature[2+4])<<8 | int(signature[2+5])
	at := 2 + 6 + hashed
	n := int(signature[at])<<8 | int(signature[at+1])
	more := []byte{5, 3, 0, 0, 0, 0}
	added := slices.Concat(signature[:at], []byte{0, byte(n + len(more))}, signature[at+2:at+2+n], more, signature[at+2+n:])
	added[1] += byte(len(more))
	return added
}

// kept reads a file of testdata: all processes that fuzz need the same key. They
// were made by gpg and ssh-keygen, and sign the manifest of the tests.
func kept(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func FuzzOpenPGP(f *testing.F) {
	ring := ringOf(f, 1, string(kept(f, "alice.asc")))
	good := kept(f, "alice.signature.gpg")
	if _, err := count(ring, manifest, gpgFile, good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(kept(f, "alice.signature.asc"))
	f.Add([]byte("-----BEGIN PGP SIGNATURE-----\n\n=\n-----END PGP SIGNATURE-----\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if _, err := count(ring, manifest, gpgFile, content); err == nil {
			raw, err := dearmour(content, armouredSignature)
			if err != nil || !bytes.Contains(normal(raw), normal(good)) {
				t.Fatalf("verified %q", content)
			}
		}
	})
}

// normal is a signature without its packet header, which can be spelt in two ways.
func normal(raw []byte) []byte {
	signatures, err := openPGPScheme{}.read(raw)
	if err != nil {
		return []byte(fmt.Sprint(err))
	}
	var all []byte
	for _, s := range signatures {
		all = append(all, s.packet...)
	}
	return all
}

func FuzzKeys(f *testing.F) {
	armoured := kept(f, "alice.asc")
	binary, err := dearmour(armoured, armouredKey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(armoured)
	f.Add(binary)
	f.Add(kept(f, "alice.pub"))
	f.Add([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGm4 me@example.org\n"))
	f.Add([]byte(`alice namespaces="upgraderd",valid-after="20260101Z" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINNwMHM8lLcve+HMdKmjaanRnkdOE0Sm3ZUxkjv5LTgg`))
	f.Add([]byte("untrusted comment: minisign public key\nRWQ6hEqFjLN+XxRQvXZno7WQYh8CvDZxVMG6iBPJsAJQRDfBjnMbD7c8\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := Parse(text)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		if err != nil {
			if fault.CodeOf(err) != fault.ConfigTrust {
				t.Fatal(err)
			}
			return
		}
		for _, k := range keys {
			if k.ID() == "" || len(k.numbers()) == 0 {
				t.Fatalf("%v has no name or no number", k)
			}
		}
		if ring, err := New(keys, nil, 1); err == nil && len(ring.Files(manifestName)) == 0 {
			t.Fatal("a ring without files")
		}
	})
}
