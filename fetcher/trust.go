package fetcher

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"aead.dev/minisign"
	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const (
	signatureName = manifestName + ".minisig"
	// signatureMax leaves room for minisign's longest comments (8 KiB each).
	signatureMax = 32 << 10
	keyFileMax   = 4 << 10
)

// keyring holds the keys that may sign manifests. It is never empty.
type keyring struct {
	keys []minisign.PublicKey
}

// loadKeys reads Key= entries: the base64 line of a minisign public key, or
// the absolute name of a file that holds one.
func loadKeys(entries []string) (keyring, error) {
	var ring keyring
	for _, entry := range entries {
		text, origin := entry, fmt.Sprintf("key %.12q…", entry)
		if filepath.IsAbs(entry) {
			raw, err := readKeyFile(entry)
			if err != nil {
				return keyring{}, fault.New(fault.ConfigTrust, fmt.Errorf("read key %s: %w", entry, err), "name a file that only root can write and that holds one minisign public key")
			}
			text, origin = raw, "key file "+entry
		}
		key, err := parseKey(text)
		if err != nil {
			return keyring{}, fault.New(fault.ConfigTrust, fmt.Errorf("%s: %w", origin, err), "Key= takes the second line of a minisign .pub file, or its absolute file name")
		}
		ring.add(key)
	}
	if len(ring.keys) == 0 {
		return keyring{}, fault.New(fault.ConfigTrust, errors.New("no trusted key"), "set Key=, or Verify=no for a source that needs no signature")
	}
	return ring, nil
}

func (r *keyring) add(key minisign.PublicKey) {
	for _, k := range r.keys {
		if k.Equal(key) {
			return
		}
	}
	r.keys = append(r.keys, key)
}

// readKeyFile refuses a file that somebody else could have changed.
func readKeyFile(name string) (string, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return "", errors.New("not a regular file")
	case st.Mode&0o022 != 0:
		return "", fmt.Errorf("mode %04o: others can write it", st.Mode&0o7777)
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		return "", fmt.Errorf("owned by user %d, want root or the daemon's own user", st.Uid)
	}
	raw, err := io.ReadAll(io.LimitReader(f, keyFileMax+1))
	if err != nil {
		return "", err
	}
	if len(raw) > keyFileMax {
		return "", fmt.Errorf("more than %d bytes", keyFileMax)
	}
	return string(raw), nil
}

// parseKey reads one key, with or without the comment line above it.
func parseKey(text string) (minisign.PublicKey, error) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) == 2 && strings.HasPrefix(lines[0], "untrusted comment:") {
		lines = lines[1:]
	}
	line := strings.TrimSpace(lines[0])
	if len(lines) != 1 || line == "" {
		return minisign.PublicKey{}, errors.New("want exactly one minisign public key")
	}
	var key minisign.PublicKey
	if err := key.UnmarshalText([]byte(line)); err != nil {
		return minisign.PublicKey{}, errors.New("not a minisign public key")
	}
	if key.String() != line {
		return minisign.PublicKey{}, errors.New("not spelt as minisign spells a public key")
	}
	raw, err := base64.StdEncoding.DecodeString(line)
	if err != nil || len(raw) != 42 {
		return minisign.PublicKey{}, errors.New("not a minisign public key")
	}
	if smallOrder(raw[10:]) {
		return minisign.PublicKey{}, errors.New("a key that verifies forged signatures (a point of small order)")
	}
	return key, nil
}

// smallOrder tells an Ed25519 public key whose signatures anybody can make:
// the eight points of the torsion group, and their other spellings. crypto/ed25519
// verifies by RFC 8032 and does not refuse them.
func smallOrder(key []byte) bool {
	points := [...]string{
		"0000000000000000000000000000000000000000000000000000000000000000", // y = 0, order 4
		"0100000000000000000000000000000000000000000000000000000000000000", // y = 1, the identity
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // order 8
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", // order 8
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // y = p-1, order 2
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // y = p, is 0
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // y = p+1, is 1
	}
	y := bytes.Clone(key)
	y[31] &= 0x7f // the sign of x
	for _, point := range points {
		if hex.EncodeToString(y) == point {
			return true
		}
	}
	return false
}

// verify tells which key signed raw. It looks at raw as it was received, never
// at what was parsed from it.
func (r keyring) verify(raw, signature []byte) (minisign.PublicKey, error) {
	if len(bytes.TrimSpace(signature)) == 0 {
		return minisign.PublicKey{}, fault.New(fault.SigMissing, errors.New(signatureName+" is empty"), "sign the manifest: minisign -S -m "+manifestName)
	}
	var s minisign.Signature
	if err := s.UnmarshalText(signature); err != nil || !canonical(s, signature) {
		if looksLikeWebPage(signature) {
			return minisign.PublicKey{}, webPage(signatureName)
		}
		return minisign.PublicKey{}, fault.New(fault.SigSyntax, errors.New(signatureName+" is not a minisign signature"), "sign the manifest: minisign -S -m "+manifestName)
	}
	var known []string
	for _, key := range r.keys {
		if key.ID() != s.KeyID {
			known = append(known, keyID(key.ID()))
			continue
		}
		if minisign.Verify(key, raw, signature) {
			return key, nil
		}
		return minisign.PublicKey{}, fault.New(fault.SigBad, fmt.Errorf("%s is not the signature of this %s (key %s)", signatureName, manifestName, keyID(s.KeyID)),
			"publish both together; if they do not match for long, somebody changed one")
	}
	return minisign.PublicKey{}, fault.New(fault.SigKey, fmt.Errorf("%s is signed by key %s, trusted is %s", manifestName, keyID(s.KeyID), strings.Join(known, ", ")),
		"sign with a trusted key, or add the new one to Key=")
}

// canonical refuses a second spelling of the same signature: spare bits in the
// base64, line breaks inside it, text behind it.
func canonical(s minisign.Signature, signature []byte) bool {
	unix := bytes.ReplaceAll(signature, []byte("\r\n"), []byte("\n"))
	return s.String() == string(bytes.TrimSuffix(unix, []byte("\n")))+"\n"
}

// keyID spells a key's number as minisign prints it, and with the leading zeros
// that minisign leaves out.
func keyID(id uint64) string { return fmt.Sprintf("%016X", id) }

// looksLikeWebPage tells the answer of a captive portal or an error page sent
// with status 200. Neither a manifest nor a signature starts with "<".
func looksLikeWebPage(raw []byte) bool {
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	return bytes.HasPrefix(bytes.TrimSpace(raw), []byte("<"))
}

func webPage(name string) error {
	return fault.Passing(fault.MetaNotSigned, fmt.Errorf("a web page came instead of %s", name), "check Path=, and whether a login page or a proxy stands before the source")
}
