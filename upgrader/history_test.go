package upgrader

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

func (w *world) history() []Attempt {
	w.t.Helper()
	all, err := History(w.state, "app")
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// outline is an attempt without its times.
func outline(a Attempt) string {
	return fmt.Sprintf("%d: %s → %s, %s by %s, asked %q: %s", a.Number, a.From, a.To, a.Verdict, a.Swap, a.Asked, a.Reason)
}

func TestHistory(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.start()
		good := w.publish("1.1", "")
		w.settles(good, VerdictGood)
		w.publish("1.2", "")
		w.eventually("1.2 is on trial", func(st TargetStatus) bool { return st.State == Confirming })
		w.unit.crash(false)
		w.eventually("1.2 is undone", func(st TargetStatus) bool {
			return st.State == Idle && st.Last != nil && st.Last.Verdict == VerdictRolledBack
		})
		w.kill()
		w.start()
		w.publish("1.3", "")
		w.eventually("1.3 is on trial", func(st TargetStatus) bool { return st.State == Confirming })
		under := w.history()
		if last := under[len(under)-1]; last.To != "1.3" || last.Verdict != "" {
			t.Errorf("under way: got %s", outline(last))
		}
		w.kill() // in the middle: it is the same attempt when it goes on
		w.start()
		w.eventually("1.3 is good", func(st TargetStatus) bool {
			return st.State == Idle && st.Last.To == "1.3" && st.Last.Verdict == VerdictGood
		})
		w.kill()
		all := w.history()
		var got []string
		for _, a := range all {
			got = append(got, outline(a))
		}
		want := []string{
			`1:  → 1.0, installed by , asked "": `,
			`2: 1.0 → 1.1, good by handover, asked "": `,
			`3: 1.1 → 1.2, rolled-back by handover, asked "": it crashed`,
			`4: 1.1 → 1.3, good by handover, asked "": `,
		}
		if len(got) != len(want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("got %q, want %q…", got[i], want[i])
			}
		}
		last := all[3]
		var watched time.Duration
		for _, p := range last.Phases {
			if p.State == Confirming {
				watched = p.Took()
			}
		}
		if watched < windowDefault || last.Phases[0].State != Fetching || last.Ended.Sub(last.Began) < windowDefault {
			t.Errorf("phases %+v, %s to %s: want fetching first, and a whole window of confirming", last.Phases, last.Began, last.Ended)
		}
	})
}

// brokenHistory is a disk that takes everything but the history.
type brokenHistory struct {
	disk
	broken bool
}

func (d *brokenHistory) SaveHistory(v any) error {
	if d.broken {
		return fmt.Errorf("no history today")
	}
	return d.disk.SaveHistory(v)
}

// TestHistoryIsNoCondition upgrades although nothing can be remembered, and
// remembers what it can once that is mended.
func TestHistoryIsNoCondition(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		d := &brokenHistory{broken: true}
		w.wrap = func(s *store.Store) disk { d.disk = s; return d }
		w.running("1.0")
		w.start()
		w.settles(w.publish("1.1", ""), VerdictGood)
		d.broken = false
		w.settles(w.publish("1.2", ""), VerdictGood)
		w.kill()
		all := w.history()
		if n := len(all); n == 0 || all[n-1].To != "1.2" || all[n-1].Verdict != VerdictGood {
			t.Errorf("got %+v, want 1.2 as the last", all)
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	s, err := store.Open(scratch(t))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{store: s, wall: time.Now}
	for i := range historyLength + 20 {
		m.record.To, m.record.Digest = "1.0-0123456789ab", fmt.Sprint(i)
		m.beginAttempt()
		m.concludeAttempt(VerdictRefused, strings.Repeat("ü", 5000))
		m.remember(context.Background())
		if m.record.Attempt != nil {
			t.Fatalf("attempt %d was not remembered", i)
		}
	}
	var h history
	if _, err := s.LoadHistory(&h); err != nil || len(h.Attempts) != historyLength || h.Attempts[0].Number != 21 {
		t.Errorf("%d attempts from %d on, %v", len(h.Attempts), h.Attempts[0].Number, err)
	}
	m.record = record{} // lost; numbers go on
	m.record.To, m.record.Digest = "1.0-0123456789ab", "x"
	m.beginAttempt()
	if m.record.Number != historyLength+21 {
		t.Errorf("the next has number %d", m.record.Number)
	}
}

// Reasons may be larger in JSON than they are: the oldest attempts make room.
func TestHistoryIsFull(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.kill()
		s, err := store.Open(filepath.Join(w.state, "app"))
		if err != nil {
			t.Fatal(err)
		}
		var h history
		for _, size := range []int{reasonMax, 1} { // until not one more has room
			for err == nil {
				a := Attempt{Number: -len(h.Attempts), To: "0.1", Verdict: VerdictRefused, Reason: strings.Repeat("<", size)}
				more := history{append(slices.Clone(h.Attempts), a)}
				if err = s.SaveHistory(more); err == nil {
					h = more
				}
			}
			err = nil
		}
		w.start()
		w.settles(w.publish("1.1", ""), VerdictGood)
		w.kill()
		var kept history
		if _, err := s.LoadHistory(&kept); err != nil || len(kept.Attempts) < 10 {
			t.Fatalf("%d attempts, %v", len(kept.Attempts), err)
		}
		if last := kept.Attempts[len(kept.Attempts)-1]; last.To != "1.1" || last.Verdict != VerdictGood {
			t.Errorf("remembered last: %s", outline(last))
		}
	})
}
