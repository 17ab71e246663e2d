package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// What a person reads goes to stdout by way of a screen, and obeys what systemctl
// obeys: SYSTEMD_COLORS and NO_COLOR, TERM, COLUMNS, SYSTEMD_PAGER and PAGER,
// SYSTEMD_LESS, SYSTEMD_LESSCHARSET, SYSTEMD_PAGERSECURE and the locale. A pipe gets
// no colour, no pager and nothing cut off. Colour is never the only thing that tells.

// view are the flags of a verb that only reads.
type view struct {
	json    bool
	full    bool
	noPager bool
}

// flags adds them to a verb that prints a table, or another page of text.
func (o *view) flags(cmd *cobra.Command, table bool) {
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	cmd.Flags().BoolVar(&o.noPager, "no-pager", false, "do not have a pager show it")
	if table {
		cmd.Flags().BoolVarP(&o.full, "full", "l", false, "do not cut cells to the width of the terminal")
	}
}

// show prints v as JSON, or has f print it to a screen.
func (o view) show(cmd *cobra.Command, v any, f func(*screen) error) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), v)
	}
	s := newScreen(cmd.OutOrStdout(), o)
	err := f(s)
	if closed := s.close(); err == nil {
		err = closed
	}
	if errors.Is(err, syscall.EPIPE) { // who reads has read enough
		return nil
	}
	return err
}

// screen is an io.Writer to which any text may be written: what would act on the
// terminal does not get there.
type screen struct {
	raw    io.Writer // ours alone: colours
	colour bool
	ascii  bool
	width  int // columns; 0: as wide as it has to be
	pager  *pager
	words  *strings.Replacer // of a realm, see [said]; nil: as they are
}

// plainScreen is one that is no terminal.
func plainScreen(w io.Writer) *screen { return &screen{raw: w, ascii: !utf8Locale(os.Getenv)} }

func newScreen(w io.Writer, o view) *screen {
	s := plainScreen(terminal(w))
	if in, ok := w.(said); ok {
		s.words = in.words
	}
	w = s.raw
	f, ok := w.(*os.File)
	tty := ok && term.IsTerminal(int(f.Fd()))
	s.colour = colours(tty, os.Getenv)
	if !tty {
		return s
	}
	if !o.full {
		s.width = columns(f)
	}
	if !o.noPager && !dumb(os.Getenv) {
		if s.pager = startPager(f, s.ascii, os.Getenv); s.pager != nil {
			s.raw = s.pager
		}
	}
	return s
}

// close ends the pager, when the person ends it.
func (s *screen) close() error {
	if s.pager == nil {
		return nil
	}
	return s.pager.close()
}

// unicodes are those that we write, for a locale that has none.
var unicodes = strings.NewReplacer("→", "->", "…", "...", "█", "#", "▒", "=", "░", ".", "–", "-")

func (s *screen) Write(text []byte) (int, error) {
	if s.words != nil {
		text = []byte(s.words.Replace(string(text)))
	}
	shown := printable(text)
	if s.ascii {
		shown = []byte(unicodes.Replace(string(shown)))
	}
	if _, err := s.raw.Write(shown); err != nil {
		return 0, err
	}
	return len(text), nil
}

// paint is an SGR sequence's number, "" for none.
type paint string

const (
	noPaint   paint = ""
	red       paint = "1;31"
	green     paint = "32"
	yellow    paint = "33"
	grey      paint = "90"
	underline paint = "4"
)

// painted writes text in a colour, where there are colours.
func (s *screen) painted(p paint, text string) error {
	if !s.colour || p == noPaint {
		_, err := io.WriteString(s, text)
		return err
	}
	var b bytes.Buffer
	to := *s
	to.raw = &b
	_, _ = io.WriteString(&to, text)
	_, err := io.WriteString(s.raw, "\x1b["+string(p)+"m"+b.String()+"\x1b[0m")
	return err
}

// colours tells whether to use them, see SYSTEMD_COLORS in systemd(1).
func colours(tty bool, env func(string) string) bool {
	tty = tty && !dumb(env)
	switch value := env("SYSTEMD_COLORS"); {
	case slices.Contains([]string{"0", "no", "n", "false", "f", "off"}, strings.ToLower(value)):
		return false
	case strings.HasPrefix(value, "auto-"):
		return tty
	case value != "":
		return true
	}
	return tty && env("NO_COLOR") == ""
}

func dumb(env func(string) string) bool { return env("TERM") == "" || env("TERM") == "dumb" }

// utf8Locale tells whether the terminal is taken to show UTF-8. Where no locale is
// set at all it is, as systemd has it: services and rescue shells have none.
func utf8Locale(env func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := env(name); value != "" {
			_, codeset, _ := strings.Cut(strings.ToLower(value), ".")
			codeset, _, _ = strings.Cut(codeset, "@")
			return codeset == "utf-8" || codeset == "utf8"
		}
	}
	return true
}

// columns is the width of the terminal, or what COLUMNS says.
func columns(f *os.File) int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
		return n
	}
	return 80
}
