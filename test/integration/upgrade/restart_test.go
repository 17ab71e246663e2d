//go:build integration

package upgrade

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

const (
	// plain is a unit that runs what current names, with no supervisor in
	// between.
	plain        = "hello.service"
	plainSocket  = "[Socket]\nListenStream=" + address + "\nBacklog=4096\nTriggerLimitIntervalSec=0\n"
	plainProgram = "/var/lib/upgraderd/hello/current/bin/hello"
	plainService = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nTimeoutStartSec=3s\nExecStart=" + plainProgram + "\n"
)

// patient clients wait for as long as a restart may take, few enough for the
// backlog.
var patient = load.Options{Address: address, Rate: 100, Kept: 4, Timeout: time.Minute}

// installed has the daemon install 1.0.0 for hello.service, which runs it then
// under load.
func installed(t *testing.T, m *kit.Machine, service, socket string) (*kit.Source, *load.Process) {
	t.Helper()
	source := m.DirSource(dir)
	configure(m, plain, source, dir, "WindowSec=1s\n")
	m.Write("/etc/systemd/system/"+plain, service)
	start := plain
	if socket != "" {
		start = "hello.socket"
		m.Write("/etc/systemd/system/"+start, socket)
	}
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "enable", "--now", "upgraderd.service")
	source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
	m.Eventually("1.0.0 is installed", func() bool {
		now := target(t, m)
		return now["state"] == "idle" && now["last"] != nil
	})
	m.Run("systemctl", "start", start)
	clients := m.Load(patient)
	m.Served(clients, "1.0.0", 50)
	return source, clients
}

// script makes a release of shell commands.
func script(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "release")
	kit.Script(t, path, text)
	return path
}

// knownBad waits until a version is known bad, and nothing is left to do.
func knownBad(t *testing.T, m *kit.Machine, version string) {
	t.Helper()
	m.Eventually(version+" is known bad", func() bool {
		now := target(t, m)
		return now["state"] == "idle" && strings.Contains(fmt.Sprint(now["known_bad"]), version+" ")
	})
}

// A unit that runs without a supervisor, under a socket of systemd, is restarted:
// clients wait in the backlog, and none is lost, be the release good or bad.
func TestRestart(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source, clients := installed(t, m, plainService, plainSocket)
		const needs = "needs.service"
		m.Write("/etc/systemd/system/"+needs, "[Unit]\nRequires="+plain+"\nAfter="+plain+"\n[Service]\nExecStart=/bin/sleep inf\n")
		m.Run("systemctl", "start", needs)
		configure(m, plain, source, dir, "WindowSec=1s\n[Upgrade]\nDependents="+needs+"\n")
		m.Run("systemctl", "reload", "upgraderd")
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		m.Served(clients, "2.0.0", 50)
		confirmed(t, m, "2.0.0")
		if text := m.Journal("upgraderd.service"); !strings.Contains(text, "hello.service is swapped by restart: ExecStart= does not run upgraderd supervise") {
			t.Error("the journal does not say how the unit is swapped, and why")
		}
		for _, bad := range []struct{ version, program, why string }{
			// The socket has systemd start what fails again and again meanwhile.
			{"3.0.0", script(t, "exit 1"), "it does not start"},
			{"3.1.0", script(t, "sleep 1; exit 1"), "it does not start"},
			{"3.2.0", kit.Hello(t, "3.2.0", "unready"), "it does not start"}, // until TimeoutStartSec=
			{"3.3.0", kit.Hello(t, "3.3.0", "sicken:100ms"), "status 500"},
		} {
			source.Publish("hello-"+bad.version, bad.program)
			knownBad(t, m, bad.version)
			if text := m.Journal("upgraderd.service"); !strings.Contains(text, bad.version+" turned bad") || !strings.Contains(text, bad.why) {
				t.Errorf("the journal does not say that %s turned bad: %s", bad.version, bad.why)
			}
			if got := current(m); !strings.HasPrefix(got, "2.0.0-") {
				t.Errorf("after %s: current is %s, want 2.0.0", bad.version, got)
			}
			if got := m.Property(needs, "ActiveState"); got != "active" {
				t.Errorf("after %s: %s, which depends on the service, is %s", bad.version, needs, got)
			}
			m.Served(clients, "2.0.0", 50)
		}
		source.Publish("hello-4.0.0", kit.Hello(t, "4.0.0", ""))
		confirmed(t, m, "4.0.0")
		m.Served(clients, "4.0.0", 50)
		m.NothingLost(clients)
	})
}

