package signature

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"aead.dev/minisign"
)

// minisignScheme is minisign(1): a file holds one signature and says whose.
type minisignScheme struct{}

func (minisignScheme) String() string { return "minisign" }

type minisignKey struct {
	minisign.PublicKey
	number string
}

// ID spells a key's number as minisign prints it, and with the leading zeros
// that minisign leaves out.
func (k minisignKey) ID() string        { return minisignID(k.PublicKey.ID()) }
func (minisignKey) scheme() scheme      { return minisignScheme{} }
func (minisignKey) revoked() bool       { return false }
func (k minisignKey) numbers() []string { return []string{k.number} }

func (k minisignKey) join(other Key) (Key, error) {
	if o, ok := other.(minisignKey); !ok || !o.Equal(k.PublicKey) {
		return nil, distrust("remove one of them", "two different keys have the id %s", k.ID())
	}
	return k, nil
}

func minisignID(id uint64) string { return fmt.Sprintf("%016X", id) }

const minisignComment = "untrusted comment:"

// isMinisignSecret tells a secret key: "Ed" "Sc" "B2" (or no KDF) begin each.
func isMinisignSecret(text []byte) bool {
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "RWRTY0Iy") || strings.HasPrefix(line, "RWQAAEIy") {
			return true
		}
	}
	return false
}

// recognizes goes by the first letters: "RW" is how the algorithm "Ed" begins in
// base64.
func (minisignScheme) recognizes(text []byte) bool {
	t := bytes.TrimSpace(text)
	return bytes.HasPrefix(t, []byte("RW")) || bytes.HasPrefix(t, []byte(minisignComment))
}

func (minisignScheme) parse(text []byte) ([]Key, error) {
	const hint = "take the second line of the publisher's minisign .pub file, or the absolute name of that file"
	var keys []Key
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, minisignComment) {
			continue
		}
		key, err := parseMinisign(line)
		if err != nil {
			return nil, distrust(hint, "holds %w", err)
		}
		if keys = append(keys, key); len(keys) > KeysMax {
			break
		}
	}
	if len(keys) == 0 {
		return nil, distrust(hint, "holds a comment and no minisign public key")
	}
	return keys, nil
}

func parseMinisign(line string) (Key, error) {
	var key minisign.PublicKey
	if err := key.UnmarshalText([]byte(line)); err != nil {
		return nil, errors.New("no minisign public key")
	}
	if key.String() != line {
		return nil, errors.New("a minisign public key that is not spelt as minisign spells it")
	}
	raw, err := base64.StdEncoding.DecodeString(line)
	if err != nil || len(raw) != 42 {
		return nil, errors.New("no minisign public key")
	}
	n, err := number(ed25519.PublicKey(raw[10:])) // behind algorithm and id
	if err != nil {
		return nil, err
	}
	return minisignKey{key, n}, nil
}

// files has one more for each key, so that several may sign: the name is what
// minisign prints, without leading zeros.
func (minisignScheme) files(of string, keys []Key) (usual, more []string) {
	for _, k := range keys {
		if k, ok := k.(minisignKey); ok {
			more = append(more, fmt.Sprintf("%s.%X.minisig", of, k.PublicKey.ID()))
		}
	}
	return []string{of + ".minisig"}, more
}

func (minisignScheme) command(of string) string { return "minisign -S -m " + of }

func (s minisignScheme) signers(d document, file string, content []byte, keys []Key) ([]signing, error) {
	var sig minisign.Signature
	if err := sig.UnmarshalText(content); err != nil || !canonicalMinisign(sig, content) {
		return nil, unreadable(s, d, file, "it does not read as one")
	}
	id := minisignID(sig.KeyID)
	i := slices.IndexFunc(keys, func(k Key) bool { return k.ID() == id })
	if i < 0 {
		return nil, stranger(d, id, keys)
	}
	if k, ok := keys[i].(minisignKey); ok && minisign.Verify(k.PublicKey, d.raw, content) {
		return []signing{{k, minisignTime(sig)}}, nil
	}
	return nil, forged(d, file, id)
}

// minisignTime is what minisign(1) writes into the comment that is signed, unless
// somebody gave it another (-t).
func minisignTime(sig minisign.Signature) time.Time {
	text, _, _ := strings.Cut(sig.TrustedComment, "\t")
	digits, ok := strings.CutPrefix(text, "timestamp:")
	seconds, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || seconds <= 0 || seconds > timeMax {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// timeMax is the last second of the year 9999, which is as far as text formats go.
const timeMax = 253402300799

// canonicalMinisign refuses a second spelling of the same signature: spare bits
// in the base64, line breaks inside it, text behind it.
func canonicalMinisign(s minisign.Signature, content []byte) bool {
	unix := bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
	return s.String() == string(bytes.TrimSuffix(unix, []byte("\n")))+"\n"
}
