package upgrader

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/window"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// wish changes what the operator forbids, and tells the daemon, as the command line
// does.
func (w *world) wish(change func(*wish.Wishes) error) {
	w.t.Helper()
	if err := ChangeWishes(w.state, "app", change); err != nil {
		w.t.Fatal(err)
	}
	if w.stop == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := w.daemon.Reload(ctx, []*Target{w.target}); err != nil && ctx.Err() == nil {
		w.t.Fatal(err)
	}
}

func (w *world) hold(d time.Duration) {
	w.t.Helper()
	h, err := wish.NewHold(d, wish.Mark{By: "anna", Reason: "fair", When: time.Now()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.wish(func(all *wish.Wishes) error { all.Hold = &h; return nil })
}

func (w *world) unhold() {
	w.t.Helper()
	w.wish(func(all *wish.Wishes) error { all.Hold = nil; return nil })
}

func (w *world) pin(version string) {
	w.t.Helper()
	w.wish(func(all *wish.Wishes) error {
		all.Pin = nil
		if version != "" {
			all.Pin = &wish.Pin{Version: version, Mark: wish.Mark{When: time.Now()}}
		}
		return nil
	})
}

func (w *world) skip(version string) {
	w.t.Helper()
	w.wish(func(all *wish.Wishes) error {
		if version == "" {
			all.Skips = nil
			return nil
		}
		return all.Skip(version, wish.Mark{When: time.Now()})
	})
}

// comes waits until a release serves, by few looks: hours pass.
func (w *world) comes(name string) {
	w.t.Helper()
	for began := time.Now(); w.unit.serving() != name; time.Sleep(10 * time.Second) {
		if time.Since(began) > 3*time.Hour {
			w.t.Fatalf("%s never serves; status %+v", name, w.status())
		}
	}
}

// stays waits, and wants the release to be the same then, and nothing under way.
func (w *world) stays(d time.Duration, name string) {
	w.t.Helper()
	time.Sleep(d)
	if st := w.status(); st.State != Idle || st.Current != name || w.unit.serving() != name {
		w.t.Fatalf("%v later %s serves, and the status is %+v; want %s", d, w.unit.serving(), st, name)
	}
}

func TestWishes(t *testing.T) {
	for name, f := range map[string]func(*testing.T, *world){
		"a hold ends by itself": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			w.hold(10 * time.Minute)
			name := w.publish("2.0", "")
			w.stays(9*time.Minute, old)
			st := w.status()
			if st.Staged != "" {
				t.Errorf("%s was fetched", st.Staged)
			}
			if st.Hold == nil || st.Hold.LeftSec < 60 || st.Hold.LeftSec > 120 || brief(st) != "held" {
				t.Errorf("status: %+v, %s", st.Hold, brief(st))
			}
			w.comes(name)
			w.settles(name, VerdictGood)
			if st := w.status(); st.Hold != nil {
				t.Errorf("still held: %+v", st.Hold)
			}
			if got, err := Wished(w.state, "app"); err != nil || got.Hold != nil {
				t.Errorf("wished: %+v, %v", got, err)
			}
			w.saysOnce("2.0 is not taken: held until 2000-01-01 00:")
			w.saysOnce("the operator wishes: held until")
			w.saysOnce("not wished any more, its time is over: held until")
		},
		"a hold is taken back": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			w.hold(0)
			name := w.publish("2.0", "")
			w.stays(30*time.Minute, old)
			w.unhold()
			w.settles(name, VerdictGood)
			w.saysOnce("not wished any more, the operator took it back: held by anna because fair")
		},
		"held while the daemon was away": func(t *testing.T, w *world) {
			old := w.running("1.0")
			name := w.publish("2.0", "")
			w.hold(10 * time.Minute)
			w.start()
			w.stays(8*time.Minute, old)
			w.kill()
			w.unhold()
			w.start()
			w.comes(name)
			w.settles(name, VerdictGood)
		},
		"another hold in place of one that is over": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			w.hold(time.Minute)
			w.hold(10 * time.Minute)
			name := w.publish("2.0", "")
			w.stays(8*time.Minute, old)
			w.comes(name)
			w.settles(name, VerdictGood)
		},
		"held on its way": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.target.Check = []string{"bin/app"}
			w.unit.during = func(verb string) {
				if strings.HasPrefix(verb, "start upgraderd-check@") {
					w.unit.during = nil
					w.hold(10 * time.Minute)
				}
			}
			w.start()
			name := w.publish("2.0", "")
			w.eventually("held", func(st TargetStatus) bool { return st.Hold != nil && st.State == Idle && st.Staged == name })
			w.stays(8*time.Minute, old)
			if st := w.status(); st.Staged != name || st.Last.Verdict != VerdictInconclusive || !strings.Contains(st.Last.Reason, "upgraderd unhold app") {
				t.Errorf("status: %+v, %+v", st, st.Last)
			}
			w.comes(name)
			w.settles(name, VerdictGood)
			if n := w.unit.count("start upgraderd-check"); n != 1 {
				t.Errorf("checked %d times", n)
			}
		},
		"an order, held on its way": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.target.Check = []string{"bin/app"}
			w.target.Source.PollInterval = 24 * time.Hour
			w.start()
			w.looked()
			name := w.publish("2.0", "")
			w.unit.during = func(verb string) {
				if strings.HasPrefix(verb, "start upgraderd-check@") {
					w.unit.during = nil
					w.hold(10 * time.Minute)
				}
			}
			a := w.answered(w.order(Order{Verb: OrderUpgrade, Version: "2.0"}), VerdictRefused)
			if !strings.Contains(a.Reason, "held until") {
				t.Errorf("answer: %+v", a)
			}
			w.stays(8*time.Minute, old)
			w.comes(name)
			w.settles(name, VerdictGood)
		},
		"skipped on its way": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.target.Check = []string{"bin/app"}
			w.unit.during = func(verb string) {
				if strings.HasPrefix(verb, "start upgraderd-check@") {
					w.unit.during = nil
					w.skip("2.0")
				}
			}
			w.start()
			w.publish("2.0", "")
			w.eventually("skipped", func(st TargetStatus) bool { return len(st.Skips) == 1 && st.Last != nil && st.Last.To == "2.0" })
			w.stays(5*time.Minute, old)
		},
		"a trial that is held comes to its verdict": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			name := w.publish("2.0", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.hold(0)
			w.settles(name, VerdictGood)
			w.publish("3.0", "")
			w.stays(5*time.Minute, name)
		},
		"orders against a hold": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			w.hold(0)
			second, third := w.publish("2.0", ""), w.publish("3.0", "")
			for _, o := range []Order{{Verb: OrderUpgrade}, {Verb: OrderUpgrade, Version: "2.0"}} {
				if a := w.answered(w.order(o), VerdictRefused); !strings.Contains(a.Reason, "upgraderd unhold app") || !strings.Contains(a.Reason, "--despite-hold") {
					t.Errorf("answer: %+v", a)
				}
			}
			w.stays(time.Minute, old)
			w.answered(w.order(Order{Verb: OrderFetch, Version: "2.0"}), VerdictStaged)
			w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictRefused)
			w.answered(w.order(Order{Verb: OrderUpgrade, DespiteHold: true}), VerdictGood)
			w.stays(time.Minute, second)
			w.answered(w.order(Order{Verb: OrderUpgrade, DespiteHold: true, Version: "3.0"}), VerdictGood)
			w.stays(time.Minute, third)
			if a := w.answered(w.order(Order{Verb: OrderUpgrade, DespiteHold: true}), ""); !strings.Contains(a.Reason, "nothing newer than 3.0") {
				t.Errorf("answer: %+v", a)
			}
			w.answered(w.order(Order{Verb: OrderRollback, Version: "1.0"}), VerdictGood)
			w.stays(5*time.Minute, old)
			fourth := w.publish("4.0", "")
			w.answered(w.order(Order{Verb: OrderUpgrade, DespiteHold: true}), VerdictGood)
			w.stays(time.Minute, fourth)
			all, err := History(w.state, "app")
			if err != nil || all[len(all)-1].Asked != "upgrade now, despite the hold" {
				t.Errorf("history: %+v, %v", all, err)
			}
			if w.status().Hold == nil {
				t.Error("the hold is gone")
			}
		},
		"held while it waits for the operator": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.target.Swap = SwapNone
			w.start()
			name := w.publish("2.0", "")
			w.eventually("waits", func(st TargetStatus) bool { return st.State == Held })
			w.hold(10 * time.Minute)
			w.edit(func(t *Target) { t.Swap = SwapAuto })
			time.Sleep(8 * time.Minute)
			if st := w.status(); st.State != Held || st.Current != old {
				t.Fatalf("status: %+v", st)
			}
			w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictRefused)
			w.comes(name)
			w.settles(name, VerdictGood)
		},
		"back while one waits": func(t *testing.T, w *world) {
			old, _ := upgraded(w)
			w.edit(func(t *Target) { t.Swap = SwapNone })
			w.publish("3.0", "")
			w.eventually("waits", func(st TargetStatus) bool { return st.State == Held })
			w.hold(0)
			w.edit(func(t *Target) { t.Swap = SwapAuto })
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
			w.stays(5*time.Minute, old)
		},
		"nothing newer comes to wait for the operator": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.target.Swap = SwapNone
			w.start()
			name := w.publish("2.0", "")
			w.eventually("waits", func(st TargetStatus) bool { return st.State == Held })
			w.hold(0)
			w.skip("4.0")
			newer := w.publish("3.0", "")
			time.Sleep(5 * time.Minute)
			if st := w.status(); st.State != Held || st.Staged != name || st.Current != old {
				t.Fatalf("status: %+v", st)
			}
			w.publish("4.0", "")
			w.unhold()
			w.eventually("3.0 waits", func(st TargetStatus) bool { return st.State == Held && st.Staged == newer })
		},
		"despite the hold while it waits for the operator": func(t *testing.T, w *world) {
			w.running("1.0")
			w.target.Swap = SwapNone
			w.start()
			name := w.publish("2.0", "")
			w.eventually("waits", func(st TargetStatus) bool { return st.State == Held })
			w.hold(0)
			w.edit(func(t *Target) { t.Swap = SwapAuto })
			w.answered(w.order(Order{Verb: OrderUpgrade, DespiteHold: true}), VerdictGood)
			w.settles(name, VerdictGood)
		},
		"a pin leads back, and on": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			w.publish("1.4.1", "")
			w.settles(w.publish("2.0", ""), VerdictGood)
			older := w.publish("1.4.2", "")
			w.pin("1.4.*")
			w.settles(older, VerdictGood)
			if all, err := History(w.state, "app"); err != nil || all[len(all)-1].Asked != "pin to 1.4.*" {
				t.Errorf("history: %+v, %v", all, err)
			}
			w.publish("2.1", "")
			w.stays(5*time.Minute, older)
			w.saysOnce("2.1 is not taken: app is pinned to 1.4.*; to take that back: upgraderd pin app --none")
			w.publish("1.4.0", "")
			w.stays(5*time.Minute, older)
			newer := w.publish("1.4.3", "")
			w.settles(newer, VerdictGood)
			if a := w.answered(w.order(Order{Verb: OrderUpgrade, Version: "2.1"}), VerdictRefused); !strings.Contains(a.Reason, "pinned to 1.4.*") {
				t.Errorf("answer: %+v", a)
			}
			w.kill()
			w.start()
			w.stays(5*time.Minute, newer)
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
			w.stays(5*time.Minute, older) // 1.4.3 was passed over
			last := w.publish("1.4.4", "")
			w.settles(last, VerdictGood)
			w.pin("")
			w.eventually("2.1", func(st TargetStatus) bool { return strings.HasPrefix(st.Current, "2.1-") && st.State == Idle })
		},
		"a pin lowers the floor": func(t *testing.T, w *world) {
			upgraded(w)
			older := w.publish("1.4", "")
			w.pin("1.4")
			w.settles(older, VerdictGood)
			w.skip("2.0")
			w.pin("")
			w.settles(w.publish("1.9", ""), VerdictGood)
		},
		"a pin that leads back is judged": func(t *testing.T, w *world) {
			_, now := upgraded(w)
			w.publish("1.4", "")
			w.unit.behave["1.4"] = neverReady
			w.pin("1.4")
			w.eventually("refused", func(st TargetStatus) bool { return len(st.KnownBad) == 1 })
			w.stays(5*time.Minute, now)
			w.pin("")
			w.publish("1.9", "") // the floor is where it was
			w.stays(5*time.Minute, now)
		},
		"a pin after a rollback": func(t *testing.T, w *world) {
			old, _ := upgraded(w)
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
			w.settles(old, VerdictGood)
			w.pin("1.*")
			w.settles(w.publish("1.1", ""), VerdictGood)
		},
		"MinVersion holds for a pin": func(t *testing.T, w *world) {
			w.target.MinVersion = "1.5"
			now := w.running("2.0")
			w.start()
			w.publish("1.4", "")
			w.pin("1.*")
			w.stays(5*time.Minute, now)
		},
		"nothing of the pin is offered": func(t *testing.T, w *world) {
			_, now := upgraded(w)
			w.pin("7.*")
			w.publish("3.0", "")
			w.stays(5*time.Minute, now)
			w.settles(w.publish("7.1", ""), VerdictGood)
		},
		"a skipped version": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			w.skip("2.0")
			w.publish("2.0", "")
			between := w.publish("1.5", "")
			w.settles(between, VerdictGood)
			w.stays(5*time.Minute, between)
			w.saysOnce("2.0 is not taken: 2.0 skipped; to take that back: upgraderd skip app --none")
			if a := w.answered(w.order(Order{Verb: OrderUpgrade, Version: "2.0"}), VerdictRefused); !strings.Contains(a.Reason, "skipped") {
				t.Errorf("answer: %+v", a)
			}
			w.skip("")
			w.eventually("2.0", func(st TargetStatus) bool { return strings.HasPrefix(st.Current, "2.0-") && st.State == Idle })
			w.skip("1.5")
			w.answered(w.order(Order{Verb: OrderRollback, Version: "1.5"}), VerdictRefused)
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
			w.eventually("1.0", func(st TargetStatus) bool { return strings.HasPrefix(st.Current, "1.0-") && st.State == Idle })
		},
		"a skipped version that was fetched": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			w.looked()
			w.hold(0)
			w.publish("2.0", "")
			w.answered(w.order(Order{Verb: OrderFetch}), VerdictStaged)
			w.skip("2.0")
			w.unhold()
			w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictRefused)
			w.stays(5*time.Minute, old)
		},
		"wishes that nobody can read": func(t *testing.T, w *world) {
			old := w.running("1.0")
			file := filepath.Join(w.state, "app", "wishes.json")
			if err := os.WriteFile(file, []byte("{"), 0o644); err != nil {
				t.Fatal(err)
			}
			w.start()
			name := w.publish("2.0", "")
			w.stays(5*time.Minute, old)
			if st := w.status(); !strings.Contains(st.Trouble, "wishes.json") || !strings.Contains(st.Trouble, "remove it") {
				t.Errorf("status: %q", st.Trouble)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			w.settles(name, VerdictGood)
		},
		"a hold that cannot be taken out of its file": func(t *testing.T, w *world) {
			w.running("1.0")
			name := w.publish("2.0", "")
			w.hold(time.Minute)
			w.wrap = func(s *store.Store) disk { return keeping{s} }
			w.start()
			w.settles(name, VerdictGood)
			if st := w.status(); st.Hold != nil {
				t.Errorf("status: %+v", st.Hold)
			}
			w.kill()
			w.start()
			w.settles(w.publish("3.0", ""), VerdictGood)
			w.saysOnce("its time is over")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in(t, func(t *testing.T, w *world) {
				w.target.Confirm.Window = 10 * time.Second
				f(t, w)
				w.oracle()
			})
		})
	}
}

