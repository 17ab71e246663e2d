//go:build integration

package packages

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

// What rpm leaves where a package is erased: what is an operator's, and who owned
// files. There is no purge.
var left = []string{
	"/etc/upgraderd", "/etc/upgraderd/hello.upgrade",
	"/etc/passwd (content)", "/etc/group (content)", "/etc/shadow (content)", "/etc/gshadow (content)",
	"/var/lib/upgraderd", "/var/lib/upgraderd/hello",
}

// rpmLife is that of the .rpm on one host: installed, upgraded and erased by rpm, with
// a database of its own, under load. What the package asks of other packages is the
// business of a distribution that has it, and not looked at here.
func rpmLife(t *testing.T, m *kit.Machine, b built) {
	rpm := putRPM(t, m)
	// Which the package filesystem has on hosts with rpm.
	m.Run("mkdir", "-p", "/usr/share/man/man1", "/usr/share/man/man5", "/usr/share/man/man7", "/usr/share/man/man8",
		"/usr/share/licenses", "/usr/share/fish/vendor_completions.d", "/usr/share/zsh/site-functions")
	before := listing(m)
	m.Copy(b.rpm, "/tmp/rpm/first.rpm")
	m.Copy(b.newerRPM, "/tmp/rpm/second.rpm")

	rpm("--install", "--nodeps", "/tmp/rpm/first.rpm")
	if got := rpm("--query", "upgraderd"); !strings.Contains(got, "upgraderd-"+version+"-1") {
		t.Errorf("installed: %q", got)
	}
	if said := rpm("--verify", "--nodeps", "upgraderd"); said != "" {
		t.Errorf("rpm --verify: %s", said)
	}
	if got := m.Property("upgraderd.service", "ActiveState"); got != "inactive" {
		t.Errorf("the daemon is %s after the install; that is for the operator", got)
	}
	m.Write("/etc/upgraderd/hello.upgrade", "[Upgrade]\nUnit="+unit+"\n[Source]\nPath=/srv\nMatchPattern=hello_@v\nVerify=no\n")
	m.Write("/etc/systemd/system/live@hello.socket.d/address.conf", "[Socket]\nListenStream=127.0.0.1:8080\n")
	m.Link("current", m.PutRelease("hello", "1.0", kit.Hello(t, "1.0", "")))
	m.Run("chown", "-R", "upgraderd:upgraderd", "/var/lib/upgraderd/hello")
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "enable", "--now", "live@hello.socket", unit, "upgraderd.service")
	clients := m.Load(load.Options{Address: "127.0.0.1:8080", Rate: 100, Kept: 4})
	m.Served(clients, "1.0", 20)
	supervisor, daemon := m.Property(unit, "MainPID"), m.Property("upgraderd.service", "MainPID")

	rpm("--upgrade", "--nodeps", "/tmp/rpm/second.rpm")
	renewed(m, supervisor)
	if got := m.Property("upgraderd.service", "MainPID"); got == daemon || got == "0" {
		t.Errorf("the daemon is process %s, want another than before and not 0", got)
	}
	if got := rpm("--query", "upgraderd"); !strings.Contains(got, "upgraderd-"+next+"-1") {
		t.Errorf("upgraded: %q", got)
	}
	m.Run("systemctl", "reload", unit)
	m.Served(clients, "1.0", 20)

	rpm("--erase", "upgraderd")
	for _, unit := range []string{"upgraderd.service", "upgraderd-source.socket"} {
		if got := m.Property(unit, "ActiveState"); got != "inactive" {
			t.Errorf("%s is %s after the removal", unit, got)
		}
	}
	m.Served(clients, "1.0", 20)
	if got := m.Property(unit, "MainPID") + " " + m.Property(unit, "NRestarts"); got != supervisor+" 0" {
		t.Errorf("main PID and restarts are %s, want %s 0", got, supervisor)
	}
	m.NothingLost(clients)

	m.Run("systemctl", "stop", "live@hello.socket", unit)
	m.Run("rm", "-r", "/etc/systemd/system/live@hello.socket.d")
	m.Run("sh", "-c", "find /etc/systemd/system -xtype l -delete; find /etc/systemd/system -type d -empty -delete") // what was enabled by hand
	after := listing(m)
	for _, path := range slices.Sorted(maps.Keys(after)) {
		kept := slices.Contains(left, path) || strings.HasPrefix(path, "/var/lib/upgraderd/hello/")
		if was, ok := before[path]; !ok && !kept {
			t.Errorf("left: %s", path)
		} else if ok && was != after[path] && !kept {
			t.Errorf("changed: %s: %s, was %s", path, after[path], was)
		}
	}
	for path := range before {
		if _, ok := after[path]; !ok {
			t.Errorf("taken along: %s", path)
		}
	}
	if failed := m.Run("systemctl", "list-units", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("failed units: %s", failed)
	}
}

// putRPM puts this host's rpm into a machine, below /tmp, with the libraries that it
// wants. They are named to the loader, and not in the environment, which scriptlets
// would have too.
func putRPM(t *testing.T, m *kit.Machine) func(args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ldd", "/usr/bin/rpm").Output()
	if err != nil {
		t.Fatal(err)
	}
	m.Copy("/usr/bin/rpm", "/tmp/rpm/rpm")
	for _, word := range strings.Fields(string(out)) {
		// What is of libc has to be the machine's, which is no older.
		if name := filepath.Base(word); filepath.IsAbs(word) && !slices.Contains([]string{"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"}, name) {
			m.Copy(word, "/tmp/rpm/lib/"+name)
		}
	}
	for _, name := range []string{"rpmrc", "macros"} {
		text, err := os.ReadFile(filepath.Join("/usr/lib/rpm", name))
		if err != nil {
			t.Fatal(err)
		}
		m.Write("/tmp/rpm/config/"+name, string(text))
	}
	return func(args ...string) string {
		t.Helper()
		return m.Run(append([]string{
			"env", "RPM_CONFIGDIR=/tmp/rpm/config",
			"/lib64/ld-linux-x86-64.so.2", "--library-path", "/tmp/rpm/lib", "/tmp/rpm/rpm", "--dbpath", "/tmp/rpm/db",
		}, args...)...)
	}
}
