package upgrader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// ownHost is a world whose target is upgraderd itself, and the systemd that runs
// it: each start is by Launch, one that ends by itself is followed by another,
// and who asks for a restart is ended by it.
type ownHost struct {
	*world
	asks   chan string // jobs, and what else happens to the unit
	behave map[string]func(h *ownHost, release string)
	// breakers wait for the daemon that is that release, "" for the installed one.
	breakers map[string]*breaker
	// beforeStart, if set, runs before each start.
	beforeStart func()

	mu  sync.Mutex
	ran []string // releases, in the order of their starts
}

// change changes the host while it lives.
func (h *ownHost) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// behaves has a release do this, and not be a daemon.
func (h *ownHost) behaves(version string, act func(h *ownHost, release string)) {
	h.change(func() { h.behave[version] = act })
}

const (
	restartJob = "restart"
	deadByKill = "killed"
	asReboot   = "reboot"
)

// installedRuns is what the host says of a start of the installed program.
const installedRuns = "installed"

func inOwn(t *testing.T, f func(t *testing.T, h *ownHost)) {
	t.Helper()
	in(t, func(t *testing.T, w *world) {
		w.target.Name, w.target.Unit, w.target.Program, w.target.Swap = OwnTarget, OwnUnit, OwnProgram, SwapRestart
		w.unit.root = filepath.Join(w.state, OwnTarget)
		w.unit.facts.ID = OwnUnit
		w.unit.facts.ExecStart = [][]string{{"/usr/bin/upgraderd", "launch"}}
		h := &ownHost{world: w, asks: make(chan string), behave: map[string]func(*ownHost, string){}, breakers: map[string]*breaker{}}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { h.init(ctx) })
		defer func() {
			cancel()
			running.Wait()
		}()
		f(t, h)
	})
}

// ownSystemd answers the daemon.
type ownSystemd struct {
	*fakeUnit
	h *ownHost
}

func (s ownSystemd) Restart(ctx context.Context, _ string) (systemd.Result, error) {
	s.h.asks <- restartJob
	<-ctx.Done()
	return "", ctx.Err()
}

// init starts the daemon again and again.
func (h *ownHost) init(ctx context.Context) {
	for restarts := uint32(0); ctx.Err() == nil; {
		switch h.life(ctx, restarts) {
		case deadByKill:
			restarts++
			sleep(ctx, 2*time.Second) // RestartSec=
		case asReboot:
			restarts = 0
			if err := RevertUnproven(ctx, Options{StateDir: h.state, Log: h.log}); err != nil {
				h.t.Error(err)
			}
		default:
			restarts = 0
		}
	}
}

// life is one start of the unit, up to its end.
func (h *ownHost) life(ctx context.Context, restarts uint32) (end string) {
	h.mu.Lock()
	target, before := h.target, h.beforeStart
	h.mu.Unlock()
	if before != nil {
		before()
	}
	h.unit.set(func() {
		h.unit.facts.NRestarts = restarts
		h.unit.begin("")
		h.unit.facts.ActiveEnter = monotonic()
	})
	program := ""
	Launch(ctx, Options{StateDir: h.state, Log: h.log}, func(p string) error {
		if program == "" { // this would not have returned
			program = p
		}
		return nil
	})
	name := ownRelease(h.state, program)
	if program != "" && name == "" {
		h.t.Errorf("%s is no release", program)
	}
	h.mu.Lock()
	h.ran = append(h.ran, strings.SplitN(name+"-", "-", 2)[0])
	h.mu.Unlock()

	ended := make(chan struct{})
	living, kill := context.WithCancel(ctx)
	defer func() {
		kill()
		<-ended
	}()
	h.mu.Lock()
	b, act := h.breakers[version(name)], h.behave[version(name)]
	delete(h.breakers, version(name))
	h.mu.Unlock()
	if act != nil {
		close(ended)
		act(h, name)
		return deadByKill
	}
	d, err := New(Options{StateDir: h.state, Targets: []*Target{target}, Systemd: ownSystemd{h.unit, h}, Log: h.log, Program: program})
	if err != nil {
		h.t.Error(err)
	}
	d.newest = h.source
	broken := make(chan struct{})
	if b != nil {
		b.kill = sync.OnceFunc(func() { close(broken) })
		d.disk = func(s *store.Store) disk { return faultyDisk{s, b} }
	}
	go func() {
		defer close(ended)
		if err := d.Run(living); !errors.Is(err, context.Canceled) {
			h.t.Errorf("Run: %v", err)
		}
	}()
	select {
	case <-ctx.Done():
		return ""
	case <-broken:
		return deadByKill
	case end = <-h.asks:
		return end
	}
}

