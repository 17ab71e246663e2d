// Package statusline is the one sentence in which a supervisor tells systemd,
// and through systemd anybody who asks, which release serves and how many
// old workers still drain. What Format writes, Parse reads back; both sides
// of the sentence are in this file so that they cannot drift apart.
//
// systemd keeps the sentence as the unit's StatusText (sd_notify(3),
// STATUS=), so a reader needs no right but that of `systemctl status`.
package statusline

import (
	"strconv"
	"strings"
	"unicode"
)

// Status is what a supervisor says of itself.
type Status struct {
	// Release is the release directory's name that serves, or the program's
	// path where the supervisor has no release store. Empty: nothing serves
	// yet.
	Release string
	// PID of the worker that serves.
	PID int
	// Generation counts the workers started since the unit was; the first
	// is 1.
	Generation int
	// Beside is the release that serves beside it, empty where none does, and
	// BesidePID its worker.
	Beside    string
	BesidePID int
	// Starting is the release on trial, empty outside a handover.
	Starting string
	// Draining counts the old workers that finish what they have.
	Draining int
	// Note is free text at the end: the worker's own STATUS=, or why
	// nothing serves yet. One line; Format replaces control characters.
	Note string
	// Handover is nil where none has been.
	Handover *Handover
}

// Refused opens the note of a supervisor that did not take up a handover for a
// reason of its own, such as old workers that still drain. It says nothing about
// the release.
const Refused = "handover refused: "

// ReloadFailed opens the note of a supervisor whose worker was told to read its
// configuration again and did not take it.
const ReloadFailed = "the reload failed: "

// Format gives the sentence, for example
//
//	Serving 1.4.2-0123456789ab (pid 812, generation 3); starting 1.5.0-ba9876543210; 2 draining: 14 sessions
func Format(s Status) string {
	var b strings.Builder
	if s.Release != "" {
		b.WriteString("Serving " + name(s.Release) + " (pid " + strconv.Itoa(s.PID) + ", generation " + strconv.Itoa(s.Generation) + ")")
	} else {
		b.WriteString("Waiting")
	}
	if s.Beside != "" {
		b.WriteString("; beside " + name(s.Beside) + " (pid " + strconv.Itoa(s.BesidePID) + ")")
	}
	if s.Starting != "" {
		b.WriteString("; starting " + name(s.Starting))
	}
	if s.Draining > 0 {
		b.WriteString("; " + strconv.Itoa(s.Draining) + " draining")
	}
	note := unlike(clip(clean(s.Note), maxNote))
	if s.Handover != nil {
		note = strings.TrimLeft(note+" "+s.Handover.String(), " ")
	}
	if note != "" {
		b.WriteString(": " + note)
	}
	return b.String()
}

// Parse reads the sentence back. It reports false for any text that no
// supervisor of this version wrote, such as the status of a service that
// runs without one.
func Parse(text string) (Status, bool) {
	var s Status
	head, note, _ := strings.Cut(text, ": ")
	s.Note, s.Handover = cutHandover(note)
	for i, part := range strings.Split(head, "; ") {
		switch {
		case i == 0 && part == "Waiting":
		case i == 0:
			if !parseServing(part, &s) {
				return Status{}, false
			}
		case strings.HasPrefix(part, "beside "):
			if !parseBeside(part, &s) {
				return Status{}, false
			}
		case strings.HasPrefix(part, "starting "):
			s.Starting = strings.TrimPrefix(part, "starting ")
		case strings.HasSuffix(part, " draining"):
			n, err := strconv.Atoi(strings.TrimSuffix(part, " draining"))
			if err != nil || n < 1 {
				return Status{}, false
			}
			s.Draining = n
		default:
			return Status{}, false
		}
	}
	return s, true
}

// parseServing reads "Serving NAME (pid N, generation M)".
func parseServing(part string, s *Status) bool {
	rest, ok := strings.CutPrefix(part, "Serving ")
	if !ok {
		return false
	}
	release, rest, ok := strings.Cut(rest, " (pid ")
	if !ok || release == "" {
		return false
	}
	pid, rest, ok := strings.Cut(rest, ", generation ")
	if !ok {
		return false
	}
	gen, tail, ok := strings.Cut(rest, ")")
	if !ok || tail != "" {
		return false
	}
	var err1, err2 error
	s.Release = release
	s.PID, err1 = strconv.Atoi(pid)
	s.Generation, err2 = strconv.Atoi(gen)
	return err1 == nil && err2 == nil
}

// parseBeside reads "beside NAME (pid N)".
func parseBeside(part string, s *Status) bool {
	release, rest, ok := strings.Cut(strings.TrimPrefix(part, "beside "), " (pid ")
	if !ok || release == "" {
		return false
	}
	pid, tail, ok := strings.Cut(rest, ")")
	if !ok || tail != "" {
		return false
	}
	var err error
	s.Beside = release
	s.BesidePID, err = strconv.Atoi(pid)
	return err == nil
}

// systemd drops a whole datagram above 4 KiB (NOTIFY_BUFFER_MAX), so a worker
// with much to say must not cost the sentence.
const (
	maxName = 512
	maxNote = 1024
)

// clip keeps at most n bytes, whole characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// clean keeps the sentence one line of text.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	return strings.ToValidUTF8(s, "?")
}

// name also keeps the sentence's own separators out of what stands before
// the note. Release names have none of them; a program's path may.
func name(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case ';', ':', '(', ')':
			return '_'
		}
		return r
	}, clip(clean(s), maxName))
}
