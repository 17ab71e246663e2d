//go:build integration

package upgrade

import (
	"fmt"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// reader is a service that reads a configuration when it starts and when it is
// reloaded. ExecReload= waits until it has, and fails where the file is poor.
const reader = `[Unit]
OnFailure=upgraderd-failed@%N.service
StartLimitIntervalSec=0
[Service]
Restart=on-failure
ExecStart=/usr/local/bin/reader
ExecReload=/bin/sh -c 'grep -qv poor /var/lib/upgraderd/reader/current/reader.conf && kill -HUP $MAINPID && until cmp -s /var/lib/upgraderd/reader/current/reader.conf /run/read; do sleep 0.1; done'
`

const readerProgram = `#!/bin/sh
# It reads before it says so, by one rename.
read() { cp /var/lib/upgraderd/reader/current/reader.conf /run/reading && mv /run/reading /run/read; }
trap read HUP
read
while :; do sleep 0.2; done
`

// TestConfig follows configurations of a unit: one that is good, one that its check
// refuses, one that the unit cannot read, and one that is good again. The unit
// is reloaded, and never started anew.
func TestConfig(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource("/srv/reader")
		m.Write("/usr/local/bin/reader", readerProgram)
		m.Run("chmod", "+x", "/usr/local/bin/reader")
		m.Write("/etc/systemd/system/reader.service", reader)
		settings := fmt.Sprintf(`[Upgrade]
Unit=reader.service
Config=reader.conf
Check=/bin/grep -q good reader.conf
[Source]
Path=/srv/reader
MatchPattern=reader_@v.conf
Key=%s
PollIntervalSec=1s
[Confirm]
WindowSec=1s
`, source.Key)
		m.Write("/etc/upgraderd/reader.upgrade", settings)
		read := func() string { return m.Run("sh", "-c", "cat /run/read || :") }
		publish := func(version, text string) { source.PublishBytes("reader_"+version+".conf", []byte(text)) }
		publish("1.0", "good, the first\n")
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "enable", "--now", "upgraderd.service")
		m.Eventually("1.0 is installed", func() bool {
			return strings.Contains(m.Run("readlink", "-m", "/var/lib/upgraderd/reader/current"), "/1.0-")
		})
		m.Run("systemctl", "start", "reader.service")
		pid := m.Property("reader.service", "MainPID")
		m.Eventually("1.0 is read", func() bool { return read() == "good, the first" })

		says := func(what string) {
			t.Helper()
			m.Eventually(what, func() bool { return strings.Contains(m.Journal("upgraderd.service"), what) })
		}
		publish("1.1", "good, the second\n")
		says("reader: 1.1 is good")
		if got := read(); got != "good, the second" {
			t.Errorf("the unit has read %q", got)
		}
		publish("1.2", "bad\n")
		says("reader: refused 1.2, 1.1 keeps serving: Check= failed")
		publish("1.3", "good and poor\n")
		says("reader: rolled back to 1.1")
		if got := read(); got != "good, the second" {
			t.Errorf("after a reload that failed the unit has read %q", got)
		}
		publish("1.4", "good, the last\n")
		says("reader: 1.4 is good")
		if got := read(); got != "good, the last" {
			t.Errorf("the unit has read %q", got)
		}
		if got := m.Property("reader.service", "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		if got := m.Run("upgraderd", "verify"); strings.Contains(got, "reader") {
			t.Errorf("verify has something to say: %s", got)
		}
	})
}
