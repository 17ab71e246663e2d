//go:build integration

package upgrade

import (
	"regexp"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// TestCommand has a command of the operator's list and print the releases, in its
// sandbox: a user of its own that sees neither the bus nor the daemon's store as its
// own, and what it says goes to the journal.
func TestCommand(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource(dir)
		const program = "/usr/local/lib/hello-source"
		m.Write(program, `#!/bin/sh
case $UPGRADERD_VERB in
list) find /srv/hello -type f ! -name '.*' -printf '%s %i-%C@ %f\n' ;;
get) exec cat "/srv/hello/$UPGRADERD_FILE" ;;
esac
echo "asked by $UPGRADERD_TARGET as $(id -u)" >&2
touch /var/lib/upgraderd/x /etc/x 2>/dev/null && echo "wrote to the host" >&2
ls /run/dbus/system_bus_socket >/dev/null 2>&1 && echo "saw the bus" >&2
exit 0
`)
		m.Run("chmod", "755", program)
		follow(t, m, source, "exec:"+program, "")

		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		begins(t, m, "1.0.0")
		t.Log(m.Run("upgraderd", "verify"))
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		confirmed(t, m, "2.0.0")

		said := m.Run("journalctl", "-o", "cat", "-u", "upgraderd-source@*")
		as := regexp.MustCompile("asked by hello as ([0-9]+)").FindStringSubmatch(said)
		if as == nil || as[1] == "0" || as[1] == m.Run("id", "-u", "upgraderd") {
			t.Errorf("the command ran as %q, want a user of its own:\n%s", as, said)
		}
		if strings.Contains(said, "Deactivated") {
			t.Errorf("each run fills the journal:\n%s", said)
		}
		if strings.Contains(said, "wrote to the host") || strings.Contains(said, "saw the bus") {
			t.Errorf("the sandbox is open:\n%s", said)
		}
		if got := m.Run("stat", "-c", "%U %a", "/run/upgraderd-source"); got != "upgraderd 600" {
			t.Errorf("the socket is for %s", got)
		}

		// A command that hangs is told of, and ended with all that it started.
		m.Write("/etc/upgraderd/hello.upgrade.d/stall.conf", "[Source]\nStallTimeoutSec=1s\n")
		m.Write(program, "#!/bin/sh\nsleep 987654 &\nwait\n")
		m.Run("chmod", "755", program)
		m.Run("systemctl", "reload", "upgraderd.service")
		m.Eventually("it is told that the command hangs", func() bool {
			return strings.Contains(m.Run("upgraderd", "status", "--json", "hello"), "FETCH_STALLED")
		})
		m.Run("systemctl", "stop", "upgraderd.service")
		m.Eventually("nothing of it is left", func() bool {
			return m.Run("sh", "-c", "systemctl --no-legend list-units 'upgraderd-source@*'; pgrep -f 'sleep 98765[4]' || true") == ""
		})
		// One that somebody else can write does not run at all.
		m.Run("chmod", "777", program)
		if said := m.Fails("upgraderd", "verify"); !strings.Contains(said, program) {
			t.Errorf("verify says nothing of a command that everybody can write:\n%s", said)
		}
	})
}

// begins has the unit start, and waits for its first release.
func begins(t *testing.T, m *kit.Machine, version string) {
	t.Helper()
	m.Run("systemctl", "start", unit)
	m.Eventually(version+" is the first", func() bool {
		now := m.Run("sh", "-c", "readlink /var/lib/upgraderd/hello/current || true")
		return strings.HasPrefix(now, "releases/"+version+"-") && target(t, m)["state"] == "idle"
	})
}
