package unitfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

var (
	errOpenQuote = errors.New("a quote is never closed")
	errTrailing  = errors.New("a backslash stands at the end with nothing to escape")
	errNUL       = errors.New("an escape makes a NUL byte")
	errNotText   = errors.New("an escape makes bytes that are not valid UTF-8")
)

// Words splits a value at white space, takes quotes away and undoes C
// escapes, as systemd does for ExecStart=. A pair of quotes with nothing in
// it is an empty word.
func Words(s string) ([]string, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return nil, errNUL
	}
	var words []string
	for {
		s = strings.TrimLeft(s, whitespace)
		if s == "" {
			return words, nil
		}
		word, rest, err := firstWord(s)
		if err != nil {
			return nil, err
		}
		if !utf8.ValidString(word) {
			return nil, errNotText
		}
		words, s = append(words, word), rest
	}
}

func firstWord(s string) (word, rest string, err error) {
	var (
		b     strings.Builder
		quote byte
	)
	for len(s) > 0 {
		c := s[0]
		switch {
		case c == '\\':
			decoded, n, err := unescape(s[1:])
			if err != nil {
				return "", "", err
			}
			b.WriteString(decoded)
			s = s[1+n:]
			continue
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			b.WriteByte(c)
		case c == '"' || c == '\'':
			quote = c
		case strings.IndexByte(whitespace, c) >= 0:
			return b.String(), s[1:], nil
		default:
			b.WriteByte(c)
		}
		s = s[1:]
	}
	if quote != 0 {
		return "", "", errOpenQuote
	}
	return b.String(), "", nil
}

var plainEscapes = map[byte]string{
	'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
	's': " ", '\\': `\`, '"': `"`, '\'': `'`,
}

// unescape reads what follows a backslash and tells how many bytes that was.
func unescape(s string) (decoded string, n int, err error) {
	if s == "" {
		return "", 0, errTrailing
	}
	if p, ok := plainEscapes[s[0]]; ok {
		return p, 1, nil
	}
	switch c := s[0]; {
	case c == 'x':
		v, err := digits(s, 1, 2, 16)
		if err == nil && v == 0 {
			err = errNUL
		}
		return string([]byte{byte(v)}), 3, err
	case c == 'u' || c == 'U':
		n := map[byte]int{'u': 4, 'U': 8}[c]
		v, err := digits(s, 1, n, 16)
		switch {
		case err != nil:
		case v == 0:
			err = errNUL
		case v > utf8.MaxRune || !utf8.ValidRune(rune(v)):
			err = fmt.Errorf("the escape %s is no character", Quote(`\`+s[:1+n]))
		}
		return string(rune(v)), 1 + n, err
	case c >= '0' && c <= '7':
		v, err := digits(s, 0, 3, 8)
		switch {
		case err != nil:
		case v == 0:
			err = errNUL
		case v > 0xff:
			err = fmt.Errorf("the escape %s is more than one byte", Quote(`\`+s[:3]))
		}
		return string([]byte{byte(v)}), 3, err
	}
	_, size := utf8.DecodeRuneInString(s)
	return "", 0, fmt.Errorf("the escape %s is unknown: a backslash itself is written twice", Quote(`\`+s[:size]))
}

func digits(s string, from, n, base int) (uint64, error) {
	if len(s) < from+n {
		return 0, fmt.Errorf("the escape %s is too short", Quote(`\`+s))
	}
	v, err := strconv.ParseUint(s[from:from+n], base, 32)
	if err != nil || strings.ContainsAny(s[from:from+n], "+-_") {
		return 0, fmt.Errorf("the escape %s has a digit that is none", Quote(`\`+s[:from+n]))
	}
	return v, nil
}

// QuoteWord writes a word so that Words reads it back as one.
func QuoteWord(w string) string {
	if w != "" && !strings.Contains(w, " ") && safe(w) {
		return w
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(w) {
		switch c := w[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
