//go:build integration

// Package user tests upgraderd for the services of a user: the same whole way as in
// package upgrade, under a real systemd --user, by somebody who has no right of root's.
package user

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	home    = "/home/ann"
	runtime = "/run/user/1000"
	unit    = "live@hello.service"
)

// ann is a user of a machine whose own manager runs.
type ann struct {
	*kit.Machine
	t *testing.T
}

func newAnn(t *testing.T, m *kit.Machine) ann {
	t.Helper()
	m.Run("useradd", "--create-home", "--shell", "/bin/sh", "--uid", "1000", "ann")
	// As a unit: logind asks in which session, and so in which control group, it is
	// asked, and what enters the machine from outside is in none.
	m.Run("systemd-run", "--wait", "--quiet", "loginctl", "enable-linger", "ann")
	a := ann{m, t}
	a.await()
	m.Copy(kit.Build(t, "./cmd/upgraderd"), home+"/upgraderd")
	return a
}

// await waits until the user's manager has started.
func (a ann) await() {
	a.Eventually("the user's manager runs", func() bool {
		_, err := a.Machine.Machine.Run(a.t.Context(), a.shell("test -S $XDG_RUNTIME_DIR/bus && systemctl --user is-system-running --wait")...)
		return err == nil
	})
}

// shell is a command line of the user's, in their home.
func (a ann) shell(line string) []string {
	return []string{"setpriv", "--reuid=ann", "--regid=ann", "--init-groups", "--reset-env", "--",
		"env", "XDG_RUNTIME_DIR=" + runtime, "PATH=" + home + "/.local/bin:/usr/bin:/bin", "sh", "-ec", "cd; umask 022; " + line}
}

func (a ann) run(line string) string { a.t.Helper(); return a.Run(a.shell(line)...) }

func (a ann) fails(line string) string { a.t.Helper(); return a.Fails(a.shell(line)...) }

// publish is what the document says, of a release of this version and fault.
func (a ann) publish(version, fault string) {
	a.t.Helper()
	a.Copy(kit.Hello(a.t, version, fault), home+"/hello")
	a.run("upgraderd publish ~/releases ./hello --version=" + version + " --key=hello.key")
}

func (a ann) property(unit, name string) string {
	a.t.Helper()
	return a.run("systemctl --user show --value --property=" + name + " " + unit)
}

// answered tells whether this version answers. Its socket starts the service.
func (a ann) answered(version string) bool {
	a.t.Helper()
	got := a.run(`python3 -c '
import socket
s = socket.create_connection(("127.0.0.1", 8080), 20)
s.sendall(b"GET / HTTP/1.0\r\n\r\n")
print(s.recv(4096).decode())
' || true`)
	return strings.Contains(got, load.VersionHeader+": "+version+"\r\n")
}

type status struct {
	State   string `json:"state"`
	Current string `json:"current"`
	Last    *struct{ To, Verdict, Reason string }
	Bad     []struct{ Version string } `json:"known_bad"`
}

func (a ann) status() (s status) {
	a.t.Helper()
	var all []status
	text := a.run("upgraderd --user status --json hello")
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 {
		a.t.Fatalf("status: %v: %s", err, text)
	}
	return all[0]
}

func (a ann) confirmed(version string) {
	a.t.Helper()
	a.Eventually(version+" is confirmed", func() bool {
		s := a.status()
		return s.State == "idle" && strings.HasPrefix(s.Current, version+"-")
	})
}

func (a ann) knownBad(version string) {
	a.t.Helper()
	a.Eventually(version+" is known bad", func() bool {
		s := a.status()
		for _, bad := range s.Bad {
			if bad.Version == version && s.State == "idle" {
				return true
			}
		}
		return false
	})
}

// onTrial waits until a release is watched, and then takes the daemon away.
func (a ann) onTrial(version string) {
	a.t.Helper()
	a.Eventually(version+" is on trial", func() bool {
		s := a.status()
		return s.State == "confirming" && strings.HasPrefix(s.Current, version+"-")
	})
	a.run("systemctl --user stop upgraderd.service")
}

// blocks are the commands of docs/user-units.md.
func blocks(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "user-units.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	open := false
	for line := range strings.Lines(string(text)) {
		code, ok := strings.CutPrefix(line, "    ")
		switch {
		case ok && open:
			all[len(all)-1] += code
		case ok:
			all = append(all, code)
		}
		open = ok
	}
	if len(all) != 4 {
		t.Fatalf("got %d blocks of commands, want 4", len(all))
	}
	return all
}

