package upgrader

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

// jumps are what a wall clock does that a monotonic one does not.
func jumps() map[string]time.Duration {
	return map[string]time.Duration{
		"an hour ahead":       time.Hour,
		"an hour back":        -time.Hour,
		"a day back":          -24 * time.Hour,
		"back, before 1970":   -60 * 365 * 24 * time.Hour,
		"thirty years ahead":  30 * 365 * 24 * time.Hour,
		"two centuries ahead": 200 * 365 * 24 * time.Hour,
	}
}

// jumping gives the world a wall clock of its own, and what sets it.
func (w *world) jumping() (jump func(time.Duration)) {
	var by atomic.Int64
	w.wall = func() time.Time { return time.Now().Add(time.Duration(by.Load())) }
	return func(d time.Duration) { by.Store(int64(d)) }
}

// What waits or ends by time does so in its own time, whatever the wall clock
// does meanwhile.
func TestClockJumps(t *testing.T) {
	cases := map[string]func(t *testing.T, w *world, jump func()){
		"the window": func(t *testing.T, w *world, jump func()) {
			w.running("1.0")
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			began := time.Now()
			time.Sleep(20 * time.Second)
			jump()
			w.settles(name, VerdictGood)
			about(t, "the window", time.Since(began), w.target.Confirm.Window)
		},
		"the window, and the daemon is restarted in it": func(t *testing.T, w *world, jump func()) {
			w.running("1.0")
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.kill()
			jump()
			w.start()
			began := time.Now()
			w.settles(name, VerdictGood)
			about(t, "the window", time.Since(began), w.target.Confirm.Window)
		},
		"the window, and the daemon is frozen in it": func(t *testing.T, w *world, jump func()) {
			w.running("1.0")
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			began := time.Now()
			time.Sleep(20 * time.Second)
			w.unit.freeze(10 * time.Minute)
			jump()
			w.settles(name, VerdictGood)
			about(t, "the window", time.Since(began)-10*time.Minute, w.target.Confirm.Window)
		},
		"the poll interval": func(t *testing.T, w *world, jump func()) {
			w.running("1.0")
			w.target.Source.PollInterval = 10 * time.Minute
			w.start()
			time.Sleep(time.Minute) // it looked, and waits
			name := w.publish("1.1", "")
			began := time.Now()
			jump()
			w.eventually("found", func(st TargetStatus) bool { return st.To == name })
			about(t, "the poll", time.Since(began), 9*time.Minute)
			w.settles(name, VerdictGood)
		},
		"the pause after a failure": func(t *testing.T, w *world, jump func()) {
			w.running("1.0")
			w.unit.set(func() { w.unit.facts.LoadState = "masked" })
			w.target.Source.PollInterval = time.Hour
			name := w.publish("1.1", "")
			w.start()
			time.Sleep(10 * time.Minute) // by now it pauses for its longest
			jump()
			before := w.unit.asked()
			time.Sleep(10 * time.Minute)
			// Once in pauseMax and its jitter.
			if n := w.unit.asked() - before; n < 10 || n > 14 {
				t.Errorf("systemd was asked %d times in ten minutes, want 10 to 14", n)
			}
			w.unit.set(func() { w.unit.facts.LoadState = "loaded" })
			w.settles(name, VerdictGood)
		},
		"known bad": func(t *testing.T, w *world, jump func()) {
			old := w.running("1.0")
			w.target.KnownBad = time.Hour
			w.target.Source.PollInterval = time.Minute
			w.unit.behave["1.1"] = neverReady
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRefused)
			began := time.Now()
			time.Sleep(10 * time.Minute)
			jump()
			time.Sleep(40 * time.Minute)
			w.triedAgain()
			about(t, "the term", time.Since(began), time.Hour)
		},
		"known bad, and the daemon is restarted": func(t *testing.T, w *world, jump func()) {
			old := w.running("1.0")
			w.target.KnownBad = time.Hour
			w.target.Source.PollInterval = time.Minute
			w.unit.behave["1.1"] = neverReady
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRefused)
			began := time.Now()
			time.Sleep(30 * time.Minute)
			w.kill()
			jump()
			w.start()
			time.Sleep(20 * time.Minute)
			w.triedAgain()
			about(t, "the term", time.Since(began), time.Hour)
		},
		"a hold": func(t *testing.T, w *world, jump func()) {
			w.running("1.0")
			w.target.Source.PollInterval = time.Minute
			w.start()
			w.hold(time.Hour)
			began := time.Now()
			name := w.publish("1.1", "")
			time.Sleep(10 * time.Minute)
			jump()
			w.comes(name)
			about(t, "the hold", time.Since(began), time.Hour)
		},
		"a hold, and the daemon is restarted": func(t *testing.T, w *world, jump func()) {
			w.running("1.0")
			w.target.Source.PollInterval = 2 * time.Hour // no look notes how far it is
			w.start()
			w.hold(time.Hour)
			began := time.Now()
			name := w.publish("1.1", "")
			time.Sleep(30 * time.Minute)
			w.kill()
			jump()
			w.start()
			w.comes(name)
			about(t, "the hold", time.Since(began), time.Hour)
		},
		"the guard's patience": func(t *testing.T, w *world, jump func()) {
			old, _ := w.orphaned()
			done := make(chan error)
			began := time.Now()
			go func() { done <- w.guard(context.Background(), nil, w.unit) }()
			time.Sleep(guardPatience / 2)
			jump()
			if err := <-done; err != nil {
				t.Error(err)
			}
			about(t, "the patience", time.Since(began), guardPatience)
			w.settles(old, VerdictInconclusive)
		},
	}
	for name, f := range cases {
		for how, d := range jumps() {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				in(t, func(t *testing.T, w *world) {
					set := w.jumping()
					f(t, w, func() { set(d) })
					w.oracle()
				})
			})
		}
	}
}

