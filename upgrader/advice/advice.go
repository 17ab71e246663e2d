// Package advice lets an error say what a person can do about it, apart from what
// went wrong: the text of such an error is "WHAT; ADVICE", on one line, for a log, and
// who talks to a person finds the advice and gives it a line of its own. Any error may
// do so by a method; this package is for those that are nothing else.
package advice

import (
	"fmt"
	"strings"
)

// Adviser is an error that knows what to do about it. The text of the error ends in
// "; " and the advice, unless that is "".
type Adviser interface {
	error
	Advice() string
}

type advised struct {
	error
	advice string
}

func (e *advised) Error() string  { return e.error.Error() + "; " + e.advice }
func (e *advised) Unwrap() error  { return e.error }
func (e *advised) Advice() string { return e.advice }

// Give gives err advice: an imperative, without a full stop.
func Give(err error, format string, args ...any) error {
	return &advised{err, fmt.Sprintf(format, args...)}
}

// Of gives the advice of all errors in err's tree, the outermost first.
func Of(err error) []string {
	var all []string
	if a, ok := err.(Adviser); ok && a.Advice() != "" { //nolint:errorlint // the tree is walked here
		all = append(all, a.Advice())
	}
	switch e := err.(type) { //nolint:errorlint // the tree is walked here
	case interface{ Unwrap() error }:
		all = append(all, Of(e.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			all = append(all, Of(one)...)
		}
	}
	return all
}

// Split parts the text of err by line, and takes the advice out of each line. Lines
// of text alone have no advice.
func Split(err error) (lines []Line) {
	all := Of(err)
	for text := range strings.SplitSeq(err.Error(), "\n") {
		l := Line{Text: text}
		for _, a := range all {
			what, behind, ok := strings.Cut(l.Text, "; "+a)
			if !ok || behind != "" && !strings.ContainsAny(behind[:1], ";:,)") { // the words of more
				continue
			}
			l.Text = what + behind
			l.Advice = append(l.Advice, a)
		}
		lines = append(lines, l)
	}
	return lines
}

// Line is what an error says in one line, and what to do about that.
type Line struct {
	Text   string
	Advice []string
}
