package upgrader

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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

// says checks that the journal holds each line, in this order.
func (w *world) says(lines ...string) {
	w.t.Helper()
	rest := w.out.String()
	for _, line := range lines {
		_, after, ok := strings.Cut(rest, line)
		if !ok {
			w.t.Errorf("the journal lacks %q at its place", line)
			return
		}
		rest = after
	}
}

// saysOnce checks that a line is there, once.
func (w *world) saysOnce(line string) {
	w.t.Helper()
	w.saysTimes(1, line)
}

func (w *world) saysTimes(want int, line string) {
	w.t.Helper()
	if n := strings.Count(w.out.String(), line); n != want {
		w.t.Errorf("the journal has %q %d times, want %d", line, n, want)
	}
}

// probedBy has the target probed more often than systemd is asked, by a command
// that succeeds until fail is called.
func (w *world) probedBy() (fail func()) {
	w.t.Helper()
	up := filepath.Join(w.state, "up")
	if err := os.WriteFile(up, nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.target.Confirm.Probes = []Probe{{Kind: ProbeExec, Command: []string{"test", "-e", up}}}
	w.target.Confirm.ProbeInterval, w.target.Confirm.ProbeFailuresMax = factsInterval/20, 1
	return func() {
		if err := os.Remove(up); err != nil {
			w.t.Fatal(err)
		}
	}
}

// lastStraw has the unit end between the verdict and the rollback.
type lastStraw struct {
	disk
	unit *fakeUnit
}

func (d *lastStraw) MarkBad(g store.Digest, b store.Bad) error {
	d.unit.exit()
	return d.disk.MarkBad(g, b)
}

func TestUpgrades(t *testing.T) {
	for name, f := range map[string]func(*testing.T, *world){
		"first install of a stopped unit": func(t *testing.T, w *world) {
			name := w.publish("1.0", "")
			w.start()
			st := w.settles(name, VerdictInstalled)
			if st.Previous != "" || st.Staged != "" || w.unit.count("re") != 0 {
				t.Errorf("got %+v after %q, want current only and no verb", st, w.unit.story())
			}
			w.says("found 1.0, nothing is installed", "fetched 1.0", "verified 1.0", "staged 1.0", "installed 1.0; app.service is not running")
		},
		"first install for a supervisor that waits": func(t *testing.T, w *world) {
			w.unit.waits()
			go w.unit.startWhen("current")
			name := w.publish("1.0", "")
			w.start()
			w.settles(name, VerdictGood)
		},
		"handover": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			name := w.publish("1.1", "")
			st := w.settles(name, VerdictGood)
			if st.Previous != old || st.Staged != "" || w.unit.serving() != name {
				t.Errorf("got %+v, serving %s", st, w.unit.serving())
			}
			if w.unit.count("reload") != 1 || w.unit.count("restart") != 0 {
				t.Errorf("systemd was asked %q", w.unit.story())
			}
			w.says("app (Verify=no): found 1.1, 1.0 is installed", "fetched 1.1", "verified 1.1", "staged 1.1",
				"app.service is swapped by handover: it runs under upgraderd supervise", "moving app.service from 1.0 to 1.1 by handover",
				"1.1 serves after", "1.1 is good after")
		},
		"handover refused": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.unit.behave["1.1"] = neverReady
			w.start()
			bad := w.publish("1.1", "")
			st := w.settles(old, VerdictRefused)
			if w.unit.serving() != old || len(st.KnownBad) != 1 || st.KnownBad[0].Version != "1.1" {
				t.Errorf("serving %s, got %+v", w.unit.serving(), st)
			}
			time.Sleep(10 * time.Minute)
			if w.unit.count("reload") != 1 {
				t.Errorf("a known bad release is tried again: %q", w.unit.story())
			}
			w.saysTimes(0, "skipping 1.1") // its refusal said it all
			// The same version with other bytes is another chance.
			w.unit.set(func() { w.unit.behave["1.1"] = becomesReady })
			repaired := w.publish("1.1", "echo repaired")
			if repaired == bad {
				t.Fatal("same bytes")
			}
			w.settles(repaired, VerdictGood)
		},
		"two known bad ones are each said once": func(t *testing.T, w *world) {
			old := w.running("1.0")
			for _, version := range []string{"1.1", "1.2"} {
				w.unit.behave[version] = neverReady
				w.publish(version, "")
			}
			w.start()
			w.eventually("both refused", func(st TargetStatus) bool { return st.State == Idle && len(st.KnownBad) == 2 })
			w.kill()
			w.start() // that one has not said so yet
			time.Sleep(10 * time.Minute)
			w.saysTimes(1, "skipping 1.1, known bad")
			w.saysTimes(1, "skipping 1.2, known bad")
			if w.unit.serving() != old {
				t.Errorf("got %s serving, want %s", w.unit.serving(), old)
			}
		},
		"an older one is taken where the newest is bad": func(t *testing.T, w *world) {
			w.running("1.0")
			w.unit.behave["1.2"] = neverReady
			name := w.publish("1.1", "")
			w.publish("1.2", "")
			w.start()
			w.settles(name, VerdictGood)
		},
		"crash in the window, systemd restarts": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			time.Sleep(20 * time.Second)
			w.unit.crash(true)
			began := time.Now()
			w.eventually("rollback begun", func(st TargetStatus) bool { return st.State != Confirming })
			if took := time.Since(began); took > time.Second {
				t.Errorf("the crash was seen after %v, want within a second", took)
			}
			st := w.settles(old, VerdictRolledBack)
			if w.unit.serving() != old || st.Previous != "" || len(st.KnownBad) != 1 {
				t.Errorf("serving %s, got %+v", w.unit.serving(), st)
			}
			w.says("1.1 serves after", "1.1 turned bad", "NRestarts went from 0 to 1", "rolled back to 1.0")
			_ = name
		},
		"crash in the window, unit fails": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.crash(false)
			w.settles(old, VerdictRolledBack)
			if w.unit.serving() != old || w.unit.count("restart") != 1 || w.unit.count("reset-failed") != 1 {
				t.Errorf("serving %s after %q", w.unit.serving(), w.unit.story())
			}
		},
		"restart": func(t *testing.T, w *world) {
			w.unit.plain()
			old := w.running("1.0")
			w.start()
			name := w.publish("1.1", "")
			st := w.settles(name, VerdictGood)
			if st.Previous != old || w.unit.count("restart") != 1 || w.unit.count("reload") != 0 {
				t.Errorf("got %+v after %q", st, w.unit.story())
			}
			w.says("app.service is swapped by restart: ExecStart= does not run upgraderd supervise")
		},
		"restart does not come up": func(t *testing.T, w *world) {
			w.unit.plain()
			old := w.running("1.0")
			w.unit.behave["1.1"] = neverReady
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRolledBack)
			if w.unit.serving() != old || w.unit.count("restart") != 2 {
				t.Errorf("serving %q after %q", w.unit.serving(), w.unit.story())
			}
		},
		"the socket starts what does not come up again and again": func(t *testing.T, w *world) {
			w.unit.plain()
			w.unit.facts.TimeoutStart = time.Minute
			old := w.running("1.0")
			w.unit.behave["1.1"] = startedAgain
			w.start()
			w.publish("1.1", "")
			var restarted time.Time
			w.unit.during = func(verb string) {
				if verb == "restart" && restarted.IsZero() {
					restarted = time.Now()
				}
			}
			w.settles(old, VerdictRolledBack)
			if took := w.status().Last.When.Sub(restarted); took > time.Second {
				t.Errorf("it took %v: there is nothing to wait for", took)
			}
			if w.unit.serving() != old || w.unit.count("restart") != 2 {
				t.Errorf("serving %q after %q", w.unit.serving(), w.unit.story())
			}
			w.says("1.1 turned bad", `it does not start: the job is "failed", and the unit is being started again already`)
		},
		"restart of what exits at once": func(t *testing.T, w *world) {
			w.unit.plain()
			old := w.running("1.0")
			w.unit.behave["1.1"] = exitsAtOnce
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRolledBack)
			if w.unit.serving() != old {
				t.Errorf("serving %q", w.unit.serving())
			}
		},
		"a clean exit in the window": func(t *testing.T, w *world) {
			w.unit.plain()
			old := w.running("1.0")
			w.start()
			w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.exit()
			w.settles(old, VerdictRolledBack)
			if w.unit.serving() != old {
				t.Errorf("serving %q", w.unit.serving())
			}
		},
		"an end in the window that probes notice first": func(t *testing.T, w *world) {
			w.unit.plain()
			old := w.running("1.0")
			fail := w.probedBy()
			w.start()
			w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.exit()
			fail()
			w.settles(old, VerdictRolledBack)
			if w.unit.serving() != old {
				t.Errorf("serving %q after %q", w.unit.serving(), w.unit.story())
			}
		},
		"an end after probes have failed": func(t *testing.T, w *world) {
			w.unit.plain()
			w.unit.forgets = true
			old := w.running("1.0")
			fail := w.probedBy()
			w.wrap = func(s *store.Store) disk { return &lastStraw{disk: s, unit: w.unit} }
			w.start()
			w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			fail()
			w.settles(old, VerdictRolledBack)
			if w.unit.serving() != old {
				t.Errorf("serving %q after %q", w.unit.serving(), w.unit.story())
			}
		},
		"a stop in the window that probes notice first": func(t *testing.T, w *world) {
			w.unit.plain()
			w.running("1.0")
			fail := w.probedBy()
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.stopByHand()
			fail()
			if st := w.settles(name, VerdictInconclusive); len(st.KnownBad) != 0 || w.unit.serving() != "" {
				t.Errorf("got %+v, serving %q", st, w.unit.serving())
			}
		},
		"an idle exit in the window": func(t *testing.T, w *world) {
			w.unit.plain()
			w.unit.facts.TriggeredBy = []string{"app.socket"}
			w.running("1.0")
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.exit()
			w.settles(name, VerdictInconclusive)
		},
		"a failed unit is restarted": func(t *testing.T, w *world) {
			w.running("1.0")
			w.unit.crash(false)
			w.start()
			name := w.publish("1.1", "")
			w.settles(name, VerdictGood)
			if w.unit.count("restart") != 1 || w.unit.serving() != name {
				t.Errorf("serving %q after %q", w.unit.serving(), w.unit.story())
			}
		},
		"rollback fails": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.set(func() { w.unit.behave["1.0"] = neverReady })
			w.unit.crash(true)
			w.settles(old, VerdictStuck)
			w.says("ROLLBACK FAILED, app.service is left as it is")
			if got := summary(w.daemon.Status()); !strings.Contains(got, "stuck") {
				t.Errorf("summary %q does not tell", got)
			}
		},
		"a bad release expires": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.target.KnownBad = time.Hour
			w.unit.behave["1.1"] = neverReady
			w.start()
			name := w.publish("1.1", "")
			w.settles(old, VerdictRefused)
			time.Sleep(30 * time.Minute)
			w.kill()
			w.start() // it is the disk that remembers
			time.Sleep(25 * time.Minute)
			if n := w.unit.count("reload"); n != 1 {
				t.Errorf("tried %d times before its time, want 1", n)
			}
			w.unit.set(func() { w.unit.behave["1.1"] = becomesReady })
			if st := w.settles(name, VerdictGood); len(st.KnownBad) != 0 {
				t.Errorf("known bad still: %+v", st.KnownBad)
			}
			w.saysOnce("1.1 was known bad for 1h0m0s and may be tried again")
		},
		"the source goes back": func(t *testing.T, w *world) {
			name := w.running("1.1")
			if err := os.Remove(filepath.Join(w.dir, "app_1.1.sh")); err != nil {
				t.Fatal(err)
			}
			w.start()
			w.publish("0.9", "")
			time.Sleep(10 * time.Minute)
			if st := w.status(); st.Current != name || st.State != Idle || w.unit.count("re") != 0 {
				t.Errorf("got %+v after %q", st, w.unit.story())
			}
		},
		"a newer one is published during the trial": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			name := w.publish("1.2", "")
			w.settles(name, VerdictGood)
			w.says("1.1 is good", "found 1.2, 1.1 is installed")
		},
		"the first release turns bad": func(t *testing.T, w *world) {
			name := w.publish("1.0", "")
			w.unit.facts.ActiveState, w.unit.facts.SubState, w.unit.facts.Result = "failed", "failed", "exit-code"
			w.start()
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.crash(true)
			w.settles(name, VerdictStuck)
			w.says("[NO_PREVIOUS]")
		},
		"the operator stops the unit in the window": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.stopByHand()
			st := w.settles(name, VerdictInconclusive)
			time.Sleep(5 * time.Minute)
			if len(st.KnownBad) != 0 || w.unit.count("restart") != 0 || w.unit.serving() != "" {
				t.Errorf("got %+v after %q", st, w.unit.story())
			}
		},
		"the operator restarts the unit in the window": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.startByHand()
			st := w.settles(name, VerdictInconclusive)
			if len(st.KnownBad) != 0 || w.unit.serving() != name {
				t.Errorf("got %+v, serving %s", st, w.unit.serving())
			}
		},
		"the socket starts the unit anew after a crash": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.crash(false)
			w.unit.startByHand() // nobody looked in between
			w.settles(old, VerdictRolledBack)
			w.says("1.1 turned bad", "it failed, and was started anew", "rolled back")
		},
		"the socket starts the unit anew after a crash in the restart": func(t *testing.T, w *world) {
			w.unit.plain()
			old := w.running("1.0")
			w.unit.during = func(verb string) {
				if verb == "restart" && w.unit.count("restart") == 1 {
					w.unit.crash(false)
					w.unit.startByHand()
				}
			}
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRolledBack)
			w.says("it does not start: it failed, and was started anew")
		},
		"the socket starts the unit anew after a crash that only OnFailure= tells of": func(t *testing.T, w *world) {
			w.running("1.0")
			w.unit.set(func() { w.unit.failure = "0815" }) // an older one
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.crash(false)
			w.unit.startByHand()
			w.unit.set(func() { w.unit.facts.Watch++ }) // the bus was away
			w.settles(name, VerdictGood)                // there, back, and there again
			w.says("the unit failed, and was started anew", "rolled back")
			if n := w.unit.count("reload"); n != 3 {
				t.Errorf("%d handovers, want 3: %q", n, w.unit.story())
			}
		},
		"the operator restarts the unit in the handover": func(t *testing.T, w *world) {
			old := w.running("1.0")
			var once atomic.Bool
			w.unit.hook = func(verb string) (systemd.Result, error, bool) {
				if verb != "reload" || once.Swap(true) {
					return "", nil, false
				}
				w.unit.startByHand()
				return systemd.ResultCanceled, nil, true
			}
			w.start()
			name := w.publish("1.1", "")
			w.eventually("no verdict", func(st TargetStatus) bool { return st.Last != nil && st.Last.Verdict == VerdictInconclusive })
			if st := w.status(); st.Current != old || st.Next != "" || len(st.KnownBad) != 0 {
				t.Errorf("got %+v", st)
			}
			w.settles(name, VerdictGood) // it comes up again
		},
		"the operator stops the unit in the rollback": func(t *testing.T, w *world) {
			old := w.running("1.0")
			fail := w.probedBy()
			w.unit.hook = func(verb string) (systemd.Result, error, bool) {
				if verb != "reload" || w.unit.count("reload") != 2 {
					return "", nil, false
				}
				w.unit.set(func() { w.unit.end("failed", "failed", "signal") }) // the helper was killed
				return systemd.ResultCanceled, nil, true
			}
			w.start()
			w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			fail()
			st := w.settles(old, VerdictRolledBack)
			time.Sleep(5 * time.Minute)
			if len(st.KnownBad) != 1 || w.unit.count("restart") != 0 || w.unit.serving() != "" {
				t.Errorf("got %+v after %q", st, w.unit.story())
			}
			w.says("1.1 turned bad", "somebody else acted on app.service during the rollback, which stands; it starts with 1.0", "rolled back to 1.0")
		},
		"a handover that never gets a verdict": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.unit.hook = func(verb string) (systemd.Result, error, bool) {
				return systemd.ResultCanceled, nil, verb == "reload"
			}
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRefused)
			if n := w.unit.count("reload"); n != attemptsMax {
				t.Errorf("%d attempts, want %d", n, attemptsMax)
			}
		},
		"the answer of the handover is lost": func(t *testing.T, w *world) {
			w.running("1.0")
			w.unit.during = func(string) {}
			w.unit.lose = true
			w.start()
			name := w.publish("1.1", "")
			w.settles(name, VerdictGood)
			if w.unit.count("reload") != 1 {
				t.Errorf("asked again: %q", w.unit.story())
			}
		},
		"a handover refused while others drain": func(t *testing.T, w *world) {
			w.running("1.0")
			w.unit.drain(2)
			w.unit.behave["1.1"] = neverReady
			w.start()
			w.publish("1.1", "")
			w.eventually("no verdict", func(st TargetStatus) bool { return st.Last != nil && st.Last.Verdict == VerdictInconclusive })
			w.unit.set(func() { w.unit.behave["1.1"] = becomesReady })
			w.eventually("good", func(st TargetStatus) bool { return st.Last.Verdict == VerdictGood })
		},
		"no right to reload": func(t *testing.T, w *world) {
			old := w.running("1.0")
			denied := &systemd.Error{Code: systemd.CodeDenied, Verb: "reload", Unit: "app.service", Err: errors.New("no"), Hint: "allow it"}
			w.unit.hook = func(verb string) (systemd.Result, error, bool) { return "", denied, verb == "reload" }
			w.start()
			name := w.publish("1.1", "")
			w.eventually("trouble", func(st TargetStatus) bool { return strings.Contains(st.Trouble, "AUTH_DENIED") })
			time.Sleep(30 * time.Minute)
			if st := w.status(); st.Current != old || st.Next != "" || len(st.KnownBad) != 0 || w.unit.serving() != old {
				t.Errorf("got %+v", st)
			}
			w.saysOnce("[AUTH_DENIED] reload app.service")
			w.saysOnce("found 1.1")
			w.unit.set(func() { w.unit.hook = nil })
			began := time.Now()
			w.settles(name, VerdictGood)
			if took := time.Since(began) - w.target.Confirm.Window; took > time.Minute {
				t.Errorf("converged after %v, want within a minute", took)
			}
		},
		"unit not found, then installed": func(t *testing.T, w *world) {
			w.unit.facts.LoadState = "not-found"
			name := w.publish("1.0", "")
			w.start()
			w.eventually("trouble", func(st TargetStatus) bool { return strings.Contains(st.Trouble, "UNIT_NOT_FOUND") })
			w.unit.set(func() { w.unit.facts.LoadState = "loaded" })
			st := w.settles(name, VerdictInstalled)
			if st.Trouble != "" {
				t.Errorf("trouble %q is left", st.Trouble)
			}
		},
		"masked": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.unit.facts.LoadState = "masked"
			w.start()
			w.publish("1.1", "")
			w.eventually("trouble", func(st TargetStatus) bool {
				return strings.Contains(st.Trouble, "UNIT_MASKED") && strings.Contains(st.Trouble, "systemctl unmask app.service")
			})
			if w.unit.serving() != old || w.unit.count("re") != 0 {
				t.Errorf("systemd was asked %q", w.unit.story())
			}
		},
		"masked in the handover, so that the supervisor is not heard": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.unit.during = func(verb string) {
				if verb != "reload" || w.unit.count("reload") != 1 {
					return
				}
				w.unit.set(func() {
					w.unit.facts.LoadState = "masked"
					w.unit.facts.StatusText = statusline.Format(statusline.Status{Release: old, PID: 101, Generation: 1})
				})
			}
			w.start()
			name := w.publish("1.1", "")
			w.settles(old, VerdictInconclusive)
			w.says("no verdict on 1.1: [UNIT_MASKED] app.service is masked")
			w.unit.set(func() { w.unit.facts.LoadState = "loaded" })
			w.settles(name, VerdictGood)
		},
		"the bus is down": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.unit.set(func() {
				w.unit.deny = &systemd.Error{Code: systemd.CodeBusDown, Verb: "read", Unit: "app.service", Err: errors.New("gone")}
			})
			w.start()
			name := w.publish("1.1", "")
			w.eventually("trouble", func(st TargetStatus) bool { return strings.Contains(st.Trouble, "BUS_DOWN") })
			time.Sleep(5 * time.Minute)
			if st := w.status(); st.Current != old {
				t.Errorf("got %+v", st)
			}
			w.unit.set(func() { w.unit.deny = nil })
			w.settles(name, VerdictGood)
		},
		"the bus goes away in the window": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.set(func() { w.unit.deny = errors.New("gone") })
			time.Sleep(5 * time.Minute)
			if st := w.status(); st.State != Confirming {
				t.Errorf("state %s without facts, want %s", st.State, Confirming)
			}
			w.unit.set(func() { w.unit.deny = nil })
			w.settles(name, VerdictGood)
		},
		"wanted handover that cannot be": func(t *testing.T, w *world) {
			w.running("1.0")
			w.target.Swap = SwapHandover
			w.unit.facts.ExecReload = nil
			w.start()
			w.publish("1.1", "")
			w.eventually("trouble", func(st TargetStatus) bool {
				return strings.Contains(st.Trouble, "UNIT_NO_HANDOVER") && strings.Contains(st.Trouble, "ExecReload= is missing")
			})
		},
		"unit changed on disk": func(t *testing.T, w *world) {
			w.running("1.0")
			w.unit.facts.NeedDaemonReload = true
			w.start()
			name := w.publish("1.1", "")
			w.settles(name, VerdictGood)
			w.saysOnce("app.service changed on disk")
		},
		"check passes": func(t *testing.T, w *world) {
			w.target.Check = []string{"bin/app", "--selftest"}
			name := w.publish("1.0", "")
			w.start()
			w.settles(name, VerdictInstalled)
			w.says("staged 1.0", "1.0 passed its check", "installed 1.0")
			if w.unit.count("start upgraderd-check@app.service") != 1 {
				t.Errorf("systemd was asked %q", w.unit.story())
			}
		},
		"check fails": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.target.Check = []string{"bin/app", "--selftest"}
			w.unit.check, w.unit.checkCode = systemd.ResultFailed, 3
			w.start()
			w.publish("1.1", "")
			st := w.settles(old, VerdictRefused)
			if !strings.Contains(st.Last.Reason, "exit status 3") || w.unit.count("reload") != 0 {
				t.Errorf("got %+v after %q", st.Last, w.unit.story())
			}
		},
		"check cannot run": func(t *testing.T, w *world) {
			w.target.Check = []string{"bin/app", "--selftest"}
			w.unit.check, w.unit.checkCode = systemd.ResultFailed, 217 // no such user
			name := w.publish("1.0", "")
			w.start()
			w.eventually("trouble", func(st TargetStatus) bool { return strings.Contains(st.Trouble, "did not get as far") })
			if st := w.status(); len(st.KnownBad) != 0 {
				t.Errorf("the sandbox's fault was laid on the release: %+v", st.KnownBad)
			}
			w.unit.set(func() { w.unit.check = systemd.ResultDone })
			w.settles(name, VerdictInstalled)
		},
		"artifact is no program": func(t *testing.T, w *world) {
			old := w.running("1.0")
			if err := os.WriteFile(filepath.Join(w.dir, "app_1.1.sh"), []byte("plain text\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			w.manifest()
			w.start()
			st := w.settles(old, VerdictRefused)
			if !strings.Contains(st.Last.Reason, "ARTIFACT_FORMAT") {
				t.Errorf("got %+v", st.Last)
			}
		},
		"digest of the manifest is wrong": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.publish("1.1", "")
			if err := os.WriteFile(filepath.Join(w.dir, "app_1.1.sh"), []byte("#!/bin/sh\nevil\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			w.start()
			w.eventually("trouble", func(st TargetStatus) bool { return strings.Contains(st.Trouble, "ARTIFACT_DIGEST") })
			time.Sleep(10 * time.Minute)
			st := w.status()
			if st.Current != old || len(st.KnownBad) != 0 {
				t.Errorf("got %+v", st)
			}
			w.saysOnce("ARTIFACT_DIGEST")
			name := w.publish("1.1", "")
			w.settles(name, VerdictGood)
			w.saysOnce("the source answers again")
		},
		"the release in trouble is withdrawn": func(t *testing.T, w *world) {
			w.running("1.0")
			w.publish("1.1", "")
			file := filepath.Join(w.dir, "app_1.1.sh")
			if err := os.WriteFile(file, []byte("#!/bin/sh\nevil\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			w.start()
			w.eventually("trouble", func(st TargetStatus) bool { return strings.Contains(st.Trouble, "ARTIFACT_DIGEST") })
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			w.manifest()
			w.eventually("no trouble", func(st TargetStatus) bool { return st.Trouble == "" })
			w.saysOnce("the source answers again")
		},
		"the disk is full": func(t *testing.T, w *world) {
			w.running("1.0")
			b := &breaker{kind: failForever, at: 1}
			w.wrap = func(s *store.Store) disk { return roomless{s, b} }
			w.start()
			name := w.publish("1.1", "")
			w.eventually("trouble", func(st TargetStatus) bool { return strings.Contains(st.Trouble, "FS_NOSPACE") })
			time.Sleep(10 * time.Minute)
			b.mend()
			w.settles(name, VerdictGood)
			w.saysOnce("this host cannot take a release: ")
			w.saysOnce("this host takes releases again after 10m")
			w.saysTimes(0, "the source")
		},
		"the source goes away": func(t *testing.T, w *world) {
			w.running("1.0")
			away := w.dir + ".away"
			if err := os.Rename(w.dir, away); err != nil {
				t.Fatal(err)
			}
			w.start()
			w.eventually("trouble", func(st TargetStatus) bool { return st.Trouble != "" })
			time.Sleep(10 * time.Minute)
			if err := os.Rename(away, w.dir); err != nil {
				t.Fatal(err)
			}
			w.eventually("no trouble", func(st TargetStatus) bool { return st.Trouble == "" })
			w.saysOnce("the source answers again after 10m")
			if n := strings.Count(w.out.String(), "SOURCE_MISSING"); n != 1 {
				t.Errorf("the failure was said %d times", n)
			}
		},
		"the installed version is published anew": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			w.publish("1.0", "echo other")
			time.Sleep(5 * time.Minute)
			if st := w.status(); st.Current != old || w.unit.count("re") != 0 {
				t.Errorf("got %+v", st)
			}
			w.saysOnce("the source offers other bytes under version 1.0, which was accepted before")
		},
		"below the floor": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.target.MinVersion = "2.0"
			w.start()
			w.publish("1.9", "")
			w.publish("0.9", "")
			time.Sleep(5 * time.Minute)
			if st := w.status(); st.Current != old || st.Last.Verdict != VerdictInstalled {
				t.Errorf("got %+v", st)
			}
			w.settles(w.publish("2.0", ""), VerdictGood)
		},
		"instances": func(t *testing.T, w *world) {
			w.target.InstancesMax = 2
			w.running("1.0")
			w.start()
			var names []string
			for _, v := range []string{"1.1", "1.2", "1.3"} {
				names = append(names, w.publish(v, ""))
				w.settles(names[len(names)-1], VerdictGood)
			}
			time.Sleep(time.Minute)
			s, err := store.View(w.unit.root)
			if err != nil {
				t.Fatal(err)
			}
			all, err := s.Releases()
			if err != nil || len(all) != 2 || all[0].Name != names[1] || all[1].Name != names[2] {
				t.Errorf("got %v, %v; want %v", all, err, names[1:])
			}
		},
		"what drains is kept": func(t *testing.T, w *world) {
			w.target.InstancesMax = 2
			w.running("1.0")
			w.start()
			for _, v := range []string{"1.1", "1.2"} {
				name := w.publish(v, "")
				w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
				w.unit.drain(1)
				w.settles(name, VerdictGood)
			}
			time.Sleep(time.Minute)
			count := func() int {
				s, err := store.View(w.unit.root)
				if err != nil {
					t.Fatal(err)
				}
				all, err := s.Releases()
				if err != nil {
					t.Fatal(err)
				}
				return len(all)
			}
			if n := count(); n != 3 {
				t.Errorf("%d releases while one drains, want all 3", n)
			}
			w.unit.drain(0)
			time.Sleep(time.Minute)
			if n := count(); n != 2 {
				t.Errorf("%d releases, want 2", n)
			}
		},
		"the staged release rots": func(t *testing.T, w *world) {
			w.running("1.0")
			w.target.Check = []string{"x"}
			w.unit.hook = func(verb string) (systemd.Result, error, bool) {
				if staged := w.unit.link("staged"); strings.HasPrefix(verb, "start") && staged != "" {
					file := filepath.Join(w.unit.root, "releases", staged, "bin/app")
					if err := errors.Join(os.Chmod(file, 0o755), os.WriteFile(file, []byte("#!/bin/rm\n"), 0)); err != nil {
						t.Error(err)
					}
					w.unit.hook = nil
				}
				return "", nil, false
			}
			w.start()
			name := w.publish("1.1", "")
			w.settles(name, VerdictGood) // fetched a second time
			w.saysOnce("RELEASE_CORRUPT")
		},
		"the running release rots": func(t *testing.T, w *world) {
			w.rot(w.running("1.0"))
			w.withdraw("1.0")
			w.start()
			w.settles(w.publish("1.1", ""), VerdictGood)
			w.settles(w.publish("1.2", ""), VerdictGood)
			w.says("1.0 has rotted on disk", "RELEASE_CORRUPT", "moving app.service from 1.0 to 1.1", "1.2 is good")
			w.saysOnce("has rotted on disk")
		},
		"the running release rots, and the next one is bad": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.rot(old)
			w.withdraw("1.0")
			w.start()
			name := w.publish("1.1", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.unit.crash(true)
			st := w.settles(name, VerdictStuck)
			if !strings.Contains(st.Last.Reason, "RELEASE_CORRUPT") || w.unit.serving() == old || w.unit.count("reload") != 1 {
				t.Errorf("%q serves, got %+v", w.unit.serving(), st.Last)
			}
			w.says("1.0 has rotted on disk", "1.1 turned bad", "ROLLBACK FAILED")
			w.settles(w.publish("1.2", ""), VerdictGood) // which is the way out
		},
		"what a rollback returns to rots": func(t *testing.T, w *world) {
			w.running("1.0") // which was never watched
			w.start()
			older := w.publish("1.1", "")
			w.settles(older, VerdictGood)
			rotten := w.publish("1.2", "")
			w.settles(rotten, VerdictGood)
			w.publish("1.3", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.rot(rotten)
			w.unit.crash(true)
			st := w.settles(older, VerdictRolledBack)
			if w.unit.serving() != older || len(st.KnownBad) != 1 || st.KnownBad[0].Version != "1.3" {
				t.Errorf("%q serves, got %+v", w.unit.serving(), st)
			}
			w.says("1.3 turned bad", "release "+rotten+" is damaged on disk", "rolled back to 1.1")
			w.saysTimes(0, "ROLLBACK FAILED")
		},
		"all that a rollback could return to rots": func(_ *testing.T, w *world) {
			w.running("1.0")
			w.start()
			older := w.publish("1.1", "")
			w.settles(older, VerdictGood)
			rotten := w.publish("1.2", "")
			w.settles(rotten, VerdictGood)
			name := w.publish("1.3", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.rot(rotten)
			w.rot(older)
			w.unit.crash(true)
			w.settles(name, VerdictStuck)
			w.says("1.3 turned bad", "ROLLBACK FAILED")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in(t, func(t *testing.T, w *world) {
				f(t, w)
				w.oracle()
			})
		})
	}
}

// withdraw takes a release off the source, so that nothing can be healed by it.
func (w *world) withdraw(version string) {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.dir, "app_"+version+".sh")); err != nil {
		w.t.Fatal(err)
	}
	w.manifest()
}

