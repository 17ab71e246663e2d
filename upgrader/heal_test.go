package upgrader

import (
	"context"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

// damaged reports whether a release is not what was installed.
func (w *world) damaged(name string) bool {
	w.t.Helper()
	s, err := store.View(w.unit.root)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := store.ParseRelease(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Verify(context.Background(), r) != nil
}

// TestHeal has releases rot that run, and that a rollback would return to.
func TestHeal(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old, now := upgraded(w)
		w.rot(old)
		w.rot(now)
		time.Sleep(time.Hour)
		if !w.damaged(old) || !w.damaged(now) {
			t.Error("something was read back that nobody asked for")
		}
		calls := w.unit.count("re")
		if err := w.daemon.Reload(t.Context(), []*Target{w.target}); err != nil {
			t.Fatal(err)
		}
		w.eventually("both are whole", func(TargetStatus) bool { return !w.damaged(old) && !w.damaged(now) })
		w.saysOnce("release " + now + " is damaged on disk")
		w.saysOnce("release " + now + " was fetched again and is whole")
		w.saysOnce("release " + old + " was fetched again and is whole")
		if got := w.unit.count("re"); got != calls {
			t.Errorf("the unit was touched: %s", w.unit.story())
		}

		// What the source does not offer any more cannot be healed.
		w.kill()
		w.withdraw("1.0")
		w.rot(old)
		w.rot(now)
		w.start()
		w.eventually("one is whole", func(TargetStatus) bool { return !w.damaged(now) })
		time.Sleep(time.Hour)
		if !w.damaged(old) {
			t.Error("where did it come from?")
		}
		w.oracle()
	})
}
