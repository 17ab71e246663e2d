//go:build integration

package upgrade

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// The store reaches its quota while a release is on its way, and at its verdict:
// one clear error, the service goes on, nothing is forgotten, and once the quota is
// raised the release arrives, without anybody's help. It is btrfs's quota, since a
// kernel may have that of ext4, xfs and tmpfs left out; the errno is the same.
func TestQuota(t *testing.T) {
	const (
		state = "/var/lib/upgraderd"
		none  = -1
		some  = 2 << 20 // less than a release
	)
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		limit := quota(t, m, state)
		limit(none)
		source, clients := proved(t, m)
		daemon := m.Property("upgraderd.service", "MainPID")
		told := func() int { return strings.Count(m.Journal("upgraderd.service"), "FS_QUOTA") }

		limit(some)
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		m.Eventually("the status says why", func() bool { return strings.Contains(fmt.Sprint(target(t, m)["trouble"]), "FS_QUOTA") })
		if got := current(m); !strings.HasPrefix(got, "1.0.0-") {
			t.Errorf("current is %s, want 1.0.0", got)
		}
		m.Served(clients, "1.0.0", 100)
		limit(none)
		confirmed(t, m, "2.0.0")

		// What turned bad is undone all the same, and remembered.
		configure(m, unit, source, dir, "WindowSec=1min\n")
		m.Run("systemctl", "reload", "upgraderd.service")
		source.Publish("hello-3.0.0", kit.Hello(t, "3.0.0", "sicken:4s"))
		m.Eventually("3.0.0 is on trial", func() bool { return target(t, m)["state"] == "confirming" })
		limit(some)
		knownBad(t, m, "3.0.0")
		m.Served(clients, "2.0.0", 100)
		if got := current(m); !strings.HasPrefix(got, "2.0.0-") {
			t.Errorf("current is %s, want 2.0.0", got)
		}
		limit(none)
		configure(m, unit, source, dir, "WindowSec=1s\n")
		m.Run("systemctl", "reload", "upgraderd.service")
		source.Publish("hello-4.0.0", kit.Hello(t, "4.0.0", ""))
		confirmed(t, m, "4.0.0")

		if n := told(); n < 1 || n > 6 {
			t.Errorf("the journal has FS_QUOTA %d times: want it told, and not over and over", n)
		}
		if got := m.Property("upgraderd.service", "MainPID"); got != daemon {
			t.Errorf("the daemon is process %s, want %s as before", got, daemon)
		}
		m.NothingLost(clients)
	})
}

// quota mounts a file system with a quota at a directory of the machine, and gives
// what sets the quota to what is used and so many bytes more, or to none.
func quota(t *testing.T, m *kit.Machine, state string) (limit func(room int)) {
	t.Helper()
	host := func(argv ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 512<<20); err != nil {
		t.Fatal(err)
	}
	host("mkfs.btrfs", "-q", image)
	// The machine has no loop devices of its own.
	loop := host("losetup", "--find", "--show", image)
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", loop).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", loop, err, out)
		}
	})
	var node unix.Stat_t
	if err := unix.Stat(loop, &node); err != nil {
		t.Fatal(err)
	}
	m.Run("mknod", "/dev/store", "b", fmt.Sprint(unix.Major(node.Rdev)), fmt.Sprint(unix.Minor(node.Rdev)))
	m.Run("mount", "-t", "btrfs", "/dev/store", state)
	m.Run("chown", "upgraderd:", state)
	from := filepath.Join(m.Root(), state)
	host("btrfs", "quota", "enable", from)
	return func(room int) {
		t.Helper()
		size := "none"
		if room >= 0 {
			host("sync", "--file-system", from)
			// Qgroup 0/5 is the whole file system: its name, what is referenced, what is
			// exclusive, the limit.
			shown := strings.Fields(host("sh", "-c", "btrfs qgroup show --raw -re \"$0\" | grep ^0/5", from))
			used, err := strconv.Atoi(shown[1])
			if err != nil {
				t.Fatalf("%q: %v", shown, err)
			}
			size = strconv.Itoa(used + room)
		}
		host("btrfs", "qgroup", "limit", size, from)
		host("sync", "--file-system", from)
	}
}