// keeping is a disk on which no wish is ever changed by the daemon.
type keeping struct{ *store.Store }

func (keeping) ChangeWishes(func([]byte) ([]byte, error)) error { return os.ErrPermission }

// What is in the way stands in a plan, which changes nothing of it.
func TestPlanTellsWishes(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.publish("1.5", "")
		w.publish("2.0", "")
		w.hold(10 * time.Minute)
		w.skip("2.0")
		p := w.foresee()
		if p.To != "1.5" || len(p.InTheWay) != 1 || !strings.HasPrefix(p.InTheWay[0], "held until 2000-01-01 00:") ||
			!strings.Contains(strings.Join(p.Remarks, "\n"), "2.0 is not taken: 2.0 skipped") {
			t.Errorf("plan: %+v", p)
		}
		if w.status().Hold == nil {
			t.Error("the hold is gone")
		}
	})
}

// What comes outside of the windows is here when the next one opens, and an order does
// not wait for that.
func TestWindows(t *testing.T) {
	in(t, func(t *testing.T, w *world) { // on a Saturday, at midnight
		night, err := window.Parse("Sat 02:00-03:00 UTC")
		if err != nil {
			t.Fatal(err)
		}
		w.target.Windows = []window.Window{night}
		old := w.running("1.0") // the first does not wait
		w.target.Check = []string{"bin/app"}
		w.target.Source.PollInterval = time.Minute
		w.start()
		name := w.publish("2.0", "")
		w.eventually("staged", func(st TargetStatus) bool { return st.Staged == name && st.State == Idle })
		w.stays(100*time.Minute, old)
		if st := w.status(); !strings.Contains(st.Waits, "opens at Sat 2000-01-01 02:00") {
			t.Errorf("status: %+v", st)
		}
		if p := w.foresee(); p.To != "2.0" || len(p.InTheWay) != 1 || !strings.HasPrefix(p.InTheWay[0], "outside of Window=") {
			t.Errorf("plan: %+v", p)
		}
		w.saysOnce("2.0 is not taken: outside of Window=, which opens at Sat 2000-01-01 02:00")
		w.comes(name)
		if now := time.Now().UTC(); now.Hour() != 2 || now.Minute() > 1 {
			t.Errorf("it came at %v", now)
		}
		w.settles(name, VerdictGood)
		if st := w.status(); st.Waits != "" || w.unit.count("start upgraderd-check") != 1 {
			t.Errorf("status: %+v", st)
		}
		// The trial of one that came in time goes on past the end.
		time.Sleep(time.Until(time.Date(2000, 1, 1, 2, 57, 30, 0, time.UTC)))
		third := w.publish("3.0", "")
		w.comes(third)
		w.settles(third, VerdictGood)
		time.Sleep(5 * time.Minute)
		fourth := w.publish("4.0", "")
		w.stays(5*time.Minute, third)
		w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictGood)
		w.settles(fourth, VerdictGood)
		w.publish("5.0", "")
		w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
		w.settles(third, VerdictGood)
		w.oracle()
	})
}

