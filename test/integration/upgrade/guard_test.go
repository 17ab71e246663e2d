//go:build integration

package upgrade

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

const (
	guardTimer = "upgraderd-guard@hello.timer"
	// longWatch keeps a release on trial until somebody decides.
	longWatch = "WindowSec=10min\n"
)

// onTrial gives a machine on which 1.0.0 proved itself and 2.0.0 is on trial.
func onTrial(t *testing.T, m *kit.Machine) {
	t.Helper()
	source := m.DirSource(dir)
	guardSoon(m)
	follow(t, m, source, dir, "")
	m.Run("systemctl", "start", "--no-block", unit)
	source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
	m.Eventually("1.0.0 is confirmed", func() bool {
		now := target(t, m)
		return now["state"] == "idle" && now["last"] != nil
	})
	follow(t, m, source, dir, longWatch)
	m.Run("systemctl", "reload", "upgraderd")
	source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
	m.Eventually("2.0.0 is on trial", func() bool { return target(t, m)["state"] == "confirming" })
}

// guardSoon has the guard look every second; systemd has to be told.
func guardSoon(m *kit.Machine) {
	m.Write("/etc/systemd/system/upgraderd-guard@.timer.d/soon.conf", "[Timer]\nOnActiveSec=\nOnActiveSec=1s\nOnUnitInactiveSec=1s\nAccuracySec=100ms\n")
	m.Write("/etc/systemd/system/upgraderd-guard@.service.d/soon.conf", "[Service]\nExecStart=\nExecStart=/usr/bin/upgraderd guard --patience=2500ms %I\n")
}

// bury kills the daemon and keeps it from coming back.
func bury(m *kit.Machine) {
	pid := m.Property("upgraderd.service", "MainPID")
	m.Run("systemctl", "mask", "upgraderd.service")
	m.Signal(pid, "KILL")
}

// The daemon dies for good in the middle of a trial: PID 1 has its guard undo
// the upgrade, by the same swap, and nobody loses a request. A daemon that comes
// back tries it again.
func TestGuard(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		onTrial(t, m)
		if got := m.Property(guardTimer, "ActiveState"); got != "active" {
			t.Fatalf("the guard's timer is %s while a release is on trial, want active", got)
		}
		clients := m.Load(traffic)
		m.Served(clients, "2.0.0", 100)
		pid := m.Property(unit, "MainPID")

		time.Sleep(2 * time.Second) // the guard looks, and leaves a living daemon alone
		if got := target(t, m)["state"]; got != "confirming" {
			t.Fatalf("the guard came in between: state is %v, want confirming", got)
		}
		// A daemon that comes back is no case for the guard either.
		m.Signal(m.Property("upgraderd.service", "MainPID"), "KILL")
		time.Sleep(5 * time.Second)
		if got := target(t, m)["state"]; got != "confirming" || !strings.HasPrefix(current(m), "2.0.0-") {
			t.Fatalf("the guard undid what the daemon came back to: state is %v, want confirming", got)
		}

		bury(m)
		m.Served(clients, "1.0.0", 100)
		m.Eventually("the guard is done", func() bool { return m.Property(guardTimer, "ActiveState") == "inactive" })
		if got := current(m); !strings.HasPrefix(got, "1.0.0-") {
			t.Errorf("current is %s, want 1.0.0", got)
		}
		if got := fmt.Sprint(target(t, m)["known_bad"]); strings.Contains(got, "2.0.0") {
			t.Errorf("2.0.0 is known bad (%s), and nobody saw it break", got)
		}
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}

		m.Run("systemctl", "unmask", "upgraderd.service")
		m.Run("systemctl", "start", "upgraderd.service")
		m.Served(clients, "2.0.0", 100)
		m.NothingLost(clients)
	})
}

