//go:build integration

// Package adopt takes services of Debian as they are, has upgraderd adopt them,
// upgrades them, and looks that nothing is left once that is undone.
package adopt

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

func TestMain(m *testing.M) { kit.Main(m) }

// One machine for all: what is left of one service would be in the way of the next.
func TestAdopt(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		for _, c := range []struct {
			name string
			f    func(*testing.T, *kit.Machine)
		}{{"lighttpd", walk}, {"node exporter", exporter}, {"tinyproxy", tinyproxy}, {"overseer", overseen}, {"proxy", proxied}, {"bad input", refusals}} {
			t.Run(c.name, func(t *testing.T) { c.f(t, m.In(t)) })
		}
	})
}

// files are all of /etc, each with its mode, owner and content.
func files(m *kit.Machine) string {
	return m.Run("sh", "-c", `cd /etc && { find . -mindepth 1 \( -type l -printf '%p -> %l\n' -o -printf '%p %y %m %u\n' \); find . -type f -exec sha256sum {} +; } | sort`)
}

func mainPID(m *kit.Machine, unit string) string { return m.Property(unit, "MainPID") }

// another makes a release of a program: the same with a byte more.
func another(m *kit.Machine, program, file, version string) {
	m.Run("sh", "-c", "cp "+program+" "+file+" && chmod u+w "+file+" && printf %s "+version+" >>"+file)
}

// listens waits until somebody does: of Type=simple the start says nothing of it.
func listens(m *kit.Machine, port string) {
	m.Eventually("somebody listens on "+port, func() bool { return strings.Contains(m.Run("ss", "-Htln"), port+" ") })
}

// good waits until a release of a target has proved itself.
func good(m *kit.Machine, target string) {
	m.Eventually("a release of "+target+" is good", func() bool {
		return strings.Contains(m.Run("sh", "-c", "upgraderd history "+target+" 2>/dev/null || true"), " good ")
	})
}

// blocks are the commands of a documentation page, a script for each block.
func blocks(t *testing.T, page, heading string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/%s has no section %q", page, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var all []string
	block := ""
	for line := range strings.Lines(section + "\nend\n") {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			block += command
		} else if block != "" {
			all = append(all, block)
			block = ""
		}
	}
	return all
}

// walk is docs/adopt.md, under load from the move on.
func walk(t *testing.T, m *kit.Machine) {
	const unit = "lighttpd.service"
	m.Write("/etc/lighttpd/conf-enabled/10-version.conf",
		"server.modules += (\"mod_setenv\")\nsetenv.add-response-header = (\""+load.VersionHeader+"\" => \"1\")\n")
	m.Write("/var/www/html/index.html", "hello\n")
	another(m, "/usr/sbin/lighttpd", "/root/lighttpd", "1.0")
	var (
		before, pid string
		clients     *load.Process
	)
	all := blocks(t, "adopt.md", "A walk")
	for _, block := range all {
		out := m.Run("sh", "-ec", "cd /root\n"+block)
		switch {
		case strings.Contains(block, "systemd-socket-activation"):
			listens(m, ":80")
			before, pid = files(m), mainPID(m, unit)
		case strings.Contains(block, "--dry-run"):
			for _, want := range []string{"handover", "+++ /etc/systemd/system/lighttpd.socket", "+ListenStream=0.0.0.0:80", "+++ /etc/upgraderd/lighttpd.upgrade"} {
				if !strings.Contains(out, want) {
					t.Errorf("the dry run does not say %q:\n%s", want, out)
				}
			}
			if got := files(m); got != before {
				t.Errorf("the dry run wrote files:\n%s", got)
			}
		case strings.Contains(block, "--yes --now") && !strings.Contains(block, "--undo"):
			if now := mainPID(m, unit); now == pid || now == "0" {
				t.Errorf("the main PID is %s, want another than %s", now, pid)
			}
			pid = mainPID(m, unit)
			clients = m.Load(load.Options{Address: "127.0.0.1:80", Rate: 100, Timeout: time.Minute})
			m.Served(clients, "1", 50)
			once := files(m)
			if again := m.Run("upgraderd", "adopt", unit, "--yes", "--now"); !strings.Contains(again, "adopted already") {
				t.Errorf("a second adopt says: %s", again)
			}
			if files(m) != once || mainPID(m, unit) != pid {
				t.Error("a second adopt changed something")
			}
		case strings.Contains(block, "upgraderd verify"):
			if strings.Contains(out, "UNIT_") || strings.Contains(out, "SOCKET_") {
				t.Errorf("verify finds fault with what adopt wrote:\n%s", out)
			}
			if !strings.Contains(out, "# /etc/upgraderd/lighttpd.upgrade.d/window.conf\n[Confirm]\nWindowSec=3s") {
				t.Errorf("cat does not show the drop-in:\n%s", out)
			}
		case strings.Contains(block, "upgraderd publish"):
			good(m, "lighttpd")
			if status := m.Property(unit, "StatusText"); !strings.HasPrefix(status, "Serving 1.0-") {
				t.Errorf("after the upgrade the unit says %q", status)
			}
		case strings.Contains(block, "upgraderd history"):
			if !strings.Contains(out, "0-installed → 1.0") {
				t.Errorf("the history does not begin with what was installed:\n%s", out)
			}
		case strings.Contains(block, "upgraderd rollback"):
			if status := m.Property(unit, "StatusText"); !strings.HasPrefix(status, "Serving 0-installed-") {
				t.Errorf("after the rollback the unit says %q", status)
			}
			if now := mainPID(m, unit); now != pid {
				t.Errorf("the main PID is %s, want %s", now, pid)
			}
			m.NothingLost(clients)
		}
	}
	if clients == nil {
		t.Fatalf("docs/adopt.md has no such commands: %q", all)
	}
	undone(t, m, unit, before)
	m.Run("sh", "-c", "systemctl stop lighttpd; rm /root/lighttpd*")
}

