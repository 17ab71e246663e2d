package upgrader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

const guardPatience = 5 * time.Second

// guard runs the guard once, as the timer and OnFailure= do.
func (w *world) guard(ctx context.Context, wrap func(*store.Store) disk, sd Systemd) error {
	w.t.Helper()
	d, err := New(Options{StateDir: w.state, Targets: []*Target{w.target}, Systemd: sd, Log: w.log})
	if err != nil {
		w.t.Fatal(err)
	}
	if wrap != nil {
		d.disk = wrap
	}
	if w.wall != nil {
		d.wall = w.wall
	}
	return d.guard(ctx, Guarded{Target: w.target, Patience: guardPatience, Failed: w.failed})
}

func (w *world) guardOnce() {
	w.t.Helper()
	if err := w.guard(context.Background(), nil, w.unit); err != nil {
		w.t.Fatalf("guard: %v", err)
	}
}

// reboot ends everything and starts it again as a boot does: links first, then
// the unit, from current.
func (w *world) reboot() {
	w.t.Helper()
	w.kill()
	if err := RevertUnproven(context.Background(), Options{StateDir: w.state, Log: w.log}); err != nil {
		w.t.Fatalf("revert: %v", err)
	}
	if w.unit.link("current") == "" {
		w.unit.set(w.unit.waits)
		return
	}
	w.unit.startByHand()
}

// orphaned has 1.0 serve, and ends the daemon while 1.1 is on trial.
func (w *world) orphaned() (old, name string) {
	w.t.Helper()
	old, name = w.onTrial()
	w.kill()
	return old, name
}

// onTrial has 1.0 serve, and 1.1 on trial.
func (w *world) onTrial() (old, name string) {
	w.t.Helper()
	old = w.running("1.0")
	w.start()
	name = w.publish("1.1", "")
	w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
	return old, name
}

// orphanedFirst ends the daemon while the first release of all is on trial.
func (w *world) orphanedFirst() (name string) {
	w.t.Helper()
	w.unit.waits()
	name = w.publish("1.0", "")
	go w.unit.startWhen("current")
	w.start()
	w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
	w.kill()
	return name
}

