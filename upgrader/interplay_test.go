package upgrader

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/statusline"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// What happens where two things meet: two targets of one unit, an order and a trial,
// a hold and the end of the daemon.

// A supervisor that refuses a reload says nothing of the configuration.
func TestReloadRefusedBySupervisor(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.unit.facts.CanReload = true
		w.target.Config = "app.conf"
		old := w.running("1.0")
		w.unit.set(func() { // the unit's supervisor names its program
			w.unit.facts.StatusText = statusline.Format(statusline.Status{Release: "9.0-aaaaaaaaaaaa", PID: 101, Generation: 1})
		})
		w.unit.hook = func(verb string) (systemd.Result, error, bool) {
			if strings.HasPrefix(verb, "reload") {
				w.unit.set(func() {
					st, _ := statusline.Parse(w.unit.facts.StatusText)
					st.Note = statusline.Refused + "8 old workers still drain, and --max-draining= allows no more"
					w.unit.facts.StatusText = statusline.Format(st)
				})
				return systemd.ResultFailed, nil, true
			}
			return "", nil, false
		}
		w.start()
		w.publish("1.1", "")
		st := w.eventually("over", func(st TargetStatus) bool { return st.State == Idle && st.Last != nil && st.Last.To == "1.1" })
		if st.Last.Verdict != VerdictInconclusive || len(st.KnownBad) > 0 || w.unit.count("restart") > 0 {
			t.Errorf("verdict %s, known bad %+v, restarts %d; old %s", st.Last.Verdict, st.KnownBad, w.unit.count("restart"), old)
		}
	})
}

// A person who stops the unit in the middle of a reload wins.
func TestStoppedInReload(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.configured()
		w.running("1.0")
		w.unit.hook = func(verb string) (systemd.Result, error, bool) {
			if strings.HasPrefix(verb, "reload") {
				w.unit.set(func() {
					w.unit.end("failed", "failed", "signal") // as systemd 252-262 do, see stoppedMeanwhile
					w.unit.facts.JobsEnded++
				})
				return systemd.ResultCanceled, nil, true
			}
			return "", nil, false
		}
		w.start()
		w.publish("1.1", "")
		st := w.eventually("over", func(st TargetStatus) bool { return st.State == Idle && st.Last != nil && st.Last.To == "1.1" })
		if len(st.KnownBad) > 0 || w.unit.count("restart") > 0 {
			t.Errorf("verdict %s (%s), known bad %+v, restarts %d", st.Last.Verdict, st.Last.Reason, st.KnownBad, w.unit.count("restart"))
		}
	})
}

// An order that is taken back and named what nobody offers forbids nothing.
func TestTakeBackWhatNobodyOffers(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.target.Source.PollInterval = time.Hour
		deaf := atomic.Bool{}
		w.around = func(s source) source { return silentCheck{s, &deaf} }
		w.start()
		w.looked()
		deaf.Store(true)
		id := w.order(Order{Verb: OrderUpgrade, Version: "20.0"}) // of 2.0
		w.eventually("waits", func(st TargetStatus) bool { return st.Order != nil })
		time.Sleep(time.Minute)
		if err := w.daemon.TakeBack("app", id); err != nil {
			t.Fatal(err)
		}
		w.answered(id, VerdictCancelled)
		deaf.Store(false)
		name := w.publish("2.0", "")
		w.comes(name)
	})
}

type silentCheck struct {
	source
	deaf *atomic.Bool
}

func (s silentCheck) Check(ctx context.Context) (l fetcher.Listing, err error) {
	for s.deaf.Load() {
		if !sleep(ctx, time.Second) {
			return l, ctx.Err()
		}
	}
	return s.source.Check(ctx)
}

// The window counts for what Swap=none left, after its order was refused.
func TestHeldOrderIsAnsweredOnce(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.target.Swap = SwapNone
		w.target.Source.PollInterval = time.Hour
		w.start()
		w.looked()
		w.publish("1.1", "")
		id := w.order(Order{Verb: OrderUpgrade})
		w.answered(id, VerdictRefused)
		w.hold(0)
		w.edit(func(t *Target) { t.Swap = SwapAuto })
		time.Sleep(5 * time.Minute)
		w.unhold()
		time.Sleep(5 * time.Minute)
		if a := w.status().Answer; a.ID == id && a.Verdict != VerdictRefused {
			t.Errorf("answered twice: %+v", a)
		}
	})
}

