//go:build integration

// Package own tests that upgraderd upgrades itself as it upgrades others: from a
// release that appears to one that proved itself, or back, whatever the release
// does, while other services are upgraded and nobody loses a request.
package own

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	daemon   = "upgraderd.service"
	service  = "live@hello.service"
	address  = "127.0.0.1:8080"
	ownStore = "/var/lib/upgraderd/upgraderd"
)

var traffic = load.Options{Address: address, Rate: 300, Kept: 4}

// host is a machine whose upgraderd upgrades itself, and a service.
type host struct {
	*kit.Machine
	t        *testing.T
	own, app *kit.Source
}

func target(name, unit, dir string, key, more string) string {
	return fmt.Sprintf("[Upgrade]\nUnit=%s\n[Source]\nPath=%s\nMatchPattern=%s-@v\nKey=%s\nPollIntervalSec=1s\n[Confirm]\nWindowSec=2s\n%s", unit, dir, name, key, more)
}

// begin has everything happen soon, and the first release of the service serve.
func begin(t *testing.T, m *kit.Machine) *host {
	t.Helper()
	h := &host{Machine: m, t: t, own: m.DirSource("/srv/upgraderd"), app: m.DirSource("/srv/hello")}
	h.follow("")
	h.followApp("")
	m.Write("/etc/systemd/system/live@hello.socket.d/address.conf", "[Socket]\nListenStream="+address+"\n")
	m.Write("/etc/systemd/system/upgraderd.service.d/soon.conf", "[Service]\nRestartSec=200ms\nTimeoutStartSec=4s\nWatchdogSec=4s\n")
	m.Write("/etc/systemd/system/upgraderd-guard@.timer.d/soon.conf", "[Timer]\nOnActiveSec=\nOnActiveSec=1s\nOnUnitInactiveSec=1s\nAccuracySec=100ms\n")
	m.Write("/etc/systemd/system/upgraderd-guard@.service.d/soon.conf", "[Service]\nExecStart=\nExecStart=/usr/bin/upgraderd guard --patience=1s %I\n")
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "enable", "--now", "live@hello.socket", service, daemon)
	h.app.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
	h.settles("hello", "1.0.0", "good")
	return h
}

// follow writes the target of upgraderd itself.
func (h *host) follow(more string) {
	h.t.Helper()
	h.Write("/etc/upgraderd/upgraderd.upgrade", strings.Replace(target("upgraderd", daemon, "/srv/upgraderd", h.own.Key, more), "[Source]", "Check=bin/upgraderd version\n[Source]", 1))
}

func (h *host) followApp(more string) {
	h.t.Helper()
	h.Write("/etc/upgraderd/hello.upgrade", target("hello", service, "/srv/hello", h.app.Key, "Probe=http://"+address+"/healthz\nProbeIntervalSec=100ms\n"+more))
}

// upgraderd is this very program, but for its digest.
func (h *host) upgraderd(version string) string {
	h.t.Helper()
	return kit.Build(h.t, "./cmd/upgraderd", "-buildid="+version)
}

func (h *host) publish(version, program string) {
	h.t.Helper()
	h.own.Publish("upgraderd-"+version, program)
}

// eventually waits for what may take several starts of the daemon, each with its
// limits, on a machine that is busy.
func (h *host) eventually(what string, done func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("still not: %s\n%s", what, h.Run("upgraderd", "status"))
		}
	}
}

// status is what `upgraderd status --json` says.
func (h *host) status(name string) map[string]any {
	h.t.Helper()
	var all []map[string]any
	text := h.Run("upgraderd", "status", "--json", name)
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 {
		h.t.Fatalf("status: %v: %s", err, text)
	}
	return all[0]
}

// settles waits until the last attempt of a target was about this version and
// ended so.
func (h *host) settles(name, version, verdict string) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%s %s is %s", name, version, verdict), func() bool {
		st := h.status(name)
		last, _ := st["last"].(map[string]any)
		return st["state"] == "idle" && last["to"] == version && last["verdict"] == verdict
	})
}

