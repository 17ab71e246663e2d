package signature

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const (
	// TextMax bounds what Parse reads, in bytes. A key that many people have
	// certified, exported with all of that, has some 100 KiB.
	TextMax = 1 << 20
	// KeysMax bounds the keys of a text, and of a Ring.
	KeysMax = 128
)

// Key is a public key.
type Key interface {
	// ID names the key as its own tool prints it: 16 hex digits for minisign,
	// the fingerprint for OpenPGP, SHA256:… for SSH.
	ID() string
	scheme() scheme
	// numbers are what signatures are checked with, spelt alike in all
	// schemes. Keys that share one are one signer.
	numbers() []string
	// revoked tells that its owner says so in the key itself.
	revoked() bool
	// join gives what both, of one ID, say together.
	join(other Key) (Key, error)
}

// Parse reads public keys: a line of minisign's or of SSH, or what a file of
// either holds, several of them too; an allowed-signers file; an OpenPGP keyring,
// armoured or binary.
func Parse(text []byte) ([]Key, error) {
	if len(text) > TextMax {
		return nil, distrust("name a file of keys", "has more than %d bytes", TextMax)
	}
	if bytes.Contains(text, []byte("PRIVATE KEY")) || isMinisignSecret(text) {
		return nil, secret()
	}
	for _, s := range schemes() {
		if !s.recognizes(text) {
			continue
		}
		keys, err := s.parse(text)
		if err == nil && len(keys) > KeysMax {
			err = distrust("", "holds more than %d keys", KeysMax)
		}
		if err != nil {
			return nil, err
		}
		return keys, nil
	}
	const hint = "take a minisign, OpenPGP or SSH public key, or a file of them"
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return nil, distrust(hint, "is empty")
	case bytes.Contains(text, []byte("-----BEGIN ")):
		return nil, distrust(hint, "is a PEM file, not a public key that signs releases")
	}
	return nil, distrust(hint, "is no public key")
}

func secret() error {
	return distrust("keep it off this machine, and make a new pair if others could read it", "holds a secret key")
}

// distrust is the error of keys that are not taken. Its text follows the name of
// what holds them.
func distrust(hint, format string, a ...any) error {
	return fault.New(fault.ConfigTrust, fmt.Errorf(format, a...), hint)
}

// number spells a public number the same for all schemes. It refuses what is too
// weak to trust.
func number(public any) (string, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < rsaBitsMin {
			return "", fmt.Errorf("RSA with %d bits, want %d at least", bits, rsaBitsMin)
		}
		return fmt.Sprintf("rsa:%x:%x", k.N, k.E), nil
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return "", errors.New("an Ed25519 key of another length")
		}
		if smallOrder(k) {
			return "", errors.New("a key that verifies forged signatures (a point of small order)")
		}
		return "ed25519:" + hex.EncodeToString(k), nil
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			return "", err
		}
		return "ecdsa:" + hex.EncodeToString(point), nil
	}
	return "", fmt.Errorf("a kind of key that is not taken (%T)", public)
}

// rsaBitsMin is what NIST SP 800-131A asks for, as do gpg and browsers.
const rsaBitsMin = 2048

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