// triedAgain waits for a second handover, by few looks: hours pass.
func (w *world) triedAgain() {
	w.t.Helper()
	for began := time.Now(); w.unit.count("reload") == 1; time.Sleep(10 * time.Second) {
		if time.Since(began) > 3*time.Hour {
			w.t.Fatal("never tried again")
		}
	}
}

// about allows for the looks in between, and for what a restart forgets.
func about(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if slack := max(want/8, 3*time.Second); got < want-slack || got > want+slack {
		t.Errorf("%s took %v, want about %v", what, got, want)
	}
}

// Dates that the disk remembers from a clock that was wrong neither keep anything
// from happening nor make it happen.
func TestDatesFromAnotherTime(t *testing.T) {
	for how, d := range jumps() {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			in(t, func(t *testing.T, w *world) {
				jump := w.jumping()
				jump(d)
				w.target.KnownBad = 24 * time.Hour
				w.unit.behave["1.1"] = neverReady
				old := w.running("1.0")
				w.start()
				w.publish("1.1", "")
				w.settles(old, VerdictRefused)
				w.kill()
				jump(0) // somebody corrects the clock
				w.start()
				time.Sleep(time.Hour)
				if n := w.unit.count("reload"); n != 1 {
					t.Errorf("%d handovers, want 1: what is known bad was tried again", n)
				}
				w.settles(w.publish("1.2", ""), VerdictGood)
				w.oracle()
			})
		})
	}
}

// A term is noted on disk as it goes on, so that restarts do not begin it anew;
// one that cannot be noted ends all the same.
func TestTermSurvivesRestarts(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.running("1.0")
		w.target.KnownBad = 4 * time.Hour
		w.unit.behave["1.1"] = neverReady
		w.start()
		w.publish("1.1", "")
		w.settles(old, VerdictRefused)
		began := time.Now()
		for range 8 {
			w.kill()
			w.start()
			time.Sleep(25 * time.Minute)
		}
		if n := w.unit.count("reload"); n != 1 {
			t.Errorf("%d handovers after %v, want 1", n, time.Since(began))
		}
		w.kill()
		b := &breaker{kind: failForever, at: 1}
		w.wrap = func(s *store.Store) disk { return forgetful{s, b} }
		w.start()
		for w.unit.count("reload") == 1 && time.Since(began) < 6*time.Hour {
			time.Sleep(time.Minute)
		}
		// Each restart forgets what was not noted yet: ten minutes at most.
		if took := time.Since(began); took < 4*time.Hour || took > 5*time.Hour+30*time.Minute {
			t.Errorf("tried again after %v", took)
		}
		tries := w.unit.count("reload")
		time.Sleep(10 * time.Minute)
		if n := w.unit.count("reload") - tries; n > 61 { // polls
			t.Errorf("what cannot be remembered was tried %d times in ten minutes", n)
		}
		w.unit.set(func() { w.unit.behave["1.1"] = becomesReady })
		w.eventually("good", func(st TargetStatus) bool { return st.State == Idle && st.Last.Verdict == VerdictGood })
		w.oracle()
	})
}

// forgetful is a disk that takes no entry of known-bad/.
type forgetful struct {
	*store.Store
	*breaker
}

func (d forgetful) MarkBad(store.Digest, store.Bad) error {
	return d.call("mark bad", func() error { return errors.New("never") })
}