// undone looks that nothing is left of an adoption, and that the service runs.
func undone(t *testing.T, m *kit.Machine, unit, before string) {
	t.Helper()
	after := files(m)
	for line := range strings.Lines(after) {
		// The daemon was enabled, which is not for adopt to undo.
		if !strings.Contains(before, line) && !strings.Contains(line, "/upgraderd.service ->") && !strings.Contains(line, "/upgraderd-boot.service ->") && !strings.Contains(line, ".wants d ") {
			t.Errorf("left, or changed: %s", line)
		}
	}
	for line := range strings.Lines(before) {
		if !strings.Contains(after, line) {
			t.Errorf("gone: %s", line)
		}
	}
	name := strings.TrimSuffix(unit, ".service")
	m.Run("sh", "-c", "! test -e /var/lib/upgraderd/"+name)
	if got := m.Property(unit, "DropInPaths") + m.Property(name+".socket", "FragmentPath"); got != "" {
		t.Errorf("systemd still has %s", got)
	}
	m.Eventually(unit+" runs as before", func() bool {
		return m.Property(unit, "ActiveState") == "active" && !strings.Contains(m.Property(unit, "ExecStart"), "upgraderd")
	})
}

// exporter is in Go, has a user of its own, and takes sockets only if it is told
// to: adopted without that, it does not start, and is put back.
func exporter(t *testing.T, m *kit.Machine) {
	const (
		name = "prometheus-node-exporter"
		unit = name + ".service"
		pub  = "/srv/" + name
	)
	m.Run("systemctl", "start", unit)
	listens(m, ":9100")
	before := files(m)
	said := m.Fails("upgraderd", "adopt", unit, "--yes", "--now", "--unsigned")
	if !strings.Contains(said, "Everything was put back") {
		t.Errorf("it says: %s", said)
	}
	undone(t, m, unit, before)
	listens(m, ":9100") // again

	// Written first, and moved later.
	pid := mainPID(m, unit)
	m.Run("upgraderd", "adopt", unit, "--yes", "--unsigned", "--source="+pub, "--", "--web.systemd-socket")
	if now := mainPID(m, unit); now != pid {
		t.Errorf("adopt moved the service without being told: main PID %s, was %s", now, pid)
	}
	m.Run("upgraderd", "adopt", unit, "--now")
	pid = mainPID(m, unit)
	m.Write("/etc/upgraderd/"+name+".upgrade.d/w.conf", "[Confirm]\nWindowSec=1s\n")
	m.Run("systemctl", "reload-or-restart", "upgraderd")
	m.Run("mkdir", "-p", pub)
	another(m, "/usr/bin/"+name, pub+"/"+name+"_1.0", "1.0")
	m.Run("sh", "-c", "cd "+pub+" && sha256sum "+name+"_1.0 >SHA256SUMS")
	good(m, name)
	if status := m.Property(unit, "StatusText"); !strings.HasPrefix(status, "Serving 1.0-") || mainPID(m, unit) != pid {
		t.Errorf("after the upgrade: %q, main PID %s, was %s", status, mainPID(m, unit), pid)
	}
	if found := m.Run("sh", "-c", "upgraderd verify "+name+" || true"); strings.Contains(found, "UNIT_") || strings.Contains(found, "SOCKET_") {
		t.Errorf("verify finds: %s", found)
	}
	m.Run("rm", "-r", "/etc/upgraderd/"+name+".upgrade.d")
	m.Run("upgraderd", "adopt", unit, "--undo", "--yes", "--now")
	undone(t, m, unit, before)
	m.Run("systemctl", "stop", unit)
	m.Run("rm", "-r", pub)
}

