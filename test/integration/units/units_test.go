//go:build integration

// Package units tests what is installed beside the program: that each systemd
// takes the units without a word, that they are as closed as they claim, and
// that the daemon's user may do what an upgrade needs and nothing more.
package units

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

// systemd has nothing to say about any unit.
func TestVerify(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Write("/etc/systemd/system/live@hello.socket.d/address.conf", "[Socket]\nListenStream=8080\n")
		m.Run("useradd", "--system", "app")
		m.Run("sh", "-c", "cp /usr/share/doc/upgraderd/examples/app.service /usr/share/doc/upgraderd/examples/app.socket /etc/systemd/system/")
		for _, unit := range []string{
			"upgraderd.service", "upgraderd-check@hello.service", "upgraderd-source.socket", "upgraderd-source@1.service",
			"upgraderd-guard@hello.service", "upgraderd-guard@hello.timer", "upgraderd-failed@hello.service", "upgraderd-boot.service",
			"upgraderd-metrics.socket", "upgraderd-metrics@1.service", "live@hello.service", "live@hello.socket", "app.service", "app.socket",
		} {
			said := m.Run("sh", "-c", "systemd-analyze verify --man=no "+unit+" 2>&1")
			if said != "" {
				t.Errorf("%s: %s", unit, said)
			}
		}
		// The catalog explains events, and no text in it was refused.
		if said := m.Run("sh", "-c", "journalctl --update-catalog 2>&1"); said != "" {
			t.Errorf("catalog: %s", said)
		}
	})
}

// The exposure that systemd-analyze reckons: 0 is closed, 10 is open.
func TestSecurity(t *testing.T) {
	limits := map[string]float64{
		"upgraderd.service":          1.2,
		"upgraderd-check@.service":   0.5,
		"upgraderd-source@.service":  1.2,
		"upgraderd-guard@.service":   1.2,
		"upgraderd-failed@.service":  1.2,
		"upgraderd-boot.service":     1.2,
		"upgraderd-metrics@.service": 0.5,
		"live@.service":              4.0, // somebody else's program
	}
	exposure := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		for unit, limit := range limits {
			out := m.Run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
			found := exposure.FindStringSubmatch(out)
			if found == nil {
				t.Errorf("%s: no exposure in %q", unit, out)
				continue
			}
			if got, err := strconv.ParseFloat(found[1], 64); err != nil || got > limit {
				t.Errorf("%s: got exposure %s, want at most %.1f:\n%s", unit, found[1], limit, open(out))
			}
		}
	})
}

// open keeps the lines about what is not closed.
func open(report string) string {
	var lines []string
	for line := range strings.Lines(report) {
		if !strings.Contains(line, "✓") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// as runs a command as the daemon's user.
func as(argv ...string) []string {
	return append([]string{"setpriv", "--reuid=upgraderd", "--regid=upgraderd", "--clear-groups", "--"}, argv...)
}

// The directories are whose they should be.
func TestOwners(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		for path, want := range map[string]string{
			"/etc/upgraderd":     "root root 755",
			"/var/lib/upgraderd": "upgraderd upgraderd 755",
			"/usr/bin/upgraderd": "root root 755",
			"/usr/share/polkit-1/rules.d/50-upgraderd.rules": "root root 644",
		} {
			if got := m.Run("stat", "-c", "%U %G %a", path); got != want {
				t.Errorf("%s: got %s, want %s", path, got, want)
			}
		}
	})
}

// appUpgrade is a target of app.service that needs no source to be reached.
const appUpgrade = `[Upgrade]
Unit=app.service
Check=bin/app --version
Dependents=dependent.service
[Source]
Path=/srv/app
MatchPattern=app-@v
Verify=no
`

