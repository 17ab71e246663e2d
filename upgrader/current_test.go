package upgrader

import (
	"os"
	"path/filepath"
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
