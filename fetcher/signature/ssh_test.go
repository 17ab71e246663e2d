package signature

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const (
	sshFile = manifestName + ".sshsig"
	sigFile = manifestName + ".sig"
)

// sshKeygen makes a key and gives its public line.
func (d *desk) sshKeygen(name string, args ...string) string {
	d.t.Helper()
	d.run("ssh-keygen", append(args, "-q", "-N", "", "-C", name, "-f", name)...)
	return strings.TrimSpace(string(d.read(name + ".pub")))
}

// sshSign gives the manifest's signature, which ssh-keygen writes beside it.
func (d *desk) sshSign(name, namespace string, args ...string) []byte {
	d.t.Helper()
	os.Remove(d.path(sigFile))
	d.run("ssh-keygen", append(append([]string{"-q", "-Y", "sign", "-f", name, "-n", namespace}, args...), manifestName)...)
	return d.read(sigFile)
}

func TestRealSSH(t *testing.T) {
	d := newDesk(t)
	for name, args := range map[string][]string{
		"ed25519": {"-t", "ed25519"}, "rsa": {"-t", "rsa", "-b", "2048"},
		"p256": {"-t", "ecdsa", "-b", "256"}, "p384": {"-t", "ecdsa", "-b", "384"}, "p521": {"-t", "ecdsa", "-b", "521"},
	} {
		line := d.sshKeygen(name, args...)
		fingerprint := strings.Fields(string(d.run("ssh-keygen", "-l", "-f", name+".pub")))[1]
		for _, text := range []string{line, "# of all who release\n\n" + line + "\r\n", "me@example.org " + line, `"a b",c@* namespaces="git,upgrader?" ` + line} {
			ring := ringOf(t, 1, text)
			for _, hash := range []string{"sha256", "sha512"} {
				signature := d.sshSign(name, Namespace, "-O", "hashalg="+hash)
				for _, file := range []string{sshFile, sigFile} {
					if got, err := count(ring, manifest, file, signature); err != nil || !slices.Equal(got, []string{fingerprint}) {
						t.Errorf("%s: %q, %v", text, got, err)
					}
				}
				_, err := count(ring, append(slices.Clone(manifest), '\n'), sshFile, signature)
				refused(t, name+" over other bytes", err, fault.SigBad)
			}
		}
	}
}

func TestSSHRefusesEveryFlippedBit(t *testing.T) {
	d := newDesk(t)
	for name, args := range map[string][]string{"ed25519": {"-t", "ed25519"}, "p256": {"-t", "ecdsa", "-b", "256"}, "rsa": {"-t", "rsa", "-b", "2048"}} {
		ring := ringOf(t, 1, d.sshKeygen(name, args...))
		signature := strings.TrimSuffix(string(d.sshSign(name, Namespace)), "\n")
		everyBit(t, name, []byte(signature), func(flipped []byte) error {
			_, err := count(ring, manifest, sshFile, flipped)
			return err
		})
		everyBit(t, name+" manifest", manifest, func(flipped []byte) error {
			_, err := count(ring, flipped, sshFile, []byte(signature))
			return err
		})
	}
}

func TestSSHSigners(t *testing.T) {
	d := newDesk(t)
	alice, bob := d.sshKeygen("alice", "-t", "ed25519"), d.sshKeygen("bob", "-t", "ecdsa")
	ring := ringOf(t, 2, alice+"\n"+bob+"\n")
	a, b := d.sshSign("alice", Namespace), d.sshSign("bob", Namespace)
	if got, err := count(ring, manifest, sshFile, slices.Concat(a, b)); err != nil || len(got) != 2 {
		t.Errorf("both: %q, %v", got, err)
	}
	for name, content := range map[string][]byte{
		"one": a, "one, twice": slices.Concat(a, a), "one, anew": slices.Concat(a, d.sshSign("alice", Namespace, "-O", "hashalg=sha256")),
	} {
		_, err := count(ring, manifest, sshFile, content)
		refused(t, name, err, fault.SigThreshold)
	}
	_, err := count(ring, manifest, sshFile, slices.Repeat(a, signaturesMax+1))
	refused(t, "very many", err, fault.SigSyntax)
}

