//go:build integration

// Package supervise tests the supervisor under a real systemd: the template
// pair live@, real sockets, load during every swap.
package supervise

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	unit    = "live@hello.service"
	address = "127.0.0.1:8080"
)

// traffic is what every test puts on the service: enough to see a gap of a
// millisecond.
var traffic = load.Options{Address: address, Rate: 1000, Kept: 8}

// start brings up live@hello with release 1 serving.
func start(t *testing.T, m *kit.Machine, settings ...string) kit.Release {
	t.Helper()
	one := m.PutRelease("hello", "1.0.0", kit.Hello(t, "1.0.0", ""))
	m.Link("current", one)
	m.Write("/etc/systemd/system/live@hello.socket.d/address.conf", "[Socket]\nListenStream="+address+"\n")
	if len(settings) > 0 {
		m.Write("/etc/systemd/system/live@hello.service.d/test.conf", "[Service]\n"+strings.Join(settings, "\n")+"\n")
	}
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "enable", "--now", "live@hello.socket", unit)
	return one
}

// arguments replaces the supervisor's flags in a drop-in.
func arguments(flags string) string {
	return "ExecStart=\nExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/%i " + flags + " -- bin/%i"
}

func TestHandover(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		start(t, m)
		pid := m.Property(unit, "MainPID")
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 200)

		two := m.PutRelease("hello", "2.0.0", kit.Hello(t, "2.0.0", ""))
		m.Link("next", two)
		m.Run("systemctl", "reload", unit)
		m.Served(clients, "2.0.0", 500)
		m.Link("current", two)
		m.Unlink("hello", "next")

		// The old worker drains while clients that stay are told to leave.
		m.Eventually("one worker and the supervisor are left", func() bool { return len(m.Processes(unit)) == 2 })
		m.NothingLost(clients)
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		if got := m.Property(unit, "StatusText"); !strings.Contains(got, two.Name) {
			t.Errorf("StatusText: got %q, want %s in it", got, two.Name)
		}
		if got := m.Property(unit, "NRestarts"); got != "0" {
			t.Errorf("NRestarts: got %s, want 0", got)
		}
	})
}

// SIGHUP and SIGUSR2 to the main PID mean what reload means.
func TestSignals(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		start(t, m)
		pid := m.Property(unit, "MainPID")
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		for version, signal := range map[string]string{"2.0.0": "HUP", "3.0.0": "USR2"} {
			m.Link("current", m.PutRelease("hello", version, kit.Hello(t, version, "")))
			m.Signal(pid, signal)
			m.Served(clients, version, 200)
		}
		m.NothingLost(clients)
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
	})
}

// A release that does not become ready never takes traffic, and the one that
// serves never notices.
func TestBadRelease(t *testing.T) {
	tests := []struct{ name, fault string }{
		{"crash at start", "crash"},
		{"never ready", "unready"},
		{"ready too late", "slow:1m"},
	}
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		one := start(t, m, arguments("--start-timeout=1s"))
		pid := m.Property(unit, "MainPID")
		before := slices.Sorted(maps.Keys(m.Processes(unit)))
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				bad := m.PutRelease("hello", "2.0.0", kit.Hello(t, "2.0.0", test.fault))
				m.Link("next", bad)
				m.Fails("systemctl", "reload", unit)
				m.Unlink("hello", "next")
				if got := m.Property(unit, "ActiveState"); got != "active" {
					t.Errorf("ActiveState: got %s, want active", got)
				}
				if got := m.Property(unit, "StatusText"); !strings.Contains(got, one.Name) {
					t.Errorf("StatusText: got %q, want %s in it", got, one.Name)
				}
				if got := slices.Sorted(maps.Keys(m.Processes(unit))); !slices.Equal(got, before) {
					t.Errorf("processes: got %v, want %v as before", got, before)
				}
				if journal := m.Journal(unit); !strings.Contains(journal, bad.Name) {
					t.Errorf("the journal does not name %s:\n%s", bad.Name, journal)
				}
			})
		}
		r := m.NothingLost(clients)
		if r.Versions["2.0.0"] != 0 {
			t.Errorf("got %d answers from the bad release, want none", r.Versions["2.0.0"])
		}
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
	})
}

// A program that does not exist, or cannot run, is a bad release too.
func TestUnrunnableRelease(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		start(t, m)
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		text := t.TempDir() + "/text"
		if err := os.WriteFile(text, []byte("no program at all\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		bad := m.PutRelease("hello", "2.0.0", text)
		m.Link("next", bad)
		m.Fails("systemctl", "reload", unit)
		m.Run("rm", "-rf", bad.Dir)
		m.Fails("systemctl", "reload", unit)
		m.NothingLost(clients)
	})
}

