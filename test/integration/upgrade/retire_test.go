//go:build integration

package upgrade

import (
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// The target's file goes in the middle of a trial, and the daemon does not live to
// see its end: what serves stays, the guard is off, and a reboot changes nothing.
func TestRetiredOnTrial(t *testing.T) {
	const record = "/var/lib/upgraderd/hello/record.json"
	ends := map[string]func(m *kit.Machine){
		"the daemon is restarted": func(m *kit.Machine) { m.Run("systemctl", "restart", "upgraderd.service") },
		"no daemon comes back":    bury,
	}
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		onTrial(t, m)
		m.Run("systemctl", "enable", unit)
		m.Run("sh", "-c", "cp "+record+" /root/record.json; cp /etc/upgraderd/hello.upgrade /root/hello.upgrade")
		clients := m.Load(traffic)
		m.Served(clients, "2.0.0", 100)
		for name, end := range ends {
			t.Run(name, func(t *testing.T) {
				m := m.In(t)
				m.Run("rm", "/etc/upgraderd/hello.upgrade")
				end(m)
				m.Eventually("nothing is pending", func() bool { return strings.Contains(m.Run("cat", record), `"state":"idle"`) })
				m.Eventually("the guard is off", func() bool { return m.Property(guardTimer, "ActiveState") == "inactive" })
				if text := m.Run("cat", record); !strings.Contains(text, "its .upgrade file went") || !strings.HasPrefix(current(m), "2.0.0-") {
					t.Errorf("current is %s, and the record says %s", current(m), text)
				}
				// Have it on trial again.
				m.Run("systemctl", "unmask", "upgraderd.service")
				m.Run("systemctl", "stop", "upgraderd.service")
				m.Run("sh", "-c", "cp /root/hello.upgrade /etc/upgraderd/; cat /root/record.json > "+record)
				m.Run("systemctl", "start", "upgraderd.service", guardTimer)
				m.Eventually("on trial", func() bool { return target(t, m)["state"] == "confirming" })
			})
		}
		m.NothingLost(clients)
		m.Run("rm", "/etc/upgraderd/hello.upgrade")
		m.Run("systemctl", "restart", "upgraderd.service")
		m.Eventually("nothing is pending", func() bool { return strings.Contains(m.Run("cat", record), `"state":"idle"`) })
		m.Run("sync", "-f", "/var/lib/upgraderd") // not those of others on this machine
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := m.PowerOn(t.Context()); err != nil {
			t.Fatal(err)
		}
		again := m.Load(traffic)
		m.Served(again, "2.0.0", 100)
		if r := m.NothingLost(again); r.Versions["1.0.0"] != 0 {
			t.Errorf("got %d answers from 1.0.0, long after 2.0.0 was left to serve", r.Versions["1.0.0"])
		}
	})
}