func TestGuard(t *testing.T) {
	cases := map[string]func(*testing.T, *world){
		"is armed before the swap, disarmed after the verdict": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			w.eventually("an older one is stopped", func(TargetStatus) bool { return w.unit.count("stop") == 2 })
			w.settles(w.publish("1.1", ""), VerdictGood)
			w.eventually("disarmed", func(TargetStatus) bool { return w.unit.count("stop") == 3 }) // once the verdict is on disk
			verbs := []string{}
			for _, c := range strings.Split(w.unit.story(), "\n") {
				verb, _, _ := strings.Cut(c, " (")
				verbs = append(verbs, verb)
			}
			verbs = verbs[2:] // each daemon that starts makes sure that none is left
			want := []string{"start upgraderd-guard@app.timer", "reload", "stop upgraderd-guard@app.timer"}
			if !slices.Equal(verbs, want) {
				t.Errorf("systemd was asked to %q, want %q", verbs, want)
			}
		},
		"leaves a daemon that lives alone": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.guardOnce()
			w.settles(name, VerdictGood)
		},
		"leaves a daemon that comes back alone": func(t *testing.T, w *world) {
			_, name := w.orphaned()
			done := make(chan error)
			go func() { done <- w.guard(context.Background(), nil, w.unit) }()
			time.Sleep(guardPatience / 2)
			w.start()
			if err := <-done; err != nil {
				t.Error(err)
			}
			w.settles(name, VerdictGood)
		},
		"undoes what nobody watches, and it is tried again": func(t *testing.T, w *world) {
			old, name := w.orphaned()
			stops := w.unit.count("stop")
			w.guardOnce()
			st := w.settles(old, VerdictInconclusive)
			if len(st.KnownBad) != 0 || w.unit.serving() != old || w.unit.count("restart") != 0 {
				t.Errorf("got %+v, serving %s", st, w.unit.serving())
			}
			if n := w.unit.count("stop upgraderd-guard@app.timer") - stops; n != 1 {
				t.Errorf("the guard stopped its timer %d times, want once", n)
			}
			w.saysOnce("the daemon is gone in the middle of the upgrade to 1.1")
			w.start()
			w.settles(name, VerdictGood)
		},
		"knows what broke": func(t *testing.T, w *world) {
			old, _ := w.orphaned()
			w.unit.crash(false)
			w.guardOnce()
			st := w.settles(old, VerdictRolledBack)
			if len(st.KnownBad) != 1 || w.unit.serving() != old {
				t.Errorf("got %+v, serving %s", st, w.unit.serving())
			}
		},
		"believes OnFailure=, though the socket started the unit anew": func(t *testing.T, w *world) {
			old, _ := w.orphaned()
			w.failed = true
			w.unit.crash(false)
			w.unit.startByHand()
			began := time.Now()
			w.guardOnce()
			if took := time.Since(began); took >= guardPatience {
				t.Errorf("it took %v: a failure needs no patience", took)
			}
			st := w.settles(old, VerdictInconclusive)
			if len(st.KnownBad) != 0 || w.unit.serving() != old {
				t.Errorf("got %+v, serving %s", st, w.unit.serving())
			}
		},
		"leaves a fetch to the next daemon": func(t *testing.T, w *world) {
			w.running("1.0")
			s, err := store.Open(w.unit.root)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.SaveRecord(record{State: Fetching, From: w.status().Current}); err != nil {
				t.Fatal(err)
			}
			w.guardOnce()
			if st := w.status(); st.State != Fetching {
				t.Errorf("state is %s, want %s as it was", st.State, Fetching)
			}
		},
		"calls a person for a first release that broke": func(t *testing.T, w *world) {
			name := w.orphanedFirst()
			w.unit.crash(false)
			w.guardOnce()
			w.settles(name, VerdictStuck)
			w.says("[NO_PREVIOUS]")
		},
		"leaves the operator's stop alone": func(t *testing.T, w *world) {
			_, name := w.orphaned()
			w.unit.stopByHand()
			w.guardOnce()
			if st := w.settles(name, VerdictInconclusive); len(st.KnownBad) != 0 || w.unit.serving() != "" {
				t.Errorf("got %+v, serving %s", st, w.unit.serving())
			}
		},
		"has nothing to return to from the first release": func(t *testing.T, w *world) {
			name := w.orphanedFirst()
			w.guardOnce()
			if st := w.settles(name, VerdictInconclusive); len(st.KnownBad) != 0 || w.unit.serving() != name {
				t.Errorf("got %+v, serving %s", st, w.unit.serving())
			}
		},
		"three times at most": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.publish("1.1", "")
			for range attemptsMax {
				w.start()
				w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
				w.kill()
				w.guardOnce()
			}
			w.start()
			if st := w.settles(old, VerdictRefused); len(st.KnownBad) != 1 {
				t.Errorf("got %+v", st)
			}
		},
		"is missed, and said so once": func(t *testing.T, w *world) {
			w.running("1.0")
			w.unit.hook = func(verb string) (systemd.Result, error, bool) {
				if !strings.HasPrefix(verb, "start upgraderd-guard@") {
					return "", nil, false
				}
				return "", &systemd.Error{Code: systemd.CodeNotFound, Verb: "start", Unit: GuardTimer("app"), Err: errors.New("no such unit")}, true
			}
			w.start()
			w.settles(w.publish("1.1", ""), VerdictGood)
			w.settles(w.publish("1.2", ""), VerdictGood)
			w.saysOnce("no guard for the swap")
		},
		"a daemon waits for the guard that undoes": func(t *testing.T, w *world) {
			_, name := w.orphaned()
			w.unit.during = func(verb string) {
				if verb == "reload" {
					time.Sleep(2 * time.Second)
				}
			}
			done := make(chan error)
			go func() { done <- w.guard(context.Background(), nil, w.unit) }()
			time.Sleep(guardPatience + time.Second)
			w.start() // Run would return an error at once
			if err := <-done; err != nil {
				t.Error(err)
			}
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

func TestReboot(t *testing.T) {
	cases := map[string]struct {
		state State
		want  Verdict
	}{
		"on trial":           {Confirming, VerdictInconclusive},
		"in the swap":        {Swapping, ""},
		"with nothing afoot": {Idle, VerdictInstalled},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in(t, func(t *testing.T, w *world) {
				old := w.running("1.0")
				w.start()
				if c.state == Swapping {
					w.unit.during = func(verb string) {
						if verb == "reload" {
							time.Sleep(time.Second)
						}
					}
				}
				next := old
				if c.state != Idle {
					next = w.publish("1.1", "")
				}
				w.eventually(string(c.state), func(st TargetStatus) bool { return st.State == c.state })
				w.reboot()
				if got := w.unit.serving(); got != old {
					t.Fatalf("the host came up with %s, want %s", got, old)
				}
				w.unit.during = nil
				if c.state == Confirming {
					w.saysOnce("the host went down while 1.1 was on trial; app.service starts with 1.0")
				}
				w.start()
				if c.state != Idle {
					w.settles(next, VerdictGood)
				}
				w.oracle()
			})
		})
	}
}

