package statusline

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Handover is how the last one went, as far as it is over. It stands at the end of
// the sentence, in the note: for a reader of before there were any it is one.
//
//	Serving 1.5.0-ba9876543210 (pid 812, generation 3): 14 sessions [ready in 5ms, the old one drained 14 connections in 1.2s]
type Handover struct {
	// Ready is the time from the start of the worker that serves now until it was
	// ready. It is never 0.
	Ready time.Duration
	// Drained is the time from when the old one was told until it ended, 0 while it
	// has not.
	Drained time.Duration
	// Killed tells of an old one whose time was over.
	Killed bool
	// Connections were open when the old one was told, Cut when it was killed.
	// Unknown where nobody could count.
	Connections, Cut int
}

// Unknown is a number that nobody could count.
const Unknown = -1

const connections = `(?: (?:with )?(\d+) connections?)?`

var handover = regexp.MustCompile(`^((?s).*?) ?\[ready in (\S+), the old one (?:drains` + connections + `|drained` + connections + ` in (\S+)|was killed after (\S+)` + connections + `)\]$`)

func count(n int) string {
	switch {
	case n < 0:
		return ""
	case n == 1:
		return " 1 connection"
	}
	return " " + strconv.Itoa(n) + " connections"
}

func (h Handover) String() string {
	text := "[ready in " + short(h.Ready) + ", the old one "
	switch {
	case h.Killed:
		text += "was killed after " + short(h.Drained)
		if n := count(h.Cut); n != "" {
			text += " with" + n
		}
	case h.Drained > 0:
		text += "drained" + count(h.Connections) + " in " + short(h.Drained)
	default:
		text += "drains" + count(h.Connections)
	}
	return text + "]"
}

// short is a time to the microsecond, and never 0.
func short(d time.Duration) string { return max(d, time.Microsecond).Round(time.Microsecond).String() }

// cutHandover takes what Handover wrote from the end of a note.
func cutHandover(note string) (string, *Handover) {
	m := handover.FindStringSubmatch(note)
	if m == nil {
		return note, nil
	}
	h := &Handover{Connections: Unknown, Cut: Unknown}
	var err error
	span := func(text string) time.Duration {
		d, e := time.ParseDuration(text)
		if e != nil || d <= 0 {
			err = fmt.Errorf("no time: %q", text)
		}
		return d
	}
	number := func(text string) int {
		if text == "" {
			return Unknown
		}
		n, e := strconv.Atoi(text)
		if e != nil {
			err = e
		}
		return n
	}
	h.Ready = span(m[2])
	switch {
	case m[6] != "":
		h.Killed, h.Drained, h.Cut = true, span(m[6]), number(m[7])
	case m[5] != "":
		h.Drained, h.Connections = span(m[5]), number(m[4])
	default:
		h.Connections = number(m[3])
	}
	if err != nil {
		return note, nil
	}
	return m[1], h
}

// unlike keeps a worker's own words from being read as a handover.
func unlike(note string) string {
	if rest, ok := strings.CutSuffix(note, "]"); ok {
		return rest + ")"
	}
	return note
}
