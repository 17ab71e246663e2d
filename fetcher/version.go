package fetcher

import (
	"cmp"
	"fmt"
	"strings"
)

// Version is the version of a release, as its publisher spells it. It is safe
// as part of a file name, a log line and an argument: ParseVersion lets
// nothing else through.
type Version string

// versionMax keeps a version short enough to stand in a file name beside a
// digest.
const versionMax = 64

// ParseVersion accepts up to 64 of the letters, digits and ".+~_^-" that
// start with a letter or a digit.
func ParseVersion(s string) (Version, error) {
	if s == "" {
		return "", fmt.Errorf("version is empty")
	}
	if len(s) > versionMax {
		return "", fmt.Errorf("version %.20q…: %d characters, at most %d", s, len(s), versionMax)
	}
	if !isAlnum(s[0]) {
		return "", fmt.Errorf("version %q: starts with %q, want a letter or a digit", s, s[0])
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte(".+~_^-", s[i]) < 0 {
			return "", fmt.Errorf("version %q: %q is none of the letters, digits and .+~_^-", s, s[i])
		}
	}
	return Version(s), nil
}

// Compare orders versions as UAPI.10 (the version format specification of the
// UAPI group) and systemd do: negative when v is older than w, positive when it
// is newer. Different spellings may be equal, e.g. "1.0" and "1.00".
func (v Version) Compare(w Version) int {
	a, b := string(v), string(w)
	for {
		a, b = dropForeign(a), dropForeign(b)

		// "~" marks what comes before a release, so it is the one thing
		// that sorts below the end of the string.
		if first(a, '~') || first(b, '~') {
			if c := older(a, b, '~'); c != 0 {
				return c
			}
			a, b = a[1:], b[1:]
		}
		if a == "" || b == "" {
			return cmp.Compare(len(a), len(b))
		}
		// Of two parts, that which ends earlier in this order is older.
		for _, separator := range []byte("-^.") {
			if first(a, separator) || first(b, separator) {
				if c := older(a, b, separator); c != 0 {
					return c
				}
				a, b = a[1:], b[1:]
			}
		}

		class := isAlpha
		number := first09(a) || first09(b)
		if number {
			class = isDigit
		}
		var x, y string
		x, a = span(a, class)
		y, b = span(b, class)
		if number {
			// No number is older than any, even than zero.
			if c := cmp.Compare(min(len(x), 1), min(len(y), 1)); c != 0 {
				return c
			}
			// Digits are compared as text, so a number may have any size.
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Compare(len(x), len(y)); c != 0 {
				return c
			}
		}
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
	}
}

func dropForeign(s string) string {
	for s != "" && !isAlnum(s[0]) && strings.IndexByte("~-^.", s[0]) < 0 {
		s = s[1:]
	}
	return s
}

// older orders a string that starts with separator before one that does not.
func older(a, b string, separator byte) int {
	switch {
	case first(a, separator) && first(b, separator):
		return 0
	case first(a, separator):
		return -1
	}
	return 1
}

func span(s string, class func(byte) bool) (string, string) {
	i := 0
	for i < len(s) && class(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func first(s string, c byte) bool { return s != "" && s[0] == c }
func first09(s string) bool       { return s != "" && isDigit(s[0]) }
func isDigit(c byte) bool         { return '0' <= c && c <= '9' }
func isAlpha(c byte) bool         { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isAlnum(c byte) bool         { return isDigit(c) || isAlpha(c) }
