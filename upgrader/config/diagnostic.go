package config

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/upgraderd/upgraderd/upgrader/advice"
)

// Code is a stable reason, printed in brackets behind a message.
type Code string

const (
	CodeFile     Code = "CONFIG_FILE"     // a file that cannot or must not be read
	CodeSyntax   Code = "CONFIG_SYNTAX"   // a line that is not unit syntax
	CodeKey      Code = "CONFIG_KEY"      // an unknown key or section
	CodeValue    Code = "CONFIG_VALUE"    // a value its key does not take
	CodeMissing  Code = "CONFIG_MISSING"  // a required key without a value
	CodeTrust    Code = "CONFIG_TRUST"    // no key, a bad key, or trust without proof
	CodeConflict Code = "CONFIG_CONFLICT" // two things that cannot both be
)

// Diagnostic is one thing to tell the person who wrote a file.
type Diagnostic struct {
	// Target is the name of the target it concerns.
	Target string
	// File and Line say where. Line is 0 where the file as a whole is meant.
	File string
	Line int
	Code Code
	// Warning is set where the target can be used all the same.
	Warning bool
	// Host is set where this host could not read what stands there, for now: no
	// descriptors, no memory, a disk that fails. It says nothing of the file.
	Host bool
	// Message is one line: what is wrong.
	Message string
	// Hint is one line: what to do. It may be empty.
	Hint string
}

// String reads "FILE:LINE: MESSAGE [CODE]", on one line.
func (d Diagnostic) String() string {
	var b strings.Builder
	b.WriteString(printable(d.File))
	if d.Line > 0 {
		b.WriteString(":" + strconv.Itoa(d.Line))
	}
	b.WriteString(": ")
	if d.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(d.Message + " [" + string(d.Code) + "]")
	return b.String()
}

// Diagnostics come in the order in which the files are read.
type Diagnostics []Diagnostic

// Print writes each diagnostic on a line of its own, and its hint below it.
func (ds Diagnostics) Print(w io.Writer) error {
	for _, d := range ds {
		text := d.String() + "\n"
		if d.Hint != "" {
			text += "\thint: " + d.Hint + "\n"
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}

// Errors gives those that are not warnings.
func (ds Diagnostics) Errors() Diagnostics {
	return slices.DeleteFunc(slices.Clone(ds), func(d Diagnostic) bool { return d.Warning })
}

// Of gives those that concern one target.
func (ds Diagnostics) Of(target string) Diagnostics {
	return slices.DeleteFunc(slices.Clone(ds), func(d Diagnostic) bool { return d.Target != target })
}

// Doubt tells that a target that was not read may be there all the same: an error
// is about it, or about a whole directory.
func (ds Diagnostics) Doubt(target string) bool {
	return slices.ContainsFunc(ds.Errors(), func(d Diagnostic) bool { return d.Target == target || d.Target == "" })
}

// Unread gives those of the errors that say nothing of a file: what stands in it
// nobody knows, so whoever knows what stood in it before goes on by that.
func (ds Diagnostics) Unread() Diagnostics {
	return slices.DeleteFunc(ds.Errors(), func(d Diagnostic) bool { return !d.Host })
}

// ofHost tells an error that passes, and that is about this host.
func ofHost(err error) bool {
	return slices.ContainsFunc([]error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EIO, syscall.ESTALE, syscall.ETIMEDOUT,
	}, func(of error) bool { return errors.Is(err, of) })
}

// Err joins the errors into one, nil if there is none. Hints are advice.
func (ds Diagnostics) Err() error {
	var errs []error
	for _, d := range ds.Errors() {
		err := errors.New(d.String())
		if d.Hint != "" {
			err = advice.Give(err, "%s", d.Hint)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// hinted is an error that knows what to do about it, and perhaps its code.
type hinted struct {
	error
	code Code
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

// hintOf gives the hint of an error, "" if it has none.
func hintOf(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}

func withHint(err error, hint string) error { return &hinted{error: err, hint: hint} }

func refuse(hint, format string, args ...any) error {
	return &hinted{error: fmt.Errorf(format, args...), hint: hint}
}

func distrust(hint, format string, args ...any) error {
	return &hinted{error: fmt.Errorf(format, args...), code: CodeTrust, hint: hint}
}

// printable keeps a file name from breaking its line.
func printable(name string) string {
	if q := strconv.Quote(name); q[1:len(q)-1] != name {
		return q
	}
	return name
}