// tinyproxy is in C and knows nothing of sockets that others hold: it is restarted,
// and adopt says so.
func tinyproxy(t *testing.T, m *kit.Machine) {
	const (
		name = "tinyproxy"
		unit = name + ".service"
		pub  = "/srv/" + name
	)
	m.Run("systemctl", "start", unit)
	listens(m, ":8888")
	before, pid := files(m), mainPID(m, unit)
	said := m.Run("upgraderd", "adopt", name, "--yes", "--unsigned", "--source="+pub)
	for _, want := range []string{"restart, since nothing in /usr/bin/tinyproxy says that it takes sockets", "[SOCKET_NONE]"} {
		if !strings.Contains(said, want) {
			t.Errorf("adopt does not say %q:\n%s", want, said)
		}
	}
	if strings.Contains(strings.ReplaceAll(said, "[SOCKET_NONE]", ""), "[UNIT_") {
		t.Errorf("findings are left:\n%s", said)
	}
	if now := mainPID(m, unit); now != pid {
		t.Errorf("the main PID is %s, want %s", now, pid)
	}
	m.Write("/etc/upgraderd/"+name+".upgrade.d/w.conf", "[Confirm]\nWindowSec=1s\n")
	m.Run("systemctl", "reload-or-restart", "upgraderd")
	m.Run("mkdir", "-p", pub)
	another(m, "/usr/bin/tinyproxy", pub+"/tinyproxy_1.0", "1.0")
	m.Run("sh", "-c", "cd "+pub+" && sha256sum tinyproxy_1.0 >SHA256SUMS")
	good(m, name)
	if exe := m.Run("readlink", "/proc/"+mainPID(m, unit)+"/exe"); !strings.HasPrefix(exe, "/var/lib/upgraderd/tinyproxy/releases/1.0-") {
		t.Errorf("after the upgrade it runs %s", exe)
	}
	// Undone while it runs: it says what is left to do, and that is enough.
	m.Run("rm", "-r", "/etc/upgraderd/"+name+".upgrade.d")
	said = m.Run("upgraderd", "adopt", name, "--undo", "--yes")
	_, left, ok := strings.Cut(said, "changes its main PID:\n")
	if !ok {
		t.Fatalf("it does not say what is left to do: %s", said)
	}
	m.Run("sh", "-ec", left)
	undone(t, m, unit, before)
	m.Run("systemctl", "stop", unit)
	m.Run("rm", "-r", pub)
}