// A unit that opens its socket itself refuses clients while it restarts, and then
// only. A release that ends at once, as if all was well, leaves nothing that
// would start it again, but for the rollback.
func TestRestartWithoutSocket(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		service := "[Service]\nType=exec\nTimeoutStartSec=3s\nExecStart=" + plainProgram + "\n"
		source, clients := installed(t, m, service, "")
		calm := func(version string) {
			t.Helper()
			m.Served(clients, version, 50)
			before := clients.Report()
			m.Served(clients, version, 50)
			if after := clients.Report(); after.Failures() != before.Failures() {
				t.Errorf("%d requests failed while %s serves: %v", after.Failures()-before.Failures(), version, after)
			}
		}
		calm("1.0.0")
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		confirmed(t, m, "2.0.0")
		calm("2.0.0")
		if text := m.Journal("upgraderd.service"); !strings.Contains(text, "hello.service is swapped by restart: ExecStart= does not run upgraderd supervise; no socket unit holds connections meanwhile") {
			t.Error("the journal does not say that connections are refused meanwhile")
		}
		for _, bad := range []struct{ version, program string }{
			{"3.0.0", script(t, "exit 1")},
			{"3.1.0", script(t, "exit 0")},
			{"3.2.0", script(t, "sleep 0.3")},
			{"3.3.0", script(t, "exec sleep inf")}, // never listens
		} {
			source.Publish("hello-"+bad.version, bad.program)
			knownBad(t, m, bad.version)
			calm("2.0.0")
		}
		r, err := clients.Stop()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("load: %v", r)
		// Those whom nobody had accepted yet end with the socket.
		if r.Failures() != r.Failed[load.Refused]+r.Failed[load.Reset] {
			t.Errorf("clients that had been accepted were lost: %v\n%s", r, strings.Join(r.Errors, "\n"))
		}
	})
}

// A release on trial exhausts the unit's start limit, so that systemd starts it no
// more: it comes back with the release that proved itself, and the next upgrade
// works.
func TestStartLimit(t *testing.T) {
	const limit = "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=1\n[Service]\nRestart=on-failure\nRestartSec=0\n"
	hit := func(t *testing.T, m *kit.Machine, source *kit.Source, clients *load.Process, unit, bad string) {
		t.Helper()
		source.Publish("hello-2.0.0", bad)
		knownBad(t, m, "2.0.0")
		if text := m.Journal(unit); !strings.Contains(text, "Start request repeated too quickly") {
			t.Error("the start limit was not hit, so this shows nothing")
		}
		if got := current(m); !strings.HasPrefix(got, "1.0.0-") {
			t.Errorf("current is %s, want 1.0.0", got)
		}
		m.Served(clients, "1.0.0", 50)
		source.Publish("hello-3.0.0", kit.Hello(t, "3.0.0", ""))
		confirmed(t, m, "3.0.0")
		m.Served(clients, "3.0.0", 50)
	}
	t.Run("restart", func(t *testing.T) {
		kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
			m.Write("/etc/systemd/system/"+plain+".d/limit.conf", "[Unit]\nRequires=hello.socket\nAfter=hello.socket\n"+limit)
			source, clients := installed(t, m, plainService, plainSocket)
			hit(t, m, source, clients, plain, script(t, "exit 1"))
		})
	})
	t.Run("handover", func(t *testing.T) {
		kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
			m.Write("/etc/systemd/system/"+unit+".d/limit.conf", limit)
			source, clients := proved(t, m)
			hit(t, m, source, clients, unit, kit.Hello(t, "2.0.0", "crash-later:300ms"))
		})
	})
}

// Swap=none stages a release and touches nothing, not even when the operator
// restarts the service: what starts is what proved itself. The operator swaps by
// moving the link, or allows the daemon to.
func TestSwapNone(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source, clients := installed(t, m, plainService, plainSocket)
		pid := m.Property(plain, "MainPID")
		configure(m, plain, source, dir, "[Upgrade]\nSwap=none\n")
		m.Run("systemctl", "reload", "upgraderd")
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		m.Eventually("2.0.0 waits", func() bool { return target(t, m)["state"] == "held" })
		untouched := func() {
			t.Helper()
			if got := current(m); !strings.HasPrefix(got, "1.0.0-") {
				t.Errorf("current is %s, want 1.0.0", got)
			}
			m.Served(clients, "1.0.0", 50)
		}
		untouched()
		if got := m.Property(plain, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		if text := m.Journal("upgraderd.service"); !strings.Contains(text, "2.0.0 is staged and waits for the operator (Swap=none); until then hello.service starts with 1.0.0") {
			t.Error("the journal does not say that it waits, and what a restart does")
		}
		m.Run("systemctl", "restart", plain)
		untouched()
		if got := target(t, m)["state"]; got != "held" {
			t.Errorf("after the operator's restart: state is %v, want held", got)
		}

		// The operator swaps.
		staged := m.Run("readlink", "/var/lib/upgraderd/hello/staged")
		m.Run("ln", "-sfn", staged, "/var/lib/upgraderd/hello/current")
		m.Run("systemctl", "restart", plain)
		m.Served(clients, "2.0.0", 50)
		m.Run("systemctl", "reload", "upgraderd") // else it looks every half a minute
		m.Eventually("the daemon has noticed", func() bool {
			return target(t, m)["state"] == "idle" && strings.Contains(m.Journal("upgraderd.service"), "no verdict on 2.0.0: the operator installed it")
		})

		// The operator lets the daemon do it.
		source.Publish("hello-3.0.0", kit.Hello(t, "3.0.0", ""))
		m.Eventually("3.0.0 waits", func() bool { return target(t, m)["state"] == "held" })
		configure(m, plain, source, dir, "")
		m.Run("systemctl", "reload", "upgraderd")
		confirmed(t, m, "3.0.0")
		m.Served(clients, "3.0.0", 50)
		m.NothingLost(clients)
	})
}
