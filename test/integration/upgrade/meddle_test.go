//go:build integration

package upgrade

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

// slow is a release that takes a while to become ready, so that there is a
// middle of the swap.
const slow = "slow:2s"

// starting waits until a release's worker is on trial, and gives its PID.
func starting(m *kit.Machine, version string) string {
	return worker(m, version, "starts")
}

// worker waits for the process that runs a version, and gives its PID.
func worker(m *kit.Machine, version, what string) (pid string) {
	m.Eventually(version+" "+what, func() bool {
		for p, line := range m.Processes(unit) {
			if strings.HasPrefix(line, "/var/lib/upgraderd/hello/releases/"+version+"-") {
				pid = p
				return true
			}
		}
		return false
	})
	return pid
}

// confirmed waits until a version serves, proved itself, and nothing is left to
// do.
func confirmed(t *testing.T, m *kit.Machine, version string) {
	t.Helper()
	m.Eventually(version+" is confirmed", func() bool {
		now := target(t, m)
		last, _ := now["last"].(map[string]any)
		return now["state"] == "idle" && last["to"] == version && last["verdict"] == "good" && strings.HasPrefix(current(m), version+"-")
	})
}

// proved has 1.0.0 serve under load, with nothing left to do, and a short window
// for those that follow.
func proved(t *testing.T, m *kit.Machine) (*kit.Source, *load.Process) {
	t.Helper()
	source := m.DirSource(dir)
	follow(t, m, source, dir, "WindowSec=1s\n")
	source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
	clients := m.Load(traffic)
	m.Served(clients, "1.0.0", 100)
	m.Eventually("nothing is left to do", func() bool { // or it was installed before the first client came
		now := target(t, m)
		return now["state"] == "idle" && now["last"] != nil
	})
	return source, clients
}

// again runs a command over and over until the returned function is called.
func again(t *testing.T, m *kit.Machine, argv ...string) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if _, err := m.Machine.Run(ctx, argv...); err == nil {
				n++
			}
		}
		ended <- n
	}()
	return func() {
		cancel()
		if n := <-ended; n < 2 {
			t.Errorf("%s ran only %d times", strings.Join(argv, " "), n)
		}
	}
}

