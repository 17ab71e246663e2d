package journal

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// valueMax bounds one value, in bytes. A reason with twenty lines of a
// program's last words fits.
const valueMax = 4096

// Clean makes text from outside fit for one line of a journal, a terminal or
// a record: control and format characters (a right-to-left override is one)
// and bytes that are not UTF-8 are written as escapes, URLs lose user
// information and query, and what is longer than 4 KiB is cut.
func Clean(s string) string {
	s = redact(s)
	if len(s) <= valueMax && plain(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if b.Len() >= valueMax {
			b.WriteString("…")
			break
		}
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteByte(' ')
		case r < 0x80 && unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case hidden(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// hidden reports a character that a reader does not see or that moves
// others: controls, format characters, line and paragraph separators.
func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// redact cuts user information and query out of every URL in s: tokens
// travel there, and errors of net/http quote whole URLs.
func redact(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	var b strings.Builder
	for {
		i := strings.Index(s, "://")
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i+3])
		s = s[i+3:]
		end := strings.IndexFunc(s, func(r rune) bool {
			return unicode.IsSpace(r) || strings.ContainsRune("\"'<>`", r)
		})
		if end < 0 {
			end = len(s)
		}
		url := s[:end]
		s = s[end:]
		authority := url
		if j := strings.IndexAny(url, "/?#"); j >= 0 {
			authority = url[:j]
		}
		if j := strings.LastIndexByte(authority, '@'); j >= 0 {
			url = url[j+1:]
		}
		if j := strings.IndexAny(url, "?#"); j >= 0 {
			// What stood behind the URL in the sentence stays.
			tail := url[j:]
			url = url[:j]
			if strings.HasSuffix(tail, ":") {
				url += ":"
			}
		}
		b.WriteString(url)
	}
}
