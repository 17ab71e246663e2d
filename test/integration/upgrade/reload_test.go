//go:build integration

package upgrade

import (
	"fmt"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

const configuredAddress = "127.0.0.1:8090"

// TestOnReload follows the configuration of a service under load: examples/configured,
// by itself and as the worker of a supervisor. What it can use takes effect and starts
// no process; what its check refuses never goes live, and what it refuses itself is
// undone.
func TestOnReload(t *testing.T) {
	program := kit.Build(t, "./examples/configured")
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Run("systemctl", "enable", "--now", "upgraderd.service")
		t.Run("by itself", func(t *testing.T) { reloadedItself(t, m.In(t), program) })
		t.Run("as a worker", func(t *testing.T) { reloadedAsWorker(t, m.In(t), program) })
	})
}

// reloadedItself has systemd tell the service. Before 253 there is no
// Type=notify-reload; then the reload is over once the signal is sent, and what the
// service says of it comes later.
func reloadedItself(t *testing.T, m *kit.Machine, program string) {
	service := "Type=notify-reload\n"
	if m.Suite == "bookworm" {
		service = "Type=notify\nExecReload=/bin/sh -c 'kill -HUP $MAINPID'\n"
	}
	m.Copy(program, "/usr/local/bin/configured")
	m.Write("/etc/systemd/system/alone.socket", "[Socket]\nListenStream="+configuredAddress+"\n")
	m.Write("/etc/systemd/system/alone.service", "[Service]\n"+service+"ExecStart=/usr/local/bin/configured /var/lib/upgraderd/alone-conf/current/app.json\n")
	m.Run("systemctl", "daemon-reload")
	follow := configurations(t, m, "alone.service", "alone-conf")
	m.Run("systemctl", "start", "alone.socket", "alone.service")
	defer m.Run("systemctl", "stop", "alone.socket", "alone.service")
	follow("the service did not take it: Reload refused: read /var/lib/upgraderd/alone-conf/current/app.json: no greeting")
}

// reloadedAsWorker has the supervisor tell its worker.
func reloadedAsWorker(t *testing.T, m *kit.Machine, program string) {
	m.Write("/etc/systemd/system/live@configured.socket.d/address.conf", "[Socket]\nListenStream="+configuredAddress+"\n")
	m.Write("/etc/systemd/system/live@configured.service.d/reload.conf", `[Service]
ExecStart=
ExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/%i --reload=notify=SIGHUP -- bin/%i %S/upgraderd/configured-conf/current/app.json
`)
	m.Run("systemctl", "daemon-reload")
	m.Link("current", m.PutRelease("configured", "1", program))
	follow := configurations(t, m, "live@configured.service", "configured-conf")
	const unit = "live@configured.service"
	m.Run("systemctl", "start", "live@configured.socket", unit)
	defer m.Run("systemctl", "stop", "live@configured.socket", unit)
	follow("the reload failed: worker ")

	// The other meanings of a reload are as they were.
	main := m.Property(unit, "MainPID")
	worker := func() string {
		all := m.Processes(unit)
		delete(all, main)
		for pid := range all {
			if len(all) == 1 {
				return pid
			}
		}
		return ""
	}
	anew := func(what string, ask func()) {
		before := worker()
		ask()
		m.Eventually(what+" starts a worker", func() bool { now := worker(); return now != "" && now != before })
	}
	anew("SIGHUP to the main process", func() { m.Signal(main, "HUP") })
	anew("another release", func() {
		m.Link("next", m.PutRelease("configured", "2", program))
		m.Run("systemctl", "reload", unit)
	})
}

// configurations sets a target up that follows them, and gives what plays them: a
// good one, one for each way of being bad, and a good one again.
func configurations(t *testing.T, m *kit.Machine, unit, target string) (follow func(why string)) {
	t.Helper()
	dir := "/srv/" + target
	source := m.DirSource(dir)
	m.Write("/etc/upgraderd/"+target+".upgrade", fmt.Sprintf(`[Upgrade]
Unit=%s
Config=app.json
Check=/bin/grep -q version app.json
[Source]
Path=%s
MatchPattern=app_@v.json
Key=%s
PollIntervalSec=1s
[Confirm]
WindowSec=2s
`, unit, dir, source.Key))
	publish := func(version, text string) { source.PublishBytes("app_"+version+".json", []byte(text)) }
	greet := func(version string) { publish(version, fmt.Sprintf(`{"version": %q, "greeting": "hello"}`, version)) }
	greet("1.0")
	m.Run("systemctl", "reload", "upgraderd.service")
	m.Eventually("1.0 is installed", func() bool {
		return strings.Contains(m.Run("readlink", "-m", "/var/lib/upgraderd/"+target+"/current"), "/1.0-")
	})
	says := func(what string) {
		t.Helper()
		m.Eventually(what, func() bool { return strings.Contains(m.Journal("upgraderd.service"), target+": "+what) })
	}
	return func(why string) {
		t.Helper()
		processes := fmt.Sprint(m.Processes(unit))
		clients := m.Load(load.Options{Address: configuredAddress, Rate: 200, Kept: 4})
		m.Served(clients, "1.0", 50)
		greet("1.1")
		m.Served(clients, "1.1", 50)
		says("1.1 is good")
		publish("1.2", `{"of": "`+target+`"}`) // what one target found bad, another would not try
		says("refused 1.2, 1.1 keeps serving: Check= failed")
		publish("1.3", `{"version": "1.3", "of": "`+target+`"}`)
		says("rolled back to 1.1")
		if !strings.Contains(m.Journal("upgraderd.service"), why) {
			t.Errorf("the reason is not told, want %q", why)
		}
		greet("1.4")
		m.Served(clients, "1.4", 50)
		says("1.4 is good")
		if report := m.NothingLost(clients); report.Versions["1.3"]+report.Versions["1.2"] > 0 {
			t.Errorf("a bad configuration was in use: %v", report.Versions)
		}
		if now := fmt.Sprint(m.Processes(unit)); now != processes {
			t.Errorf("processes: got %s, want %s as before", now, processes)
		}
		if status := m.Property(unit, "StatusText"); strings.Contains(status, "refused") {
			t.Errorf("the status still tells of what was refused: %q", status)
		}
	}
}
