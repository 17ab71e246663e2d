package upgrader

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// A target whose .upgrade file goes in the middle of a trial leaves nothing
// pending, for a reboot months later to revert.
func TestRetiredOnTrial(t *testing.T) {
	denied := &systemd.Error{Code: systemd.CodeDenied, Verb: "reload", Unit: "app.service", Err: errors.New("no target needs it")}
	// Polkit lets the daemon touch the units of targets that are there.
	forbid := func(w *world) {
		w.unit.set(func() {
			w.unit.hook = func(verb string) (systemd.Result, error, bool) {
				return "", denied, verb == "reload" || verb == "restart" || strings.HasPrefix(verb, "start ")
			}
		})
	}
	retire := func(w *world) {
		forbid(w)
		if err := w.daemon.Reload(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
	}
	// none runs a daemon that knows no target, as after a restart.
	none := func(w *world, broken func(string) bool) (stop func()) {
		d, err := New(Options{StateDir: w.state, Systemd: w.unit, Log: w.log, Broken: broken})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		return func() {
			cancel()
			<-done
		}
	}
	// after a reboot what serves is as before.
	survives := func(w *world, name string) {
		if st := w.status(); st.State.pending() {
			t.Errorf("%s is pending", st.State)
		}
		w.reboot()
		if got := w.unit.serving(); got != name {
			t.Errorf("the host came up with %s, want %s", got, name)
		}
	}
	cases := map[string]func(*testing.T, *world){
		"the verdict is reached": func(t *testing.T, w *world) {
			_, name := w.onTrial()
			retire(w)
			err := Retire(context.Background(), Options{StateDir: w.state, Systemd: w.unit, Log: w.log}, "app")
			if !errors.Is(err, store.ErrLocked) {
				t.Errorf("got %v, want ErrLocked: the daemon is there", err)
			}
			w.settles(name, VerdictGood)
			survives(w, name)
		},
		"though the bus was away": func(t *testing.T, w *world) {
			w.running("1.0")
			w.unit.during = func(verb string) { // it goes in the swap
				if verb == "reload" {
					w.unit.set(func() { w.unit.deny = errors.New("gone") })
				}
			}
			w.start()
			name := w.publish("1.1", "")
			w.eventually("asked", func(TargetStatus) bool { return w.unit.count("reload") == 1 })
			time.Sleep(10 * time.Second)
			retire(w)
			time.Sleep(10 * time.Minute)
			w.unit.set(func() { w.unit.deny = nil })
			w.settles(name, VerdictGood)
			survives(w, name)
		},
		"it turns bad, and nobody may undo it": func(t *testing.T, w *world) {
			old, _ := w.onTrial()
			retire(w)
			w.unit.crash(true)
			st := w.settles(old, VerdictStuck)
			if !strings.Contains(st.Last.Reason, ".upgrade") || len(st.KnownBad) != 1 {
				t.Errorf("got %+v, known bad %v", st.Last, st.KnownBad)
			}
			w.saysOnce("ROLLBACK FAILED")
			w.eventually("dropped", func(TargetStatus) bool { return len(w.daemon.Status()) == 0 })
			survives(w, old) // its next start is of the one that is good
		},
		"and the daemon is restarted": func(t *testing.T, w *world) {
			_, name := w.orphaned()
			stops := w.unit.count("stop upgraderd-guard@app.timer")
			forbid(w)
			stop := none(w, nil)
			w.settles(name, VerdictInconclusive)
			w.eventually("disarmed", func(TargetStatus) bool { return w.unit.count("stop upgraderd-guard@app.timer") > stops })
			stop()
			w.saysOnce("no verdict on 1.1: its .upgrade file went")
			survives(w, name)
		},
		"and the daemon is restarted, while nobody can say what serves": func(t *testing.T, w *world) {
			_, name := w.orphaned()
			forbid(w)
			w.unit.set(func() { w.unit.deny = errors.New("gone") })
			stop := none(w, nil)
			time.Sleep(5 * time.Minute)
			w.unit.set(func() { w.unit.deny = nil })
			w.settles(name, VerdictInconclusive)
			stop()
			survives(w, name)
		},
		"in the swap, and the daemon is restarted": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.unit.hook = func(verb string) (systemd.Result, error, bool) {
				if verb == "reload" {
					time.Sleep(time.Second)
					return "", nil, true
				}
				return "", nil, false
			}
			w.start()
			w.publish("1.1", "")
			w.eventually("asked", func(TargetStatus) bool { return w.unit.count("reload") == 1 })
			w.kill()
			forbid(w)
			stop := none(w, nil)
			st := w.settles(old, VerdictInconclusive)
			stop()
			if st.Next != "" {
				t.Errorf("next is %s", st.Next)
			}
			survives(w, old)
		},
		"no daemon comes back": func(t *testing.T, w *world) {
			_, name := w.orphaned()
			forbid(w)
			if err := Retire(context.Background(), Options{StateDir: w.state, Systemd: w.unit, Log: w.log}, "app"); err != nil {
				t.Fatal(err)
			}
			w.settles(name, VerdictInconclusive)
			survives(w, name)
		},
		"the file is only broken": func(t *testing.T, w *world) {
			_, name := w.orphaned()
			stop := none(w, func(target string) bool { return target == "app" })
			time.Sleep(10 * time.Minute)
			if st := w.status(); st.State != Confirming {
				t.Errorf("state is %s, want %s until it is mended", st.State, Confirming)
			}
			stop()
			w.start() // it is mended
			w.settles(name, VerdictGood)
		},
	}
	for name, f := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in(t, func(t *testing.T, w *world) {
				f(t, w)
				w.oracle()
			})
		})
	}
}

// deadAtVerdict ends the daemon as soon as a release is to be known bad.
type deadAtVerdict struct {
	*store.Store
	w *world
}

func (d deadAtVerdict) MarkBad(store.Digest, store.Bad) error {
	d.w.cancel()
	return errKilled
}

// Of the first configuration, there is none to return to, and its target goes in the
// way back: then the unit has to start without.
func TestRetiredFirstConfig(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.configured()
		w.unit.begin("")
		w.unit.behave["1.0"] = neverReady
		w.wrap = func(s *store.Store) disk { return deadAtVerdict{s, w} }
		w.start()
		w.publish("1.0", "")
		time.Sleep(5 * time.Minute)
		w.kill()
		if st := w.status(); st.State != RollingBack || st.Current == "" {
			t.Fatalf("%s with %q, so this shows nothing", st.State, st.Current)
		}
		if err := Retire(context.Background(), Options{StateDir: w.state, Systemd: w.unit, Log: w.log}, "app"); err != nil {
			t.Fatal(err)
		}
		if st := w.status(); st.State != Idle || st.Current != "" || st.Last.Verdict != VerdictStuck {
			t.Errorf("%s with %q, %+v; want none", st.State, st.Current, st.Last)
		}
	})
}
