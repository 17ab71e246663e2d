//go:build integration

// Package packages tests what a host gets from a package, from the first install to
// the purge: by the guide that leads a new user there, on each systemd, under load.
// Services are left alone whatever happens to the package, and nothing is left of
// it in the end.
package packages

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/lab"
	"github.com/upgraderd/upgraderd/test/load"
)

func TestMain(m *testing.M) { kit.Main(m) }

func TestPackages(t *testing.T) {
	b := build(t)
	t.Run("reproducible", func(t *testing.T) { reproducible(t, b) })
	t.Run("lintian", func(t *testing.T) { lintian(t, b) })
	t.Run("rpm", func(t *testing.T) { rpm(t, b) })
	for _, suite := range lab.SelectedSuites() {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			life(t, kit.Bare(t, suite), b)
		})
		t.Run(suite+" by rpm", func(t *testing.T) {
			t.Parallel()
			rpmLife(t, kit.Bare(t, suite), b)
		})
	}
}

const unit = "live@hello.service"

// life is that of a package on one host.
func life(t *testing.T, m *kit.Machine, b built) {
	m.Run("sh", "-c", "rm /etc/dpkg/dpkg.cfg.d/*") // the lab has no documentation
	m.Run("mkdir", home)
	m.Run("sh", "-c", "cat > /usr/local/bin/curl <<'END'\n"+curl+"END\nchmod +x /usr/local/bin/curl")
	before := listing(m)

	g := &guide{t, m, readGuide(t)}
	put := func(deb string) {
		m.Run("sh", "-c", "rm -f "+home+"/*.deb")
		m.Copy(deb, home+"/upgraderd_1_amd64.deb")
	}
	put(b.deb)
	g.play("Install")
	installed(t, m)
	g.play("A service")
	g.play("The first release")
	clients := m.Load(load.Options{Address: "127.0.0.1:8080", Rate: 100, Kept: 4})
	m.Served(clients, "1.0", 20)
	g.play("The first upgrade")
	m.Served(clients, "1.1", 20)
	g.play("A release that is bad")
	g.play("Go back")
	m.Served(clients, "1.0", 20)

	supervisor, daemon := m.Property(unit, "MainPID"), m.Property("upgraderd.service", "MainPID")
	put(b.newer)
	g.play("A new upgraderd")
	renewed(m, supervisor)
	if got := m.Property("upgraderd.service", "MainPID"); got == daemon || got == "0" {
		t.Errorf("the daemon is process %s, want another than before and not 0", got)
	}
	m.Run("systemctl", "reload", unit)
	m.Served(clients, "1.0", 20)

	// Disabled by an operator, it stays so.
	m.Run("systemctl", "disable", "--now", "upgraderd.service")
	m.Run("dpkg", "--install", home+"/upgraderd_1_amd64.deb")
	if got := m.Property("upgraderd.service", "ActiveState") + " " + m.Property("upgraderd.service", "UnitFileState"); got != "inactive disabled" {
		t.Errorf("the daemon that was disabled is %s", got)
	}
	m.Run("systemctl", "enable", "--now", "upgraderd.service")

	if said := m.Run("sh", "-c", "apt-get remove -y upgraderd 2>&1"); !strings.Contains(said, unit+" goes on") {
		t.Errorf("the removal does not say that %s depends on it: %s", unit, said)
	}
	if got := m.Property("upgraderd.service", "ActiveState") + m.Property("upgraderd-source.socket", "ActiveState"); got != "inactiveinactive" {
		t.Errorf("daemon and socket are %s after the removal", got)
	}
	m.Run("test", "-e", "/var/lib/upgraderd/hello/current", "-a", "-e", "/etc/upgraderd/hello.upgrade")
	m.Served(clients, "1.0", 20)
	m.Run("dpkg", "--install", home+"/upgraderd_1_amd64.deb")
	installed(t, m)
	renewed(m, supervisor)
	m.Run("systemctl", "reload", unit)
	m.Served(clients, "1.0", 20)
	if got := m.Property(unit, "MainPID"); got != supervisor {
		t.Errorf("the main PID is %s, want %s as before", got, supervisor)
	}
	if got := m.Property(unit, "NRestarts"); got != "0" {
		t.Errorf("the service was restarted %s times", got)
	}
	m.NothingLost(clients)

	g.play("Remove it")
	m.Run("rm", "-r", home)
	m.Run("mkdir", home)
	after := listing(m)
	for _, path := range slices.Sorted(maps.Keys(after)) {
		if was, ok := before[path]; !ok {
			t.Errorf("left by the purge: %s", path)
		} else if was != after[path] {
			t.Errorf("changed by install and purge: %s: %s, was %s", path, after[path], was)
		}
		delete(before, path)
	}
	for path := range before {
		t.Errorf("taken along by the purge: %s", path)
	}
	if failed := m.Run("systemctl", "list-units", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("failed units: %s", failed)
	}
}