// Two targets of one unit: what one left in the middle of its swap, and that is still
// starting, no other moves.
func TestUnitStaysLockedOverAStart(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.unit.plain()
		w.unit.facts.TimeoutStart = 10 * time.Minute
		w.running("1.0")
		publish, both := w.withSettings()
		w.unit.during = func(verb string) {
			if strings.HasPrefix(verb, "restart") {
				w.unit.set(func() { w.unit.facts.ActiveState, w.unit.facts.SubState, w.unit.facts.Job = "activating", "start", 9 })
			}
		}
		w.start()
		synctest.Wait()
		w.publish("1.1", "")
		w.eventually("swapping", func(st TargetStatus) bool { return st.State == Swapping && w.unit.count("restart") > 0 })
		time.Sleep(2 * time.Second)
		w.kill()
		publish()
		w.start()
		time.Sleep(time.Minute)
		program, settings := both()
		if settings.State == Swapping && !strings.Contains(w.out.String(), "waits for its turn") {
			t.Errorf("program %s, settings %s: the settings have the unit while the program's swap is not over", program.State, settings.State)
		}
		w.unit.set(func() { w.unit.facts.ActiveState, w.unit.facts.SubState, w.unit.facts.Job = "active", "running", 0 })
		for range 400 {
			time.Sleep(100 * time.Millisecond)
			if program, settings := both(); program.State == Confirming && settings.State == Confirming {
				t.Fatal("both are on trial at once")
			}
		}
	})
}

// A target that waited for its unit when the daemon ended does not come before the one
// that was on trial.
func TestTrialStaysAloneOverAStart(t *testing.T) {
	ahead := 0
	for range 8 {
		in(t, func(t *testing.T, w *world) {
			w.running("1.0")
			publish, both := w.withSettings()
			w.start()
			synctest.Wait()
			w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			publish()
			for _, settings := both(); settings.State != Swapping; _, settings = both() {
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(time.Second)
			w.kill()
			w.start()
			time.Sleep(2 * time.Second)
			if strings.Contains(w.out.String(), "from nothing to 7 by reload") {
				ahead++
			}
			w.kill()
		})
	}
	if ahead > 0 {
		t.Errorf("%d of 8 times the settings were moved while the program was on trial", ahead)
	}
}

// A rollback to what nobody has undoes no trial.
func TestRollbackToNothingUndoesNothing(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.start()
		name := w.publish("1.1", "")
		w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
		id := w.order(Order{Verb: OrderRollback, Version: "9.9"})
		w.answered(id, VerdictRefused)
		st := w.status()
		if len(st.KnownBad) > 0 || st.Current != name {
			t.Errorf("known bad %+v, current %s", st.KnownBad, st.Current)
		}
	})
}

// A later order does not end the wait for the verdict of one that was begun.
func TestBegunOrderStands(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.target.Source.PollInterval = time.Hour
		w.start()
		w.looked()
		w.publish("1.1", "")
		a := w.order(Order{Verb: OrderUpgrade, Version: "1.1"})
		w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
		w.order(Order{Verb: OrderFetch})
		if _, answered, stands, err := Stands(w.state, "app", a); !stands || answered || err != nil {
			t.Errorf("the order that is carried out: answered %v, stands %v, %v", answered, stands, err)
		}
		w.answered(a, VerdictGood)
	})
}

