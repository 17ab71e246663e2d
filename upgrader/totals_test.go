package upgrader

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

// TestTotals counts each attempt once, over kills in the middle of one.
func TestTotals(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.start()
		w.settles(w.publish("1.1", ""), VerdictGood)
		w.publish("1.2", "")
		w.eventually("1.2 is on trial", func(st TargetStatus) bool { return st.State == Confirming })
		w.kill()
		w.start()
		w.eventually("1.2 is good", func(st TargetStatus) bool {
			return st.State == Idle && st.Last.To == "1.2" && st.Last.Verdict == VerdictGood
		})
		w.publish("1.3", "")
		w.eventually("1.3 is on trial", func(st TargetStatus) bool { return st.State == Confirming })
		w.unit.crash(false)
		w.eventually("1.3 is undone", func(st TargetStatus) bool {
			return st.State == Idle && st.Last.Verdict == VerdictRolledBack
		})
		w.kill()
		st := ReadStatus(w.state, []*Target{w.target})[0]
		for v, want := range map[Verdict]int64{VerdictInstalled: 1, VerdictGood: 2, VerdictRolledBack: 1} {
			if got := st.Totals.Attempts[v]; got != want {
				t.Errorf("%s: got %d attempts, want %d", v, got, want)
			}
		}
		if s := st.Totals.Swaps[SwapHandover]; s.Count != 3 {
			t.Errorf("handovers: got %+v, want 3", s)
		}
		if st.Totals.FetchedBytes <= 0 {
			t.Errorf("got %d bytes fetched", st.Totals.FetchedBytes)
		}
		if st.Checked.IsZero() || st.PollIntervalSec != 10 {
			t.Errorf("the source answered at %v, and is polled every %vs", st.Checked, st.PollIntervalSec)
		}
	})
}

// A daemon from before there were totals has left a history.
func TestTotalsBeginWithTheHistory(t *testing.T) {
	dir := scratch(t)
	s, err := store.Open(filepath.Join(dir, "app"))
	if err != nil {
		t.Fatal(err)
	}
	h := history{Attempts: []Attempt{
		{Number: 1, Verdict: VerdictGood, Swap: SwapHandover, Phases: []Phase{{Swapping, 2_000_000}}},
		{Number: 2, Verdict: VerdictRefused, Swap: SwapHandover, Phases: []Phase{{Swapping, 9_000_000}}},
	}}
	if err := s.SaveHistory(h); err != nil {
		t.Fatal(err)
	}
	target := &Target{Name: "app", Unit: "app.service"}
	before := ReadStatus(dir, []*Target{target})[0].Totals
	m := &machine{store: s, wall: time.Now, target: target}
	m.record.To, m.record.Digest = "1.0-0123456789ab", "x"
	m.beginAttempt()
	m.concludeAttempt(VerdictRefused, "")
	if err := m.save(); err != nil {
		t.Fatal(err)
	}
	m.remember(context.Background())
	after := ReadStatus(dir, []*Target{target})[0].Totals
	if before.Attempts[VerdictRefused] != 1 || after.Attempts[VerdictRefused] != 2 || after.Attempts[VerdictGood] != 1 {
		t.Errorf("got %v, then %v", before.Attempts, after.Attempts)
	}
	if got := after.Swaps[SwapHandover]; got.Count != 1 || got.Took() != 2*time.Second {
		t.Errorf("got %+v, want one handover of 2s", got)
	}
	if err := os.Remove(filepath.Join(dir, "app", "history.json")); err != nil {
		t.Fatal(err)
	}
	if got := ReadStatus(dir, []*Target{target})[0].Totals; got.Attempts[VerdictRefused] != 2 {
		t.Errorf("without a history: %v", got.Attempts)
	}
}