// TestRescueAtEveryCall kills the daemon after each call it makes, for good, and
// has the guard or a reboot find what it left: then nothing is on trial any
// more, what is current serves, and the next daemon arrives where it would have
// without. The guard itself is killed too, at each of its own calls.
func TestRescueAtEveryCall(t *testing.T) {
	for _, sc := range scenarios() {
		for _, rescue := range []string{"guard", "guard killed", "reboot"} {
			if rescue == "guard killed" && !slices.Contains([]string{"first install", "handover", "restart fails", "restart, ends at once"}, sc.name) {
				continue // the guard makes the same calls, and the square of them takes long
			}
			t.Run(sc.name+"/"+rescue, func(t *testing.T) {
				t.Parallel()
				for at := 1; ; at += stride {
					hit, calls := false, 1
					for guardAt := 1; guardAt <= calls; guardAt += stride {
						t.Run(fmt.Sprintf("%d.%d", at, guardAt), func(t *testing.T) {
							hit, calls = rescueAt(t, sc, rescue, at, guardAt)
						})
					}
					if t.Failed() {
						return
					}
					if !hit {
						if at < 15 {
							t.Errorf("only %d calls", at-1)
						}
						return
					}
				}
			})
		}
	}
}

// rescueAt reports whether the scenario made the at-th call at all, and how many
// calls there are at which the guard can be killed.
func rescueAt(t *testing.T, sc scenario, rescue string, at, guardAt int) (hit bool, calls int) {
	calls = 1
	in(t, func(t *testing.T, w *world) {
		b := &breaker{kind: killAfter, at: at}
		old, name, broke, stop := w.play(sc, b)
		defer stop()
		hit = broke
		w.kill()
		if !hit {
			return
		}
		state := w.status().State
		unproven := state.pending() && state != Keeping // which begins when it was decided
		switch rescue {
		case "guard":
			w.guardOnce()
		case "guard killed":
			ctx, cancel := context.WithCancel(context.Background())
			g := &breaker{kind: killAfter, at: guardAt, kill: cancel}
			_ = w.guard(ctx, func(s *store.Store) disk { return faultyDisk{s, g} }, faultySystemd{w.unit, g})
			cancel()
			if unproven && g.n >= guardAt {
				calls = guardAt + stride // it got that far, so there may be another
			}
			w.guardOnce()
		case "reboot":
			w.reboot()
		}
		w.holds(old, name)
		st := w.status()
		if rescue != "reboot" && st.State.pending() {
			t.Errorf("state is %s still", st.State)
		}
		if sc.first {
			time.Sleep(time.Second) // it finds the link by itself
		}
		if serving := w.unit.serving(); serving != st.Current {
			t.Errorf("%q serves, and current is %s", serving, st.Current)
		}
		if unproven && st.Current != old && !sc.first {
			t.Errorf("current is %s, which nobody proved", st.Current)
		}
		w.start()
		w.eventually(fmt.Sprintf("converged after call %d (%s)", at, b.where), func(st TargetStatus) bool {
			return sc.end(w, st, old, name)
		})
		w.oracle()
	})
	return hit, calls
}