// TestStory is docs/user-units.md, word by word, and then what goes wrong: under one
// load a release that crashes and one that turns bad; and then one each that is on
// trial when the daemon, the service and the user's whole manager end.
func TestStory(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		a := newAnn(t, m)
		before := outside(m)
		a.Copy(kit.Hello(t, "1.0", ""), home+"/hello")
		do := blocks(t)
		for _, block := range do {
			t.Log(a.run(block))
		}
		clients := m.Load(load.Options{Address: "127.0.0.1:8080", Rate: 200, Kept: 4})
		m.Served(clients, "1.0", 100)
		a.confirmed("1.0")
		pid := a.property(unit, "MainPID")

		// From here on each release is checked in the sandbox, which can do nothing.
		a.run(`cat >> ~/.config/upgraderd/hello.upgrade <<END
[Upgrade]
Check=sh -c "test -x bin/hello && ! touch \$HOME/touched && ! test -w /run/user/1000/bus && ! ls /run/user/1000/systemd && touch /tmp/mine"
END
systemctl --user reload upgraderd`)
		told := a.monitor()
		a.publish("2.0", "")
		m.Served(clients, "2.0", 100)
		a.confirmed("2.0")
		told()
		a.publish("3.0", "crash")
		a.knownBad("3.0")
		a.publish("3.1", "sicken:500ms")
		a.knownBad("3.1")
		m.Served(clients, "2.0", 100)
		r := m.NothingLost(clients)
		if r.Versions["3.0"] != 0 || r.Versions["3.1"] == 0 {
			t.Errorf("got answers by %v, want none of 3.0 and some of 3.1", r.Versions)
		}
		if got := a.property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		if got := a.property("upgraderd-check@hello.service", "ExecMainStatus"); got != "0" {
			t.Errorf("the check ended with %s", got)
		}

		a.run("upgraderd --user rollback hello")
		a.confirmed("1.0")
		a.run("upgraderd --user upgrade hello 2.0")
		a.confirmed("2.0")

		a.run("sed -i s/WindowSec=2s/WindowSec=1h/ ~/.config/upgraderd/hello.upgrade && systemctl --user reload upgraderd")
		guarded(t, a)

		written(t, a)
		adopted(t, a)
		if text := a.run("upgraderd --user history hello"); strings.Count(text, "\n") < 6 {
			t.Errorf("history: %s", text)
		}
		t.Log(a.run("upgraderd --user history hello && upgraderd --user show hello && upgraderd --user plan hello"))
		t.Log(a.run("journalctl --user --no-pager --quiet -u upgraderd -u 'upgraderd-*' | tail -n 60"))
		if after := outside(m); after != before {
			t.Errorf("outside of home and runtime directory: got %q, want %q as before", after, before)
		}
		if out := m.Run("ls", "-A", "/var/lib/upgraderd", "/etc/upgraderd"); strings.Contains(out, "hello") {
			t.Errorf("the system's upgraderd has it, too: %s", out)
		}
		mistakes(t, a)
	})
}

// monitor follows what the user's daemon tells on the user's bus, until it is asked
// whether that was the way from 1.0 to 2.0.
func (a ann) monitor() (told func()) {
	a.t.Helper()
	p, err := a.Start(a.t.Context(), a.shell("exec upgraderd --user monitor hello >~/told")...)
	if err != nil {
		a.t.Fatal(err)
	}
	a.Eventually("monitor has begun", func() bool { return strings.Contains(a.run("cat ~/told || true"), "hello: idle") })
	return func() {
		a.t.Helper()
		a.Eventually("monitor tells of 2.0", func() bool { return strings.Contains(a.run("cat ~/told"), "hello: 1.0 → 2.0 good") })
		if err := p.Signal(2); err != nil {
			a.t.Fatal(err)
		}
		if out, err := p.Wait(); err != nil {
			a.t.Errorf("monitor, interrupted: %v: %s", err, out)
		}
		if text := a.run("rm ~/told; busctl --user tree --list io.github.upgraderd.upgraderd1"); !strings.Contains(text, "/target/hello") {
			a.t.Errorf("busctl tree: %s", text)
		}
		// Nobody else's bus, and no polkit: what is the user's they may do.
		const target = "io.github.upgraderd.upgraderd1 /io/github/upgraderd/upgraderd1/target/hello io.github.upgraderd.upgraderd1.Target "
		a.run("busctl --user call " + target + "Verify")
		a.run("busctl --user call " + target + "Skip ss 9.9 why")
		if text := a.run("upgraderd --user status hello; upgraderd --user skip hello --none"); !strings.Contains(text, "9.9 skipped by ann because why") {
			a.t.Errorf("status: %s", text)
		}
		if text := a.fails("DBUS_SYSTEM_BUS_ADDRESS= busctl --system call " + target + "Verify 2>&1"); text == "" {
			a.t.Error("it is on the system's bus, too")
		}
	}
}