// rot changes the program of a release on disk.
func (w *world) rot(release string) {
	w.t.Helper()
	file := filepath.Join(w.unit.root, "releases", release, "bin/app")
	if err := errors.Join(os.Chmod(file, 0o755), os.WriteFile(file, []byte("#!/bin/rm\n"), 0)); err != nil {
		w.t.Fatal(err)
	}
}

func TestHeldForTheOperator(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.running("1.0")
		w.target.Swap = SwapNone
		w.start()
		first := w.publish("1.1", "")
		w.eventually("held", func(st TargetStatus) bool { return st.State == Held && st.Staged == first && st.Current == old })
		w.kill() // what waits, waits across a restart of the daemon
		w.start()
		second := w.publish("1.2", "")
		w.eventually("the newer one held", func(st TargetStatus) bool { return st.State == Held && st.Staged == second })
		time.Sleep(10 * time.Minute)
		w.saysOnce("1.2 is staged and waits for the operator")
		if w.unit.count("re") != 0 {
			t.Errorf("systemd was asked %q", w.unit.story())
		}
		allowed := *w.target
		allowed.Swap = SwapAuto
		if err := w.daemon.Reload(t.Context(), []*Target{&allowed}); err != nil {
			t.Fatal(err)
		}
		w.settles(second, VerdictGood)
		w.oracle()
	})
}

