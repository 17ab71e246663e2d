//go:build integration

package upgrade

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// The unit allows less time than its supervisor does, and systemd ends the reload
// before the release is ready or given up: whatever comes of it, what serves is what
// the daemon knows, and no request is lost.
func TestReloadCutShort(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source, clients := proved(t, m)
		m.Write("/etc/systemd/system/live@hello.service.d/short.conf",
			"[Service]\nTimeoutStartSec=2s\nExecStart=\nExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/%i --start-timeout=20s -- bin/%i\n")
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "restart", unit)
		m.Served(clients, "1.0.0", 100)
		for i, fault := range []string{"slow:4s", "slow:12s", "unready"} {
			version := fmt.Sprintf("2.%d.0", i)
			program, err := os.ReadFile(kit.Hello(t, version, fault))
			if err != nil {
				t.Fatal(err)
			}
			source.PublishBytes("hello-"+version, program)
			m.Eventually(version+" is judged", func() bool {
				now := target(t, m)
				last, _ := now["last"].(map[string]any)
				return now["state"] == "idle" && last["to"] == version
			})
			if last := target(t, m)["last"].(map[string]any); (last["verdict"] == "good") != strings.HasPrefix(current(m), version+"-") {
				t.Errorf("current is %s after %v", current(m), last)
			}
			m.Eventually("nobody starts any more", func() bool { return !strings.Contains(m.Property(unit, "StatusText"), "starting ") })
			if serves := m.Property(unit, "StatusText"); !strings.HasPrefix(serves, "Serving "+current(m)+" ") {
				t.Errorf("current is %s, and: %s", current(m), serves)
			}
		}
		m.NothingLost(clients)
	})
}