// installed looks at a host after an install.
func installed(t *testing.T, m *kit.Machine) {
	t.Helper()
	for unit, want := range map[string]string{
		"upgraderd.service": "active enabled", "upgraderd-source.socket": "active static", "upgraderd-boot.service": "inactive enabled",
	} {
		if got := m.Property(unit, "ActiveState") + " " + m.Property(unit, "UnitFileState"); got != want {
			t.Errorf("%s is %s, want %s", unit, got, want)
		}
	}
	m.Eventually("the daemon has its name on the bus", func() bool {
		return strings.Contains(m.Run("busctl", "--no-pager", "--no-legend", "list"), "io.github.upgraderd.upgraderd1 ")
	})
	// systemd has nothing to say about any unit that came, but for those of services,
	// which have no address yet.
	said := m.Run("sh", "-c", `
dpkg --listfiles upgraderd | grep /usr/lib/systemd/system/upgraderd | sed 's|.*/||; s|@|@hello|' | while read -r unit; do
	systemd-analyze verify --man=no "$unit" 2>&1
done
test "$(journalctl --list-catalog | grep -c upgraderd)" -gt 20 || echo no catalog
test -s /usr/share/man/man8/upgraderd.8.gz || echo no man page
dpkg --verify upgraderd`)
	if said != "" {
		t.Errorf("got %s", said)
	}
	if got := m.Run("stat", "--format=%U %a", "/var/lib/upgraderd", "/etc/upgraderd"); got != "upgraderd 755\nroot 755" {
		t.Errorf("directories: got %s", got)
	}
}

// renewed waits until a supervisor runs the program that is installed now.
func renewed(m *kit.Machine, pid string) {
	want := m.Run("stat", "--format=%i", "/usr/bin/upgraderd")
	m.Eventually("the supervisor runs the new program", func() bool {
		return m.Executable(pid) == want
	})
}

// listing is every file of a machine, and what users and groups there are, without
// what changes by itself or is for that package manager's own use.
func listing(m *kit.Machine) map[string]string {
	out := m.Run("sh", "-c", `
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log \
	-o -path /var/cache -o -path /var/lib/apt -o -path '/var/lib/dpkg/*-old' -o -path /var/lib/dpkg/triggers \
	-o -path /var/lib/systemd/random-seed -o -path /var/lib/systemd/timers -o -path '/etc/*-' \) -prune \
	-o -printf '%p\t%y %m %U:%G %l\n'
find /run/ -xdev -name '*upgraderd*' -printf '%p\tleft\n'
for file in /etc/passwd /etc/group /etc/shadow /etc/gshadow /var/lib/dpkg/status; do
	printf '%s (content)\t%s\n' "$file" "$(sha256sum <"$file")"
done`)
	files := map[string]string{}
	for line := range strings.Lines(out) {
		path, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		files[path] = what
	}
	return files
}
