//go:build integration

package upgrade

import (
	"fmt"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// TestMisbehaviour has releases that are wrong in ways that only show when they
// serve, or that no answer shows.
func TestMisbehaviour(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource(dir)
		m.Write("/etc/systemd/system/live@hello.socket.d/second.conf", "[Socket]\nListenStream=127.0.0.1:8090\n")
		follow(t, m, source, dir, "Probe=http://127.0.0.1:8090/\nProbeTimeoutSec=500ms\n")
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		confirmed(t, m, "1.0.0")
		pid := m.Property(unit, "MainPID")

		undone := func(version, fault, why string) {
			t.Helper()
			source.Publish("hello-"+version, kit.Hello(t, version, fault))
			m.Eventually(version+" is known bad", func() bool { return strings.Contains(fmt.Sprint(target(t, m)["known_bad"]), version) })
			m.Eventually("1.0.0 serves", func() bool { return strings.Contains(m.Property(unit, "StatusText"), "Serving 1.0.0-") })
			if got := fmt.Sprint(target(t, m)["known_bad"]); !strings.Contains(got, why) {
				t.Errorf("%s: got %s, want %q", fault, got, why)
			}
			m.Eventually("no process of "+version+" is left", func() bool {
				for _, line := range m.Processes(unit) {
					if strings.Contains(line, "/"+version+"-") {
						return false
					}
				}
				return true
			})
		}
		undone("2.0.0", "deaf", "8090")
		undone("3.0.0", "daemonize", "exited with status 0")

		// It cannot harm anything, so nobody minds.
		source.Publish("hello-4.0.0", kit.Hello(t, "4.0.0", "scribble"))
		confirmed(t, m, "4.0.0")
		m.Run("upgraderd", "verify", "hello")
		if said := m.Journal(unit); strings.Contains(said, "]: wrote ") || strings.Contains(said, "]: removed ") {
			t.Errorf("it could write: %s", said)
		}
		m.NothingLost(clients)
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}

		// With its first request nothing can be saved but the next one.
		m.Run("upgraderd", "rollback", "hello")
		undone("5.0.0", "fragile", "")
		clients = m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		m.NothingLost(clients)
	})
}
