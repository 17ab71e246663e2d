package upgrader

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// configured makes the releases configurations of a unit that can be reloaded.
func (w *world) configured() {
	w.unit.plain()
	w.unit.facts.CanReload = true
	w.target.Config = "app.conf"
}

// withSettings has the unit get its configuration by a target of its own, settings.
// publish gives that a release, and both reads how it and the program are.
func (w *world) withSettings() (publish func(), both func() (program, settings TargetStatus)) {
	w.t.Helper()
	settings := *w.target
	settings.Name, settings.Source.Target, settings.Config = "settings", "settings", "app.conf"
	settings.Source.Path = filepath.Join(w.dir, "settings")
	must(w.t, os.Mkdir(settings.Source.Path, 0o755))
	w.unit.set(func() { w.unit.facts.CanReload = true })
	w.others = append(w.others, &settings)
	publish = func() {
		w.t.Helper()
		must(w.t, os.WriteFile(filepath.Join(settings.Source.Path, "app_7.sh"), []byte("a setting"), 0o644))
	}
	read := func(t *Target) TargetStatus { return ReadStatus(w.state, []*Target{t})[0] }
	both = func() (program, of TargetStatus) {
		for { // until they are of one moment
			of, program = read(&settings), read(w.target)
			if read(&settings).State == of.State {
				return program, of
			}
		}
	}
	return publish, both
}

func TestReload(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.configured()
		w.running("1.0")
		runs := w.unit.facts.InvocationID
		w.start()
		name := w.publish("1.1", "")
		w.settles(name, VerdictGood)
		if got := w.unit.serving(); got != name {
			t.Errorf("the unit has read %q, want %q", got, name)
		}
		if w.unit.facts.InvocationID != runs || w.unit.count("restart") > 0 {
			t.Error("the unit was started anew")
		}
		file := filepath.Join(w.unit.root, "current", "app.conf")
		if st, err := os.Stat(file); err != nil || st.Mode().Perm()&0o133 != 0 {
			t.Errorf("the configuration is %v, %v; nobody shall execute it", st, err)
		}
		w.saysOnce("moving app.service from 1.0 to 1.1 by reload")
		w.oracle()
	})
}

// What reads the first configuration and cannot use it read none before.
func TestFirstReloadFails(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.configured()
		w.unit.begin("")
		w.unit.behave["1.0"] = neverReady
		reads := 0
		w.unit.hook = func(verb string) (systemd.Result, error, bool) {
			if strings.HasPrefix(verb, "reload") {
				reads++
				if w.unit.link("current") == "" {
					return systemd.ResultDone, nil, true
				}
			}
			return "", nil, false
		}
		w.start()
		w.publish("1.0", "")
		w.eventually("rolled back", func(st TargetStatus) bool {
			return st.State == Idle && st.Last != nil && st.Last.Verdict == VerdictRolledBack && st.Current == "" && len(st.KnownBad) == 1
		})
		if reads != 2 {
			t.Errorf("the unit was reloaded %d times, want to read what it had before", reads)
		}
		w.saysOnce("1.0 turned bad after 0s: the reload ended as")
	})
}

// Nor did what is restarted for it.
func TestFirstConfigByRestartFails(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.configured()
		w.unit.facts.CanReload = false
		w.unit.begin("")
		w.unit.behave["1.0"] = neverReady
		w.unit.hook = func(verb string) (systemd.Result, error, bool) {
			if !strings.HasPrefix(verb, "restart") || w.unit.link("current") != "" {
				return "", nil, false
			}
			w.unit.set(func() { w.unit.begin("") })
			return systemd.ResultDone, nil, true
		}
		w.start()
		w.publish("1.0", "")
		w.eventually("rolled back", func(st TargetStatus) bool {
			return st.State == Idle && st.Last != nil && st.Last.Verdict == VerdictRolledBack && st.Current == "" && len(st.KnownBad) == 1
		})
	})
}

// A unit that cannot go back by a reload either is started anew.
func TestReloadBackFails(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.configured()
		old := w.running("1.0")
		w.unit.hook = func(verb string) (systemd.Result, error, bool) {
			return systemd.ResultFailed, nil, strings.HasPrefix(verb, "reload")
		}
		w.start()
		w.publish("1.1", "")
		w.settles(old, VerdictRolledBack)
		if w.unit.count("restart") != 1 || w.unit.serving() != old {
			t.Errorf("restarted %d times, and it has read %q", w.unit.count("restart"), w.unit.serving())
		}
		w.oracle()
	})
}

