// Package progress tells how far a transfer is: its rate is that of the last
// seconds, never the mean since the beginning, and what cannot be known is not
// guessed.
package progress

import (
	"fmt"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
)

const (
	// window is what a rate is measured over: long enough that one slow second
	// does not double the time left, short enough to follow a network that
	// changes.
	window = 10 * time.Second
	// step is the least time between two samples.
	step = 500 * time.Millisecond
)

// Progress is how far a transfer was at one moment. Its JSON form is what
// `upgraderd status --json` prints.
type Progress struct {
	// Done and Total are bytes, Total -1 where it is not known. What an earlier
	// attempt brought is done.
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
	// Rate is in bytes a second.
	Rate int64 `json:"rate"`
	// LeftSec is how many seconds are left at this rate, -1 where it is not known.
	LeftSec int64 `json:"left_sec"`
	// When is the moment.
	When time.Time `json:"when"`
}

// Percent is how much is done, false where the total is not known.
func (p Progress) Percent() (int, bool) {
	if p.Total <= 0 {
		return 0, false
	}
	return int(100 * float64(min(max(p.Done, 0), p.Total)) / float64(p.Total)), true
}

// String reads "12.3 MiB of 60.0 MiB (20 %), 2.1 MiB/s, 23s left".
func (p Progress) String() string {
	text := journal.Bytes(p.Done)
	if percent, ok := p.Percent(); ok {
		text += fmt.Sprintf(" of %s (%d %%)", journal.Bytes(p.Total), percent)
	}
	text += ", " + journal.Bytes(p.Rate) + "/s"
	if left, ok := p.Left(); ok {
		text += ", " + left + " left"
	}
	return text
}

// Left is the time left at this rate, as a person says it; false where it is not
// known.
func (p Progress) Left() (string, bool) {
	minutes, hours := (p.LeftSec+30)/60, (p.LeftSec+1800)/3600
	switch {
	case p.LeftSec < 0:
		return "", false
	case hours >= 10:
		return fmt.Sprintf("%dh", hours), true
	case minutes >= 60:
		return fmt.Sprintf("%dh %dmin", minutes/60, minutes%60), true
	case minutes >= 10:
		return fmt.Sprintf("%dmin", minutes), true
	case p.LeftSec >= 60:
		return fmt.Sprintf("%dmin %ds", p.LeftSec/60, p.LeftSec%60), true
	}
	return fmt.Sprintf("%ds", p.LeftSec), true
}

// Meter measures a transfer. The zero Meter is ready; its methods are for one
// goroutine.
type Meter struct {
	samples []sample // at least step apart, the first as old as the window
	last    sample
}

type sample struct {
	at   time.Time
	done int64
}

// Note tells how many bytes are done now. The first Note is where it began, with
// what an earlier attempt brought.
func (m *Meter) Note(done int64) {
	now := sample{time.Now(), done}
	m.last = now
	if n := len(m.samples); n == 0 || now.at.Sub(m.samples[n-1].at) >= step {
		m.samples = append(m.samples, now)
	}
	for len(m.samples) > 1 && now.at.Sub(m.samples[1].at) >= window {
		m.samples = m.samples[1:]
	}
}

// Progress is how far it is now, of total bytes, -1 if that is not known.
func (m *Meter) Progress(total int64) Progress {
	p := Progress{Done: m.last.done, Total: total, LeftSec: -1, When: time.Now()}
	if len(m.samples) == 0 {
		return p
	}
	first := m.samples[0]
	took := p.When.Sub(first.at) // a source that is silent is slow
	if took <= 0 {
		return p
	}
	p.Rate = int64(float64(p.Done-first.done) / took.Seconds())
	if left := total - p.Done; total >= 0 && p.Rate > 0 {
		p.LeftSec = (max(left, 0) + p.Rate - 1) / p.Rate
	}
	return p
}