func TestSSHRefuses(t *testing.T) {
	d := newDesk(t)
	alice := d.sshKeygen("alice", "-t", "ed25519")
	d.sshKeygen("bob", "-t", "ed25519")
	rsa := d.sshKeygen("rsa", "-t", "rsa", "-b", "2048")
	ring := ringOf(t, 1, alice, rsa)
	good := d.sshSign("alice", Namespace)
	for _, c := range []struct {
		name    string
		content []byte
		code    fault.Code
	}{
		{"nothing", []byte("\n"), fault.SigMissing},
		{"a stranger", d.sshSign("bob", Namespace), fault.SigKey},
		{"of a file", d.sshSign("alice", "file"), fault.SigNamespace},
		{"of a commit", d.sshSign("alice", "git"), fault.SigNamespace},
		{"nearly", d.sshSign("alice", Namespace+"2"), fault.SigNamespace},
		{"relabelled", relabel(t, d.sshSign("alice", "git")), fault.SigBad},
		{"ssh-rsa, that is SHA-1", rsaSHA1(t, d.read("rsa")), fault.SigSyntax},
		{"cut", good[:len(good)/2], fault.SigSyntax},
		{"text behind", append(slices.Clone(good), "more"...), fault.SigSyntax},
		{"a blank line behind", append(slices.Clone(good), '\n'), fault.SigSyntax},
		{"an empty block", []byte(sshBegin + "\n" + sshEnd), fault.SigSyntax},
		{"a public key", []byte(alice), fault.SigSyntax},
		{"a binary one", []byte("\x88\x75\x04\x00"), fault.SigSyntax},
	} {
		_, err := count(ring, manifest, sshFile, c.content)
		refused(t, c.name, err, c.code)
	}
	d.run("ssh-keygen", "-q", "-s", "bob", "-I", "x", "-n", "x", "alice.pub")
	for name, text := range map[string]string{
		"secret key":      string(d.read("alice")),
		"certificate":     string(d.read("alice-cert.pub")),
		"RSA 1024":        d.sshKeygen("weak", "-t", "rsa", "-b", "1024"),
		"DSA":             "ssh-dss AAAAB3NzaC1kc3MAAACBAP" + strings.Repeat("A", 100),
		"cut":             alice[:40],
		"type alone":      "ssh-ed25519",
		"another type":    strings.Replace(alice, "ssh-ed25519 ", "ssh-rsa ", 1),
		"small order":     smallOrderSSH(t),
		"authority":       "*@example.org cert-authority " + alice,
		"authority, keys": "cert-authority " + alice,
		"odd option":      "me no-touch-required " + alice,
		"odd option=":     `me from="10.0.0.1" ` + alice,
		"no quotes":       `me namespaces=git ` + alice,
		"no time":         `me valid-after="yesterday" ` + alice,
		"never":           `me valid-after="20270101",valid-before="20260101" ` + alice,
		"one bad":         alice + "\nnonsense\n",
	} {
		_, err := Parse([]byte(text))
		refused(t, name, err, fault.ConfigTrust)
	}
}