// What nobody can read forbids no way back.
func TestRollbackDespiteUnreadableWishes(t *testing.T) {
	spoil := func(w *world) {
		must(w.t, os.WriteFile(filepath.Join(w.unit.root, "wishes.json"), []byte("{"), 0o600))
	}
	t.Run("idle", func(t *testing.T) {
		in(t, func(t *testing.T, w *world) {
			old, _ := upgraded(w)
			spoil(w)
			w.answered(w.order(Order{Verb: OrderRollback, Version: "9.9"}), VerdictRefused)
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
			if got := w.unit.serving(); got != old {
				t.Errorf("serves %s, want %s", got, old)
			}
			w.publish("3.0", "")
			time.Sleep(time.Hour)
			if got := w.unit.serving(); got != old {
				t.Errorf("%s came, and nobody knows whether it is forbidden", got)
			}
		})
	})
	t.Run("held", func(t *testing.T) {
		in(t, func(t *testing.T, w *world) {
			old, _ := upgraded(w)
			w.edit(func(t *Target) {
				t.Swap = SwapNone
				t.Source.PollInterval = 24 * time.Hour
			})
			w.publish("3.0", "")
			w.edit(func(*Target) {})
			w.eventually("held", func(st TargetStatus) bool { return st.State == Held })
			spoil(w)
			w.edit(func(t *Target) { t.Swap = SwapAuto })
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
			if got := w.unit.serving(); got != old {
				t.Errorf("serves %s, want %s", got, old)
			}
		})
	})
}

