//go:build integration

package upgrade

import (
	"fmt"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// TestPublish is both sides with nothing but upgraderd: a key behind a password,
// a directory, and a host that follows it.
func TestPublish(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Write("/root/password", "correct horse\n")
		m.Run("mkdir", dir)
		m.Run("upgraderd", "keygen", "/root/release", "--password-file=/root/password")
		publish := func(version string) string {
			t.Helper()
			m.Copy(kit.Hello(t, version, ""), "/root/hello")
			return m.Run("upgraderd", "publish", dir, "/root/hello", "--version="+version, "--key=/root/release.key", "--password-file=/root/password")
		}
		said := publish("1.0.0")
		_, file, ok := strings.Cut(said, "[Source]\n")
		if !ok {
			t.Fatalf("it does not say what a host needs: %s", said)
		}
		file = strings.Replace(file, "<the URL of this directory, or its absolute name>", dir, 1)
		m.Write("/etc/upgraderd/hello.upgrade", fmt.Sprintf("[Upgrade]\nUnit=%s\n[Source]\nPollIntervalSec=1s\n%s\n[Confirm]\nWindowSec=1s\n", unit, file))
		m.Write("/etc/systemd/system/live@hello.socket.d/address.conf", "[Socket]\nListenStream="+address+"\n")
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "enable", "--now", "live@hello.socket", "upgraderd.service")
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		publish("2.0.0")
		m.Served(clients, "2.0.0", 100)
		m.NothingLost(clients)
	})
}
