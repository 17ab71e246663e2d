//go:build integration

package upgrade

import (
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// A swap that begins while systemd is about to start a killed supervisor anew
// must not take the start for the swap: the supervisor adopts the old worker.
func TestSwapWhileSupervisorRestarts(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource(dir)
		m.Write("/etc/systemd/system/live@hello.service.d/slow.conf", "[Service]\nRestartSec=1s\n")
		follow(t, m, source, dir, "")
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		m.Eventually("1.0.0 is confirmed", func() bool { return target(t, m)["state"] == "idle" })

		two := kit.Hello(t, "2.0.0", "")
		m.Signal(m.Property(unit, "MainPID"), "KILL")
		source.Publish("hello-2.0.0", two)
		m.Served(clients, "2.0.0", 100)
		m.Eventually("2.0.0 is confirmed", func() bool {
			return strings.HasPrefix(current(m), "2.0.0-") && target(t, m)["state"] == "idle"
		})
		m.NothingLost(clients)
	})
}
