package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/upgraderd/upgraderd/upgrader/progress"
)

// What goes on meanwhile stands in one line of the terminal, on stderr, which is
// written over and gone at the end. A pipe or a file gets none of it, nor does a
// terminal that cannot go back in its line.

// lineEvery is as often as a person can follow.
const lineEvery = 100 * time.Millisecond

const (
	barMin = 6 // columns in which a bar tells something
	barMax = 30
)

// line is that line. The methods of one that is not shown do nothing, but for say.
type line struct {
	w     io.Writer
	width func() int // columns; nil: not shown
	shown time.Time
	dirty bool
}

func newLine(w io.Writer) *line {
	l := &line{w: w}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return l
	}
	l.width = func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil || width <= 0 {
			return 80
		}
		return width
	}
	return l
}

// show puts text in the line, with how far it is, if that is known.
func (l *line) show(text string, p *progress.Progress) {
	if l.width == nil || time.Since(l.shown) < lineEvery {
		return
	}
	l.shown, l.dirty = time.Now(), true
	fmt.Fprintf(l.w, "\r%s\x1b[K", printable([]byte(layOut(text, p, l.width()-1)))) // the last column would wrap
}

// say writes a line that stays.
func (l *line) say(text string) {
	l.clear()
	fmt.Fprintln(shown{l.w}, text)
}

// clear takes the line away.
func (l *line) clear() {
	if l.dirty {
		fmt.Fprint(l.w, "\r\x1b[K")
		l.dirty, l.shown = false, time.Time{}
	}
}

// layOut is a line of at most width columns: "app: fetching 1.5.0 [=====>    ] 12.3
// MiB of 60.0 MiB (20 %), 2.1 MiB/s, 23s left". The bar goes first where there is
// no room.
func layOut(text string, p *progress.Progress, width int) string {
	if p != nil {
		figures := p.String()
		room := min(barMax, width-utf8.RuneCountInString(text)-utf8.RuneCountInString(figures)-len(" [] "))
		if percent, ok := p.Percent(); ok && room >= barMin {
			full := room * percent / 100
			bar := strings.Repeat("=", full)
			if full < room {
				bar += ">" + strings.Repeat(" ", room-full-1)
			}
			text += " [" + bar + "]"
		}
		text += " " + figures
	}
	if runes := []rune(text); len(runes) > width {
		text = string(runes[:max(0, width)])
	}
	return text
}