// In Held, what is said of the release that waits is not said of another.
func TestHeldIsNotAboutAnother(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.target.Swap = SwapNone
		w.target.Source.PollInterval = time.Hour
		w.start()
		w.looked()
		w.publish("1.1", "")
		w.edit(func(*Target) {})
		w.eventually("held", func(st TargetStatus) bool { return st.State == Held })
		w.skip("1.1")
		w.edit(func(t *Target) { t.Swap = SwapAuto })
		time.Sleep(time.Minute)
		w.publish("1.2", "")
		id := w.order(Order{Verb: OrderUpgrade, Version: "1.2"})
		w.eventually("answer", func(st TargetStatus) bool { return st.Answer.ID == id })
		if a := w.status().Answer; a.Verdict == VerdictRefused {
			t.Errorf("answer %+v", a)
		}
	})
}

type cutStaged struct {
	*store.Store
	w *world
}

func (d cutStaged) ClearLink(which store.LinkName) error {
	err := d.Store.ClearLink(which)
	if which == store.Staged && d.w.status().State == Confirming {
		d.w.cancel()
	}
	return err
}

// A daemon that is stopped in the moment of a verdict leaves what a kill would leave.
func TestStoppedAtTheVerdict(t *testing.T) {
	for _, held := range []bool{false, true} {
		in(t, func(t *testing.T, w *world) {
			w.running("1.0")
			w.wrap = func(s *store.Store) disk { return cutStaged{s, w} }
			w.start()
			if held {
				w.hold(48 * time.Hour)
			}
			name := w.publish("1.1", "")
			w.order(Order{Verb: OrderUpgrade, Version: "1.1", DespiteHold: true})
			time.Sleep(3 * time.Minute)
			w.kill()
			w.wrap = nil
			w.start()
			st := w.eventually("idle", func(st TargetStatus) bool { return st.State == Idle })
			if st.Last.Verdict != VerdictGood || st.Current != name {
				t.Errorf("held %v: verdict %s (%s), answer %s; totals %+v", held, st.Last.Verdict, st.Last.Reason, st.Answer.Verdict, st.Totals.Attempts)
			}
		})
	}
}

type noFetch struct {
	source
	broken *bool
}

func (s noFetch) Fetch(ctx context.Context, c fetcher.Candidate, dir string, p func(done, total int64)) (*fetcher.Verified, error) {
	if *s.broken {
		return nil, errors.New("connection reset")
	}
	return s.source.Fetch(ctx, c, dir, p)
}

// An order that another took the place of stands no more.
func TestReplacedOrderEnds(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.target.Source.PollInterval = time.Hour
		broken := true
		w.around = func(s source) source { return noFetch{s, &broken} }
		w.start()
		w.looked()
		w.publish("1.1", "")
		a := w.order(Order{Verb: OrderUpgrade, Version: "1.1"})
		w.eventually("trouble", func(st TargetStatus) bool { return st.Trouble != "" && st.State == Idle })
		w.pin("1.0") // nothing comes by itself now
		b := w.order(Order{Verb: OrderUpgrade, Version: "7.7"})
		w.answered(b, VerdictRefused)
		time.Sleep(48 * time.Hour)
		_, answered, stands, err := Stands(w.state, "app", a)
		if stands || err != nil {
			t.Errorf("two days later: answered %v, stands %v, %v; on disk %v", answered, stands, err, w.status().Order)
		}
	})
}

// cutBad ends the daemon between the entry that a release is known bad and the record
// that says so.
type cutBad struct {
	*store.Store
	w *world
}

func (d cutBad) MarkBad(g store.Digest, bad store.Bad) error {
	defer d.w.cancel()
	return d.Store.MarkBad(g, bad)
}

func (d cutBad) SaveRecord(v any) error {
	if left, err := d.KnownBad(); err != nil || len(left) > 0 {
		return errKilled
	}
	return d.Store.SaveRecord(v)
}

// A release that is known bad by the time that a daemon finds its swap unfinished is not
// tried once more.
func TestKnownBadIsNotSwappedAgain(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.running("1.0")
		w.unit.behave["1.1"] = neverReady
		w.wrap = func(s *store.Store) disk { return cutBad{s, w} }
		w.start()
		w.publish("1.1", "")
		time.Sleep(5 * time.Minute)
		w.kill()
		w.wrap = nil
		w.start()
		st := w.settles(old, VerdictRefused)
		if n := w.unit.count("reload"); n != 1 || len(st.KnownBad) != 1 {
			t.Errorf("handed over %d times, known bad %+v", n, st.KnownBad)
		}
		w.oracle()
	})
}

