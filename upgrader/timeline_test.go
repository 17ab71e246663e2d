package upgrader

import (
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

// tells has the unit's supervisor tell of its last handover.
func (u *fakeUnit) tells(h statusline.Handover) {
	u.mu.Lock()
	defer u.mu.Unlock()
	st, _ := statusline.Parse(u.facts.StatusText)
	st.Handover = &h
	u.facts.StatusText = statusline.Format(st)
}

func TestHandoverIsRemembered(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		told := statusline.Handover{Ready: 5 * time.Millisecond, Connections: 14, Cut: statusline.Unknown}
		w.unit.handed = &told
		w.start()
		name := w.publish("1.1", "")
		w.eventually("1.1 is on trial", func(st TargetStatus) bool { return st.State == Confirming })
		over := told
		over.Drained = 2 * time.Second
		w.unit.tells(over)
		w.settles(name, VerdictGood)
		w.kill()
		all := w.history()
		h := all[len(all)-1].Handover
		if h == nil || h.Generation != 2 || h.DrainedUs-h.ReadyUs != 2_000_000 || h.Connections == nil || *h.Connections != 14 || h.Killed || h.Cut != nil {
			t.Fatalf("got %+v", h)
		}
		if h.StartedUs < 0 || h.ReadyUs < h.StartedUs {
			t.Errorf("ready at %d, started at %d", h.ReadyUs, h.StartedUs)
		}
	})
}

// A graceful restart of the operator's while a release is on trial is another
// handover.
func TestHandoverOfSomebodyElse(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		told := statusline.Handover{Ready: 5 * time.Millisecond, Connections: statusline.Unknown, Cut: statusline.Unknown}
		w.unit.handed = &told
		w.start()
		name := w.publish("1.1", "")
		w.eventually("1.1 is on trial", func(st TargetStatus) bool { return st.State == Confirming })
		w.unit.mu.Lock()
		w.unit.serve(name)
		w.unit.mu.Unlock()
		told.Drained, told.Killed, told.Cut = 30*time.Second, true, 3
		w.unit.tells(told)
		w.settles(name, VerdictGood)
		w.kill()
		all := w.history()
		if h := all[len(all)-1].Handover; h == nil || h.DrainedUs != 0 || h.Killed || h.Cut != nil || h.Connections != nil {
			t.Errorf("got %+v", h)
		}
	})
}

func TestFirstAnswerIsRemembered(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.probedBy()
		w.running("1.0")
		w.start()
		w.settles(w.publish("1.1", ""), VerdictGood)
		w.kill()
		all := w.history()
		if a := all[len(all)-1]; a.AnsweredUs <= 0 || a.AnsweredUs > 60_000_000 {
			t.Errorf("the first answer came after %dµs", a.AnsweredUs)
		}
	})
}
