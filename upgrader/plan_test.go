package upgrader

import (
	"context"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// foresee asks for the plan, and makes sure that nothing on disk or of the unit
// was touched.
func (w *world) foresee() Plan {
	w.t.Helper()
	before, calls := w.files(), w.unit.story()
	p, err := Foresee(context.Background(), Options{StateDir: w.state, Systemd: w.unit}, w.target)
	if err != nil {
		w.t.Fatal(err)
	}
	if after := w.files(); !slices.Equal(before, after) {
		w.t.Errorf("the plan touched the disk: %q, before %q", after, before)
	}
	if got := w.unit.story(); got != calls {
		w.t.Errorf("the plan moved the unit: %q, before %q", got, calls)
	}
	return p
}

// files are the names, sizes and times of all that is in the state directory.
func (w *world) files() (all []string) {
	w.t.Helper()
	err := filepath.WalkDir(w.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		all = append(all, path+" "+info.ModTime().String())
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func TestForesee(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.publish("1.0", "")
		if p := w.foresee(); p.From != "" || p.To != "1.0" || p.Bytes <= 0 || p.Running || p.Swap != SwapHandover {
			t.Errorf("first: %+v", p)
		}
		w.running("1.0")
		if p := w.foresee(); p.From != "1.0" || p.To != "" || !p.Running || len(p.Remarks) != 0 {
			t.Errorf("up to date: %+v", p)
		}
		w.publish("1.1", "")
		if p := w.foresee(); p.From != "1.0" || p.To != "1.1" || p.Window() != time.Minute || p.Why != "it runs under upgraderd supervise" || p.Before != nil {
			t.Errorf("newer: %+v", p)
		}
		w.unit.depends("worker.service")
		w.unit.depends("stopped.service")
		w.unit.dependent("stopped.service", "inactive", systemd.ResultDone)
		if p := w.foresee(); len(p.Dependents) != 0 {
			t.Errorf("a handover moves %v, too", p.Dependents)
		}
		before := w.target.Swap
		w.target.Swap = SwapRestart
		if p := w.foresee(); !slices.Equal(p.Dependents, []string{"worker.service"}) {
			t.Errorf("a restart moves %v, too, want the active dependent", p.Dependents)
		}
		w.target.Swap = before
		w.unit.behave["1.1"] = neverReady
		w.start()
		w.eventually("1.1 is refused", func(st TargetStatus) bool {
			return st.State == Idle && st.Last != nil && st.Last.Verdict == VerdictRefused
		})
		w.kill()
		p := w.foresee()
		if p.To != "" || len(p.Remarks) != 1 || !strings.Contains(p.Remarks[0], "1.1") || !strings.Contains(p.Remarks[0], "known bad") {
			t.Errorf("known bad: %+v", p)
		}
		if p.Before == nil || p.Before.To != "1.1" {
			t.Errorf("before: %+v", p.Before)
		}
		w.unit.set(func() { w.unit.facts.LoadState = "masked" })
		w.publish("1.2", "")
		if p := w.foresee(); p.To != "1.2" || !strings.Contains(p.Obstacle, "masked") {
			t.Errorf("masked: %+v", p)
		}
		w.unit.set(func() { w.unit.facts.LoadState = "loaded" })
		// What the plan said is what the daemon does.
		w.start()
		w.eventually("1.2 is good", func(st TargetStatus) bool { return st.Last.To == "1.2" && st.Last.Verdict == VerdictGood })
	})
}
