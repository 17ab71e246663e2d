//go:build integration

package units

import (
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// Only root widens what the daemon may do: a .upgrade file that somebody else
// owns, or that lies where somebody else may put one, counts for nothing.
func TestOnlyRootDecides(t *testing.T) {
	other := strings.Replace(appUpgrade, "app.service", "other.service", 1)
	reload := as("systemctl", "--no-ask-password", "reload", "other.service")
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Write("/etc/systemd/system/other.service", "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/true\n")
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "start", "other.service")
		for _, setup := range []struct{ name, dir, untrust string }{
			{"file of the daemon's in /etc", "/etc/upgraderd", "chown upgraderd /etc/upgraderd/other.upgrade"},
			{"file of the daemon's in /run", "/run/upgraderd", "chown upgraderd /run/upgraderd/other.upgrade"},
			{"directory of the daemon's", "/run/upgraderd", "chown upgraderd /run/upgraderd"},
			{"directory that anyone may write", "/run/upgraderd", "chmod 1777 /run/upgraderd"},
			{"file that its group may write", "/etc/upgraderd", "chmod 0664 /etc/upgraderd/other.upgrade; chgrp upgraderd /etc/upgraderd/other.upgrade"},
		} {
			t.Run(setup.name, func(t *testing.T) {
				m.Write(setup.dir+"/other.upgrade", other)
				m.Run("sh", "-c", setup.untrust)
				if _, err := m.Machine.Run(t.Context(), reload...); err == nil {
					t.Error("the daemon's user may reload other.service, want it refused")
				}
				m.Run("rm", "-rf", setup.dir+"/other.upgrade", "/run/upgraderd")
			})
		}
		m.Write("/etc/upgraderd/other.upgrade", other)
		m.Run(reload...)
	})
}
