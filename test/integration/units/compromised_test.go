//go:build integration

package units

import (
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// attack runs as the daemon, in all that its unit gives and takes, and says of
// each attempt that went through. The last line proves that it got to the end;
// the first, that the store, which is the daemon's, can be written.
const attack = `#!/bin/sh
try() {
	what=$1
	shift
	if "$@" >/dev/null 2>&1; then echo "WENT THROUGH: $what"; fi
}
put() { echo pwned >"$1"; }
echo fine >"$STATE_DIRECTORY/mine" && echo "writes its store"
for place in /etc/upgraderd/evil.upgrade /etc/passwd /etc/sudoers.d/evil /etc/cron.d/evil /etc/ld.so.preload /usr/bin/upgraderd \
	/usr/lib/systemd/system/evil.service /etc/systemd/system/evil.service /run/systemd/system/evil.service /run/systemd/transient/evil.service \
	/var/lib/other /var/lib/systemd/evil /root/evil /home/evil /srv/evil /proc/sysrq-trigger /proc/sys/kernel/core_pattern \
	/sys/kernel/uevent_helper /dev/kmsg /sys/fs/cgroup/cgroup.procs; do
	try "write $place" put "$place"
done
cp /bin/sh "$STATE_DIRECTORY/sh"
try "setuid" chmod 4755 "$STATE_DIRECTORY/sh"
try "device" mknod "$STATE_DIRECTORY/mem" c 1 1
try "mount" mount -t tmpfs none /mnt
try "user namespace" unshare --user --map-root-user true
try "mount namespace" unshare --mount true
try "read shadow" cat /etc/shadow
try "kill PID 1" kill -0 1
try "read memory of PID 1" head -c 1 /proc/1/environ
try "journal as root" chown root "$STATE_DIRECTORY/mine"
try "private socket of systemd" python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("/run/systemd/private")'
try "raw socket" python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'
try "packet socket" python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)'
try "realtime" python3 -c 'import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))'
try "clock" date -s 2000-01-01
try "host name" hostname evil
try "transient unit" systemd-run --no-ask-password true
try "another unit" systemctl --no-ask-password restart other.service
try "a dependent that is not granted" systemctl --no-ask-password start wipe.service
try "load a unit of its own" systemctl --no-ask-password link "$STATE_DIRECTORY/evil.service"
echo "that is all"
`

// TestCompromisedDaemon has somebody own the daemon: its user, its sandbox, its
// store. That is not root, and not another service.
func TestCompromisedDaemon(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Write("/etc/systemd/system/other.service", "[Service]\nExecStart=/bin/sleep infinity\n")
		m.Write("/etc/systemd/system/wipe.service", "[Unit]\nRequires=app.service\n[Service]\nExecStart=/bin/sleep infinity\n")
		m.Write("/etc/systemd/system/app.service", "[Service]\nExecStart=/bin/sleep infinity\n")
		m.Write("/etc/upgraderd/app.upgrade", appUpgrade)
		m.Write("/usr/local/bin/attack", attack)
		m.Run("chmod", "755", "/usr/local/bin/attack")
		m.Write("/etc/systemd/system/upgraderd.service.d/attack.conf",
			"[Service]\nType=oneshot\nExecStart=\nExecStart=/usr/local/bin/attack\nRestart=no\nWatchdogSec=0\n[Unit]\nOnFailure=\n")
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "start", "other.service")
		pid := m.Property("other.service", "MainPID")
		m.Run("systemctl", "start", "upgraderd.service")
		said := m.Journal("upgraderd.service")
		for _, want := range []string{"writes its store", "that is all"} {
			if !strings.Contains(said, want) {
				t.Errorf("want %q, or the attack was none:\n%s", want, said)
			}
		}
		for line := range strings.Lines(said) {
			if _, what, ok := strings.Cut(line, "WENT THROUGH: "); ok {
				t.Errorf("as the daemon: %s", what)
			}
		}
		if got := m.Property("other.service", "MainPID"); got != pid {
			t.Errorf("another service: main PID %s, want %s", got, pid)
		}
	})
}