func TestOperatorInstallsWhatIsHeld(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.target.Swap = SwapNone
		w.start()
		name := w.publish("1.1", "")
		w.eventually("held", func(st TargetStatus) bool { return st.State == Held })
		s, err := store.View(w.unit.root)
		if err != nil {
			t.Fatal(err)
		}
		r, err := store.ParseRelease(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetLink(store.Current, r); err != nil {
			t.Fatal(err)
		}
		w.settles(name, VerdictInconclusive)
		w.oracle()
	})
}

// A reload in the middle of an upgrade waits for its end; a target that is
// gone stops then.
func TestReloadInTheMiddle(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.start()
		name := w.publish("1.1", "")
		w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
		if err := w.daemon.Reload(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := w.daemon.Status(); len(got) != 1 || got[0].State != Confirming {
			t.Errorf("got %+v, want the upgrade to go on", got)
		}
		w.settles(name, VerdictGood)
		time.Sleep(time.Second)
		if got := w.daemon.Status(); len(got) != 0 {
			t.Errorf("got %+v, want nothing", got)
		}
		w.saysOnce("no longer followed; app.service goes on")
		w.publish("1.2", "")
		time.Sleep(time.Hour)
		if st := w.status(); st.Current != name {
			t.Errorf("a target that is gone was upgraded: %+v", st)
		}
		// And it can come back.
		if err := w.daemon.Reload(t.Context(), []*Target{w.target}); err != nil {
			t.Fatal(err)
		}
		w.eventually("1.2", func(st TargetStatus) bool { return strings.HasPrefix(st.Current, "1.2") && st.State == Idle })
		w.oracle()
	})
}

