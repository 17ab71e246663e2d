//go:build integration

package upgrade

import (
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// TestOrders goes back and forth as an operator does, under load: each command
// ends with the verdict.
func TestOrders(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource(dir)
		follow(t, m, source, dir, "")
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		pid := m.Property(unit, "MainPID")
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		confirmed(t, m, "2.0.0")

		serves := func(version string) {
			t.Helper()
			if got := current(m); !strings.HasPrefix(got, version+"-") {
				t.Errorf("current is %s, want %s", got, version)
			}
			m.Served(clients, version, 100)
		}
		m.Run("upgraderd", "rollback", "hello")
		serves("1.0.0")
		source.Publish("hello-1.5.0", kit.Hello(t, "1.5.0", "")) // which 2.0.0 has been before
		if out := m.Fails("upgraderd", "upgrade", "hello", "1.5.0"); !strings.Contains(out, "--allow-downgrade") {
			t.Errorf("a downgrade is refused with: %s", out)
		}
		serves("1.0.0")
		m.Run("upgraderd", "upgrade", "hello", "1.5.0", "--allow-downgrade")
		serves("1.5.0")
		m.Run("upgraderd", "upgrade", "hello")
		time.Sleep(2 * time.Second) // two polls
		serves("1.5.0")
		m.Run("upgraderd", "upgrade", "hello", "2.0.0")
		serves("2.0.0")

		// On trial, in a window that nobody waits for the end of.
		m.Write("/etc/upgraderd/hello.upgrade.d/window.conf", "[Confirm]\nWindowSec=5min\n")
		m.Run("systemctl", "reload", "upgraderd.service")
		source.Publish("hello-3.0.0", kit.Hello(t, "3.0.0", ""))
		m.Eventually("3.0.0 is on trial", func() bool { return target(t, m)["state"] == "confirming" })
		if out := m.Run("upgraderd", "rollback", "hello"); !strings.Contains(out, "undone") {
			t.Errorf("got %q", out)
		}
		serves("2.0.0")
		m.Run("rm", "/etc/upgraderd/hello.upgrade.d/window.conf")
		m.Run("systemctl", "reload", "upgraderd.service")
		source.Publish("hello-3.1.0", kit.Hello(t, "3.1.0", "crash"))
		if out := m.Fails("upgraderd", "upgrade", "hello", "3.1.0"); !strings.Contains(out, "refused") && !strings.Contains(out, "known bad") {
			t.Errorf("got %q", out)
		}
		serves("2.0.0")

		wishes(t, m, source, serves)
		serves("3.3.0")

		for verb, want := range map[string]string{"rollback nobody": "no such file", "rollback hello 7.0.0": "on disk", "upgrade hello 9.9.9": "does not offer"} {
			if out := m.Fails(append([]string{"upgraderd"}, strings.Fields(verb)...)...); !strings.Contains(out, want) {
				t.Errorf("%s: got %q, want %q", verb, out, want)
			}
		}
		m.Run("systemctl", "stop", "upgraderd.service")
		if out := m.Fails("upgraderd", "rollback", "hello"); !strings.Contains(out, "systemctl start upgraderd.service") {
			t.Errorf("without a daemon: %q", out)
		}
		m.Run("systemctl", "start", "upgraderd.service")
		m.Eventually("the order is carried out", func() bool { return strings.HasPrefix(current(m), "2.0.0-") && target(t, m)["state"] == "idle" })

		told(t, m)
		m.NothingLost(clients)
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		t.Log(m.Journal("upgraderd.service"))
	})
}