// starts are the releases that were started so far.
func (h *ownHost) starts() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for _, r := range h.ran {
		if r == "" {
			r = installedRuns
		}
		all = append(all, r)
	}
	return strings.Join(all, " ")
}

// ends waits until the daemon that is up is of this version, and at rest.
func (h *ownHost) ends(version string, v Verdict) TargetStatus {
	h.t.Helper()
	st := h.eventually(fmt.Sprintf("%s after verdict %s", version, v), func(st TargetStatus) bool {
		return st.State == Idle && st.Last != nil && st.Last.Verdict == v && strings.HasSuffix(" "+h.starts(), " "+version)
	})
	s, err := store.View(h.unit.root)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, which := range []store.LinkName{store.Next, store.Tried} {
		if r, ok, err := s.Link(which); ok || err != nil {
			h.t.Errorf("%s is left: %v, %v", which, r, err)
		}
	}
	return st
}

// upgraded has the first release prove itself.
func (h *ownHost) upgraded(version string) {
	h.t.Helper()
	h.publish(version, "")
	h.ends(version, VerdictGood)
}

// exits is a release that ends at once; hangs one that systemd has to end.
func exits(*ownHost, string) {}

func hangs(h *ownHost, _ string) {
	h.unit.set(func() { h.unit.facts.ActiveState = "activating" })
	time.Sleep(90 * time.Second)
}

// idles is alive and holds the target, and never says anything.
func idles(h *ownHost, _ string) {
	s, err := store.Open(h.unit.root)
	if err != nil {
		h.t.Error(err)
		return
	}
	unlock, err := s.Lock()
	if err != nil {
		h.t.Error(err)
		return
	}
	defer unlock()
	<-h.asks
}