// looks holds each answer of the source back until the test lets it go.
type looks struct {
	source
	came, goes chan struct{}
}

func (l looks) Check(ctx context.Context) (fetcher.Listing, error) {
	listing, err := l.source.Check(ctx)
	select {
	case l.came <- struct{}{}:
		<-l.goes
	case <-ctx.Done():
	}
	return listing, err
}

// What the source answers to a question of before a reload begins nothing by
// settings that hold no more.
func TestReloadInALook(t *testing.T) {
	for name, c := range map[string]struct {
		reload func(*Target) []*Target
		ends   func(w *world) bool
	}{
		"gone": {
			func(*Target) []*Target { return nil },
			func(w *world) bool { return len(w.daemon.Status()) == 0 },
		},
		"edited": {
			func(t *Target) []*Target {
				edited := *t
				edited.MinVersion = "2"
				return []*Target{&edited}
			},
			func(w *world) bool {
				all := w.daemon.Status()
				return len(all) == 1 && all[0].State == Idle
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				before := w.running("1.0")
				came, goes := make(chan struct{}), make(chan struct{})
				w.around = func(s source) source { return looks{s, came, goes} }
				w.publish("1.1", "")
				w.start()
				<-came
				if err := w.daemon.Reload(t.Context(), c.reload(w.target)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				close(goes)
				go func() {
					for range came { //nolint:revive // the looks after it are not held back
					}
				}()
				time.Sleep(time.Hour)
				if st := w.status(); st.Current != before || !c.ends(w) {
					t.Errorf("got %+v of %+v, want %s to stay", st, w.daemon.Status(), before)
				}
				if got := w.out.String(); strings.Contains(got, "found 1.1") {
					t.Errorf("1.1 was begun:\n%s", got)
				}
				w.kill()
				close(came)
			})
		})
	}
}

