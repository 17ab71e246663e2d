//go:build integration

package supervise

import (
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// upgraderd itself is upgraded: the supervisor of a service that serves goes on
// as the new program, in the same process, and clients notice nothing. That one
// is killed, and the next takes over as ever.
func TestRenewed(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		start(t, m)
		pid := m.Property(unit, "MainPID")
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)

		for _, version := range []string{"renewed-1", "renewed-2"} {
			m.Copy(kit.Build(t, "./cmd/upgraderd", "-X main.renewed="+version), "/usr/bin/.upgraderd.new")
			m.Run("mv", "/usr/bin/.upgraderd.new", "/usr/bin/upgraderd")
			want := m.Run("stat", "--format=%i", "/usr/bin/upgraderd")
			m.Eventually("the supervisor runs the new program", func() bool {
				return m.Executable(pid) == want
			})
			m.Run("systemctl", "reload", unit)
			m.Served(clients, "1.0.0", 100)
		}
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		if got := m.Property(unit, "NRestarts"); got != "0" {
			t.Errorf("NRestarts: got %s, want 0", got)
		}
		if text := m.Journal(unit); strings.Count(text, "goes on as the upgraderd that was installed") != 2 {
			t.Errorf("the journal does not tell of both:\n%s", text)
		}

		m.Signal(pid, "KILL")
		m.Eventually("a new supervisor is active", func() bool {
			now := m.Property(unit, "MainPID")
			return now != "0" && now != pid && m.Property(unit, "ActiveState") == "active"
		})
		m.Run("systemctl", "reload", unit)
		m.Served(clients, "1.0.0", 100)
		m.NothingLost(clients)
		m.Run("systemctl", "stop", unit)
		if left := m.Processes(unit); len(left) != 0 {
			t.Errorf("processes left: %v", left)
		}
	})
}
