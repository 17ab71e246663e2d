package main

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
)

// shown writes text that may come from the store, which is the daemon's user's and
// not root's: what would act on the terminal, or hide in it, is written as an
// escape. A line keeps its end and a table its tabs; JSON stays what it was.
type shown struct{ w io.Writer }

func (s shown) Write(text []byte) (int, error) {
	if _, err := s.w.Write(printable(text)); err != nil {
		return 0, err
	}
	return len(text), nil
}

// terminal is what is behind w, where what is written to w is made fit for a person.
func terminal(w io.Writer) io.Writer {
	switch s := w.(type) {
	case shown:
		return s.w
	case said:
		return s.w
	}
	return w
}

func printable(text []byte) []byte {
	if !bytes.ContainsFunc(text, acts) {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		if !acts(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) { // as JSON has it
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.Bytes()
}

func acts(r rune) bool {
	return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)) ||
		r == unicode.ReplacementChar // or a byte that some terminals take for a control character
}