// TestAllowedSigners asks ssh-keygen the same.
func TestAllowedSigners(t *testing.T) {
	d := newDesk(t)
	alice := d.sshKeygen("alice", "-t", "ed25519")
	signature := d.sshSign("alice", Namespace)
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for options, code := range map[string]fault.Code{
		``:                                                     "",
		`namespaces="upgraderd" `:                              "",
		`NAMESPACES="git,upgraderd" `:                          "",
		`namespaces="*" `:                                      "",
		`namespaces="up*,!upgraderd" `:                         fault.SigNamespace,
		`namespaces="git,file" `:                               fault.SigNamespace,
		`namespaces="upgrader" `:                               fault.SigNamespace,
		`valid-after="20260701" `:                              "",
		`valid-after="202607011200Z" `:                         "",
		`valid-after="20260701120001Z" `:                       fault.SigExpired,
		`valid-before="20260702Z" `:                            "",
		`valid-before="20260701115959Z" `:                      fault.SigExpired,
		`valid-after="20260101Z",valid-before="20261231Z" `:    "",
		`namespaces="git",valid-after="20260101Z" `:            fault.SigNamespace,
		`namespaces="upgraderd",valid-before="202606302359Z" `: fault.SigExpired,
	} {
		text := "alice@example.org,bob " + options + alice + "\n"
		ring := ringOf(t, 1, text)
		_, err := countAt(ring, manifest, now, sigFile, signature)
		if code == "" && err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if code != "" {
			refused(t, text, err, code)
		}
		d.write("signers", []byte(text))
		_, theirs := d.try("sh", "-c", "ssh-keygen -q -Y verify -Overify-time=20260701120000Z -f signers -I bob -n upgraderd -s "+sigFile+" < "+manifestName)
		if (theirs == nil) != (err == nil) {
			t.Errorf("%s: ssh-keygen says %v, we %v", text, theirs, err)
		}
	}
	// Two lines for one key: any that allows it is enough.
	ring := ringOf(t, 1, `a namespaces="git" `+alice+"\n"+`a namespaces="upgraderd" `+alice+"\n")
	if _, err := count(ring, manifest, sigFile, signature); err != nil {
		t.Error(err)
	}
}

// TestSecurityKey signs as the hardware does: PROTOCOL.u2f of OpenSSH.
func TestSecurityKey(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	blob := ssh.Marshal(struct {
		Type        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, public, "ssh:"})
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	ring := ringOf(t, 1, string(ssh.MarshalAuthorizedKey(key)))
	for flags, code := range map[byte]fault.Code{1: "", 0: fault.SigBad} { // touched, or not
		signature, err := sshsig.Sign(strings.NewReader(string(manifest)), securityKey{key, private, flags}, sshsig.HashSHA512, Namespace)
		if err != nil {
			t.Fatal(err)
		}
		_, err = count(ring, manifest, sshFile, sshsig.Armor(signature))
		if fault.CodeOf(err) != code {
			t.Errorf("flags %d: %v, want %q", flags, err, code)
		}
	}
}

// securityKey is an ssh.Signer.
type securityKey struct {
	public  ssh.PublicKey
	private ed25519.PrivateKey
	flags   byte
}

func (k securityKey) PublicKey() ssh.PublicKey { return k.public }

func (k securityKey) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	application, message := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	rest := binary.BigEndian.AppendUint32([]byte{k.flags}, 7)
	signed := slices.Concat(application[:], rest, message[:])
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(k.private, signed), Rest: rest}, nil
}

// rsaSHA1 signs as OpenSSH did before 8.2.
func rsaSHA1(t *testing.T, secret []byte) []byte {
	t.Helper()
	signer, err := ssh.ParsePrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sshsig.Sign(strings.NewReader(string(manifest)), signer, sshsig.HashSHA512, Namespace)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha512.Sum512(manifest)
	data := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Algorithm, Hash string }{Namespace, "", "sha512", string(hash[:])})...)
	if s.Signature, err = signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSA); err != nil {
		t.Fatal(err)
	}
	return sshsig.Armor(s)
}

func relabel(t *testing.T, signature []byte) []byte {
	t.Helper()
	s, err := sshsig.Unarmor(signature)
	if err != nil {
		t.Fatal(err)
	}
	s.Namespace = Namespace
	return sshsig.Armor(s)
}

func smallOrderSSH(t *testing.T) string {
	t.Helper()
	key, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(key))
}

func FuzzSSH(f *testing.F) {
	ring := ringOf(f, 1, string(kept(f, "alice.pub")))
	good := kept(f, "alice.sshsig")
	if _, err := count(ring, manifest, sshFile, good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(sshBegin + "U1NIU0lH" + sshEnd))
	flat := func(s []byte) string {
		return strings.NewReplacer("\r", "", "\n", "").Replace(string(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if _, err := count(ring, manifest, sshFile, content); err == nil && !strings.Contains(flat(content), flat(good)) {
			t.Fatalf("verified %q", content)
		}
	})
}
