//go:build integration

package upgrade

import (
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

// beside publishes a release and has it serve beside what serves now, by the
// operator's order alone, until both have answered.
func beside(t *testing.T, m *kit.Machine, source *kit.Source, clients *load.Process, old, version string) {
	t.Helper()
	source.Publish("hello-"+version, kit.Hello(t, version, ""))
	text := m.Run("upgraderd", "upgrade", "hello", version, "--beside", "--despite-hold")
	if !strings.Contains(text, "both serve; to keep the new one: upgraderd confirm hello; to keep the old one: upgraderd rollback hello") {
		t.Errorf("upgrade --beside said %q", text)
	}
	bothServe(t, m, clients, old, version)
}

// bothServe has both answer, and be told of.
func bothServe(t *testing.T, m *kit.Machine, clients *load.Process, old, version string) {
	t.Helper()
	m.Served(clients, old, 50)
	m.Served(clients, version, 50)
	if got := current(m); !strings.HasPrefix(got, old+"-") {
		t.Errorf("current is %s while two serve, want %s", got, old)
	}
	if got := target(t, m)["state"]; got != "beside" {
		t.Errorf("state is %v, want beside", got)
	}
	if got := m.Property(unit, "StatusText"); !strings.HasPrefix(got, "Serving "+old+"-") || !strings.Contains(got, "; beside "+version+"-") {
		t.Errorf("StatusText: got %q", got)
	}
	if got := m.Property(guardTimer, "ActiveState"); got != "active" {
		t.Errorf("the guard's timer is %s while two serve, want active", got)
	}
}

// gone waits until no worker of a version is left.
func gone(t *testing.T, m *kit.Machine, version string) {
	t.Helper()
	m.Eventually(version+" has drained", func() bool {
		for _, argv := range m.Processes(unit) {
			if strings.Contains(argv, "/"+version+"-") {
				return false
			}
		}
		return true
	})
}

// Two releases serve, both are seen to, and the operator keeps the new one, then the
// old one, then has a daemon, a supervisor and systemd itself start anew in between;
// no request is lost.
func TestBeside(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source, clients := proved(t, m)
		m.Run("upgraderd", "hold", "hello") // nothing comes by itself
		pid := m.Property(unit, "MainPID")

		beside(t, m, source, clients, "1.0.0", "2.0.0")
		for _, verb := range []string{"status", "list", "plan"} {
			if text := m.Run("upgraderd", verb, "hello"); !strings.Contains(text, "beside") {
				t.Errorf("%s does not tell of two:\n%s", verb, text)
			}
		}
		// Whoever reloads the unit does not decide, nor does another order.
		m.Fails("systemctl", "reload", unit)
		m.Signal(pid, "HUP")
		m.Run("systemctl", "reload", "upgraderd.service")
		if text := m.Fails("upgraderd", "upgrade", "hello", "--despite-hold"); !strings.Contains(text, "1.0.0 and 2.0.0 serve beside each other") {
			t.Errorf("another upgrade: %s", text)
		}
		m.Run("upgraderd", "pin", "hello", "1.0.0")
		m.Run("upgraderd", "pin", "hello", "--none")
		bothServe(t, m, clients, "1.0.0", "2.0.0")
		m.Run("upgraderd", "confirm", "hello")
		gone(t, m, "1.0.0")
		m.Served(clients, "2.0.0", 100)
		if now := target(t, m); now["state"] != "idle" || !strings.HasPrefix(current(m), "2.0.0-") || !strings.HasPrefix(now["previous"].(string), "1.0.0-") {
			t.Errorf("confirmed: %v", now)
		}

		beside(t, m, source, clients, "2.0.0", "3.0.0")
		old := worker(m, "2.0.0", "serves")
		m.Run("upgraderd", "rollback", "hello")
		gone(t, m, "3.0.0")
		m.Served(clients, "2.0.0", 100)
		if got := worker(m, "2.0.0", "serves"); got != old || !strings.HasPrefix(current(m), "2.0.0-") {
			t.Errorf("worker %s serves, want %s as before; current is %s", got, old, current(m))
		}
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}

		beside(t, m, source, clients, "2.0.0", "4.0.0")
		daemon := m.Property("upgraderd.service", "MainPID")
		m.Signal(daemon, "KILL")
		m.Eventually("another daemon", func() bool {
			now := m.Property("upgraderd.service", "MainPID")
			return now != "0" && now != daemon && m.Property("upgraderd.service", "ActiveState") == "active"
		})
		bothServe(t, m, clients, "2.0.0", "4.0.0")
		m.Signal(pid, "KILL")
		m.Eventually("another supervisor with both", func() bool {
			now := m.Property(unit, "MainPID")
			return now != "0" && now != pid && strings.Contains(m.Property(unit, "StatusText"), "; beside 4.0.0-")
		})
		m.Eventually("the daemon saw it", func() bool {
			return strings.Contains(m.Journal("upgraderd.service"), "the supervisor of "+unit+" was started anew")
		})
		bothServe(t, m, clients, "2.0.0", "4.0.0")
		m.Run("systemctl", "daemon-reexec")
		bothServe(t, m, clients, "2.0.0", "4.0.0")
		m.Run("upgraderd", "confirm", "hello")
		gone(t, m, "2.0.0")
		m.Served(clients, "4.0.0", 100)

		// Nobody decides: what is well stays.
		source.Publish("hello-5.0.0", kit.Hello(t, "5.0.0", ""))
		m.Run("upgraderd", "upgrade", "hello", "5.0.0", "--beside=3s", "--despite-hold")
		confirmed(t, m, "5.0.0")
		gone(t, m, "4.0.0")
		m.NothingLost(clients)
		if t.Failed() {
			t.Log(m.Journal("upgraderd.service"))
			t.Log(m.Journal(unit))
		}
	})
}

