package signature

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"golang.org/x/crypto/ssh"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

func TestNew(t *testing.T) {
	a, _ := newMinisign(t)
	b, _ := newMinisign(t)
	one, two := parse(t, a.String()), parse(t, a.String()+"\n"+b.String())
	for _, c := range []struct {
		name          string
		keys, revoked []Key
		threshold     int
		says          string // "": taken
	}{
		{"one", one, nil, 1, ""},
		{"one, twice", slices.Concat(one, one), nil, 1, ""},
		{"two of two", two, nil, 2, ""},
		{"a stranger is revoked", one, two[1:], 1, ""},
		{"one of two is revoked", two, one, 1, ""},

		{"none", nil, nil, 1, "no trusted key"},
		{"threshold 0", one, nil, 0, "threshold of 0"},
		{"threshold below 0", one, nil, -1, "threshold of -1"},
		{"two of one", one, nil, 2, "can never be reached: 1 of 1"},
		{"two of one, twice", slices.Concat(one, one), nil, 2, "can never be reached: 1 of 1"},
		{"two of two, one revoked", two, one, 2, "can never be reached: 1 of 2"},
		{"all revoked", two, two, 1, "every trusted key is revoked"},
		{"another id for the same key", slices.Concat(one, renumbered(t, a)), nil, 1, "are the same key"},
		{"the same key for SSH", slices.Concat(one, asSSH(t, a)), nil, 1, "are the same key"},
		{"revoked in another spelling", one, asSSH(t, a), 1, "every trusted key is revoked"},
	} {
		_, err := New(c.keys, c.revoked, c.threshold)
		if c.says == "" && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.says != "" && (fault.CodeOf(err) != fault.ConfigTrust || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

func raw(t *testing.T, key minisign.PublicKey) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(key.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func renumbered(t *testing.T, key minisign.PublicKey) []Key {
	b := raw(t, key)
	b[2]++
	return parse(t, base64.StdEncoding.EncodeToString(b))
}

// asSSH spells minisign's Ed25519 key as SSH does.
func asSSH(t *testing.T, key minisign.PublicKey) []Key {
	blob := ssh.Marshal(struct {
		Type string
		Key  []byte
	}{ssh.KeyAlgoED25519, raw(t, key)[10:]})
	return parse(t, ssh.KeyAlgoED25519+" "+base64.StdEncoding.EncodeToString(blob))
}

// TestThreshold has signers of all three kinds, each in their own file.
func TestThreshold(t *testing.T) {
	m1, m1secret := newMinisign(t)
	m2, m2secret := newMinisign(t)
	_, strange := newMinisign(t)
	d := newGPG(t)
	d.key("alice", "ed25519", "never")
	trusted := []string{m1.String() + "\n" + m2.String(), d.export("alice"), d.sshKeygen("bob", "-t", "ed25519")}
	own := func(key minisign.PublicKey) string {
		return manifestName + "." + strings.TrimLeft(minisignID(key.ID()), "0") + ".minisig"
	}
	files := map[string][]byte{
		minisig: minisign.Sign(m1secret, manifest), own(m1): minisign.Sign(m1secret, manifest), own(m2): minisign.Sign(m2secret, manifest),
		gpgFile: d.sign("-u", "alice"), sshFile: d.sshSign("bob", Namespace),
	}
	bad := map[string][]byte{
		gpgFile: files[gpgFile][:20], ascFile: []byte("x"), sshFile: []byte("x"),
		minisig: minisign.Sign(strange, manifest), own(m1): minisign.Sign(m1secret, []byte("x")), own(m2): minisign.Sign(m1secret, manifest),
	}
	for _, c := range []struct {
		name      string
		threshold int
		good, bad []string
		want      int // signers, or
		code      fault.Code
	}{
		{"the first is enough", 1, []string{minisig, gpgFile, sshFile}, nil, 1, ""},
		{"a bad one does not hinder", 1, []string{sshFile}, []string{minisig, gpgFile, ascFile}, 1, ""},
		{"two kinds", 2, []string{minisig, gpgFile}, nil, 2, ""},
		{"two of one kind", 2, []string{minisig, own(m2)}, nil, 2, ""},
		{"two of one kind, by their names", 2, []string{own(m1), own(m2)}, nil, 2, ""},
		{"all", 4, []string{minisig, own(m2), gpgFile, sshFile}, nil, 4, ""},

		{"none", 2, nil, nil, 0, fault.SigMissing},
		{"one of two", 2, []string{gpgFile}, nil, 0, fault.SigThreshold},
		{"the same one in two files", 2, []string{minisig, own(m1)}, nil, 0, fault.SigThreshold},
		{"one under the other's name", 2, []string{minisig}, []string{own(m2)}, 0, fault.SigThreshold},
		{"one of two, others bad", 2, []string{gpgFile}, []string{minisig, own(m1), sshFile}, 0, fault.SigThreshold},
		{"strangers and rubbish", 1, nil, []string{minisig, gpgFile, ascFile, sshFile}, 0, fault.SigKey},
		{"forged, and strangers", 1, nil, []string{minisig, own(m1), gpgFile}, 0, fault.SigBad},
		{"three of four", 4, []string{minisig, gpgFile, sshFile}, []string{own(m2)}, 0, fault.SigThreshold},
	} {
		ring := ringOf(t, c.threshold, trusted...)
		count := ring.Count(manifestName, manifest, time.Now())
		for _, file := range ring.Files(manifestName) {
			if count.Enough() {
				break
			}
			switch {
			case slices.Contains(c.good, file):
				count.Add(file, files[file])
			case slices.Contains(c.bad, file):
				count.Add(file, bad[file])
			}
		}
		signed, err := count.Result()
		signers := signed.By
		if len(signers) != c.want || fault.CodeOf(err) != c.code {
			t.Errorf("%s: %q, %v; want %d or %s", c.name, signers, err, c.want, c.code)
		}
	}
}

// TestRevoked has a revoked key sign, alone and beside others.
func TestRevoked(t *testing.T) {
	old, oldSecret := newMinisign(t)
	fresh, freshSecret := newMinisign(t)
	ring, err := New(parse(t, old.String()+"\n"+fresh.String()), asSSH(t, old), 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = count(ring, manifest, minisig, minisign.Sign(oldSecret, manifest))
	refused(t, "the revoked one", err, fault.SigRevoked)
	c := ring.Count(manifestName, manifest, time.Now())
	for _, secret := range []minisign.PrivateKey{oldSecret, freshSecret} {
		c.Add(minisig, minisign.Sign(secret, manifest))
	}
	if signed, err := c.Result(); err != nil || !slices.Equal(signed.By, []string{minisignID(fresh.ID())}) {
		t.Errorf("%q, %v", signed.By, err)
	}
}

// TestWhen has signatures say when they were made, or not.
func TestWhen(t *testing.T) {
	a, aSecret := newMinisign(t)
	b, bSecret := newMinisign(t)
	both := parse(t, a.String()+"\n"+b.String())
	for _, c := range []struct {
		a, b      string // signed comments
		threshold int
		want      int64 // 0: not known
	}{
		{"timestamp:1700000000\tfile:SHA256SUMS\thashed", "", 1, 1700000000},
		{"timestamp:1700000000", "", 1, 1700000000},
		{"timestamp:1700000001", "timestamp:1700000000", 2, 1700000000},
		{"timestamp:1700000001", "by hand", 2, 0},
		{"by hand", "", 1, 0},
		{"timestamp:", "", 1, 0},
		{"timestamp:-5", "", 1, 0},
		{"timestamp:99999999999999", "", 1, 0},
		{" timestamp:1700000000", "", 1, 0},
	} {
		ring, err := New(both, nil, c.threshold)
		if err != nil {
			t.Fatal(err)
		}
		count := ring.Count(manifestName, manifest, time.Now())
		count.Add(minisig, minisign.SignWithComments(aSecret, manifest, c.a, ""))
		if c.b != "" {
			count.Add(fmt.Sprintf("%s.%X.minisig", manifestName, b.ID()), minisign.SignWithComments(bSecret, manifest, c.b, ""))
		}
		signed, err := count.Result()
		got := signed.When.Unix()
		if signed.When.IsZero() {
			got = 0
		}
		if err != nil || got != c.want {
			t.Errorf("%q and %q: got %v, %v, want %d", c.a, c.b, signed, err, c.want)
		}
	}
}
