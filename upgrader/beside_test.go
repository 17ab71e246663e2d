package upgrader

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

const besideOrderSec = 600

// bothServe has 1.0 and 1.1 serve beside each other, by an order.
func (w *world) bothServe(seconds int64) (old, name string) {
	w.t.Helper()
	old = w.running("1.0")
	w.hold(0) // nothing comes by itself
	w.start()
	name = w.publish("1.1", "")
	w.answered(w.order(Order{Verb: OrderUpgrade, Version: "1.1", BesideSec: seconds, DespiteHold: true}), VerdictBeside)
	w.eventually("beside", func(st TargetStatus) bool { return st.State == Beside })
	w.together(old, name)
	return old, name
}

func (w *world) together(old, name string) {
	w.t.Helper()
	w.unit.mu.Lock()
	defer w.unit.mu.Unlock()
	st, _ := statusline.Parse(w.unit.facts.StatusText)
	if st.Release != old || st.Beside != name {
		w.t.Fatalf("the unit serves %q, want %s beside %s", w.unit.facts.StatusText, name, old)
	}
	if now := w.unit.link("current"); now != old {
		w.t.Errorf("current is %s, want %s", now, old)
	}
}

// alone checks that a release serves, and no other.
func (w *world) alone(name string) {
	w.t.Helper()
	w.unit.mu.Lock()
	defer w.unit.mu.Unlock()
	st, _ := statusline.Parse(w.unit.facts.StatusText)
	if st.Release != name || st.Beside != "" {
		w.t.Errorf("the unit serves %q, want %s alone", w.unit.facts.StatusText, name)
	}
}

// unjudged waits until a release serves alone again, and nobody says a word of the other.
func (w *world) unjudged(name string) {
	w.t.Helper()
	if st := w.settles(name, VerdictInconclusive); len(st.KnownBad) != 0 {
		w.t.Errorf("status %+v", st)
	}
	w.alone(name)
}

