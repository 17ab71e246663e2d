package metrics

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
)

// ContentType is that of the text format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// valueMax bounds a label's value, which may have come from a file that anybody
// wrote.
const valueMax = 256

// Write writes the text format to w, in one call.
func Write(w io.Writer, h Host) error {
	var b bytes.Buffer
	for _, m := range table() {
		samples := m.of(h)
		if len(samples) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", m.Name, m.Help, m.Name, m.Kind)
		for _, s := range samples {
			labels := braces(m.Labels, s.labels)
			if m.Kind == summary {
				fmt.Fprintf(&b, "%s_sum%s %s\n%s_count%s %d\n", m.Name, labels, number(s.value), m.Name, labels, s.count)
				continue
			}
			fmt.Fprintf(&b, "%s%s %s\n", m.Name, labels, number(s.value))
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func braces(names, values []string) string {
	if len(names) == 0 {
		return ""
	}
	pairs := make([]string, len(names))
	for i, name := range names {
		pairs[i] = name + `="` + escape(values[i]) + `"`
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

// escape is for a label's value: one line of text that does nothing to whoever
// shows it.
func escape(value string) string {
	if len(value) > valueMax {
		value = value[:valueMax]
	}
	value = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, value)
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)
}
