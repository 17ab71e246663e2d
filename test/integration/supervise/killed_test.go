//go:build integration

package supervise

import (
	"fmt"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
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

// kill -9 of the newest worker in a handover, each time a little later in it: of one
// that is not there yet, that is the one that serves. Whichever it is, the unit
// serves on, and no connection is refused, though what a worker had dies with it.
func TestWorkerKilledDuringHandover(t *testing.T) {
	const (
		kills = 24
		step  = 500 * time.Microsecond
	)
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		start(t, m)
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		for i := range kills {
			m.Run("sh", "-c", fmt.Sprintf(`main=$(systemctl show --value --property=MainPID %[1]s)
				kill -HUP $main
				sleep %[2]f
				cgroup=/sys/fs/cgroup$(systemctl show --value --property=ControlGroup %[1]s)
				newest=$(grep -vx $main $cgroup/cgroup.procs | sort -n | tail -n 1)
				test -z "$newest" || kill -KILL $newest || true`, unit, (time.Duration(i)*step).Seconds()))
			m.Eventually("one worker and the supervisor are left", func() bool {
				return m.Property(unit, "ActiveState") == "active" && len(m.Processes(unit)) == 2
			})
			m.Served(clients, "1.0.0", 50)
		}
		r, err := clients.Stop()
		if err != nil || r.Failed[load.Refused] > 0 {
			t.Errorf("%v, %v", r, err)
		}
		m.Run("systemctl", "stop", unit)
		if left := m.Processes(unit); len(left) != 0 {
			t.Errorf("processes left: %v", left)
		}
	})
}