func TestBeside(t *testing.T) {
	cases := map[string]func(*testing.T, *world){
		"confirmed": func(t *testing.T, w *world) {
			old, name := w.bothServe(besideOrderSec)
			if st := w.status(); st.Beside == nil || st.Beside.Release != name || st.Beside.LeftSec < besideOrderSec-20 || st.To != name {
				t.Errorf("status %+v", st)
			}
			began := time.Now()
			w.answered(w.order(Order{Verb: OrderConfirm}), VerdictGood)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("a confirm took %v: it is the verdict", took)
			}
			st := w.settles(name, VerdictGood)
			if st.Previous != old || len(st.KnownBad) != 0 {
				t.Errorf("status %+v", st)
			}
			w.alone(name)
			w.says("1.1 serves beside 1.0", "the operator orders: confirm", "1.1 stays", "the operator confirms it", "1.1 is good")
			all, err := History(w.state, "app")
			if err != nil || len(all) == 0 || all[len(all)-1].Asked != "upgrade to 1.1, beside what serves, despite the hold" {
				t.Errorf("history %+v, %v", all, err)
			}
			// And what it returns to is the one before.
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
			w.settles(old, VerdictGood)
		},
		"rolled back": func(t *testing.T, w *world) {
			old, _ := w.bothServe(besideOrderSec)
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictRolledBack)
			st := w.settles(old, VerdictRolledBack)
			if len(st.KnownBad) != 1 || st.Last.Reason != WantedUndone {
				t.Errorf("status %+v", st)
			}
			w.alone(old)
			if n := w.unit.count("restart"); n != 0 {
				t.Errorf("%d restarts", n)
			}
		},
		"leaves previous as it was": func(t *testing.T, w *world) {
			older, old := upgraded(w)
			w.hold(0)
			w.publish("3.0", "")
			w.answered(w.order(Order{Verb: OrderUpgrade, Version: "3.0", BesideSec: 60, DespiteHold: true}), VerdictBeside)
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictRolledBack)
			if st := w.settles(old, VerdictRolledBack); st.Previous != older {
				t.Errorf("previous is %q, want %s", st.Previous, older)
			}
		},
		"nobody decides, and it is well": func(t *testing.T, w *world) {
			_, name := w.bothServe(120)
			began := time.Now()
			w.settles(name, VerdictGood)
			if took := time.Since(began); took < 100*time.Second || took > 150*time.Second {
				t.Errorf("it took %v, want 2 min", took)
			}
			w.alone(name)
			w.says("1.1 stays", "nobody decided in 2m0s, and it is well")
		},
		"nobody decides, and it is unwell": func(t *testing.T, w *world) {
			fail := w.probedBy()
			old, _ := w.bothServe(120)
			fail()
			w.settles(old, VerdictRolledBack)
			w.alone(old)
		},
		"the new one ends": func(t *testing.T, w *world) {
			old, name := w.bothServe(besideOrderSec)
			began := time.Now()
			w.unit.alone(old, name+": worker 200 was killed by SIGSEGV while it served beside "+old)
			st := w.settles(old, VerdictRolledBack)
			if time.Since(began) > 5*time.Second || len(st.KnownBad) != 1 || !strings.Contains(st.Last.Reason, "SIGSEGV") {
				t.Errorf("after %v: %+v", time.Since(began), st)
			}
			if n := w.unit.count("reload"); n != 1 {
				t.Errorf("%d reloads, want that to begin with alone: nothing is to drain", n)
			}
		},
		"the old one ends": func(t *testing.T, w *world) {
			old, name := w.bothServe(besideOrderSec)
			w.unit.alone(name, "")
			w.eventually("the usual trial", func(st TargetStatus) bool { return st.State == Confirming && st.Current == name && st.Previous == old })
			w.settles(name, VerdictGood)
		},
		"the supervisor is killed": func(t *testing.T, w *world) {
			_, name := w.bothServe(besideOrderSec)
			w.unit.set(func() { w.unit.facts.ActiveState, w.unit.facts.SubState = "activating", "auto-restart" })
			time.Sleep(3 * time.Second)
			w.unit.set(func() { w.unit.facts.ActiveState, w.unit.facts.SubState = "active", "running"; w.unit.returns() })
			time.Sleep(3 * time.Second)
			if st := w.status(); st.State != Beside {
				t.Fatalf("status %+v", st)
			}
			w.saysOnce("the supervisor of app.service was started anew")
			w.answered(w.order(Order{Verb: OrderConfirm}), VerdictGood)
			w.settles(name, VerdictGood)
		},
		"the daemon is killed": func(t *testing.T, w *world) {
			old, name := w.bothServe(120)
			for range 4 { // the time goes on, whoever counts it
				time.Sleep(20 * time.Second)
				w.kill()
				w.start()
				w.eventually("beside", func(st TargetStatus) bool { return st.State == Beside })
			}
			w.together(old, name)
			began := time.Now()
			w.settles(name, VerdictGood)
			// What a killed daemon had not noted is watched again, and the window is.
			if took := time.Since(began); took < 30*time.Second || took > 100*time.Second {
				t.Errorf("it took %v more", took)
			}
		},
		"the daemon stays away": func(t *testing.T, w *world) {
			old, _ := w.bothServe(besideOrderSec)
			w.kill()
			w.guardOnce()
			w.unjudged(old)
		},
		"the daemon stays away, and the new one ends": func(t *testing.T, w *world) {
			old, name := w.bothServe(besideOrderSec)
			w.kill()
			w.unit.alone(old, name+": worker 200 exited with status 1 while it served beside "+old)
			w.guardOnce()
			if st := w.settles(old, VerdictRolledBack); len(st.KnownBad) != 1 {
				t.Errorf("status %+v", st)
			}
		},
		"reboot": func(t *testing.T, w *world) {
			old, _ := w.bothServe(besideOrderSec)
			w.reboot()
			w.start()
			w.unjudged(old)
		},
		"reboot while the choice is carried out": func(t *testing.T, w *world) {
			old, _ := w.bothServe(besideOrderSec)
			w.unit.set(func() {
				w.unit.hook = func(verb string) (systemd.Result, error, bool) { return "", context.Canceled, verb == "reload" }
			})
			w.order(Order{Verb: OrderConfirm})
			w.eventually("keeping", func(st TargetStatus) bool { return st.State == Keeping })
			w.kill()
			w.unit.set(func() { w.unit.hook = nil })
			w.reboot()
			w.start()
			w.settles(old, VerdictInconclusive)
			w.alone(old)
		},
		"a person restarts the unit": func(t *testing.T, w *world) {
			old, _ := w.bothServe(besideOrderSec)
			w.unit.startByHand()
			w.unjudged(old)
			w.says("no verdict on 1.1: the unit was started anew by somebody else")
		},
		"a person stops the unit": func(t *testing.T, w *world) {
			old, _ := w.bothServe(besideOrderSec)
			w.unit.stopByHand()
			w.settles(old, VerdictInconclusive)
			if w.unit.serving() != "" || w.unit.count("restart") != 0 {
				t.Errorf("%q serves; asked: %s", w.unit.serving(), w.unit.story())
			}
		},
		"other orders are refused": func(t *testing.T, w *world) {
			old, name := w.bothServe(besideOrderSec)
			w.publish("1.2", "")
			for _, o := range []Order{
				{Verb: OrderUpgrade, Version: "1.2", DespiteHold: true}, {Verb: OrderFetch}, {Verb: OrderUpgrade, BesideSec: 5, DespiteHold: true},
			} {
				a := w.answered(w.order(o), VerdictRefused)
				if !strings.Contains(a.Reason, "1.0 and 1.1 serve beside each other") {
					t.Errorf("%s: %s", o, a.Reason)
				}
			}
			a := w.answered(w.order(Order{Verb: OrderConfirm, Version: "1.2"}), VerdictRefused)
			if a.Reason != "it is 1.1 that serves beside 1.0" {
				t.Errorf("confirm of another: %s", a.Reason)
			}
			w.pin("1.0") // counts from the next look on
			time.Sleep(5 * time.Second)
			w.together(old, name)
			w.answered(w.order(Order{Verb: OrderConfirm, Version: "1.1"}), VerdictGood)
		},
		"confirm where nothing is to be": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			a := w.answered(w.order(Order{Verb: OrderConfirm}), VerdictRefused)
			if a.Reason != "no two releases serve beside each other" {
				t.Error(a.Reason)
			}
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.answered(w.order(Order{Verb: OrderConfirm}), VerdictRefused)
			w.settles(name, VerdictGood)
		},
		"a release that never becomes ready": func(t *testing.T, w *world) {
			w.unit.behave["1.1"] = neverReady
			old := w.running("1.0")
			w.hold(0)
			w.start()
			w.publish("1.1", "")
			w.answered(w.order(Order{Verb: OrderUpgrade, Version: "1.1", BesideSec: 60, DespiteHold: true}), VerdictRefused)
			w.settles(old, VerdictRefused)
			w.alone(old)
		},
		"a configuration that is read again": func(t *testing.T, w *world) {
			_, name := w.bothServe(60)
			w.edit(func(t *Target) { t.Confirm.Window = time.Hour }) // counts from the next cycle on
			w.settles(name, VerdictGood)
		},
	}
	for name, f := range cases {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				f(t, w)
				w.oracle()
			})
		})
	}
}

