package upgrader

import (
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// Dependents that the swap took down come back, and only those: not what a person
// stopped, not what nobody granted, and none where the service does not run.
func TestDependents(t *testing.T) {
	const worker, other = "worker.service", "other.service"
	// bad is a restart to a release that does not start, in a world with one
	// dependent that is granted and one that is not active.
	bad := func(w *world) (old string) {
		w.unit.plain()
		old = w.running("1.0")
		w.target.Dependents = []string{worker, other}
		w.target.File = "/etc/upgraderd/app.upgrade"
		w.unit.behave["1.1"] = neverReady
		w.unit.depends(worker)
		w.unit.depends(other)
		w.unit.depend[other].ActiveState = "inactive"
		return old
	}
	state := func(w *world, name string) (s string) {
		w.unit.set(func() { s = w.unit.depend[name].ActiveState })
		return s
	}
	is := func(w *world, name, want string) {
		w.t.Helper()
		if got := state(w, name); got != want {
			w.t.Errorf("%s is %s, want %s; systemd was asked:\n%s", name, got, want, w.unit.story())
		}
	}
	for name, f := range map[string]func(*testing.T, *world){
		"after a restart that failed": func(_ *testing.T, w *world) {
			old := bad(w)
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRolledBack)
			is(w, worker, "active")
			is(w, other, "inactive")
			w.says("1.1 turned bad", "worker.service went down with app.service and is active again")
		},
		"a handover disturbs none": func(t *testing.T, w *world) {
			w.running("1.0")
			w.unit.depends(worker)
			w.start()
			w.settles(w.publish("1.1", ""), VerdictGood)
			if w.unit.count("start worker") != 0 || strings.Contains(w.out.String(), worker) {
				t.Errorf("systemd was asked:\n%s", w.unit.story())
			}
		},
		"systemd restarts them itself": func(t *testing.T, w *world) {
			bad(w)
			w.start()
			w.settles(w.publish("1.2", ""), VerdictGood)
			is(w, worker, "active")
			if w.unit.count("start worker") != 0 {
				t.Errorf("systemd was asked:\n%s", w.unit.story())
			}
		},
		"not granted": func(t *testing.T, w *world) {
			old := bad(w)
			w.target.Dependents = nil
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRolledBack)
			is(w, worker, "inactive")
			w.saysOnce("worker.service went down with app.service and stays down: [NOT_GRANTED] start it with: systemctl start worker.service; " +
				"to have upgraderd do it, add to [Upgrade] in /etc/upgraderd/app.upgrade: Dependents=worker.service")
			if w.unit.count("start worker") != 0 {
				t.Errorf("systemd was asked:\n%s", w.unit.story())
			}
		},
		"refused by polkit": func(_ *testing.T, w *world) {
			old := bad(w)
			w.unit.denied = map[string]bool{worker: true}
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRolledBack)
			w.saysOnce("worker.service went down with app.service and stays down: [AUTH_DENIED]")
		},
		"a person stops it in the restart": func(_ *testing.T, w *world) {
			old := bad(w)
			w.unit.during = func(verb string) {
				if verb == "restart" || strings.HasPrefix(verb, "restart ") {
					w.unit.dependent(worker, "inactive", systemd.ResultDone)
				}
			}
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRolledBack)
			is(w, worker, "inactive")
		},
		"a person stops it in the window, then the release ends": func(_ *testing.T, w *world) {
			old := bad(w)
			w.start()
			w.publish("1.2", "")
			w.eventually("the window", func(st TargetStatus) bool { return st.State == Confirming })
			time.Sleep(5 * time.Second)
			w.unit.dependent(worker, "inactive", systemd.ResultDone)
			time.Sleep(5 * time.Second)
			w.unit.crash(false)
			w.settles(old, VerdictRolledBack)
			is(w, worker, "inactive")
		},
		"it went with a release that ended in the window": func(_ *testing.T, w *world) { // BindsTo=
			old := bad(w)
			w.start()
			w.publish("1.2", "")
			w.eventually("the window", func(st TargetStatus) bool { return st.State == Confirming })
			time.Sleep(5 * time.Second)
			w.unit.crash(false)
			w.unit.dependent(worker, "inactive", systemd.ResultDone)
			w.settles(old, VerdictRolledBack)
			is(w, worker, "active")
		},
		"its socket starts the service before the rollback does": func(_ *testing.T, w *world) {
			old := bad(w)
			w.unit.during = func(verb string) {
				if strings.HasPrefix(verb, "restart") {
					w.unit.during = nil
					w.unit.set(func() { w.unit.facts.Failures++ })
					w.unit.startByHand()
				}
			}
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRolledBack)
			is(w, worker, "active")
		},
		"masked meanwhile": func(t *testing.T, w *world) {
			old := bad(w)
			w.unit.during = func(verb string) {
				if strings.HasPrefix(verb, "restart") {
					w.unit.set(func() { w.unit.depend[worker].LoadState = "masked" })
				}
			}
			w.start()
			w.publish("1.1", "")
			w.settles(old, VerdictRolledBack)
			if w.unit.count("start worker") != 0 {
				t.Errorf("systemd was asked:\n%s", w.unit.story())
			}
		},
		"the daemon is killed in between": func(_ *testing.T, w *world) {
			old := bad(w)
			killed := make(chan struct{})
			w.unit.during = func(verb string) {
				if strings.HasPrefix(verb, "restart") {
					w.unit.during = nil
					w.unit.set(func() { w.unit.depend[worker].Watch, w.unit.facts.Watch = 2, 2 }) // another connection sees less
					w.cancel()
					close(killed)
				}
			}
			w.start()
			w.publish("1.1", "")
			<-killed
			w.kill()
			w.start()
			w.settles(old, VerdictRolledBack)
			is(w, worker, "active")
		},
		"the daemon is killed, and a person stops it later": func(_ *testing.T, w *world) {
			old := bad(w)
			killed := make(chan struct{})
			w.unit.during = func(verb string) {
				if strings.HasPrefix(verb, "restart") {
					w.unit.during = nil
					w.unit.set(func() {
						w.unit.depend[worker].Watch, w.unit.facts.Watch = 2, 2
						w.unit.depend[worker].ActiveExit += time.Hour
					})
					w.cancel()
					close(killed)
				}
			}
			w.start()
			w.publish("1.1", "")
			<-killed
			w.kill()
			w.start()
			w.settles(old, VerdictRolledBack)
			is(w, worker, "inactive")
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				f(t, w)
				w.oracle()
			})
		})
	}
}
