package fetcher

import (
	"encoding/hex"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher/internal/delta"
)

// Pattern selects files of a source by name, and finds the version in the
// name. It is a MatchPattern= of sysupdate.d(5): literal text with wildcards,
// the same wildcards, split at the same places.
//
//	@v version (required)        @h SHA-256, 64 hex digits
//	@u partition UUID            @f partition flags, hexadecimal
//	@t modification time, µs     @m file mode, octal, at most 0775
//	@s size in bytes             @d tries done    @l tries left
//	@a no-auto   @g growfs   @r read-only: a boolean
//	@@ a plain "@"
//
// Only @v is used; the others must hold a value of their kind for the name to
// match. A directory may stand before it, as it is written: for TUF targets, which
// have one. If @v stands there it is the tag of the release that is meant, for
// the sources that have one, and the whole is matched with TAG/NAME:
//
//	v@v/app-linux-amd64.zst
type Pattern struct {
	text   string
	dir    string // "" or "a/b/"
	tagged bool   // TAG/NAME is what matches
	parts  []part
}

// part is literal text, or a wildcard where field is not 0.
type part struct {
	field   byte
	literal string
}

// ParsePattern reads a pattern. It must hold @v, no wildcard twice, and text
// between any two wildcards, to tell where one ends.
func ParsePattern(s string) (Pattern, error) {
	p := Pattern{text: s}
	whole := s
	if i := strings.LastIndexByte(s, '/'); i >= 0 && strings.Contains(s[:i], "@v") {
		p.tagged = true
	} else if i >= 0 {
		p.dir, s = s[:i+1], s[i+1:]
		if p.dir[:i] != path.Clean(p.dir) || p.dir[0] == '.' || len(p.dir) > nameMax || strings.ContainsFunc(p.dir, func(c rune) bool {
			return c <= ' ' || c >= 127 || strings.ContainsRune(`@$*?[]!\|`, c)
		}) {
			return Pattern{}, fmt.Errorf("pattern %q: the directory before the last \"/\" is not plain, nor a tag with @v", whole)
		}
	}
	seen := map[byte]bool{}
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			p.parts = append(p.parts, part{literal: literal.String()})
			literal.Reset()
		}
	}
	if len(s) > nameMax {
		return Pattern{}, fmt.Errorf("pattern %.20q…: %d characters, at most %d", s, len(s), nameMax)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c < ' ' || c >= 127 || strings.IndexByte(`$*?[]!\|`, c) >= 0:
			return Pattern{}, fmt.Errorf("pattern %q: %q is reserved (see sysupdate.d(5)); a wildcard is written @v", s, c)
		case c != '@':
			literal.WriteByte(c)
			continue
		}
		if i++; i == len(s) {
			return Pattern{}, fmt.Errorf("pattern %q: ends in a lone %q; a plain one is written @@", s, c)
		}
		if s[i] == '@' {
			literal.WriteByte('@')
			continue
		}
		field := s[i]
		if strings.IndexByte("vuftmsdlagrh", field) < 0 {
			return Pattern{}, fmt.Errorf("pattern %q: unknown wildcard @%c; sysupdate.d(5) lists them", s, field)
		}
		if seen[field] {
			return Pattern{}, fmt.Errorf("pattern %q: @%c stands in it twice", s, field)
		}
		flush()
		if n := len(p.parts); n > 0 && p.parts[n-1].field != 0 {
			return Pattern{}, fmt.Errorf("pattern %q: nothing between @%c and @%c tells where one ends", s, p.parts[n-1].field, field)
		}
		seen[field] = true
		p.parts = append(p.parts, part{field: field})
	}
	flush()
	if delta.IsName(s) {
		return Pattern{}, fmt.Errorf("pattern %q: names that end so are those of deltas, and never of releases", s)
	}
	if !seen['v'] {
		return Pattern{}, fmt.Errorf("pattern %q: no @v, so a file's version cannot be told", s)
	}
	return p, nil
}

// String gives the pattern as it was written.
func (p Pattern) String() string { return p.text }

// begins is how every name that matches begins.
func (p Pattern) begins() string {
	if p.parts[0].field == 0 {
		return p.dir + p.parts[0].literal
	}
	return p.dir
}

// Match tells whether name fits the pattern as a whole, and its version. As in
// systemd-sysupdate a wildcard ends where the text behind it first occurs. The
// names of deltas, which lie beside releases, fit none.
func (p Pattern) Match(name string) (Version, bool) {
	if delta.IsName(name) {
		return "", false
	}
	var version Version
	rest, ok := strings.CutPrefix(name, p.dir)
	if !ok {
		return "", false
	}
	for i, part := range p.parts {
		if part.field == 0 {
			var ok bool
			if rest, ok = strings.CutPrefix(rest, part.literal); !ok {
				return "", false
			}
			continue
		}
		end := len(rest)
		if i+1 < len(p.parts) {
			if end = strings.Index(rest, p.parts[i+1].literal); end < 0 {
				return "", false
			}
		}
		value := rest[:end]
		rest = rest[end:]
		if part.field != 'v' {
			if !fieldValid(part.field, value) {
				return "", false
			}
			continue
		}
		v, err := ParseVersion(value)
		if err != nil {
			return "", false
		}
		version = v
	}
	if rest != "" {
		return "", false
	}
	return version, true
}

// Name is the name that a release of version v has. It reports false for a pattern
// with other wildcards, for a name says more then than a version.
func (p Pattern) Name(v Version) (string, bool) {
	name := p.dir
	for _, part := range p.parts {
		switch part.field {
		case 0:
			name += part.literal
		case 'v':
			name += string(v)
		default:
			return "", false
		}
	}
	got, ok := p.Match(name)
	return name, ok && got == v
}

// fieldValid tells whether s is a value of the wildcard @field.
func fieldValid(field byte, s string) bool {
	number := func(base, bits int) bool {
		_, err := strconv.ParseUint(s, base, bits)
		return err == nil
	}
	switch field {
	case 'u':
		plain := strings.ReplaceAll(s, "-", "")
		_, err := hex.DecodeString(plain)
		dashed := len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-'
		return err == nil && len(plain) == 32 && (len(s) == 32 || dashed)
	case 'f':
		s = strings.TrimPrefix(s, "0x")
		return number(16, 64)
	case 'm':
		mode, err := strconv.ParseUint(s, 8, 32)
		return err == nil && mode&^0o775 == 0
	case 't', 's', 'd', 'l':
		return number(10, 64)
	case 'a', 'g', 'r':
		switch strings.ToLower(s) {
		case "1", "yes", "y", "true", "t", "on", "0", "no", "n", "false", "f", "off":
			return true
		}
		return false
	case 'h':
		_, err := hex.DecodeString(s)
		return err == nil && len(s) == 64
	}
	return false
}