// proxied is a service that is restarted, behind systemd-socket-proxyd: no client is
// refused meanwhile. One that does not listen where it is told to is put back.
func proxied(t *testing.T, m *kit.Machine) {
	const (
		name   = "prometheus-node-exporter"
		unit   = name + ".service"
		pub    = "/srv/proxied"
		behind = "127.0.0.1:19100"
	)
	m.Write("/etc/systemd/system.conf.d/t.conf", "[Manager]\nDefaultTimeoutStartSec=10s\n")
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "start", unit)
	listens(m, ":9100")
	before := files(m)
	adopt := func(at string) []string {
		return []string{"upgraderd", "adopt", unit, "--yes", "--now", "--unsigned", "--source=" + pub, "--proxy=" + behind, "--", "--web.listen-address=" + at}
	}
	if said := m.Fails(adopt("127.0.0.1:19101")...); !strings.Contains(said, "Everything was put back") {
		t.Errorf("it says: %s", said)
	}
	undone(t, m, unit, before)
	listens(m, ":9100")
	// It is told at the only address that it cannot have twice.
	if said := m.Fails(append(adopt(behind), "--web.listen-address=:9100")...); !strings.Contains(said, "Everything was put back") {
		t.Errorf("it says: %s", said)
	}
	undone(t, m, unit, before)
	listens(m, ":9100")

	said := m.Run(adopt(behind)...)
	if want := name + "-proxy.socket listens, and forwards to " + behind; !strings.Contains(said, want) {
		t.Errorf("adopt does not say %q:\n%s", want, said)
	}
	m.Write("/etc/upgraderd/"+name+".upgrade.d/w.conf", "[Confirm]\nWindowSec=1s\nProbe=http://"+behind+"/\n")
	m.Run("systemctl", "reload-or-restart", "upgraderd")
	clients := m.Load(load.Options{Address: "127.0.0.1:9100", Rate: 100})
	m.Served(clients, "", 50)
	pid := mainPID(m, unit)
	m.Run("mkdir", "-p", pub)
	another(m, "/usr/bin/"+name, pub+"/"+name+"_1.0", "1.0")
	m.Run("sh", "-c", "cd "+pub+" && sha256sum "+name+"_1.0 >SHA256SUMS")
	good(m, name)
	if now := mainPID(m, unit); now == pid {
		t.Errorf("the main PID is %s still: nothing was upgraded", now)
	}
	m.Served(clients, "", 50)
	r, err := clients.Stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("load: %v", r)
	// What was under way through the proxy is cut, and that is said.
	if others := r.Failures() - r.Failed[load.EOF] - r.Failed[load.Reset]; others != 0 {
		t.Errorf("clients were not only cut: %v\n%s", r, strings.Join(r.Errors, "\n"))
	}
	m.Run("rm", "-r", "/etc/upgraderd/"+name+".upgrade.d")
	m.Run("upgraderd", "adopt", unit, "--undo", "--yes", "--now")
	undone(t, m, unit, before)
	listens(m, ":9100")
	if left := m.Property(name+"-proxy.socket", "ActiveState") + " " + m.Property(name+"-proxy.service", "ActiveState"); left != "inactive inactive" {
		t.Errorf("the proxy's units are %s", left)
	}
	m.Run("systemctl", "stop", unit)
	m.Run("rm", "-r", pub, "/etc/systemd/system.conf.d")
	m.Run("systemctl", "daemon-reload")
}

// overseen is a program of activation/overseer that runs on its own. Where it fetches
// from is known without running it, and is where upgraderd fetches from then.
func overseen(t *testing.T, m *kit.Machine) {
	const (
		unit    = "overseen.service"
		address = "127.0.0.1:8080"
	)
	m.Copy(kit.Build(t, "./examples/porting/overseer", "-X main.version=1"), "/opt/overseen/overseen")
	m.Write("/etc/systemd/system/"+unit, "[Service]\nType=notify\nFileDescriptorStoreMax=64\nKillMode=mixed\nExecStart=/opt/overseen/overseen -fetch=/srv/fetched/app.next\n")
	m.Run("mkdir", "-p", "/srv/fetched")
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "start", unit)
	before := files(m)
	processes := fmt.Sprint(m.Processes(unit))
	said := m.Run("upgraderd", "adopt", "overseen", "--dry-run", "--unsigned")
	for _, want := range []string{"its fetcher follows the file /srv/fetched/app.next", "\n+Path=/srv/fetched\n", "\n+MatchPattern=overseen_@v\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("adopt does not say %q:\n%s", want, said)
		}
	}
	if now := fmt.Sprint(m.Processes(unit)); now != processes {
		t.Errorf("processes: got %s, want %s as before", now, processes)
	}
	m.Run("upgraderd", "adopt", "overseen", "--yes", "--unsigned", "--now")
	m.Write("/etc/upgraderd/overseen.upgrade.d/w.conf", "[Confirm]\nWindowSec=1s\n")
	m.Run("systemctl", "reload-or-restart", "upgraderd")
	pid := mainPID(m, unit)
	clients := m.Load(load.Options{Address: address, Rate: 200, Kept: 4})
	m.Served(clients, "1", 50)
	m.Copy(kit.Build(t, "./examples/porting/overseer", "-X main.version=2"), "/srv/fetched/overseen_2")
	m.Run("sh", "-c", "cd /srv/fetched && sha256sum overseen_2 >SHA256SUMS")
	m.Served(clients, "2", 100)
	good(m, "overseen")
	m.NothingLost(clients)
	if now := mainPID(m, unit); now != pid {
		t.Errorf("the main PID is %s, want %s", now, pid)
	}
	m.Run("rm", "-r", "/etc/upgraderd/overseen.upgrade.d")
	m.Run("upgraderd", "adopt", unit, "--undo", "--yes", "--now")
	undone(t, m, unit, before)
	m.Run("systemctl", "stop", unit)
	m.Run("rm", "-r", "/srv/fetched", "/opt/overseen", "/etc/systemd/system/"+unit)
	m.Run("systemctl", "daemon-reload")
}