func TestOwn(t *testing.T) {
	cases := map[string]func(*testing.T, *ownHost){
		"from the installed program, and on": func(t *testing.T, h *ownHost) {
			h.upgraded("1.0")
			h.upgraded("1.1")
			if got, want := h.starts(), "installed 1.0 1.1"; got != want {
				t.Errorf("got starts %s, want %s", got, want)
			}
			if strings.Contains(h.out.String(), "unfinished") {
				t.Error("the restart is told as an interruption")
			}
		},
		"the first one exits": func(t *testing.T, h *ownHost) {
			h.behaves("1.0", exits)
			h.publish("1.0", "")
			if st := h.ends(installedRuns, VerdictRolledBack); st.Current != "" || len(st.KnownBad) != 1 {
				t.Errorf("got %+v", st)
			}
		},
		"one exits": func(t *testing.T, h *ownHost) {
			h.behaves("1.1", exits)
			h.upgraded("1.0")
			h.publish("1.1", "")
			if st := h.ends("1.0", VerdictRolledBack); len(st.KnownBad) != 1 || !strings.Contains(st.KnownBad[0].Reason, "systemd had to start") {
				t.Errorf("got %+v", st)
			}
			time.Sleep(time.Hour)
			if got, want := h.starts(), "installed 1.0 1.1 1.0"; got != want {
				t.Errorf("got starts %s, want %s", got, want)
			}
		},
		"one hangs before it is ready": func(t *testing.T, h *ownHost) {
			h.behaves("1.1", hangs)
			h.upgraded("1.0")
			h.publish("1.1", "")
			h.ends("1.0", VerdictRolledBack)
		},
		"one lives and never proves itself": func(t *testing.T, h *ownHost) {
			h.behaves("1.1", idles)
			h.upgraded("1.0")
			h.publish("1.1", "")
			h.eventually("1.1 is started", func(TargetStatus) bool { return strings.HasSuffix(h.starts(), "1.1") })
			guard := func() {
				t.Helper()
				d, err := New(Options{StateDir: h.state, Systemd: guardSystemd{h.unit, h}, Log: h.log})
				if err != nil {
					t.Fatal(err)
				}
				if err := d.guard(context.Background(), Guarded{Target: h.target, Patience: guardPatience}); err != nil {
					t.Errorf("guard: %v", err)
				}
			}
			guard() // it has its time
			if got := h.starts(); !strings.HasSuffix(got, "1.1") {
				t.Fatalf("the guard came too early: %s", got)
			}
			h.unit.set(func() { h.unit.facts.ActiveEnter = monotonic() - 2*time.Minute })
			guard()
			if st := h.ends("1.0", VerdictRolledBack); len(st.KnownBad) != 1 || !strings.Contains(st.KnownBad[0].Reason, "in its time") {
				t.Errorf("got %+v", st)
			}
		},
		"the unit failed for good": func(t *testing.T, h *ownHost) {
			h.behaves("1.1", func(h *ownHost, _ string) {
				h.unit.set(func() { h.unit.end("failed", "failed", "exit-code") })
				<-h.asks
			})
			h.upgraded("1.0")
			h.publish("1.1", "")
			h.eventually("1.1 is started", func(TargetStatus) bool { return strings.HasSuffix(h.starts(), "1.1") })
			if on, err := Pending(h.state, OwnTarget); !on || err != nil {
				t.Errorf("on trial: got %v, %v; want it", on, err)
			}
			d, err := New(Options{StateDir: h.state, Systemd: guardSystemd{h.unit, h}, Log: h.log})
			if err != nil {
				t.Fatal(err)
			}
			if err := d.guard(context.Background(), Guarded{Target: h.target, Patience: guardPatience, Failed: true}); err != nil {
				t.Errorf("guard: %v", err)
			}
			h.ends("1.0", VerdictRolledBack)
		},
		"its probes fail": func(t *testing.T, h *ownHost) {
			h.upgraded("1.0")
			probed := &Target{
				Name: h.target.Name, Unit: h.target.Unit, Program: h.target.Program, Swap: SwapRestart, Source: h.target.Source,
				Confirm: Confirm{Window: time.Minute, Probes: []Probe{{Kind: ProbeExec, Command: []string{"/bin/false"}}}},
			}
			h.change(func() { h.target = probed })
			h.asks <- restartJob // it reads its configuration
			h.publish("1.1", "")
			h.ends("1.0", VerdictRolledBack)
			if got, want := h.starts(), "installed 1.0 1.0 1.1 1.0"; got != want {
				t.Errorf("got starts %s, want %s", got, want)
			}
		},
		"a reboot on trial": func(t *testing.T, h *ownHost) {
			h.upgraded("1.0")
			h.publish("1.1", "")
			h.eventually("1.1 is on trial", func(st TargetStatus) bool { return st.State == Confirming })
			h.asks <- asReboot
			if st := h.ends("1.0", VerdictInconclusive); len(st.KnownBad) != 0 {
				t.Errorf("got %+v", st)
			}
			h.ends("1.1", VerdictGood) // in a while
		},
		"reboots on trial, for ever": func(t *testing.T, h *ownHost) {
			h.upgraded("1.0")
			h.publish("1.1", "")
			for range attemptsMax {
				h.eventually("1.1 is on trial", func(st TargetStatus) bool { return st.State == Confirming })
				h.asks <- asReboot
				h.eventually("it has come back", func(st TargetStatus) bool { return st.State == Idle })
			}
			if st := h.ends("1.0", VerdictRefused); len(st.KnownBad) != 1 {
				t.Errorf("got %+v", st)
			}
		},
		"the record is of a later upgraderd": func(t *testing.T, h *ownHost) {
			h.upgraded("1.0")
			spoil := func() { // what 1.0 wrote before it went, 1.1 cannot read
				name := filepath.Join(h.unit.root, "record.json")
				text, err := os.ReadFile(name)
				if err == nil {
					err = os.WriteFile(name, []byte(strings.Replace(string(text), `"schema":1`, `"schema":2`, 1)), 0o644)
				}
				if err != nil {
					t.Error(err)
				}
			}
			h.change(func() { h.beforeStart = spoil })
			h.publish("1.1", "")
			st := h.ends("1.0", VerdictRolledBack)
			if len(st.KnownBad) != 1 || !strings.Contains(st.KnownBad[0].Reason, "cannot read the record") {
				t.Errorf("got %+v", st)
			}
		},
		"the record was lost on trial": func(t *testing.T, h *ownHost) {
			h.upgraded("1.0")
			h.change(func() { h.beforeStart = func() { os.Remove(filepath.Join(h.unit.root, "record.json")) } })
			h.publish("1.1", "")
			h.ends("1.1", VerdictGood)
		},
		"the unit would start something else": func(t *testing.T, h *ownHost) {
			h.unit.set(func() { h.unit.facts.ExecStart = [][]string{{"/usr/bin/upgraderd", "daemon"}} })
			h.publish("1.0", "")
			st := h.eventually("it says so", func(st TargetStatus) bool { return strings.Contains(st.Trouble, "UNIT_NO_LAUNCH") })
			if len(st.KnownBad) != 0 || h.starts() != installedRuns {
				t.Errorf("got %+v, starts %s", st, h.starts())
			}
		},
		"what is current is damaged": func(t *testing.T, h *ownHost) {
			h.upgraded("1.0")
			s, err := store.View(h.unit.root)
			if err != nil {
				t.Fatal(err)
			}
			r, _, err := s.Link(store.Current)
			if err != nil {
				t.Fatal(err)
			}
			program := filepath.Join(s.Dir(r), OwnProgram)
			if err := errors.Join(os.Chmod(program, 0o755), os.WriteFile(program, []byte("rot"), 0o755)); err != nil {
				t.Fatal(err)
			}
			h.asks <- restartJob
			h.eventually("the installed program runs", func(TargetStatus) bool { return strings.HasSuffix(h.starts(), "1.0 "+installedRuns) })
			h.saysOnce("does not start, going on with what there was before")
			h.upgraded("1.1")
		},
	}
	for name, f := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inOwn(t, f)
		})
	}
}