// While the old worker drains, the new one serves; at the limit the old one is
// killed.
func TestDrainLimit(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		start(t, m, arguments("--drain-timeout=1s"))
		stubborn := m.PutRelease("hello", "2.0.0", kit.Hello(t, "2.0.0", "stubborn"))
		m.Link("current", stubborn)
		m.Run("systemctl", "reload", unit)
		m.Link("current", m.PutRelease("hello", "3.0.0", kit.Hello(t, "3.0.0", "")))
		began := time.Now()
		m.Run("systemctl", "reload", unit)
		if n := len(m.Processes(unit)); n < 3 {
			t.Errorf("got %d processes right after, want the stubborn one too", n)
		}
		m.Eventually("the stubborn worker is gone", func() bool { return len(m.Processes(unit)) == 2 })
		if took := time.Since(began); took < time.Second || took > 5*time.Second {
			t.Errorf("gone after %v, want a little more than 1 s", took)
		}
	})
}

// A stop ends every process, those that drain and those that will not listen
// as well, and leaves the socket listening.
func TestStop(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		start(t, m, arguments("--drain-timeout=1s"))
		m.Link("current", m.PutRelease("hello", "2.0.0", kit.Hello(t, "2.0.0", "stubborn")))
		m.Run("systemctl", "reload", unit)
		group := m.Property(unit, "ControlGroup")
		m.Run("systemctl", "stop", unit)
		if left := m.Processes(unit); len(left) != 0 {
			t.Errorf("processes left: %v", left)
		}
		m.Fails("test", "-d", "/sys/fs/cgroup"+group)
		m.Fails("test", "-e", "/run/live@hello")
		if got := m.Property(unit, "Result"); got != "success" {
			t.Errorf("Result: got %s, want success", got)
		}
		if got := m.Property("live@hello.socket", "ActiveState"); got != "active" {
			t.Errorf("socket: got %s, want active", got)
		}
		// And the next client starts it again.
		clients := m.Load(load.Options{Address: address, Rate: 20})
		m.Served(clients, "2.0.0", 5)
		m.NothingLost(clients)
	})
}

// kill -9 of the main PID refuses no connection: the worker is still there,
// and the next supervisor takes it over.
func TestKilledSupervisor(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		start(t, m)
		pid := m.Property(unit, "MainPID")
		before := m.Processes(unit)
		delete(before, pid)
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 200)
		// As a kill, or the kernel when memory is short; as Go's runtime ends a
		// program that panics; as a fault of the machine.
		signals := []string{"KILL", "ABRT", "SEGV"}
		for _, signal := range signals {
			m.Signal(pid, signal)
			m.Eventually("a new supervisor is active after SIG"+signal, func() bool {
				now := m.Property(unit, "MainPID")
				gone := now != "0" && now != pid && m.Property(unit, "ActiveState") == "active"
				if gone {
					pid = now
				}
				return gone
			})
			m.Served(clients, "1.0.0", 200)
		}
		after := m.Processes(unit)
		for worker := range before {
			if after[worker] == "" {
				t.Errorf("worker %s did not outlive its supervisor: %v", worker, after)
			}
		}
		if got := m.Property(unit, "NRestarts"); got != strconv.Itoa(len(signals)) {
			t.Errorf("NRestarts: got %s, want %d", got, len(signals))
		}

		// The worker it adopted can be replaced, and is gone then.
		m.Link("current", m.PutRelease("hello", "2.0.0", kit.Hello(t, "2.0.0", "")))
		m.Run("systemctl", "reload", unit)
		m.Served(clients, "2.0.0", 200)
		m.Eventually("one worker and the supervisor are left", func() bool { return len(m.Processes(unit)) == 2 })
		m.NothingLost(clients)
		m.Run("systemctl", "stop", unit)
		if left := m.Processes(unit); len(left) != 0 {
			t.Errorf("processes left: %v", left)
		}
	})
}

// A worker that dies unasked takes its supervisor along; systemd decides what
// then, and clients wait.
func TestWorkerCrash(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		start(t, m)
		pid := m.Property(unit, "MainPID")
		for worker := range m.Processes(unit) {
			if worker != pid {
				m.Signal(worker, "SEGV")
			}
		}
		m.Eventually("systemd has started it again", func() bool { return m.Property(unit, "NRestarts") == "1" })
		clients := m.Load(load.Options{Address: address, Rate: 50})
		m.Served(clients, "1.0.0", 20)
		m.NothingLost(clients)
		if journal := m.Journal(unit); !strings.Contains(journal, "SEGV") {
			t.Errorf("the journal does not name the signal:\n%s", journal)
		}
	})
}
