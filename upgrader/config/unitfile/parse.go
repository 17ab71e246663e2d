package unitfile

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxSize is the longest text that Parse reads, in bytes. systemd has the
// same figure for one line (LONG_LINE_MAX).
const MaxSize = 1 << 20

// maxProblems bounds what one bad file can make anybody print.
const maxProblems = 50

// File is what a text in unit syntax says, in the order it says it.
type File struct {
	Sections []Section
}

// Section is one header and the assignments up to the next. A name may come
// up more than once; the assignments then add up.
type Section struct {
	Name        string
	Line        int
	Assignments []Assignment
}

// Assignment is one Key=Value. The value is as written: quotes, escapes and
// specifiers are for Words and Expand.
type Assignment struct {
	Key, Value string
	// Line is the line the key stands on, EndLine the last one that
	// backslashes joined to it. Both count from 1.
	Line, EndLine int
}

// Problem is something in the text that is not unit syntax. The lines around
// it are read all the same.
type Problem struct {
	Line    int
	Message string
	// Hint says what to write instead; it may be empty.
	Hint string
}

// Parse reads unit syntax. It always gives what could be read, and a Problem
// for each line that could not.
func Parse(text []byte) (File, []Problem) {
	p := parser{}
	if len(text) > MaxSize {
		p.problem(1, fmt.Sprintf("the file has %d bytes, at most %d are read", len(text), MaxSize), "")
		return p.file, p.problems
	}
	var (
		lines    = lineReader{rest: text}
		joined   []byte // the logical line so far, where backslashes joined several
		joining  bool
		start    int
		markSeen bool
	)
	for line, more := lines.next(); more; line, more = lines.next() {
		if !markSeen {
			line, markSeen = bytes.CutPrefix(line, []byte(byteOrderMark))
		}
		// A comment inside a continuation vanishes; it neither ends nor
		// continues the line around it, even if it ends in a backslash.
		if c := bytes.TrimLeft(line, whitespace); len(c) > 0 && (c[0] == '#' || c[0] == ';') {
			continue
		}
		if !joining {
			joined, start = joined[:0], lines.number
		}
		joined = append(joined, line...)
		joining = endsInEscape(joined)
		if joining {
			joined[len(joined)-1] = ' '
			continue
		}
		p.line(string(joined), start, lines.number)
	}
	if joining {
		p.line(string(joined), start, lines.number)
	}
	return p.file, p.problems
}

const (
	whitespace    = " \t\n\r"
	byteOrderMark = "\uFEFF"
)

// endsInEscape tells whether a backslash stands at the end with nothing to
// escape: an odd run of them.
func endsInEscape[T string | []byte](b T) bool {
	run := 0
	for run < len(b) && b[len(b)-1-run] == '\\' {
		run++
	}
	return run%2 == 1
}

type parser struct {
	file     File
	problems []Problem
	// skipping is set after a header that could not be read, so that one
	// mistake gives one message.
	skipping bool
}

func (p *parser) problem(line int, message, hint string) {
	switch {
	case len(p.problems) < maxProblems:
		p.problems = append(p.problems, Problem{Line: line, Message: message, Hint: hint})
	case len(p.problems) == maxProblems:
		p.problems = append(p.problems, Problem{Line: line, Message: "more lines like these follow; the rest is not reported"})
	}
}

// line takes in one logical line.
func (p *parser) line(l string, start, end int) {
	l = strings.Trim(l, whitespace)
	switch {
	case l == "":
	case !utf8.ValidString(l):
		p.problem(start, "the line is not valid UTF-8", "")
	case l[0] == '[':
		p.header(l, start)
	default:
		p.assignment(l, start, end)
	}
}

func (p *parser) header(l string, line int) {
	p.skipping = true
	name, closed := strings.CutSuffix(l[1:], "]")
	if !closed {
		hint := "write it as [Name], alone on its line"
		if strings.Contains(l, "]") {
			hint = "a comment needs a line of its own"
		}
		p.problem(line, fmt.Sprintf("the section header %s does not end in ]", Quote(l)), hint)
		return
	}
	if !safe(name) {
		p.problem(line, fmt.Sprintf("the section header %s holds a quote, a backslash or a control character", Quote(l)), "")
		return
	}
	p.skipping = false
	p.file.Sections = append(p.file.Sections, Section{Name: name, Line: line})
}

func (p *parser) assignment(l string, start, end int) {
	if p.skipping {
		return
	}
	if len(p.file.Sections) == 0 {
		p.problem(start, fmt.Sprintf("%s stands before any section header", Quote(l)), "begin with a line such as [Upgrade]")
		return
	}
	key, value, ok := strings.Cut(l, "=")
	if !ok && l[len(l)-1] == ']' {
		p.skipping = true // what follows was meant for that section
		p.problem(start, fmt.Sprintf("the section header %s does not begin with [", Quote(l)), "write it as [Name], alone on its line")
		return
	}
	if !ok {
		p.problem(start, fmt.Sprintf("%s has no =", Quote(l)), "write Key=value; a comment begins with #")
		return
	}
	key, value = strings.TrimRight(key, whitespace), strings.TrimLeft(value, whitespace)
	if key == "" {
		p.problem(start, "there is no key before the =", "write Key=value")
		return
	}
	s := &p.file.Sections[len(p.file.Sections)-1]
	s.Assignments = append(s.Assignments, Assignment{Key: key, Value: value, Line: start, EndLine: end})
}

// safe is systemd's string_is_safe.
func safe(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == 0x7f || c == '"' || c == '\'' || c == '\\' {
			return false
		}
	}
	return true
}

// lineReader cuts text into lines where systemd's read_line does: at \n, \r
// and NUL, where a run without a repeated byte, such as \r\n, is one end.
type lineReader struct {
	rest   []byte
	number int
}

func (r *lineReader) next() ([]byte, bool) {
	if len(r.rest) == 0 {
		return nil, false
	}
	r.number++
	end := bytes.IndexAny(r.rest, "\n\r\x00")
	if end < 0 {
		line := r.rest
		r.rest = nil
		return line, true
	}
	line, rest := r.rest[:end], r.rest[end:]
	var seen [256]bool
	for len(rest) > 0 {
		c := rest[0]
		if c != '\n' && c != '\r' && c != 0 || seen[c] || seen[0] {
			break
		}
		seen[c] = true
		rest = rest[1:]
	}
	r.rest = rest
	return line, true
}

// String prints the file so that Parse reads the same sections, keys and
// values from it; comments and the places of lines are lost.
func (f File) String() string {
	var b strings.Builder
	// Parse drops the first byte order mark that begins a line, so a key that
	// begins with one needs another before it.
	if f.any(func(a Assignment) bool { return strings.HasPrefix(a.Key, byteOrderMark) }) {
		b.WriteString(byteOrderMark)
	}
	for i, s := range f.Sections {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("[" + s.Name + "]\n")
		for _, a := range s.Assignments {
			b.WriteString(a.Key + "=" + a.Value)
			if endsInEscape(a.Value) {
				b.WriteByte(' ') // or the next line would join this one
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func (f File) any(is func(Assignment) bool) bool {
	return slices.ContainsFunc(f.Sections, func(s Section) bool { return slices.ContainsFunc(s.Assignments, is) })
}

// Quote is %q for a message: what a user typed, but never more than anybody
// wants to read.
func Quote(s string) string {
	const most = 80
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%q…", s[:cut])
}