// A pin that leads below what was accepted, or away from what runs or is on its way,
// acts as a downgrade does.
func TestLeadsBack(t *testing.T) {
	const v14, v15 = "1.4-000000000014", "1.5-000000000015"
	for name, row := range map[string]struct {
		record        record
		current, next string
		pin           string
		want          bool
	}{
		"nothing here":          {pin: "1.4"},
		"what runs":             {current: v14, pin: "1.4"},
		"a pattern of it":       {current: v14, record: record{Floor: v14}, pin: "1.*"},
		"older":                 {current: v14, pin: "1.3", want: true},
		"newer":                 {current: v14, pin: "1.5"},
		"newer or older":        {current: v14, pin: "1.5*", want: true}, // who knows
		"on trial":              {current: v14, next: v15, pin: "1.4", want: true},
		"on its way":            {current: v14, record: record{From: v14, To: v15}, pin: "1.4", want: true},
		"gone back from":        {current: v14, record: record{Floor: v15}, pin: "1.4", want: true},
		"both":                  {current: v14, record: record{Floor: v15}, pin: "1.?"},
		"broken":                {current: v14, record: record{Floor: v14}, next: "nothing", pin: "1.4", want: true},
		"only the record knows": {record: record{Current: v15}, pin: "1.4", want: true},
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			s, err := store.Open(filepath.Join(state, "app"))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.SaveRecord(row.record); err != nil {
				t.Fatal(err)
			}
			for link, to := range map[store.LinkName]string{store.Current: row.current, store.Next: row.next} {
				if to != "" {
					if err := os.MkdirAll(filepath.Join(state, "app", "releases", to), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.Symlink("releases/"+to, filepath.Join(state, "app", string(link))); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := LeadsBack(state, "app", wish.Pin{Version: row.pin}); got != row.want {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
	if !LeadsBack(t.TempDir(), "app", wish.Pin{Version: "1"}) {
		t.Error("where nothing is known it does not")
	}
}
