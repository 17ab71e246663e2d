package store

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
)

// Digest is the SHA-256 of an artifact as it was fetched and verified. Any
// [32]byte, such as that of sha256.Sum256, can be given where a Digest is
// asked for.
type Digest [32]byte

// String is the digest in 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short is the first 12 digits, as they stand in the names of releases and
// of incoming directories. It is for people and for telling names apart;
// trust compares whole digests.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// ParseDigest reads 64 lower-case hexadecimal digits.
func ParseDigest(text string) (Digest, error) {
	var d Digest
	if len(text) != 2*len(d) || !isHex(text) {
		return Digest{}, fmt.Errorf("digest %q: not 64 lower-case hexadecimal digits", clip(text))
	}
	_, err := hex.Decode(d[:], []byte(text))
	return d, err
}

// Release is the name of a release: which version, and of which bytes. It
// says nothing about whether that release is on disk. Releases compare
// with ==; the zero Release names none.
type Release struct {
	Name     string // "1.4.2-0123456789ab"
	Version  string // "1.4.2", as its publisher spells it
	Digest12 string // "0123456789ab", see Digest.Short
}

func (r Release) String() string { return r.Name }

const (
	digest12Len   = 12
	maxVersionLen = 64
)

// NewRelease names the release of an artifact. The version has to begin with
// a letter or a digit and goes on with up to 63 of those or . + ~ _ ^ -, so
// that no version can be a path, an option or a line break.
func NewRelease(version string, d Digest) (Release, error) {
	if !validVersion(version) {
		return Release{}, fmt.Errorf("version %q: want a letter or digit, then at most %d of letters, digits and .+~_^-", clip(version), maxVersionLen-1)
	}
	return Release{Name: version + "-" + d.Short(), Version: version, Digest12: d.Short()}, nil
}

// ParseRelease reads a release directory's name, "<version>-<12 digits of
// the digest>". It takes a bare name, never a path.
func ParseRelease(name string) (Release, error) {
	i := len(name) - digest12Len - 1
	if i < 1 || name[i] != '-' || !isHex(name[i+1:]) || !validVersion(name[:i]) {
		return Release{}, fmt.Errorf("release name %q: want VERSION-DIGEST, where DIGEST is %d lower-case hexadecimal digits", clip(name), digest12Len)
	}
	return Release{Name: name, Version: name[:i], Digest12: name[i+1:]}, nil
}

func validVersion(v string) bool {
	if v == "" || len(v) > maxVersionLen {
		return false
	}
	for i := range len(v) {
		c := v[i]
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !alnum && (i == 0 || strings.IndexByte(".+~_^-", c) < 0) {
			return false
		}
	}
	return true
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

// clip keeps a hostile name from filling the journal.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// Dir is where release r lies, or would lie.
func (s *Store) Dir(r Release) string { return filepath.Join(s.dir, releasesDir, r.Name) }