// One of two releases ends by itself: the other serves on, and nobody is refused.
func TestBesideOneEnds(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source, clients := proved(t, m)
		m.Run("upgraderd", "hold", "hello")
		pid := m.Property(unit, "MainPID")

		beside(t, m, source, clients, "1.0.0", "2.0.0")
		m.Signal(worker(m, "2.0.0", "serves beside"), "SEGV")
		knownBad(t, m, "2.0.0")
		m.Served(clients, "1.0.0", 100)
		if text := m.Journal("upgraderd.service"); !strings.Contains(text, "while it served beside 1.0.0-") {
			t.Errorf("the journal does not say how it ended:\n%s", text)
		}

		beside(t, m, source, clients, "1.0.0", "3.0.0")
		m.Signal(worker(m, "1.0.0", "serves"), "SEGV")
		confirmed(t, m, "3.0.0")
		m.Served(clients, "3.0.0", 100)
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		lostInHand(t, clients)
	})
}

// The daemon dies for good while two serve: PID 1 has its guard keep the old one. A
// reboot comes up with that, too.
func TestBesideUnwatched(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		guardSoon(m)
		source, clients := proved(t, m)
		m.Run("upgraderd", "hold", "hello")
		beside(t, m, source, clients, "1.0.0", "2.0.0")
		bury(m)
		gone(t, m, "2.0.0")
		m.Served(clients, "1.0.0", 100)
		m.Eventually("the guard is done", func() bool { return m.Property(guardTimer, "ActiveState") == "inactive" })
		m.Run("systemctl", "unmask", "upgraderd.service")
		m.Run("systemctl", "start", "upgraderd.service")

		beside(t, m, source, clients, "1.0.0", "3.0.0")
		m.NothingLost(clients)
		m.Run("systemctl", "enable", unit)
		m.Run("sync")
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := m.PowerOn(t.Context()); err != nil {
			t.Fatal(err)
		}
		again := m.Load(traffic)
		m.Served(again, "1.0.0", 100)
		m.Eventually("nothing is left to do", func() bool { return target(t, m)["state"] == "idle" })
		if r := m.NothingLost(again); r.Versions["3.0.0"] != 0 {
			t.Errorf("%d answers of 3.0.0 after a reboot, want none", r.Versions["3.0.0"])
		}
		if got := current(m); !strings.HasPrefix(got, "1.0.0-") {
			t.Errorf("current is %s, want 1.0.0", got)
		}
	})
}

// What is restarted, or left to the operator, has no two serve; nothing is begun.
func TestBesideRefused(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source, clients := proved(t, m)
		m.Run("upgraderd", "hold", "hello")
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		for _, swap := range []string{"restart", "none"} {
			configure(m, unit, source, dir, "[Upgrade]\nSwap="+swap+"\n")
			m.Run("systemctl", "reload", "upgraderd")
			text := m.Fails("upgraderd", "upgrade", "hello", "2.0.0", "--beside", "--despite-hold")
			if !strings.Contains(text, "only a handover has two releases serve, and "+unit+" is moved by "+swap) {
				t.Errorf("Swap=%s: %s", swap, text)
			}
		}
		if text := m.Fails("upgraderd", "confirm", "hello"); !strings.Contains(text, "no two releases serve beside each other") {
			t.Errorf("confirm: %s", text)
		}
		if r := m.NothingLost(clients); r.Versions["2.0.0"] != 0 {
			t.Error("2.0.0 answered")
		}
	})
}
