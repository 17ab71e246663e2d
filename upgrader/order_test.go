package upgrader

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

// order places one and tells the daemon, as the command line does.
func (w *world) order(o Order) (id string) {
	w.t.Helper()
	id, err := Place(w.state, "app", o)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.stop != nil {
		if err := w.daemon.Reload(context.Background(), []*Target{w.target}); err != nil {
			w.t.Fatal(err)
		}
	}
	return id
}

// answered waits for an order's end.
func (w *world) answered(id string, want Verdict) Answer {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		a, ok, _, err := Stands(w.state, "app", id)
		if err != nil {
			w.t.Fatal(err)
		}
		if !ok {
			continue
		}
		if a.Verdict != want {
			w.t.Fatalf("answer %+v, want verdict %q", a, want)
		}
		time.Sleep(time.Second) // what is done is cleared after it is on disk
		if _, err := os.Lstat(filepath.Join(w.state, "app", "order.json")); !os.IsNotExist(err) {
			w.t.Errorf("the order is left: %v", err)
		}
		return a
	}
	w.t.Fatalf("no answer; status %+v", w.status())
	return Answer{}
}

// looked waits until the source was asked.
func (w *world) looked() {
	w.t.Helper()
	w.eventually("looked at the source", func(TargetStatus) bool {
		all := w.daemon.Status()
		return len(all) == 1 && !all[0].Checked.IsZero()
	})
}

// upgraded gives a world in which a daemon upgraded from 1.0 to 2.0.
func upgraded(w *world) (old, now string) {
	old = w.running("1.0")
	w.start()
	now = w.publish("2.0", "")
	w.settles(now, VerdictGood)
	return old, now
}