// written has the user edit and see what is theirs.
func written(t *testing.T, a ann) {
	t.Helper()
	a.run(`printf '[Source]\nPollIntervalSec=2h\n' | upgraderd --user edit hello --drop-in=often --stdin`)
	if text := a.run("upgraderd --user cat hello"); !strings.Contains(text, "# "+home+"/.config/upgraderd/hello.upgrade.d/often.conf\n[Source]\nPollIntervalSec=2h") {
		t.Errorf("cat: %s", text)
	}
	a.run(`EDITOR='sed -i s/2h/3h/' upgraderd --user edit hello --drop-in=often`)
	if text := a.run("upgraderd --user cat hello"); !strings.Contains(text, "=3h") {
		t.Errorf("cat: %s", text)
	}
	if text := a.fails("EDITOR='sed -i s/3h/soon/' upgraderd --user edit hello --drop-in=often </dev/null 2>&1"); !strings.Contains(text, "nothing was changed") {
		t.Errorf("edit: %s", text)
	}
	a.run("EDITOR='sed -i /Source/d;/Poll/d' upgraderd --user edit hello --drop-in=often")
	a.run("! test -e ~/.config/upgraderd/hello.upgrade.d")
}

// adopted has a service of the user's own made upgradable, upgraded, and put back.
func adopted(t *testing.T, a ann) {
	t.Helper()
	const unit = "exporter.service"
	a.run("upgraderd --user hold hello; systemctl --user start upgraderd.service")
	a.run(`cat >~/.config/systemd/user/exporter.service <<END
[Service]
ExecStart=/usr/bin/prometheus-node-exporter --web.listen-address=127.0.0.1:9100
END
systemctl --user daemon-reload
systemctl --user start exporter`)
	listens := func() {
		a.Eventually("the exporter listens", func() bool { return strings.Contains(a.run("ss -Htln"), "127.0.0.1:9100 ") })
	}
	listens()
	files := func() string { return a.run("find ~/.config ~/.local -type f -newer ~/hello.key | sort") }
	before := files()
	said := a.run("upgraderd --user adopt exporter --dry-run -- --web.systemd-socket")
	for _, want := range []string{
		"+++ " + home + "/.config/systemd/user/exporter.socket", "+++ " + home + "/.config/upgraderd/exporter.upgrade", "ListenStream=127.0.0.1:9100",
		"--root=" + home + "/.local/state/upgraderd/exporter", "upgraderd --user adopt --undo exporter.service",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("adopt --dry-run does not say %q: %s", want, said)
		}
	}
	if after := files(); after != before {
		t.Errorf("--dry-run wrote: %s", after)
	}
	said = a.run("upgraderd --user adopt exporter --yes --now --key=$HOME/.config/upgraderd/hello.pub -- --web.systemd-socket")
	if !strings.Contains(said, "upgraderd --user plan exporter") {
		t.Errorf("adopt: %s", said)
	}
	pid := a.property(unit, "MainPID")
	a.run(`printf '[Confirm]\nWindowSec=1s\n' | upgraderd --user edit exporter --drop-in=window --stdin
cp /usr/bin/prometheus-node-exporter exporter && chmod u+w exporter && printf 1 >>exporter
mkdir releases/exporter
upgraderd publish ~/releases/exporter ./exporter --version=1.0 --key=hello.key`)
	a.Eventually("1.0 is good", func() bool {
		return strings.Contains(a.run("upgraderd --user history exporter 2>/dev/null || true"), " good ")
	})
	if status := a.property(unit, "StatusText"); !strings.HasPrefix(status, "Serving 1.0-") || a.property(unit, "MainPID") != pid {
		t.Errorf("after the upgrade: %q, main PID %s, was %s", status, a.property(unit, "MainPID"), pid)
	}
	a.run("rm -r ~/.config/upgraderd/exporter.upgrade.d; upgraderd --user adopt exporter --undo --yes --now")
	listens()
	if after := files(); after != before {
		t.Errorf("after --undo: got %s, want %s", after, before)
	}
	a.run("systemctl --user stop exporter; rm ~/.config/systemd/user/exporter.service; systemctl --user daemon-reload")
}