// runs is the program that the daemon is, by its main process.
func (h *host) runs() string {
	h.t.Helper()
	out, err := h.Machine.Machine.Run(h.t.Context(), "readlink", "/proc/"+h.Property(daemon, "MainPID")+"/exe")
	if err != nil {
		return "" // between two starts
	}
	return strings.TrimSpace(out)
}

// becomes waits until the daemon is up and is of this release.
func (h *host) becomes(version string) {
	h.t.Helper()
	h.eventually("the daemon is "+version, func() bool {
		return h.Property(daemon, "ActiveState") == "active" && strings.HasPrefix(h.runs(), ownStore+"/releases/"+version+"-")
	})
}

// link is the version that a link of upgraderd's own store names, "" if none.
func (h *host) link(which string) string {
	h.t.Helper()
	out, err := h.Machine.Machine.Run(h.t.Context(), "readlink", ownStore+"/"+which)
	if err != nil {
		return ""
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(out), "releases/"), "-")
	return version
}

// atRest checks what holds when nothing is under way.
func (h *host) atRest(version string) {
	h.t.Helper()
	h.becomes(version)
	if got := h.link("current"); got != version {
		h.t.Errorf("current is %q, want %s", got, version)
	}
	for _, which := range []string{"next", "tried"} {
		if got := h.link(which); got != "" {
			h.t.Errorf("%s is left, at %s", which, got)
		}
	}
	h.eventually("the guard is off", func() bool { return h.Property("upgraderd-guard@upgraderd.timer", "ActiveState") == "inactive" })
}

// knownBad tells whether a version of upgraderd is.
func (h *host) knownBad(version string) bool {
	h.t.Helper()
	return strings.Contains(fmt.Sprint(h.status("upgraderd")["known_bad"]), "version:"+version)
}

// The first release takes over from the installed program, the second from the
// first, while a service is upgraded, too. Nothing else runs from the store: the
// supervisors stay what they were.
func TestGood(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		h := begin(t, m)
		if got := h.runs(); got != "/usr/bin/upgraderd" {
			t.Fatalf("the daemon is %s, want the installed program", got)
		}
		if said := m.Run("upgraderd", "verify", "upgraderd"); said != "" {
			t.Errorf("verify: %s", said)
		}
		clients := m.Load(traffic)
		supervisor := m.Property(service, "MainPID")
		for i, version := range []string{"1.0.0", "2.0.0"} {
			next := fmt.Sprintf("%d.0.0", i+2)
			h.app.Publish("hello-"+next, kit.Hello(t, next, ""))
			h.publish(version, h.upgraderd(version))
			h.settles("upgraderd", version, "good")
			h.settles("hello", next, "good")
			m.Served(clients, next, 50)
			h.atRest(version)
		}
		m.NothingLost(clients)
		if got := m.Property(service, "MainPID"); got != supervisor {
			t.Errorf("MainPID of %s: got %s, want %s as before", service, got, supervisor)
		}
		if got := m.Run("readlink", "/proc/"+supervisor+"/exe"); got != "/usr/bin/upgraderd" {
			t.Errorf("the supervisor is %s, want the installed program", got)
		}
		if got := m.Run("stat", "-c", "%U", "/proc/"+m.Property(daemon, "MainPID")); got != "upgraderd" {
			t.Errorf("the release runs as %s, want upgraderd", got)
		}
		text := m.Journal(daemon)
		for _, want := range []string{"moving upgraderd.service from the installed program to 1.0.0 by restart", "moving upgraderd.service from 1.0.0 to 2.0.0 by restart"} {
			if n := strings.Count(text, want); n != 1 {
				t.Errorf("the journal says %d times %q, want once", n, want)
			}
		}
		if strings.Contains(text, "unfinished") {
			t.Errorf("the restart is told as if it had been an interruption:\n%s", text)
		}
	})
}