// The daemon's user may do to the units of its targets what an upgrade needs,
// and nothing else to anything.
func TestPolkit(t *testing.T) {
	allowed := []string{
		"systemctl reload app.service",
		"systemctl restart app.service",
		"systemctl reset-failed app.service",
		"systemctl start upgraderd-check@app.service",
		"systemctl start upgraderd-guard@app.timer",
		"systemctl stop upgraderd-guard@app.timer",
		"systemctl start dependent.service",
	}
	refused := []string{
		"systemctl stop app.service",
		"systemctl start app.service",
		"systemctl try-restart app.service",
		"systemctl reload-or-restart app.service",
		"systemctl kill app.service",
		"systemctl set-property --runtime app.service CPUWeight=7",
		"systemctl reload other.service",
		"systemctl restart other.service",
		"systemctl reset-failed other.service",
		"systemctl reset-failed",
		"systemctl stop dependent.service",
		"systemctl restart dependent.service",
		"systemctl try-restart dependent.service",
		"systemctl reset-failed dependent.service",
		"systemctl isolate dependent.service",
		"systemd-run --unit=dependent.service true",
		"systemctl start ungranted.service",
		"systemctl restart upgraderd.service",
		"systemctl start upgraderd-check@other.service",
		"systemctl stop upgraderd-check@app.service",
		"systemctl set-property --runtime upgraderd-check@app.service CPUWeight=7",
		"systemd-run true",
		"systemctl start upgraderd-guard@other.timer",
		"systemctl start upgraderd-guard@app.service",
		"systemd-run --unit=upgraderd-guard@app --on-active=1 true",
		"systemd-run --unit=app.service true",
		"systemd-run --unit=upgraderd-check@app.service true",
		"systemd-run --unit=upgraderd-check@app.scope --scope true",
		"systemctl daemon-reload",
		"systemctl daemon-reexec",
		"systemctl mask app.service",
		"systemctl enable app.service",
		"systemctl set-environment A=1",
		"systemctl poweroff --no-wall",
	}
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		const service = "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/true\n"
		m.Write("/etc/systemd/system/app.service", service)
		m.Write("/etc/systemd/system/other.service", service)
		for _, name := range []string{"dependent", "ungranted"} {
			m.Write("/etc/systemd/system/"+name+".service", "[Unit]\nRequires=app.service\n"+service)
		}
		// What the daemon may start is decided by polkit; what then happens is
		// not this test's business.
		m.Write("/etc/systemd/system/upgraderd-check@.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
		m.Write("/etc/upgraderd/app.upgrade", appUpgrade)
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "start", "app.service", "other.service")

		for _, command := range allowed {
			m.Run(as(append(strings.Fields(command), "--no-ask-password")...)...)
		}
		before := m.Property("app.service", "MainPID") + " " + m.Property("other.service", "MainPID")
		for _, command := range refused {
			argv := strings.Fields(command)
			argv = append(argv[:1], append([]string{"--no-ask-password"}, argv[1:]...)...)
			said := m.Fails(as(argv...)...)
			// Refused by polkit, or by systemd for a name that has a unit file.
			if !regexp.MustCompile(`(?i)access denied|permission denied|authentication|has a fragment file|not permitted|may not be isolated`).MatchString(said) {
				t.Errorf("%s: refused for another reason: %s", command, said)
			}
		}
		if after := m.Property("app.service", "MainPID") + " " + m.Property("other.service", "MainPID"); after != before {
			t.Errorf("main PIDs: got %s, want %s as before", after, before)
		}

		// Where root has it upgrade itself, the daemon may restart itself, and no more.
		m.Write("/etc/systemd/system/upgraderd.service", service)
		m.Run("sh", "-c", "sed s/app.service/upgraderd.service/ /etc/upgraderd/app.upgrade | grep -v Check= > /etc/upgraderd/upgraderd.upgrade")
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "start", "upgraderd.service")
		for _, command := range []string{"systemctl restart upgraderd.service", "systemctl start upgraderd-guard@upgraderd.timer", "systemctl stop upgraderd-guard@upgraderd.timer"} {
			m.Run(as(append(strings.Fields(command), "--no-ask-password")...)...)
		}
		own := m.Property("upgraderd.service", "MainPID")
		for _, command := range []string{
			"start upgraderd.service", "stop upgraderd.service", "reload upgraderd.service", "try-restart upgraderd.service", "reset-failed upgraderd.service",
			"kill upgraderd.service", "mask upgraderd.service", "set-property --runtime upgraderd.service CPUWeight=7", "start upgraderd-guard@upgraderd.service",
			"start upgraderd-failed@upgraderd.service", "start upgraderd-check@upgraderd.service", "restart upgraderd-boot.service",
		} {
			said := m.Fails(as(append([]string{"systemctl", "--no-ask-password"}, strings.Fields(command)...)...)...)
			if !regexp.MustCompile(`(?i)access denied|permission denied|authentication|not permitted`).MatchString(said) {
				t.Errorf("%s: refused for another reason: %s", command, said)
			}
		}
		if now := m.Property("upgraderd.service", "MainPID"); now != own {
			t.Errorf("main PID of upgraderd: got %s, want %s as before", now, own)
		}
		m.Run("sh", "-c", "echo Swap=none > /tmp/none && sed -i '/^Unit=/r /tmp/none' /etc/upgraderd/upgraderd.upgrade")
		m.Fails(as("systemctl", "--no-ask-password", "restart", "upgraderd.service")...)

		// Nor is a start of what has no unit file: StartTransientUnit would make it.
		m.Run("sh", "-c", "rm /etc/systemd/system/upgraderd-check@.service /usr/lib/systemd/system/upgraderd-check@.service /usr/lib/systemd/system/upgraderd-guard@.timer /etc/systemd/system/dependent.service && systemctl daemon-reload")
		for _, unit := range []string{"upgraderd-check@app.service", "upgraderd-guard@app.timer", "dependent.service"} {
			m.Fails(as("systemd-run", "--no-ask-password", "--unit="+unit, "true")...)
			if said := m.Fails("upgraderd", "allows", unit, "start"); !strings.Contains(said, "upgraderd install") {
				t.Errorf("%s: refused for another reason: %s", unit, said)
			}
		}

		// Without the program nothing is allowed.
		m.Run("mv", "/usr/bin/upgraderd", "/usr/bin/upgraderd.away")
		m.Fails(as("systemctl", "--no-ask-password", "reload", "app.service")...)
	})
}
