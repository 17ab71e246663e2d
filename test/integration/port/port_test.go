//go:build integration

// Package port runs the programs of docs/porting as an operator would have them
// run, on real systemd and under load.
package port

import (
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

func TestMain(m *testing.M) { kit.Main(m) }

const address = "127.0.0.1:8080"

var traffic = load.Options{Address: address, Rate: 200, Kept: 4}

func build(t *testing.T, name, version string) string {
	return kit.Build(t, "./examples/porting/"+name, "-X main.version="+version)
}

// Each program has its turn on one machine.
func TestPorts(t *testing.T) {
	for _, name := range []string{"overseer", "endless", "grace", "tableflip"} {
		for _, version := range []string{"1", "2", "bad"} {
			build(t, name, version)
		}
	}
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Write("/etc/systemd/system/live@.socket.d/address.conf", "[Socket]\nListenStream="+address+"\n")
		m.Run("systemctl", "daemon-reload")
		for _, c := range []struct {
			name string
			run  func(*testing.T, *kit.Machine)
		}{
			{"overseer", func(t *testing.T, m *kit.Machine) { supervised(t, m, "overseer") }},
			{"endless", func(t *testing.T, m *kit.Machine) { supervised(t, m, "endless") }},
			{"grace", grace},
			{"tableflip", func(t *testing.T, m *kit.Machine) { supervised(t, m, "tableflip") }},
			{"overseer alone", overseerAlone},
			{"tableflip alone", tableflipAlone},
		} {
			t.Run(c.name, func(t *testing.T) { c.run(t, m.In(t)) })
		}
	})
}

// supervised has a program upgraded by the template pair live@, as every other: its
// main PID stays and nothing is lost.
func supervised(t *testing.T, m *kit.Machine, name string) {
	unit := "live@" + name + ".service"
	m.Link("current", m.PutRelease(name, "1", build(t, name, "1")))
	m.Run("systemctl", "start", "live@"+name+".socket", unit)
	defer m.Run("systemctl", "stop", unit, "live@"+name+".socket")
	pid := m.Property(unit, "MainPID")
	clients := m.Load(traffic)
	m.Served(clients, "1", 50)

	two := m.PutRelease(name, "2", build(t, name, "2"))
	m.Link("next", two)
	m.Run("systemctl", "reload", unit)
	m.Served(clients, "2", 100)
	m.Link("current", two)
	m.Link("next", m.PutRelease(name, "3", build(t, name, "bad")))
	m.Fails("systemctl", "reload", unit)
	m.Unlink(name, "next")
	// SIGUSR2 to the main PID is a graceful restart, and so is SIGHUP.
	for _, signal := range []string{"USR2", "HUP"} {
		before := onlyWorker(m, unit, pid, "")
		m.Signal(pid, signal)
		onlyWorker(m, unit, pid, before)
	}
	m.Served(clients, "2", 50)
	m.NothingLost(clients)
	if got := m.Property(unit, "MainPID"); got != pid {
		t.Errorf("MainPID: got %s, want %s as before", got, pid)
	}
}

// grace is a program with two servers, each on a socket of its own name. One under load
// is as one of the other, and a request that takes longer than the handover is
// answered by the old one.
func grace(t *testing.T, m *kit.Machine) {
	const unit, second = "live@grace.service", "127.0.0.1:8081"
	m.Write("/etc/systemd/system/live@grace.socket.d/name.conf", "[Socket]\nFileDescriptorName=a\n")
	m.Write("/etc/systemd/system/grace-b.socket", "[Socket]\nListenStream="+second+"\nFileDescriptorName=b\nService="+unit+"\n")
	m.Write("/etc/systemd/system/live@grace.service.d/b.conf", "[Unit]\nRequires=grace-b.socket\nAfter=grace-b.socket\n")
	m.Run("systemctl", "daemon-reload")
	m.Link("current", m.PutRelease("grace", "1", build(t, "grace", "1")))
	m.Run("systemctl", "start", "live@grace.socket", "grace-b.socket", unit)
	defer m.Run("systemctl", "stop", unit, "live@grace.socket", "grace-b.socket")
	pid := m.Property(unit, "MainPID")
	first := m.Load(traffic)
	other, slow := traffic, traffic
	other.Address = second
	slow.Address, slow.Path, slow.Rate, slow.Kept = second, "/sleep?for=1s", 20, 0
	others, sleepers := m.Load(other), m.Load(slow)
	m.Served(first, "1", 50)
	m.Served(others, "1", 50)
	m.Served(sleepers, "1", 5)

	m.Link("next", m.PutRelease("grace", "2", build(t, "grace", "2")))
	m.Run("systemctl", "reload", unit)
	m.Served(first, "2", 50)
	m.Served(others, "2", 50)
	m.Served(sleepers, "2", 5)
	m.Link("next", m.PutRelease("grace", "3", build(t, "grace", "bad")))
	m.Fails("systemctl", "reload", unit)
	m.Served(others, "2", 50)
	for _, clients := range []*load.Process{first, others, sleepers} {
		m.NothingLost(clients)
	}
	if got := m.Property(unit, "MainPID"); got != pid {
		t.Errorf("MainPID: got %s, want %s as before", got, pid)
	}
}

