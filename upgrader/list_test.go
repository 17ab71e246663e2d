package upgrader

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// lists is what a list says, a release a line.
func lists(l List) string {
	var b strings.Builder
	for _, r := range l.Releases {
		fmt.Fprintf(&b, "%s offered=%v disk=%v %v", r.Version, r.Offered, r.OnDisk, r.Links)
		for word, is := range map[string]bool{" damaged": r.Damaged, " skipped": r.Skipped} {
			if is {
				b.WriteString(word)
			}
		}
		if r.RuledOut {
			b.WriteString(" ruled out")
		}
		if r.KnownBad != "" {
			b.WriteString(" known bad")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestList(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		list := func(want string) {
			t.Helper()
			l, err := ReadList(w.state, "app")
			if err != nil {
				t.Fatal(err)
			}
			if got := lists(l); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		}
		list("")
		first, _ := upgraded(w)
		w.unit.behave["3.0"] = neverReady
		w.publish("3.0", "")
		w.eventually("refused", func(st TargetStatus) bool { return len(st.KnownBad) == 1 && st.State == Idle })
		w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
		const both = "2.0 offered=true disk=true [previous]\n1.0 offered=true disk=true [current]\n"
		list("3.0 offered=true disk=true [] known bad\n" + both)
		w.publish("4.0", "")
		w.skip("4.0")
		w.eventually("seen", func(TargetStatus) bool {
			l, err := ReadList(w.state, "app")
			return err == nil && l.Releases[0].Offered && l.Releases[0].Version == "4.0"
		})
		w.wish(func(all *wish.Wishes) error { all.Pin = &wish.Pin{Version: "1.*"}; return nil })
		list("4.0 offered=true disk=false [] skipped ruled out\n3.0 offered=true disk=true [] ruled out known bad\n2.0 offered=true disk=true [previous] ruled out\n1.0 offered=true disk=true [current]\n")
		w.pin("")
		w.kill()

		// What is at the source now, without the daemon.
		if err := os.Remove(filepath.Join(w.dir, "app_4.0.sh")); err != nil {
			t.Fatal(err)
		}
		w.publish("5.0", "")
		l, err := AskList(context.Background(), Options{StateDir: w.state, Systemd: w.unit}, w.target)
		if want := "5.0 offered=true disk=false []\n4.0 offered=false disk=false [] skipped\n3.0 offered=true disk=true [] known bad\n" + both; err != nil || lists(l) != want {
			t.Errorf("got\n%swant\n%s%v", lists(l), want, err)
		}
		list("4.0 offered=true disk=false [] skipped\n3.0 offered=true disk=true [] known bad\n" + both)

		// Rot is seen by the daemon, which heals it where it can.
		w.rot(first)
		hidden := filepath.Join(w.dir, "hidden")
		if err := os.Rename(filepath.Join(w.dir, "app_1.0.sh"), hidden); err != nil {
			t.Fatal(err)
		}
		w.manifest()
		w.skip("5.0")
		w.start()
		time.Sleep(time.Minute)
		list("5.0 offered=true disk=false [] skipped\n4.0 offered=false disk=false [] skipped\n3.0 offered=true disk=true [] known bad\n2.0 offered=true disk=true [previous]\n1.0 offered=false disk=true [current] damaged\n")
		if err := os.Rename(hidden, filepath.Join(w.dir, "app_1.0.sh")); err != nil {
			t.Fatal(err)
		}
		w.manifest()
		w.kill()
		w.start()
		time.Sleep(time.Minute)
		list("5.0 offered=true disk=false [] skipped\n4.0 offered=false disk=false [] skipped\n3.0 offered=true disk=true [] known bad\n" + both)
		w.oracle()
	})
}

// A source that lists very many releases does not fill the record.
func TestListOfMany(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		for i := range 60 {
			w.publish(fmt.Sprintf("0.%d.%s", i, strings.Repeat("1", 55)), "")
		}
		name := w.publish("1.1", "")
		w.start()
		w.settles(name, VerdictGood)
		l, err := ReadList(w.state, "app")
		if err != nil {
			t.Fatal(err)
		}
		offered := 0
		for _, r := range l.Releases {
			if r.Offered {
				offered++
			}
		}
		if offered != offersMax {
			t.Errorf("%d are offered, want the newest %d", offered, offersMax)
		}
	})
}
