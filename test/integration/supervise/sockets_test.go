//go:build integration

package supervise

import (
	"fmt"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// socketKinds are one socket of each kind, by name.
var socketKinds = []struct{ name, network, address string }{
	{"web", "tcp", "127.0.0.1:7001"},
	{"dns", "udp", "127.0.0.1:7002"},
	{"control", "unix", "/run/echo.sock"},
	{"log", "unixgram", "/run/echo.dgram"},
}

const asks = "600"

func echo(t *testing.T, version string) string {
	return kit.Build(t, "./test/integration/echo", "-X main.version="+version)
}

// askAll asks each socket while swap runs, and checks that nothing was lost
// and that both versions answered, each under the socket's name.
func askAll(t *testing.T, m *kit.Machine, from, to string, swap func()) {
	t.Helper()
	var asking []interface{ Wait() (string, error) }
	for _, s := range socketKinds {
		p, err := m.Start(t.Context(), "/usr/bin/echo-client", "ask", s.network, s.address, asks, "/run/asking-"+s.name)
		if err != nil {
			t.Fatal(err)
		}
		asking = append(asking, p)
	}
	for _, s := range socketKinds {
		m.Eventually(s.name+" answers", func() bool {
			_, err := m.Machine.Run(t.Context(), "rm", "/run/asking-"+s.name)
			return err == nil
		})
	}
	swap()
	for i, s := range socketKinds {
		got, err := asking[i].Wait()
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		t.Logf("%s: %q", s.name, got)
		for _, version := range []string{from, to} {
			if !strings.Contains(got, " "+s.name+" "+version+"\n") {
				t.Errorf("%s: got no answer from %s: %q", s.name, version, got)
			}
		}
		if strings.Contains(got, "lost") || strings.Count(got, "\n") > 2 {
			t.Errorf("%s: got %q, want answers of two versions and nothing lost", s.name, got)
		}
	}
}

// Sockets of every kind, from .socket units: names, and nothing lost.
func TestSocketUnits(t *testing.T) {
	const unit = "live@echo.service"
	listen := map[string]string{"tcp": "ListenStream", "udp": "ListenDatagram", "unix": "ListenStream", "unixgram": "ListenDatagram"}
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Copy(echo(t, "client"), "/usr/bin/echo-client")
		m.Link("current", m.PutRelease("echo", "1.0.0", echo(t, "1.0.0")))
		// A unit's sockets share one name. The template has one unit; further
		// names take further units.
		var units []string
		for i, s := range socketKinds {
			text := fmt.Sprintf("[Socket]\n%s=%s\nFileDescriptorName=%s\n", listen[s.network], s.address, s.name)
			if i == 0 {
				m.Write("/etc/systemd/system/live@echo.socket.d/address.conf", text)
				units = append(units, "live@echo.socket")
				continue
			}
			m.Write("/etc/systemd/system/echo-"+s.name+".socket", text+"Service="+unit+"\n")
			units = append(units, "echo-"+s.name+".socket")
		}
		m.Write("/etc/systemd/system/live@echo.service.d/sockets.conf", "[Service]\nSockets="+strings.Join(units, " ")+"\n")
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "start", unit)
		handOverEcho(t, m, unit)
	})
}

// handOverEcho swaps from 1.0.0 to 2.0.0 while every socket is asked.
func handOverEcho(t *testing.T, m *kit.Machine, unit string) {
	t.Helper()
	two := m.PutRelease("echo", "2.0.0", echo(t, "2.0.0"))
	askAll(t, m, "1.0.0", "2.0.0", func() {
		m.Link("current", two)
		m.Run("systemctl", "reload", unit)
	})
	m.Eventually("the old worker is gone", func() bool { return len(m.Processes(unit)) == 2 })
}

// The same from --listen: the fd store keeps them when the supervisor is
// killed, and when the unit is restarted.
func TestListenFlag(t *testing.T) {
	const unit = "echo.service"
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Copy(echo(t, "client"), "/usr/bin/echo-client")
		m.Link("current", m.PutRelease("echo", "1.0.0", echo(t, "1.0.0")))
		var flags string
		for _, s := range socketKinds {
			flags += fmt.Sprintf("--listen=%s=%s:%s ", s.name, s.network, s.address)
		}
		m.Write("/etc/systemd/system/"+unit, `[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/echo `+flags+`-- bin/echo
ExecReload=/usr/bin/upgraderd handover
RuntimeDirectory=%N
RuntimeDirectoryPreserve=restart
FileDescriptorStoreMax=64
KillMode=process
Restart=on-failure
RestartSec=100ms
`)
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "start", unit)
		handOverEcho(t, m, unit)

		pid := m.Property(unit, "MainPID")
		m.Link("current", m.PutRelease("echo", "3.0.0", echo(t, "3.0.0")))
		askAll(t, m, "2.0.0", "3.0.0", func() {
			m.Signal(pid, "KILL")
			m.Eventually("a new supervisor is active", func() bool {
				now := m.Property(unit, "MainPID")
				return now != "0" && now != pid && m.Property(unit, "ActiveState") == "active"
			})
			m.Run("systemctl", "reload", unit)
		})
		m.Link("current", m.PutRelease("echo", "4.0.0", echo(t, "4.0.0")))
		askAll(t, m, "3.0.0", "4.0.0", func() { m.Run("systemctl", "restart", unit) })
	})
}
