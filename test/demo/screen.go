package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// The rules of what is shown: a heading says what is about to happen, in one
// line. Below it, "$" is a command that was run in the machine, and a line with
// a time is from its journal. Nothing is wider than the terminal, or than 100
// columns where there is none. Colour is for a terminal only, never the one
// thing that tells two lines apart, and off where NO_COLOR is set.

// style is a way to paint text: the number of an SGR escape, see
// console_codes(4).
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// screen is what the person in front of it sees. It may be used by several
// goroutines at once; each call is whole lines.
type screen struct {
	width  int
	colour bool
	began  time.Time

	mu  sync.Mutex
	out io.Writer
}

const (
	widthDefault = 100
	widthMin     = 60  // below it, a terminal's own wrapping does as well
	widthMax     = 120 // above it, lines are long rather than readable
	// Where a journal's message starts: time, unit, and blanks around them.
	indent    = 22
	unitWidth = 10
)

func newScreen(out *os.File) *screen {
	s := &screen{out: out, width: widthDefault, began: time.Now()}
	if term.IsTerminal(int(out.Fd())) {
		s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if width, _, err := term.GetSize(int(out.Fd())); err == nil && width > 0 {
			s.width = min(max(width, widthMin), widthMax)
		}
	}
	return s
}

func (s *screen) paint(how style, text string) string {
	if !s.colour || how == plain || text == "" {
		return text
	}
	return "\x1b[" + string(how) + "m" + text + "\x1b[0m"
}

func (s *screen) print(lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.out, strings.Join(lines, "\n"))
}

// heading says what is about to happen.
func (s *screen) heading(text string) { s.print("", s.paint(bold, text), "") }

// note says what has been done.
func (s *screen) note(format string, args ...any) { s.print("  " + fmt.Sprintf(format, args...)) }

// command shows what is run in the machine.
func (s *screen) command(line string) { s.print("  " + s.paint(bold, "$ "+line)) }

// file shows a file that is put into the machine.
func (s *screen) file(path, text string) {
	lines := []string{"  " + s.paint(bold, path)}
	for line := range strings.Lines(text) {
		lines = append(lines, s.paint(dim, strings.TrimRight("      "+line, "\n ")))
	}
	s.print(append(lines, "")...)
}

// said shows a message of a unit, as wide as there is room.
func (s *screen) said(when time.Time, unit, message string, how style) {
	before := fmt.Sprintf("%7.2fs  %-*s  ", when.Sub(s.began).Seconds(), unitWidth, unit)
	var lines []string
	for i, line := range wrap(message, s.width-indent) {
		if i > 0 {
			before = strings.Repeat(" ", indent)
		}
		lines = append(lines, s.paint(dim, before)+s.paint(how, line))
	}
	s.print(lines...)
}

// result says how a step ended.
func (s *screen) result(ok bool, text string) {
	how := green
	if !ok {
		how = red
	}
	lines := []string{""}
	for i, line := range wrap("= "+text, s.width-4) {
		if i > 0 {
			line = "  " + line
		}
		lines = append(lines, "  "+s.paint(how, line))
	}
	s.print(lines...)
}

// wrap breaks text at blanks into lines of at most width characters. A word
// that is longer gets a line of its own.
func wrap(text string, width int) []string {
	var lines []string
	line, length := "", 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		if length > 0 && length+1+n > width {
			lines = append(lines, line)
			line, length = "", 0
		}
		if length > 0 {
			line, length = line+" ", length+1
		}
		line, length = line+word, length+n
	}
	return append(lines, line)
}

// cell is a field of a table.
type cell struct {
	text string
	how  style
}

// output shows what a command printed.
func (s *screen) output(text string) {
	const before = "  "
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n ")
		if utf8.RuneCountInString(line) <= s.width-len(before) {
			s.print(strings.TrimRight(before+line, " ")) // with its columns
			continue
		}
		for i, part := range wrap(line, s.width-len(before)-2) {
			if i > 0 {
				part = "  " + part
			}
			s.print(before + part)
		}
	}
}

// table shows rows under their titles, each column as wide as it needs to be.
func (s *screen) table(titles []string, rows [][]cell) {
	widths := make([]int, len(titles))
	for i, title := range titles {
		widths[i] = len(title)
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	if strings.Join(titles, "") != "" {
		head := make([]cell, len(titles))
		for i, title := range titles {
			head[i] = cell{title, bold}
		}
		rows = append([][]cell{head}, rows...)
	}
	var lines []string
	for _, row := range rows {
		line := " "
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+1)
			line += " " + s.paint(c.how, c.text) + pad
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	s.print(lines...)
}

// judged is a cell for what was got, and tells what was wanted if that is
// something else.
func judged[T cmp.Ordered](got, want T) cell {
	if got == want {
		return cell{fmt.Sprint(got), plain}
	}
	return cell{fmt.Sprintf("%v, want %v", got, want), red}
}