// Where no two can serve, that is said before anything is begun.
func TestBesideRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		set  func(*world)
		want string
	}{
		"Swap=restart":  {func(w *world) { w.target.Swap = SwapRestart }, "app.service is moved by restart (Swap=restart"},
		"Swap=none":     {func(w *world) { w.target.Swap = SwapNone }, "app.service is moved by none (Swap=none"},
		"no supervisor": {func(w *world) { w.unit.set(func() { w.unit.plain(); w.unit.facts.StatusText = "" }) }, "app.service is moved by restart (ExecStart= does not run upgraderd supervise"},
		"it is stopped": {func(w *world) { w.unit.stopByHand() }, "app.service does not run"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				old := w.running("1.0")
				w.hold(0)
				tt.set(w)
				w.start()
				w.publish("1.1", "")
				w.looked()
				before := w.unit.count("reload") + w.unit.count("restart")
				a := w.answered(w.order(Order{Verb: OrderUpgrade, Version: "1.1", BesideSec: 60, DespiteHold: true}), VerdictRefused)
				if !strings.Contains(a.Reason, tt.want) {
					t.Errorf("refused with %q, want %q in it", a.Reason, tt.want)
				}
				if st := w.status(); st.Current != old || w.unit.count("reload")+w.unit.count("restart") != before {
					t.Errorf("something was begun: %+v, %s", st, w.unit.story())
				}
				w.oracle()
			})
		})
	}
	for _, o := range []Order{
		{Verb: OrderRollback, BesideSec: 5}, {Verb: OrderUpgrade, BesideSec: -1}, {Verb: OrderUpgrade, BesideSec: int64(BesideMax/time.Second) + 1},
	} {
		o.ID = "x"
		if err := o.check(); err == nil {
			t.Errorf("order %+v was taken", o)
		}
	}
}