func TestNoReload(t *testing.T) {
	for name, c := range map[string]struct {
		swap Swap
		ends func(st TargetStatus, name string) bool
		says string
	}{
		"auto":   {SwapAuto, func(st TargetStatus, name string) bool { return st.Current == name && st.State == Idle }, "is swapped by restart: the unit has no ExecReload="},
		"reload": {SwapReload, func(st TargetStatus, name string) bool { return st.Staged == name && st.Trouble != "" }, "[UNIT_NO_RELOAD] app.service cannot be reloaded"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.configured()
				w.target.Swap = c.swap
				w.running("1.0")
				w.unit.facts.CanReload = false
				w.start()
				next := w.publish("1.1", "")
				w.eventually(c.says, func(st TargetStatus) bool { return c.ends(st, next) })
				w.saysOnce(c.says)
			})
		})
	}
}

// An archive that does not hold the configuration is refused before it is read.
func TestConfigMissing(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.configured()
		old := w.running("1.0")
		w.target.Source.Patterns = append(w.target.Source.Patterns, "app_@v.tar")
		var archive bytes.Buffer
		tw := tar.NewWriter(&archive)
		must(t, tw.WriteHeader(&tar.Header{Name: "another.conf", Mode: 0o644}))
		must(t, tw.Close())
		must(t, os.WriteFile(filepath.Join(w.dir, "app_1.1.tar"), archive.Bytes(), 0o644))
		w.manifest()
		w.start()
		w.eventually("refused", func(st TargetStatus) bool { return st.Last != nil && st.Last.Verdict == VerdictRefused })
		w.saysOnce("[ARTIFACT_MISSING]")
		if st := w.status(); st.Current != old {
			t.Errorf("current is %s", st.Current)
		}
	})
}

// The program of a unit and its configuration are two targets, of which one moves
// it at a time, until the verdict.
func TestProgramAndConfig(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		program := w.running("1.0")
		publish, both := w.withSettings()
		w.start()
		synctest.Wait()

		w.publish("1.1", "")
		publish()
		for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			p, c := both()
			if p.State == Confirming && c.State == Confirming {
				t.Fatal("both are on trial at once")
			}
			if good(p) && good(c) && p.Current != program {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("got %+v and %+v, want both to be good", p, c)
			}
		}
		if err := w.daemon.Reload(t.Context(), []*Target{w.target, {Name: "other", Unit: w.target.Unit}}); err == nil {
			t.Error("two programs of one unit were taken")
		}
	})
}

func good(st TargetStatus) bool {
	return st.State == Idle && st.Last != nil && st.Last.Verdict == VerdictGood
}

// A service that keeps its old configuration says so by ERRNO=: at the end of the
// reload, or, where the reload was but a signal, while it is watched. It goes on
// with what it had, and is told to read that.
func TestConfigRefused(t *testing.T) {
	for name, late := range map[string]bool{"in the reload": false, "while it is watched": true} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.configured()
				old := w.running("1.0")
				say := func(number int32, text string) {
					w.unit.facts.StatusErrno, w.unit.facts.StatusText = number, text
				}
				w.unit.hook = func(verb string) (systemd.Result, error, bool) {
					if !strings.HasPrefix(verb, "reload") {
						return "", nil, false
					}
					switch current := w.unit.link("current"); {
					case current == old:
						say(0, "")
					case late:
						time.AfterFunc(3*time.Second, func() { w.unit.set(func() { say(22, "Reload refused: line 3") }) })
					default:
						say(22, "Reload refused: line 3")
					}
					return systemd.ResultDone, nil, true
				}
				w.start()
				w.publish("1.1", "")
				w.settles(old, VerdictRolledBack)
				w.saysOnce("the service did not take it: Reload refused: line 3")
				if w.unit.count("restart") != 0 || w.unit.facts.StatusErrno != 0 {
					t.Errorf("restarted %d times, and ERRNO= is %d", w.unit.count("restart"), w.unit.facts.StatusErrno)
				}
				w.oracle()
			})
		})
	}
}

// A supervisor's worker that does not take its configuration gives the reason, old
// workers that drain or not.
func TestWorkerRefusesConfig(t *testing.T) {
	before := systemd.Facts{StatusText: statusline.Format(statusline.Status{Release: "1.0-aaaaaaaaaaaa", PID: 7, Generation: 2, Draining: 1})}
	after := before
	after.StatusText = statusline.Format(statusline.Status{Release: "1.0-aaaaaaaaaaaa", PID: 7, Generation: 2, Draining: 1, Note: statusline.ReloadFailed + "line 3"})
	if why, ok := supervisorRefused(after, after); ok {
		t.Errorf("taken for the supervisor's own refusal: %s", why)
	}
	if why, ok := supervisorRefused(before, after); ok {
		t.Errorf("taken for the supervisor's own refusal: %s", why)
	}
}
