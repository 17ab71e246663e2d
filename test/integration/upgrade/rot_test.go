//go:build integration

package upgrade

import (
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// TestRot has one byte of the program that runs change on disk: verify finds it,
// names it, and the daemon fetches the release again while the service goes on.
func TestRot(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource(dir)
		follow(t, m, source, dir, "")
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		confirmed(t, m, "1.0.0")
		pid := m.Property(unit, "MainPID")
		program := "/var/lib/upgraderd/hello/releases/" + current(m) + "/bin/hello"
		m.Run("upgraderd", "verify", "hello")

		// The running program cannot be written, which the kernel sees to; its
		// directory can get a copy with another byte.
		m.Run("python3", "-c", `import os, sys
name = sys.argv[1]
data = bytearray(open(name, "rb").read())
data[len(data) // 2] ^= 1
with open(name + ".new", "wb") as f:
    f.write(data)
os.chmod(name + ".new", 0o555)
os.rename(name + ".new", name)`, program)
		if out := m.Fails("upgraderd", "verify", "hello"); !strings.Contains(out, "RELEASE_CORRUPT") || !strings.Contains(out, "bin/hello") {
			t.Errorf("verify says: %s", out)
		}
		m.Run("systemctl", "reload", "upgraderd.service")
		m.Eventually("it is whole", func() bool { return strings.Contains(m.Journal("upgraderd.service"), "was fetched again and is whole") })
		m.Run("upgraderd", "verify", "hello")
		m.Run("systemctl", "reload", unit) // a new worker, of the whole program
		m.Served(clients, "1.0.0", 100)
		m.NothingLost(clients)
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
	})
}