func TestOrders(t *testing.T) {
	for name, f := range map[string]func(*testing.T, *world){
		"roll back": func(t *testing.T, w *world) {
			old, _ := upgraded(w)
			id := w.order(Order{Verb: OrderRollback})
			w.answered(id, VerdictGood)
			w.settles(old, VerdictGood)
			w.says("the operator orders: roll back", "1.0 is good")
			if got := w.unit.serving(); got != old {
				t.Errorf("%s serves, want %s", got, old)
			}
			// It stays there until something newer comes, not what it left.
			time.Sleep(time.Hour)
			if st := w.status(); st.Current != old || len(st.KnownBad) != 0 {
				t.Errorf("an hour later: %+v", st)
			}
			w.saysOnce("2.0 is not taken by itself")
			w.answered(w.order(Order{Verb: OrderUpgrade, Version: "2.0"}), VerdictGood)
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictGood)
			w.settles(w.publish("2.1", ""), VerdictGood)
		},
		"roll back, daemon down": func(t *testing.T, w *world) {
			old, _ := upgraded(w)
			w.kill()
			id := w.order(Order{Verb: OrderRollback})
			w.start()
			w.answered(id, VerdictGood)
			w.settles(old, VerdictGood)
		},
		"roll back during the trial": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			w.publish("2.0", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictRolledBack)
			w.settles(old, VerdictRolledBack)
			w.says("the operator wants it undone")
		},
		"roll back during the trial, to another": func(t *testing.T, w *world) {
			first, second := upgraded(w)
			w.publish("3.0", "")
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming && strings.HasPrefix(st.To, "3.0") })
			w.answered(w.order(Order{Verb: OrderRollback, Version: "1.0"}), VerdictGood)
			w.settles(first, VerdictGood)
			if st := w.status(); len(st.KnownBad) != 1 || st.KnownBad[0].Version != "3.0" {
				t.Errorf("known bad: %+v, want 3.0; before it served %s", st.KnownBad, second)
			}
		},
		"roll back to what turns bad": func(t *testing.T, w *world) {
			_, now := upgraded(w)
			w.unit.behave["1.0"] = neverReady
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictRefused)
			w.settles(now, VerdictRefused)
			if got := w.unit.serving(); got != now {
				t.Errorf("%s serves, want %s", got, now)
			}
		},
		"nothing to roll back to": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictRefused)
			w.answered(w.order(Order{Verb: OrderRollback, Version: "7"}), VerdictRefused)
			w.says("the order to roll back is not carried out", "the order to roll back to 7 is not carried out")
		},
		"upgrade to a version": func(t *testing.T, w *world) {
			w.running("1.0")
			w.target.Source.PollInterval = 24 * time.Hour
			w.start()
			w.looked()
			want := w.publish("1.1", "")
			w.publish("1.2", "")
			id := w.order(Order{Verb: OrderUpgrade, Version: "1.1"})
			w.answered(id, VerdictGood)
			w.says("the operator orders: upgrade to 1.1", "found 1.1, 1.0 is installed", "1.1 is good")
			// What it passed over does not come by itself, what is newer does.
			time.Sleep(48 * time.Hour)
			if st := w.status(); st.Current != want {
				t.Errorf("got %+v", st)
			}
			name := w.publish("1.3", "")
			w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictGood)
			w.settles(name, VerdictGood)
		},
		"upgrade now": func(t *testing.T, w *world) {
			w.running("1.0")
			w.target.Source.PollInterval = 24 * time.Hour
			w.start()
			w.looked()
			began := time.Now()
			name := w.publish("1.1", "")
			w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictGood)
			w.settles(name, VerdictGood)
			// Once more is no harm, and says so.
			for _, o := range []Order{{Verb: OrderUpgrade}, {Verb: OrderUpgrade, Version: "1.1"}} {
				if a := w.answered(w.order(o), ""); !strings.Contains(a.Reason, "1.1") {
					t.Errorf("%v again: got %+v", o, a)
				}
			}
			if took := time.Since(began); took > time.Hour {
				t.Errorf("took %v", took)
			}
		},
		"upgrade to what the source lacks": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			a := w.answered(w.order(Order{Verb: OrderUpgrade, Version: "9"}), VerdictRefused)
			if !strings.Contains(a.Reason, "does not offer 9") {
				t.Errorf("got %+v", a)
			}
		},
		"upgrade to what is known bad": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.start()
			w.unit.behave["1.1"] = neverReady
			w.publish("1.1", "")
			w.settles(old, VerdictRefused)
			a := w.answered(w.order(Order{Verb: OrderUpgrade, Version: "1.1"}), VerdictRefused)
			if !strings.Contains(a.Reason, "known bad") || !strings.Contains(a.Reason, "forgive app") {
				t.Errorf("got %+v", a)
			}
		},
		"downgrade": func(t *testing.T, w *world) {
			_, now := upgraded(w)
			older := w.publish("1.5", "")
			a := w.answered(w.order(Order{Verb: OrderUpgrade, Version: "1.5"}), VerdictRefused)
			if !strings.Contains(a.Reason, "older than 2.0") || !strings.Contains(a.Reason, "--allow-downgrade") {
				t.Errorf("got %+v", a)
			}
			if st := w.status(); st.Current != now {
				t.Errorf("got %+v", st)
			}
			w.target.MinVersion = "1.6"
			w.answered(w.order(Order{Verb: OrderUpgrade, Version: "1.5", AllowDowngrade: true}), VerdictRefused)
			w.target.MinVersion = ""
			w.answered(w.order(Order{Verb: OrderUpgrade, Version: "1.5", AllowDowngrade: true}), VerdictGood)
			// What was passed over does not come by itself, what is newer does.
			w.publish("1.6", "")
			time.Sleep(time.Hour)
			if st := w.status(); st.Current != older {
				t.Errorf("got %+v", st)
			}
			w.settles(w.publish("2.1", ""), VerdictGood)
		},
		"an order that is none": func(t *testing.T, w *world) {
			w.running("1.0")
			file := filepath.Join(w.state, "app", "order.json")
			for _, text := range []string{"{", `{"id":"x","verb":"destroy"}`, `{"id":"x","verb":"rollback","version":"../x"}`, strings.Repeat(" ", 1<<20)} {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				w.start()
				w.eventually("it is gone", func(TargetStatus) bool { _, err := os.Lstat(file); return os.IsNotExist(err) })
				w.kill()
			}
			w.says("order to do what is in order.json is not carried out")
		},
		"held": func(t *testing.T, w *world) {
			w.running("1.0")
			w.target.Swap = SwapNone
			w.start()
			w.publish("1.1", "")
			w.eventually("held", func(st TargetStatus) bool { return st.State == Held })
			w.answered(w.order(Order{Verb: OrderRollback}), VerdictRefused)
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				f(t, w)
				if name != "held" {
					w.oracle()
				}
			})
		})
	}
}

func TestPlaceRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Place(dir, "app", Order{Verb: OrderRollback}); err == nil || !strings.Contains(err.Error(), "no release yet") {
		t.Errorf("no store: %v", err)
	}
	if _, err := store.Open(filepath.Join(dir, "app")); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Order{{}, {Verb: "x"}, {Verb: OrderUpgrade, Version: "../1"}, {Verb: OrderUpgrade, Version: "1 0"}} {
		if _, err := Place(dir, "app", o); err == nil {
			t.Errorf("%+v was placed", o)
		}
	}
}