// guarded has a release on trial when nobody is there to watch it: the guard undoes
// it, a failure of the service does, and so does the start of the user's manager.
func guarded(t *testing.T, a ann) {
	t.Helper()
	back := func(what string) {
		t.Helper()
		a.Eventually(what+" brings 2.0 back", func() bool {
			return strings.HasPrefix(a.status().Current, "2.0-") && a.answered("2.0")
		})
	}
	a.publish("4.0", "")
	a.onTrial("4.0")
	if got := a.property("upgraderd-guard@hello.timer", "ActiveState"); got != "active" {
		t.Errorf("the guard's timer is %s, want active", got)
	}
	a.run("systemctl --user start upgraderd-guard@hello.service") // as the timer does in a while
	back("the guard")

	// Nobody saw 4.0 break, so that it comes again. systemd 252 knows no failure of a
	// unit that it starts anew.
	a.run(`mkdir -p .config/systemd/user/live@hello.service.d
printf '[Service]\nRestart=no\n' > .config/systemd/user/live@hello.service.d/give-up.conf
systemctl --user daemon-reload
systemctl --user start upgraderd.service`)
	a.onTrial("4.0")
	a.run("systemctl --user stop upgraderd-guard@hello.timer") // OnFailure= alone is to undo it
	a.run("systemctl --user kill --signal=KILL " + unit)
	a.Eventually("OnFailure= has started", func() bool {
		return a.property("upgraderd-failed@hello.service", "InvocationID") != ""
	})
	back("OnFailure=")

	a.publish("5.0", "")
	a.run("systemctl --user start upgraderd.service")
	a.onTrial("5.0")
	a.run("rm .config/systemd/user/default.target.wants/upgraderd.service") // or 5.0 comes again
	a.Run("systemctl", "restart", "user@1000.service")
	a.await()
	back("the start of the manager")
	if got := a.property("upgraderd-boot.service", "ActiveState"); got != "active" {
		t.Errorf("upgraderd-boot.service is %s, want active", got)
	}
}

// outside is what the user owns elsewhere than where it may be.
func outside(m *kit.Machine) string {
	return m.Run("sh", "-c", "find / /run /tmp /dev/shm -xdev \\( -path "+home+" -o -path "+runtime+" -o -path /proc \\) -prune -o -user ann -print | sort -u")
}

// mistakes are told in one line each, with what to do.
func mistakes(t *testing.T, a ann) {
	t.Helper()
	for _, c := range []struct{ line, want string }{
		{"upgraderd --user status nothing", "there is no such file"},
		{"upgraderd --user --system status", "exclude each other"},
		{"upgraderd --user --root=/ --root=/mnt status", "--user and --root= do not go together"},
		{"upgraderd --user keygen x", "keygen has no --user"},
		{"XDG_RUNTIME_DIR=/run upgraderd --user status", "runtime directory of user 0"},
		{"HOME= upgraderd --user status", "HOME is not set"},
		{"systemctl --user stop upgraderd; upgraderd --user upgrade hello", "systemctl --user start upgraderd.service"},
		{"DBUS_SESSION_BUS_ADDRESS=unix:path=/none upgraderd --user upgrade hello", "loginctl enable-linger"},
		{"upgraderd --user monitor", "systemctl --user start upgraderd.service"},
		{"DBUS_SESSION_BUS_ADDRESS=unix:path=/none upgraderd --user monitor", "loginctl enable-linger"},
		{"upgraderd --user edit nobody --stdin", home + "/.config/upgraderd/nobody.upgrade"},
		{"chmod g+w .config/upgraderd/hello.upgrade; upgraderd --user verify hello", "chmod go-w " + home + "/.config/upgraderd/hello.upgrade"},
	} {
		if got := a.fails(c.line + " 2>&1"); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.line, got, c.want)
		}
	}
}
