package unitfile

import (
	"fmt"
	"strings"
)

// Expand replaces each % and what follows it by what lookup says of that: a letter,
// or a name in braces, with them; %% is a percent sign. systemd has no names, so
// none can come to mean something else there. What lookup puts in is not expanded
// again.
func Expand(s string, lookup func(name string) (string, error)) (string, error) {
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
		end := 1
		if after[0] == '{' {
			if end = strings.IndexByte(after, '}') + 1; end == 0 {
				return "", fmt.Errorf("a %%{ has no }")
			}
		}
		name := after[:end]
		s = after[end:]
		if name == "%" {
			b.WriteByte('%')
			continue
		}
		v, err := lookup(name)
		if err != nil {
			return "", err
		}
		b.WriteString(v)
	}
}
