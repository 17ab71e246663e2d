//go:build integration

package supervise

import (
	"fmt"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// kill -9 of the main PID in the middle of a handover, each time a little
// later in it: the old worker or the new one goes on, never both, and clients
// notice nothing.
func TestKilledDuringHandover(t *testing.T) {
	const (
		kills = 24
		step  = 500 * time.Microsecond // a handover takes some 8 ms
	)
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		start(t, m)
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		for i := range kills {
			pid := m.Property(unit, "MainPID")
			m.Run("sh", "-c", fmt.Sprintf("kill -HUP %s; sleep %f; kill -KILL %s", pid, (time.Duration(i)*step).Seconds(), pid))
			m.Eventually("a new supervisor is active", func() bool {
				now := m.Property(unit, "MainPID")
				return now != "0" && now != pid && m.Property(unit, "ActiveState") == "active"
			})
			m.Eventually("one worker and the supervisor are left", func() bool { return len(m.Processes(unit)) == 2 })
		}
		m.Run("systemctl", "reload", unit)
		m.NothingLost(clients)
		m.Run("systemctl", "stop", unit)
		if left := m.Processes(unit); len(left) != 0 {
			t.Errorf("processes left: %v", left)
		}
	})
}
