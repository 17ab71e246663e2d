package upgrader

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
)

// name has the source name a release.
func (w *world) name(version string) {
	w.t.Helper()
	tmp := filepath.Join(w.dir, ".current")
	if err := os.WriteFile(tmp, []byte(version+"\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(w.dir, "current.conf")); err != nil {
		w.t.Fatal(err)
	}
}

// TestCurrent goes where the folder's owner points: up, back and up again, past a
// release that is bad.
func TestCurrent(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.target.Source.Current = "current.conf"
		w.name("1.0")
		first := w.running("1.0")
		second, third := w.publish("2.0", ""), w.publish("3.0", "")
		w.start()
		time.Sleep(time.Hour)
		if st := w.status(); st.Current != first {
			t.Errorf("%s, and the file names 1.0", st.Current)
		}
		for _, step := range []struct{ version, release string }{
			{"2.0", second}, {"1.0", first}, {"3.0", third}, {"app_2.0.sh", second}, {"3.0", third}, {"1.0", first}, {"2.0", second},
		} {
			w.name(step.version)
			w.settles(step.release, VerdictGood)
			time.Sleep(time.Hour)
			if st := w.status(); st.Current != step.release {
				t.Errorf("%s, and the file names %s", st.Current, step.version)
			}
		}
		w.name("9.0")
		w.eventually("9.0 is missed", func(st TargetStatus) bool { return st.Trouble != "" })
		if st := w.status(); st.Current != second {
			t.Errorf("the file names what is not there, and %s runs", st.Current)
		}
		w.name("2.0")
		w.eventually("the file names what runs", func(st TargetStatus) bool { return st.Trouble == "" })

		// What an operator ordered holds until the file names another.
		w.answered(w.order(Order{Verb: OrderRollback, Version: "1.0"}), VerdictGood)
		time.Sleep(time.Hour)
		if st := w.status(); st.Current != first {
			t.Errorf("the operator went back to 1.0, and %s runs", st.Current)
		}
		w.name("3.0")
		w.settles(third, VerdictGood)
		w.oracle()
	})
}

// TestCurrentPair moves a program and its configuration together: up, to another
// configuration, and back to both, past a pair that is bad.
func TestCurrentPair(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.target.Source.Current = "current.conf"
		for _, name := range []string{"a", "b"} {
			if err := os.WriteFile(filepath.Join(w.dir, "app_"+name+".conf"), []byte(name), 0o644); err != nil {
				w.t.Fatal(err)
			}
		}
		pair := func(version, config string) string {
			w.name(`{"bin.file": "app_` + version + `.sh", "cfg.file": "app_` + config + `.conf"}`)
			return version + "+app_" + config + ".conf"
		}
		holds := func(named, config string) string {
			w.t.Helper()
			st := w.eventually(named+" is current", func(st TargetStatus) bool {
				return st.State == Idle && strings.HasPrefix(st.Current, named+"-") && st.Last != nil && st.Last.Verdict == VerdictGood
			})
			got, err := os.ReadFile(filepath.Join(w.state, "app/releases", st.Current, configName))
			if err != nil || string(got) != config {
				t.Errorf("%s has the configuration %q, %v; want %q", st.Current, got, err, config)
			}
			return st.Current
		}
		w.name("1.0")
		w.running("1.0")
		w.publish("2.0", "")
		two := pair("2.0", "a")
		w.start()
		first := holds(two, "a")
		holds(pair("2.0", "b"), "b")
		holds(pair("1.0", "b"), "b")
		if again := holds(pair("2.0", "a"), "a"); again != first {
			t.Errorf("back to %s, want %s as before", again, first)
		}
		for _, rots := range []string{"bin/app", configName} {
			file := filepath.Join(w.state, "app/releases", first, rots)
			must(t, os.Chmod(file, 0o644))
			must(t, os.WriteFile(file, []byte("rot"), 0))
			w.edit(func(*Target) {})
			if !w.damaged(first) {
				t.Fatalf("nobody notices that %s rotted", rots)
			}
			w.eventually(rots+" is whole again", func(TargetStatus) bool { return !w.damaged(first) })
			holds(two, "a")
		}
		w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
		holds("1.0+app_b.conf", "b")
		pair("2.0", "c")
		w.eventually("c is missed", func(st TargetStatus) bool { return strings.Contains(st.Trouble, "app_c.conf") })
		w.oracle()
	})
}

// TestCurrentIsUnsigned has somebody who may write the folder, and has no key, name
// an older release.
func TestCurrentIsUnsigned(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.target.Source.Verify, w.target.Source.Keys = fetcher.VerifySigned, []string{w.newKey()}
		w.target.Source.Current = "current.conf"
		w.name("1.0")
		w.running("1.0")
		second := w.publish("2.0", "")
		w.start()
		w.name("2.0")
		w.settles(second, VerdictGood)
		w.name("1.0")
		time.Sleep(time.Hour)
		if st := w.status(); st.Current != second {
			t.Errorf("led back to %s", st.Current)
		}
		w.says("the source offers 1.0 at most, older than 2.0, which was accepted before, not taken")
		w.oracle()
	})
}
