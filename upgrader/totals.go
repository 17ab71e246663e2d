package upgrader

import (
	"maps"
	"math"
	"time"
)

// Totals count what happened to a target, over all its attempts: those that the
// history has forgotten, too. They are in the record, so that each attempt counts
// once, whoever is killed when.
type Totals struct {
	// Attempts are those that ended, by verdict.
	Attempts map[Verdict]int64 `json:"attempts,omitempty"`
	// FetchedBytes came from sources and from the operator's files, for artifacts
	// that arrived whole.
	FetchedBytes int64 `json:"fetched_bytes,omitempty"`
	// Swaps are those to a release that served then, by how.
	Swaps map[Swap]Spent `json:"swaps,omitempty"`
}

// Spent is time over a number of times.
type Spent struct {
	Count  int64 `json:"count"`
	TookUs int64 `json:"took_us"`
}

// Took is the time of all of them together.
func (s Spent) Took() time.Duration {
	return time.Duration(min(max(s.TookUs, 0), math.MaxInt64/int64(time.Microsecond))) * time.Microsecond
}

func (t *Totals) ended(v Verdict) {
	if t.Attempts == nil {
		t.Attempts = map[Verdict]int64{}
	}
	t.Attempts[v]++
}

func (t *Totals) swapped(by Swap, took time.Duration) {
	if t.Swaps == nil {
		t.Swaps = map[Swap]Spent{}
	}
	s := t.Swaps[by]
	s.Count++
	s.TookUs += took.Microseconds()
	t.Swaps[by] = s
}

// clone shares nothing with t, which may go on counting.
func (t *Totals) clone() Totals {
	if t == nil {
		return Totals{}
	}
	c := *t
	c.Attempts, c.Swaps = maps.Clone(t.Attempts), maps.Clone(t.Swaps)
	return c
}

// totals are those of a history: what there is where nobody has counted yet.
func (h history) totals() *Totals {
	t := &Totals{}
	for _, a := range h.Attempts {
		if a.Verdict == "" {
			continue
		}
		t.ended(a.Verdict)
		if a.Verdict != VerdictGood && a.Verdict != VerdictRolledBack {
			continue // it may never have served
		}
		for _, p := range a.Phases {
			if p.State == Swapping {
				t.swapped(a.Swap, p.Took())
			}
		}
	}
	return t
}

// totals are the record's, to be counted up.
func (m *machine) totals() *Totals {
	if m.record.Totals == nil {
		var h history
		_, _ = m.store.LoadHistory(&h) // where there is none, it begins anew
		m.record.Totals = h.totals()
	}
	return m.record.Totals
}