func TestSecondDaemon(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.publish("1.0", "")
		w.start()
		w.eventually("installed", func(st TargetStatus) bool { return st.Current != "" })
		second, err := New(Options{StateDir: w.state, Targets: []*Target{w.target}, Systemd: w.unit})
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Run(t.Context()); !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
			t.Errorf("got %v, want ErrLocked with the holder", err)
		}
	})
}

// One broken target never stops the others.
func TestTargetsDoNotStopEachOther(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		broken := *w.target
		broken.Name, broken.Unit = "broken", "broken.service"
		broken.Source.Path, broken.Source.Verify = "relative", ""
		if err := os.WriteFile(filepath.Join(w.state, "blocked"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		blocked := *w.target
		blocked.Name, blocked.Unit = "blocked", "blocked.service"
		var mu lockedBuffer
		d, err := New(Options{
			StateDir: w.state, Targets: []*Target{&broken, &blocked, w.target}, Systemd: w.unit, Log: w.log,
			Notify: func(state ...string) error {
				fmt.Fprintln(&mu, strings.Join(state, " "))
				return nil
			},
			WatchdogInterval: 20 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		made := d.newest
		d.newest = func(t *Target) (source, error) {
			s, err := made(t)
			if err != nil {
				return nil, err
			}
			s.Close()
			return w.source(t)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		name := w.publish("1.0", "")
		w.settles(name, VerdictInstalled)
		time.Sleep(time.Minute)
		got := summary(d.Status())
		if want := "3 targets: 1 up to date, 2 in trouble"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		said := mu.String()
		for _, want := range []string{"READY=1 STATUS=3 targets", "STATUS=" + got, "WATCHDOG=1", "STOPPING=1"} {
			if !strings.Contains(said, want) {
				t.Errorf("systemd was told\n%s, want %q too", said, want)
			}
		}
	})
}

// The probes are asked by real connections, so the server is outside.
func TestProbesDecide(t *testing.T) {
	var status atomic.Int32
	status.Store(200)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(int(status.Load())) }))
	defer server.Close()
	in(t, func(t *testing.T, w *world) {
		old := w.running("1.0")
		w.target.Confirm.Probes = []Probe{{Kind: ProbeHTTP, Address: server.URL + "/health?token=secret"}}
		w.start()
		good := w.publish("1.1", "")
		st := w.settles(good, VerdictGood)
		if st.Previous != old {
			t.Errorf("got %+v", st)
		}
		w.publish("1.2", "")
		w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
		status.Store(503)
		st = w.settles(good, VerdictRolledBack)
		if !strings.Contains(st.Last.Reason, "got status 503, want 2xx (3 times in a row)") {
			t.Errorf("reason %q", st.Last.Reason)
		}
		if strings.Contains(w.out.String()+st.Last.Reason, "secret") {
			t.Error("the URL's query is in the journal")
		}
		w.oracle()
	})
}