// Whatever a release of upgraderd does wrong, the one before it comes back and
// goes on with the other targets; it is known bad, and not tried again.
func TestBad(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		h := begin(t, m)
		clients := m.Load(traffic)
		bad := func(version, fault string) {
			t.Helper()
			h.publish(version, kit.Build(t, "./test/integration/own/impostor", "'-X=main.fault="+fault+"'"))
			h.settles("upgraderd", version, "rolled-back")
			if !h.knownBad(version) {
				t.Errorf("%s, which %s, is not known bad", version, fault)
			}
		}
		bad("0.1.0", "exits") // and nothing but the installed program is before it
		if got := h.runs(); got != "/usr/bin/upgraderd" {
			t.Errorf("the daemon is %s, want the installed program", got)
		}
		h.publish("1.0.0", h.upgraderd("1.0.0"))
		h.settles("upgraderd", "1.0.0", "good")
		for i, fault := range []string{"never ready", "crashes", "hangs", "idles"} { // "exits" is known bad
			bad(fmt.Sprintf("1.%d.0", i+1), fault)
			h.atRest("1.0.0")
			next := fmt.Sprintf("1.%d.0", i+1)
			h.app.Publish("hello-"+next, kit.Hello(t, next, ""))
			h.settles("hello", next, "good")
		}
		h.publish("2.0.0", h.upgraderd("2.0.0"))
		h.settles("upgraderd", "2.0.0", "good")
		h.atRest("2.0.0")
		m.NothingLost(clients)
	})
}

// The daemon is killed at one moment after the other of its own upgrade. It comes
// to a verdict each time, and the service is upgraded all the same. Killed before
// the restart, the release is tried all the same; killed on trial, it is bad.
func TestKilled(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		h := begin(t, m)
		h.publish("1.0.0", h.upgraderd("1.0.0"))
		h.settles("upgraderd", "1.0.0", "good")
		clients := m.Load(traffic)
		good := "1.0.0"
		for i, moment := range []string{"staged", "moving upgraderd.service", "Stopping upgraderd.service", "Starting upgraderd.service", "upgraderd started", "serves after", "is good after"} {
			version := fmt.Sprintf("1.%d.0", i+1)
			since := m.Run("date", "+%s")
			h.publish(version, h.upgraderd(version))
			h.eventually(moment, func() bool {
				_, text, _ := strings.Cut(m.Run("journalctl", "--since=@"+since, "--output=cat"), "found "+version)
				return strings.Contains(text, moment)
			})
			m.Run("systemctl", "kill", "--signal=KILL", daemon)
			var verdict any
			h.eventually(version+" has a verdict", func() bool {
				last, _ := h.status("upgraderd")["last"].(map[string]any)
				verdict = last["verdict"]
				return last["to"] == version && h.status("upgraderd")["state"] == "idle"
			})
			if verdict == "good" {
				good = version
			} else if verdict != "rolled-back" || !h.knownBad(version) {
				t.Errorf("killed at %q: the verdict is %v, want good or rolled back", moment, verdict)
			}
			h.atRest(good)
		}
		h.app.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		h.settles("hello", "2.0.0", "good")
		m.NothingLost(clients)
	})
}

// The host goes down while a release of upgraderd is on trial, and comes up with
// the one that proved itself.
func TestReboot(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		h := begin(t, m)
		h.publish("1.0.0", h.upgraderd("1.0.0"))
		h.settles("upgraderd", "1.0.0", "good")
		h.follow("[Confirm]\nWindowSec=10min\n")
		m.Run("systemctl", "reload", daemon)
		h.publish("2.0.0", h.upgraderd("2.0.0"))
		h.becomes("2.0.0")
		h.eventually("2.0.0 is on trial", func() bool { return h.status("upgraderd")["state"] == "confirming" })
		if got := h.link("current"); got != "1.0.0" {
			t.Errorf("current is %s on trial, want 1.0.0", got)
		}
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := m.PowerOn(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.becomes("1.0.0")
		h.settles("upgraderd", "2.0.0", "inconclusive")
		if h.knownBad("2.0.0") {
			t.Error("2.0.0 is known bad, and nobody saw it break")
		}
		h.becomes("2.0.0") // it is tried again, in a while
	})
}

