//go:build integration

package upgrade

import (
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// TestCurrent is the classic folder: an edit of a file, or of a link, is an upgrade or
// a rollback. How long each takes is told, and not judged: that is the machine's.
func TestCurrent(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource(dir)
		m.Write("/etc/upgraderd/hello.upgrade.d/current.conf", "[Source]\nKey=\nVerify=no\nCurrent=current\n")
		for _, version := range []string{"1.0.0", "2.0.0"} {
			source.Publish("hello-"+version, kit.Hello(t, version, ""))
		}
		m.Write(dir+"/current", "hello-1.0.0\n")
		follow(t, m, source, dir, "")
		begins(t, m, "1.0.0")
		pid := m.Property(unit, "MainPID")

		names := func(how, version string) {
			t.Helper()
			switch how {
			case "edit":
				m.Run("sh", "-c", "echo hello-"+version+" > "+dir+"/current")
			case "link":
				m.Run("ln", "-sfn", "hello-"+version, dir+"/current")
			}
			began := time.Now()
			m.Eventually(version+" is current", func() bool { return strings.HasPrefix(current(m), version+"-") })
			t.Logf("%s: %s runs after %v", how, version, time.Since(began).Round(10*time.Millisecond))
			confirmed(t, m, version)
		}
		names("edit", "2.0.0")
		names("edit", "1.0.0")
		m.Run("rm", dir+"/current")
		names("link", "2.0.0")
		names("link", "1.0.0")

		// Half a name is none.
		m.Run("rm", dir+"/current")
		m.Run("sh", "-c", "printf hello-2.0.0 > "+dir+"/current")
		m.Eventually("it is told", func() bool {
			return strings.Contains(m.Run("upgraderd", "status", "--json", "hello"), "half written")
		})
		if got := current(m); !strings.HasPrefix(got, "1.0.0-") {
			t.Errorf("half a line led to %s", got)
		}
		names("edit", "2.0.0")

		// A program and its configuration, which are one release: another
		// configuration, then another of both.
		for _, name := range []string{"a", "b"} {
			source.PublishBytes(name+".conf", []byte(name))
		}
		for _, pair := range []struct{ version, config string }{{"1.0.0", "a"}, {"1.0.0", "b"}, {"2.0.0", "a"}} {
			m.Run("sh", "-c", `echo '{"bin": {"file": "hello-`+pair.version+`"}, "cfg": {"file": "`+pair.config+`.conf"}}' > `+dir+"/current")
			confirmed(t, m, pair.version+"+"+pair.config+".conf")
			if got := m.Run("cat", "/var/lib/upgraderd/hello/current/config"); got != pair.config {
				t.Errorf("%v has the configuration %q", pair, got)
			}
		}
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
	})
}