// What serves the upgrade is killed, frozen or replaced in the middle of one, and
// people do what people do: the release arrives all the same, or the person wins,
// and no client notices.
func TestMeddling(t *testing.T) {
	arrives := func(t *testing.T, m *kit.Machine, version string) { confirmed(t, m, version) }
	unjudged := func(why string) func(*testing.T, *kit.Machine, string) {
		return func(t *testing.T, m *kit.Machine, version string) {
			t.Helper()
			m.Eventually("the person wins", func() bool {
				now := target(t, m)
				last, _ := now["last"].(map[string]any)
				return now["state"] == "idle" && last["to"] == version && last["verdict"] == "inconclusive"
			})
			if text := m.Journal("upgraderd.service"); !strings.Contains(text, "no verdict on "+version+": "+why) {
				t.Errorf("the journal does not say that %q", why)
			}
		}
	}
	meddlings := []struct {
		name, fault string
		meddle      func(t *testing.T, m *kit.Machine, version string) (stop func())
		end         func(t *testing.T, m *kit.Machine, version string)
	}{
		{"the bus is killed in the swap", slow, func(_ *testing.T, m *kit.Machine, version string) func() {
			starting(m, version)
			m.Signal(m.Property("dbus.service", "MainPID"), "KILL")
			return nil
		}, arrives},
		{"the bus is killed in the window", "", func(t *testing.T, m *kit.Machine, _ string) func() {
			m.Eventually("the window", func() bool { return target(t, m)["state"] == "confirming" })
			m.Signal(m.Property("dbus.service", "MainPID"), "KILL")
			return nil
		}, arrives},
		{"polkit is frozen", "", func(_ *testing.T, m *kit.Machine, version string) func() {
			pid := m.Property("polkit.service", "MainPID")
			m.Signal(pid, "STOP")
			time.Sleep(3 * time.Second)
			if strings.HasPrefix(current(m), version+"-") {
				t.Error("the swap did not wait for polkit, so this shows nothing")
			}
			m.Signal(pid, "CONT")
			return nil
		}, arrives},
		{"polkit is killed", slow, func(_ *testing.T, m *kit.Machine, _ string) func() {
			m.Signal(m.Property("polkit.service", "MainPID"), "KILL")
			return nil
		}, arrives},
		{"systemd reads its units again and again", slow, func(t *testing.T, m *kit.Machine, _ string) func() {
			return again(t, m, "systemctl", "daemon-reload")
		}, arrives},
		{"systemd re-executes itself again and again", slow, func(t *testing.T, m *kit.Machine, _ string) func() {
			// While it does so it answers nobody, so not all the time.
			return again(t, m, "sh", "-c", "systemctl daemon-reexec; sleep 0.5")
		}, arrives},
		{"journald is killed", slow, func(_ *testing.T, m *kit.Machine, _ string) func() {
			m.Signal(m.Property("systemd-journald.service", "MainPID"), "KILL")
			return nil
		}, arrives},
		{"the operator reloads the service in the swap", slow, func(_ *testing.T, m *kit.Machine, version string) func() {
			starting(m, version)
			m.Run("systemctl", "reload", unit)
			return nil
		}, arrives},
		{"the operator restarts the service in the window", "", func(t *testing.T, m *kit.Machine, _ string) func() {
			m.Eventually("the window", func() bool { return target(t, m)["state"] == "confirming" })
			m.Run("systemctl", "restart", unit)
			return nil
		}, unjudged("the unit was started anew by somebody else")},
		{"the new worker is killed before it is ready", slow, func(_ *testing.T, m *kit.Machine, version string) func() {
			m.Signal(starting(m, version), "KILL")
			return nil
		}, func(t *testing.T, m *kit.Machine, version string) {
			m.Eventually(version+" is known bad", func() bool {
				return strings.Contains(fmt.Sprint(target(t, m)["known_bad"]), version)
			})
		}},
	}
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source, clients := proved(t, m)
		for i, c := range meddlings {
			version := fmt.Sprintf("2.%d.0", i)
			ok := t.Run(c.name, func(t *testing.T) {
				m := m.In(t)
				program := kit.Hello(t, version, c.fault)
				source.Publish("hello-"+version, program)
				stop := c.meddle(t, m, version)
				if stop != nil {
					defer stop()
				}
				c.end(t, m, version)
			})
			if !ok {
				t.FailNow()
			}
		}
		m.NothingLost(clients)
	})
}

// Workers are killed where no client can be spared: what proved itself comes
// back, and never the one on trial.
func TestWorkersKilled(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource(dir)
		follow(t, m, source, dir, "WindowSec=1s\n")
		m.Run("systemctl", "start", "--no-block", unit)
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		confirmed(t, m, "1.0.0")

		// Both at once, in the middle of a handover.
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", slow))
		fresh, old := starting(m, "2.0.0"), worker(m, "1.0.0", "serves")
		m.Run("sh", "-c", "kill -KILL "+fresh+" "+old)
		m.Eventually("the unit runs 1.0.0 again", func() bool {
			return m.Property(unit, "ActiveState") == "active" && strings.Contains(m.Property(unit, "StatusText"), "Serving 1.0.0-")
		})
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)

		// 2.0.0 has no verdict, so a change of the source would bring it up again,
		// just when the next one is published.
		m.Run("systemctl", "stop", "upgraderd.service")
		digest, _, _ := strings.Cut(m.Run("sha256sum", dir+"/hello-2.0.0"), " ")
		m.Run("touch", "/var/lib/upgraderd/hello/known-bad/"+digest)
		m.Run("systemctl", "start", "upgraderd.service")

		// The one that serves, with another on trial: that one saves the unit.
		source.Publish("hello-2.1.0", kit.Hello(t, "2.1.0", slow))
		starting(m, "2.1.0")
		if r, err := clients.Stop(); err != nil || r.Failures() != 0 {
			t.Fatalf("%v, %d failures", err, r.Failures())
		}
		m.Signal(worker(m, "1.0.0", "serves"), "KILL")
		confirmed(t, m, "2.1.0")

		clients = m.Load(traffic)
		m.Served(clients, "2.1.0", 100)
		m.NothingLost(clients)
	})
}
