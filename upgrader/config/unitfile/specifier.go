package unitfile

import (
	"fmt"
	"strings"
)

// Expand replaces each % and the letter after it by what lookup says of the
// letter; %% is a percent sign. What lookup puts in is not expanded again.
func Expand(s string, lookup func(letter byte) (string, error)) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "%")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if after == "" {
			return "", fmt.Errorf("a %% stands at the end; a percent sign itself is written %%%%")
		}
		if after[0] == '%' {
			b.WriteByte('%')
		} else {
			v, err := lookup(after[0])
			if err != nil {
				return "", err
			}
			b.WriteString(v)
		}
		s = after[1:]
	}
}