// onlyWorker waits until the unit has its main process and one worker, other than
// the one before, and gives that one's PID.
func onlyWorker(m *kit.Machine, unit, main, before string) (worker string) {
	m.Eventually("there is one worker, and another than before", func() bool {
		all := m.Processes(unit)
		delete(all, main)
		for worker = range all {
			return len(all) == 1 && worker != before
		}
		return false
	})
	return worker
}

// overseerAlone is overseer without upgraderd: a plain unit, whose sockets may be systemd's.
// The program fetches by itself.
func overseerAlone(t *testing.T, m *kit.Machine) {
	const unit = "app.service"
	m.Copy(build(t, "overseer", "1"), "/srv/app/app")
	m.Write("/etc/systemd/system/app.socket", "[Socket]\nListenStream="+address+"\n")
	m.Write("/etc/systemd/system/app.service", "[Service]\nType=notify\nExecStart=/srv/app/app\nFileDescriptorStoreMax=64\nExecReload=/bin/sh -c 'kill -USR2 $MAINPID'\nKillMode=mixed\n")
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "start", "app.socket", unit)
	defer m.Run("systemctl", "stop", unit, "app.socket")
	pid := m.Property(unit, "MainPID")
	clients := m.Load(traffic)
	m.Served(clients, "1", 50)

	offer := func(version string) {
		m.Copy(build(t, "overseer", version), "/srv/app/upload")
		m.Run("mv", "/srv/app/upload", "/srv/app/app.next")
	}
	offer("2")
	m.Served(clients, "2", 100)
	offer("bad")
	m.Eventually("the bad one is refused", func() bool { return strings.Contains(m.Journal(unit), "the old program serves") })
	m.Served(clients, "2", 50)
	before := onlyWorker(m, unit, pid, "")
	m.Run("systemctl", "reload", unit)
	onlyWorker(m, unit, pid, before)
	m.NothingLost(clients)
	if got := m.Property(unit, "MainPID"); got != pid {
		t.Errorf("MainPID: got %s, want %s as before", got, pid)
	}
}

// tableflipAlone is tableflip without upgraderd: what was a chain of processes behind a
// PIDFile= is one main process.
func tableflipAlone(t *testing.T, m *kit.Machine) {
	const unit = "flip.service"
	m.Copy(build(t, "tableflip", "1"), "/srv/flip/flip")
	m.Write("/etc/systemd/system/flip.service", "[Service]\nType=notify\nExecStart=/srv/flip/flip\nFileDescriptorStoreMax=64\nExecReload=/bin/sh -c 'kill -HUP $MAINPID'\n")
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "start", unit)
	defer m.Run("systemctl", "stop", unit)
	pid := m.Property(unit, "MainPID")
	clients := m.Load(traffic)
	m.Served(clients, "1", 50)
	worker := onlyWorker(m, unit, pid, "")
	for _, version := range []string{"2", "1"} {
		m.Copy(build(t, "tableflip", version), "/srv/flip/upload")
		m.Run("mv", "/srv/flip/upload", "/srv/flip/flip")
		m.Run("systemctl", "reload", unit)
		m.Served(clients, version, 50)
		worker = onlyWorker(m, unit, pid, worker)
	}
	m.NothingLost(clients)
	if got := m.Property(unit, "MainPID"); got != pid {
		t.Errorf("MainPID: got %s, want %s as before", got, pid)
	}
}