// A check that flaps never fails often enough in a row, and is no good all the
// same.
func TestFlappingCheck(t *testing.T) {
	for name, c := range map[string]struct {
		fails func(round int64) bool
		want  Verdict
	}{
		"two of three":      {func(n int64) bool { return n%3 != 0 }, VerdictRolledBack},
		"one of seven":      {func(n int64) bool { return n%7 == 0 }, VerdictRolledBack},
		"one of twenty":     {func(n int64) bool { return n%20 == 0 }, VerdictGood},
		"at first, for two": {func(n int64) bool { return n <= 2 }, VerdictGood},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var on atomic.Bool
			var rounds atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				if on.Load() && c.fails(rounds.Add(1)) {
					rw.WriteHeader(http.StatusInternalServerError)
				}
			}))
			defer server.Close()
			in(t, func(t *testing.T, w *world) {
				old := w.running("1.0")
				w.target.Confirm.Probes = []Probe{{Kind: ProbeHTTP, Address: server.URL}}
				on.Store(true)
				w.start()
				name := w.publish("1.1", "")
				if c.want == VerdictGood {
					w.settles(name, VerdictGood)
				} else if st := w.settles(old, VerdictRolledBack); !strings.Contains(st.Last.Reason, "it failed anew 4 times") {
					t.Errorf("reason %q", st.Last.Reason)
				}
				w.oracle()
			})
		})
	}
}