// refusals are one clear error each, and leave nothing behind.
func refusals(t *testing.T, m *kit.Machine) {
	m.Write("/etc/systemd/system/once.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
	m.Write("/etc/systemd/system/each.socket", "[Socket]\nListenStream=7777\nAccept=yes\n")
	m.Write("/etc/systemd/system/each@.service", "[Service]\nExecStart=/bin/cat\n")
	m.Write("/etc/systemd/system/py.service", "[Service]\nExecStart=/usr/bin/python3 -m http.server\n")
	m.Write("/etc/upgraderd/other.upgrade", "[Upgrade]\nUnit=other.service\n[Source]\nPath=/srv/other\nMatchPattern=other_@v\nVerify=no\n")
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "start", "tinyproxy")
	before := files(m)
	for _, c := range []struct{ args, want string }{
		{"nosuch", "nosuch.service does not exist"},
		{"once", "oneshot"},
		{"each@", "is a template"},
		{"py", "runs no file that a release could replace"},
		{"upgraderd", "is a unit of upgraderd itself"},
		{"live@x", "runs under upgraderd supervise already"},
		{"a/b", "name a service"},
		{"tinyproxy --name=other", "/etc/upgraderd/other.upgrade exists already"},
		{"tinyproxy --source=ftp://x", "would not be in order"},
		{"tinyproxy --swap=none", "want auto, handover or restart"},
		{"tinyproxy --unsigned --key=k", "which of them is meant"},
		{"tinyproxy --program=/bin/true", "is no word of ExecStart="},
		{"tinyproxy --proxy=192.0.2.1:80 --now -- -x", "others could go round the proxy"},
		{"tinyproxy --proxy=127.0.0.1:18888 -- -x", "say --now"},
		{"tinyproxy --proxy=127.0.0.1:18888 --dry-run", "nothing tells it so"},
		{"tinyproxy --undo", "there is nothing to undo"},
		{"tinyproxy", "stdin is no terminal"},
	} {
		if got := m.Fails("sh", "-c", "upgraderd adopt "+c.args+" </dev/null"); !strings.Contains(strings.ToLower(got), strings.ToLower(c.want)) {
			t.Errorf("adopt %s says %s, want %q", c.args, got, c.want)
		}
	}
	for _, c := range []struct{ stdin, want string }{
		{"[Confirm]\nWindowSec=soon\n", "left as it was"},
		{"[Upgrade]\nUnti=x.service\n", "left as it was"},
	} {
		if got := m.Fails("sh", "-c", fmt.Sprintf("printf '%s' | upgraderd edit other --stdin", strings.ReplaceAll(c.stdin, "\n", `\n`))); !strings.Contains(got, c.want) {
			t.Errorf("edit says %s, want %q", got, c.want)
		}
	}
	// An editor that writes, and one that fails.
	m.Write("/root/editor", "#!/bin/sh\nsed -i '2i[Confirm]\\nWindowSec=7s' \"$1\"\n")
	m.Run("chmod", "+x", "/root/editor")
	if got := m.Fails("env", "EDITOR=/bin/false", "upgraderd", "edit", "other"); !strings.Contains(got, "Nothing was changed") {
		t.Errorf("with an editor that fails, edit says %s", got)
	}
	if got := files(m); got != before {
		t.Errorf("what was refused changed files:\n%s", got)
	}
	m.Run("env", "EDITOR=/root/editor", "upgraderd", "edit", "other")
	if got := m.Run("cat", "/etc/upgraderd/other.upgrade.d/override.conf"); got != "[Confirm]\nWindowSec=7s" {
		t.Errorf("the editor's text became %q", got)
	}
	m.Run("sh", "-c", "upgraderd edit other --stdin </dev/null")
	if got := files(m); got != before {
		t.Error("an empty drop-in was not removed, or its directory")
	}
}
