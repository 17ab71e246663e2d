//go:build integration

package units

import (
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// The check runs in its sandbox, where it reads root's .upgrade file as such
// although users are private there, and its exit status is the unit's.
func TestCheck(t *testing.T) {
	const unit = "upgraderd-check@hello.service"
	upgrade := strings.Replace(appUpgrade, "bin/app --version", "bin/hello", 1)
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Write("/etc/upgraderd/hello.upgrade", upgrade)
		stage := func(version, script string) {
			t.Helper()
			program := t.TempDir() + "/hello"
			kit.Script(t, program, script)
			release := m.PutRelease("hello", version, program)
			m.Run("ln", "-sfn", "releases/"+release.Name, "/var/lib/upgraderd/hello/staged")
		}
		stage("1.0.0", "cat /proc/self/uid_map; stat -c 'upgrade file: %u' /etc/upgraderd/hello.upgrade")
		m.Run("systemctl", "start", unit)
		if said := m.Journal(unit); !strings.Contains(said, "upgrade file: 0") {
			t.Errorf("want root's file to be root's in the sandbox:\n%s", said)
		}
		stage("2.0.0", "exit 7")
		m.Fails("systemctl", "start", unit)
		if got := m.Property(unit, "ExecMainStatus"); got != "7" {
			t.Errorf("exit status of the check: got %s, want 7", got)
		}
		m.Run("chown", "upgraderd", "/etc/upgraderd/hello.upgrade")
		m.Fails("systemctl", "start", unit)
		if got := m.Property(unit, "ExecMainStatus"); got != "78" {
			t.Errorf("exit status of the check of a stranger's file: got %s, want 78", got)
		}
	})
}