// A store that is damaged is no reason to have no daemon, and what is in it does
// not run where root has no target for it.
func TestInstalledProgram(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		h := begin(t, m)
		h.publish("1.0.0", h.upgraderd("1.0.0"))
		h.settles("upgraderd", "1.0.0", "good")
		clients := m.Load(traffic)
		installed := func(why string) {
			t.Helper()
			m.Run("systemctl", "restart", daemon)
			if got := h.runs(); got != "/usr/bin/upgraderd" {
				t.Errorf("%s: the daemon is %s, want the installed program", why, got)
			}
		}
		m.Run("mv", "/etc/upgraderd/upgraderd.upgrade", "/root/")
		installed("without a target")
		m.Run("mv", "/root/upgraderd.upgrade", "/etc/upgraderd/")
		m.Run("systemctl", "restart", daemon)
		h.becomes("1.0.0")
		m.Run("sh", "-c", "echo '[Upgrade' >> /etc/upgraderd/upgraderd.upgrade") // while it is being edited
		m.Run("systemctl", "restart", daemon)
		h.becomes("1.0.0")
		h.follow("")

		// Else what is damaged would be fetched again before anybody starts it.
		m.Run("mv", "/srv/upgraderd", "/srv/away")
		program := ownStore + "/current/bin/upgraderd"
		rewrite := func(how string) string { // nobody can write to a program that runs
			return "cp " + program + " /root/damaged && " + how + " /root/damaged && mv /root/damaged " + program
		}
		for _, damage := range [][]string{
			{"its bytes", rewrite("printf rot | dd conv=notrunc bs=1 seek=4096 of=/root/damaged && chmod 555")},
			{"its end", rewrite("truncate --size=1M")},
			{"its program", "rm " + program},
			{"the link", "ln -sfn /usr " + ownStore + "/current"},
			{"all of it", "rm -r " + ownStore},
		} {
			m.Run("sh", "-c", damage[1]+" 2>&1")
			installed(damage[0])
		}
		if text := m.Journal(daemon); strings.Count(text, "does not start, going on with what there was before") != 4 {
			t.Errorf("the journal does not tell of each damage:\n%s", text)
		}
		m.Run("mv", "/srv/away", "/srv/upgraderd")
		h.settles("upgraderd", "1.0.0", "good") // fetched anew
		h.atRest("1.0.0")
		m.NothingLost(clients)
	})
}

// The installed program is replaced by hand while a release of a service is on
// trial, and the daemon restarted: the trial goes on, and nobody notices.
func TestInstalledProgramReplaced(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		h := begin(t, m)
		m.Run("rm", "/etc/upgraderd/upgraderd.upgrade")
		h.followApp("WindowSec=10min\n")
		m.Run("systemctl", "reload", daemon)
		clients := m.Load(traffic)
		pid := m.Property(service, "MainPID")
		h.app.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		h.eventually("2.0.0 is on trial", func() bool { return h.status("hello")["state"] == "confirming" })
		m.Copy(h.upgraderd("new"), "/usr/bin/.upgraderd.new")
		m.Run("mv", "/usr/bin/.upgraderd.new", "/usr/bin/upgraderd")
		h.followApp("") // which the daemon that comes reads
		m.Run("systemctl", "restart", daemon)
		h.settles("hello", "2.0.0", "good")
		want := m.Run("stat", "--format=%i", "/usr/bin/upgraderd")
		h.eventually("daemon and supervisor are the new program", func() bool {
			return m.Executable(pid) == want &&
				m.Executable(m.Property(daemon, "MainPID")) == want
		})
		if got := m.Property(service, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		if text := m.Journal(daemon); !strings.Contains(text, "found the swap to 2.0.0 unfinished: it serves, the watch begins anew") {
			t.Errorf("the trial was not resumed:\n%s", text)
		}
		m.Served(clients, "2.0.0", 50)
		m.NothingLost(clients)
	})
}