// guardSystemd is what the guard asks: its restart ends the unit's main process,
// and not the guard.
type guardSystemd struct {
	*fakeUnit
	h *ownHost
}

func (s guardSystemd) Restart(context.Context, string) (systemd.Result, error) {
	s.h.asks <- restartJob
	return systemd.ResultDone, nil
}

// TestOwnFaultAtEveryCall breaks each call to the disk, of the daemon before the
// restart and of the one on trial. A daemon that is killed before the release was
// started has it tried all the same; one that is killed on trial is bad. The
// release that runs in the end is whole, and the one that current names.
func TestOwnFaultAtEveryCall(t *testing.T) {
	for _, who := range []string{"1.0", "1.1"} {
		for _, kind := range []fault{diskFull, killBefore, killAfter} {
			t.Run(who+"/"+string(kind), func(t *testing.T) {
				t.Parallel()
				for at := 1; at < 100; at += stride {
					hit := false
					t.Run(fmt.Sprint(at), func(t *testing.T) { hit = ownFaultAt(t, who, kind, at) })
					if !hit || t.Failed() {
						if at < 6 {
							t.Errorf("only %d calls were broken", at-1)
						}
						return
					}
				}
				t.Error("too many calls")
			})
		}
	}
}

func ownFaultAt(t *testing.T, who string, kind fault, at int) (hit bool) {
	inOwn(t, func(t *testing.T, h *ownHost) {
		h.upgraded("1.0")
		b := &breaker{kind: kind, at: at}
		h.change(func() { h.breakers[who] = b })
		h.asks <- restartJob
		h.publish("1.1", "")
		var end string
		h.eventually("it has ended", func(st TargetStatus) bool {
			if st.State != Idle || st.Last == nil || st.Last.To != "1.1" {
				return false
			}
			end = "1.0"
			if st.Last.Verdict == VerdictGood {
				end = "1.1"
			}
			return (st.Last.Verdict == VerdictGood || st.Last.Verdict == VerdictRolledBack) && strings.HasSuffix(h.starts(), " "+end)
		})
		b.mu.Lock()
		hit = b.n >= b.at
		b.mu.Unlock()
		if who == "1.0" && end != "1.1" {
			t.Errorf("%q at call %d (%s) of the daemon before: %s runs, want 1.1; starts: %s", kind, at, b.where, end, h.starts())
		}
		time.Sleep(5 * time.Minute) // nothing is to be done any more
		st := h.status()
		if !strings.HasPrefix(st.Current, end+"-") || !strings.HasSuffix(h.starts(), " "+end) {
			t.Errorf("%q at call %d (%s): current is %s and %s runs, want %s; starts: %s", kind, at, b.where, st.Current, h.starts(), end, h.starts())
		}
		if n := strings.Count(h.starts(), "1.1"); end == "1.0" && n != 1 {
			t.Errorf("%q at call %d (%s): what is bad was started %d times: %s", kind, at, b.where, n, h.starts())
		}
	})
	return hit
}