// The daemon dies in the middle of a restart to a release that ends at once, as if
// all was well: that leaves the unit down, and neither a socket nor Restart= starts
// it again. The guard does, and so does a daemon that comes back, with the release
// that proved itself.
func TestGuardInRestart(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		guardSoon(m)
		// The job waits until the daemon is dead.
		const hold = "/run/hold"
		service := "[Service]\nType=exec\nExecStartPre=/bin/sh -c 'while [ -e " + hold + " ]; do sleep 0.1; done'\nExecStart=" + plainProgram + "\n"
		source, clients := installed(t, m, service, "")
		for _, c := range []struct {
			version, release string
			known            bool // systemd knows how it ended, as something refers to the unit
			stays            bool // the daemon stays away
		}{
			{"2.0.0", "exit 0", false, true},
			{"2.1.0", "sleep 0.5", true, true}, // long enough to be active
			{"2.2.0", "exit 0", true, false},
		} {
			if c.known {
				m.Run("systemctl", "-q", "add-wants", "multi-user.target", plain)
			}
			m.Write(hold, "")
			source.Publish("hello-"+c.version, script(t, c.release+" # "+c.version))
			m.Eventually("the restart", func() bool {
				return m.Property(plain, "SubState") == "start-pre" && strings.HasPrefix(current(m), c.version+"-")
			})
			if c.stays {
				bury(m)
			} else {
				m.Signal(m.Property("upgraderd.service", "MainPID"), "KILL")
			}
			m.Run("rm", hold)
			m.Eventually("1.0.0 is current", func() bool { return strings.HasPrefix(current(m), "1.0.0-") })
			m.Served(clients, "1.0.0", 50)
			if c.stays {
				m.Eventually("the guard is done", func() bool { return target(t, m)["state"] == "idle" })
				if bad := strings.Contains(fmt.Sprint(target(t, m)["known_bad"]), c.version+" "); bad != c.known {
					t.Errorf("%s is known bad: got %v, want %v", c.version, bad, c.known)
				}
				m.Run("systemctl", "unmask", "upgraderd.service")
				m.Run("systemctl", "start", "upgraderd.service")
			}
			knownBad(t, m, c.version)
			m.Served(clients, "1.0.0", 50)
		}
		source.Publish("hello-3.0.0", kit.Hello(t, "3.0.0", ""))
		confirmed(t, m, "3.0.0")
		m.Served(clients, "3.0.0", 50)
	})
}

// A service that fails during its trial goes back, though there is no daemon:
// OnFailure= starts the guard.
func TestGuardOnFailure(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Write("/etc/systemd/system/live@hello.service.d/give-up.conf", "[Service]\nRestart=no\n")
		onTrial(t, m)
		m.Run("systemctl", "stop", guardTimer) // OnFailure= alone is to start the guard
		bury(m)
		// The worker's end is the unit's end.
		clients := m.Load(traffic)
		for pid, name := range m.Processes(unit) {
			if !strings.HasPrefix(name, "/usr/bin/upgraderd") {
				m.Signal(pid, "KILL")
			}
		}
		m.Served(clients, "1.0.0", 100)
		m.Eventually("the upgrade is undone", func() bool {
			return target(t, m)["state"] == "idle" && strings.HasPrefix(current(m), "1.0.0-")
		})
	})
}

// The host goes down in the middle of a trial: it comes up with the release that
// proved itself, with or without a daemon, and without a moment of the other.
func TestRebootOnTrial(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		onTrial(t, m)
		m.Run("systemctl", "enable", unit)
		m.Run("systemctl", "mask", "upgraderd.service")
		m.Run("sync")
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := m.PowerOn(t.Context()); err != nil {
			t.Fatal(err)
		}
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		if r := m.NothingLost(clients); r.Versions["2.0.0"] != 0 {
			t.Errorf("got %d answers from 2.0.0, which nobody proved", r.Versions["2.0.0"])
		}
		if text := m.Journal("upgraderd-boot.service"); !strings.Contains(text, "went down while 2.0.0 was on trial") {
			t.Errorf("the journal does not say why:\n%s", text)
		}
		m.Run("systemctl", "unmask", "upgraderd.service")
		m.Run("systemctl", "start", "upgraderd.service")
		m.Eventually("2.0.0 is on trial again", func() bool {
			return strings.HasPrefix(current(m), "2.0.0-") && target(t, m)["state"] == "confirming"
		})
	})
}

// A service without Restart= fails during its trial, and its socket starts it anew
// at once, so that whoever looks then sees one that runs: the daemon saw it fail
// all the same.
func TestFailureUnderASocket(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Write("/etc/systemd/system/live@hello.service.d/give-up.conf", "[Service]\nRestart=no\n")
		onTrial(t, m)
		clients := m.Load(traffic)
		m.Served(clients, "2.0.0", 100)
		m.Signal(worker(m, "2.0.0", "serves"), "KILL")
		knownBad(t, m, "2.0.0")
		m.Served(clients, "1.0.0", 100)
		if text := m.Journal("upgraderd.service"); !strings.Contains(text, "it failed, and was started anew") {
			t.Error("the journal does not say why")
		}
		// What the killed worker had in its hands is lost, and nothing else.
		r, err := clients.Stop()
		if err != nil {
			t.Fatal(err)
		}
		if n := r.Failed[load.Refused]; n != 0 {
			t.Errorf("%d connections were refused: %v", n, r)
		}
	})
}