// A release that accepts and never answers is no good, however long its clients
// would wait. This takes real time: who waits for a socket stops a test's clock.
func TestNeverAnswers(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	w := newWorld(t)
	w.target.Source.PollInterval = 100 * time.Millisecond
	old := w.running("1.0")
	w.target.Confirm = Confirm{
		Window: time.Hour, ProbeInterval: 10 * time.Millisecond, ProbeTimeout: 100 * time.Millisecond,
		Probes: []Probe{{Kind: ProbeHTTP, Address: "http://" + l.Addr().String() + "/"}},
	}
	w.start()
	w.publish("1.1", "")
	if st := w.settles(old, VerdictRolledBack); !strings.Contains(st.Last.Reason, "deadline exceeded (3 times in a row)") {
		t.Errorf("reason %q", st.Last.Reason)
	}
	w.oracle()
}

// A daemon that ends leaves nothing open; that no goroutine is left, the
// bubble itself demands.
func TestNothingIsLeftOpen(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		count := func() int {
			entries, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			return len(entries)
		}
		before := count()
		for i := range 5 {
			w.start()
			w.settles(w.publish(fmt.Sprintf("1.%d", i+1), ""), VerdictGood)
			w.kill()
		}
		if after := count(); after > before {
			t.Errorf("%d files open, %d before", after, before)
		}
	})
}