// undoes has 1.1 come, fail its probes, and go back to old.
func (w *world) undoes(old string, fail func()) {
	w.t.Helper()
	w.start()
	w.publish("1.1", "")
	w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
	fail()
	w.settles(old, VerdictRolledBack)
	if got := w.unit.serving(); got != old {
		w.t.Errorf("serves %s, want %s", got, old)
	}
	w.oracle()
}

// busy has the unit be under a supervisor, and has that refuse every reload from the
// nth on, while old workers drain for so long.
func (w *world) busy(nth int, drain time.Duration) {
	n := 0
	var drained atomic.Bool // set by a timer
	w.unit.hook = func(verb string) (systemd.Result, error, bool) {
		if !strings.HasPrefix(verb, "reload") {
			return "", nil, false
		}
		if n++; n == nth {
			time.AfterFunc(drain, func() {
				drained.Store(true)
				w.unit.set(func() {
					st, _ := statusline.Parse(w.unit.facts.StatusText)
					st.Draining, st.Note = 0, ""
					w.unit.facts.StatusText = statusline.Format(st)
				})
			})
		}
		if n < nth || drained.Load() {
			return "", nil, false
		}
		w.unit.set(func() {
			st, _ := statusline.Parse(w.unit.facts.StatusText)
			st.Draining, st.Note = 8, statusline.Refused+"8 old workers still drain, and --max-draining= allows no more"
			w.unit.facts.StatusText = statusline.Format(st)
		})
		return systemd.ResultFailed, nil, true
	}
}

// A way back that meets a supervisor which has no room waits for it.
func TestRollbackWaitsForSupervisor(t *testing.T) {
	for name, configure := range map[string]func(*world){
		"program": func(*world) {},
		"configuration": func(w *world) {
			w.unit.facts.CanReload = true
			w.target.Config = "app.conf"
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				configure(w)
				old := w.running("1.0")
				fail := w.probedBy()
				w.busy(2, 10*time.Minute)
				w.undoes(old, fail)
				if n := w.unit.count("restart"); n > 0 {
					t.Errorf("restarted %d times, want a way back without", n)
				}
				if n := w.unit.count("reload"); n > 15 {
					t.Errorf("asked %d times", n)
				}
				w.saysTimes(0, "ROLLBACK FAILED")
			})
		})
	}
}

// killedAtVerdict has the supervisor killed between the verdict and the way back.
type killedAtVerdict struct {
	*store.Store
	w *world
}

func (d killedAtVerdict) MarkBad(g store.Digest, b store.Bad) error {
	u := d.w.unit
	u.set(func() {
		bad := u.runs
		u.end("failed", "failed", "signal")
		u.hook = func(verb string) (systemd.Result, error, bool) {
			if !strings.HasPrefix(verb, "restart") {
				return "", nil, false
			}
			u.set(func() { // it comes back, and takes its worker over
				u.begin(bad)
				u.hook = nil
			})
			return systemd.ResultDone, nil, true
		}
	})
	return d.Store.MarkBad(g, b)
}

// A supervisor that is killed in the way back takes the bad worker over; it is moved on.
func TestRollbackOfAdoptedWorker(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.running("1.0")
		fail := w.probedBy()
		w.wrap = func(s *store.Store) disk { return killedAtVerdict{s, w} }
		w.undoes(old, fail)
	})
}

// The same where the job that asks for the handover ends with the start.
func TestRollbackMeetsAnotherSupervisor(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.running("1.0")
		fail := w.probedBy()
		reloads := 0
		w.unit.hook = func(verb string) (systemd.Result, error, bool) {
			if !strings.HasPrefix(verb, "reload") {
				return "", nil, false
			}
			if reloads++; reloads != 2 {
				return "", nil, false
			}
			w.unit.set(func() { w.unit.begin(w.unit.runs) })
			return systemd.ResultDone, nil, true
		}
		w.undoes(old, fail)
	})
}
