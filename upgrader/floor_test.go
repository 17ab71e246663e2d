package upgrader

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
)

// TestFloor has somebody who controls the source lead a host back, after the
// operator did.
func TestFloor(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old, _ := upgraded(w)
		w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
		w.settles(old, VerdictGood)
		if err := os.Remove(filepath.Join(w.dir, "app_2.0.sh")); err != nil {
			t.Fatal(err)
		}
		w.publish("1.5", "# a hole that 2.0 closed")
		time.Sleep(time.Hour)
		w.kill()
		w.start() // the floor is on disk
		time.Sleep(time.Hour)
		if st := w.status(); st.Current != old {
			t.Errorf("it was led to %s", st.Current)
		}
		w.says("the source offers 1.5 at most, older than 2.0, which was accepted before, not taken")
		// Other bytes under the version that was accepted are no way around it.
		w.publish("2.0", "# changed")
		time.Sleep(time.Hour)
		if st := w.status(); st.Current != old {
			t.Errorf("it was led to %s", st.Current)
		}
		w.saysOnce("the source offers other bytes under version 2.0")
		w.settles(w.publish("2.0.1", ""), VerdictGood)
		w.oracle()
	})
}

// TestOlderListAfterAStart shows a daemon that was away an older list, signed
// well, with something newer than what is installed.
func TestOlderListAfterAStart(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.target.Source.Verify, w.target.Source.Keys = fetcher.VerifySigned, []string{w.newKey()}
		names := []string{"SHA256SUMS.minisig", "SHA256SUMS"}
		read := func() (files [][]byte) {
			for _, name := range names {
				data, err := os.ReadFile(filepath.Join(w.dir, name))
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, data)
			}
			return files
		}
		old := w.running("1.0")
		w.publish("1.1", "# withdrawn later")
		older := read()
		time.Sleep(time.Hour)
		if err := os.Remove(filepath.Join(w.dir, "app_1.1.sh")); err != nil {
			t.Fatal(err)
		}
		w.manifest()
		w.start()
		w.looked()
		time.Sleep(time.Minute)
		w.kill()
		for i, data := range older {
			if err := os.WriteFile(filepath.Join(w.dir, names[i]), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		w.start()
		time.Sleep(time.Hour)
		if st := w.status(); st.Current != old {
			t.Errorf("it was led to %s", st.Current)
		}
		w.says("[META_OLDER]")
	})
}

// A version far too high was signed by mistake, and accepted: nothing comes any more
// until an operator says so once.
func TestFastForward(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.running("1.0")
		w.start()
		huge := strings.Repeat("9", 40)
		w.settles(w.publish(huge, ""), VerdictGood)
		must(t, os.Remove(filepath.Join(w.dir, "app_"+huge+".sh")))
		next := w.publish("1.1", "")
		time.Sleep(time.Hour)
		w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
		time.Sleep(time.Hour)
		if st := w.status(); st.Current != old {
			t.Errorf("current is %s, below what was accepted", st.Current)
		}
		w.answered(w.order(Order{Verb: OrderUpgrade, Version: "1.1"}), VerdictRefused)
		w.answered(w.order(Order{Verb: OrderUpgrade, Version: "1.1", AllowDowngrade: true}), VerdictGood)
		w.settles(next, VerdictGood)
		w.comes(w.publish("1.2", ""))
		w.oracle()
	})
}
