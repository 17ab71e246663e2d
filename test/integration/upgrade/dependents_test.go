//go:build integration

package upgrade

import (
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// Units that depend on the service are stopped by systemd when a restart of it
// fails, or when it ends, and not started with the release that comes back. Those
// that the operator names are; what a person stopped, or did not grant, is not.
func TestDependents(t *testing.T) {
	settings := map[string]string{
		"requires":  "Requires=hello.service\nAfter=hello.service",
		"binds":     "BindsTo=hello.service\nAfter=hello.service",
		"part":      "PartOf=hello.service\nAfter=hello.service",
		"chain":     "Requires=requires.service\nAfter=requires.service",
		"idle":      "Requires=hello.service\nAfter=hello.service", // nobody started it
		"ungranted": "Requires=hello.service\nAfter=hello.service",
	}
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		for name, lines := range settings {
			m.Write("/etc/systemd/system/"+name+".service",
				"[Unit]\nStartLimitIntervalSec=0\n"+lines+"\n[Service]\nType=exec\nExecStart=/bin/sleep inf\n[Install]\nWantedBy=multi-user.target\n")
		}
		source, clients := installed(t, m, plainService, "")
		// Of what nothing refers to and nothing runs, systemd remembers nothing.
		m.Run("systemctl", "enable", "requires.service", "chain.service", "idle.service")
		m.Run("systemctl", "start", "requires.service", "binds.service", "part.service", "chain.service", "ungranted.service")
		configure(m, plain, source, dir, "[Upgrade]\nDependents=requires.service binds.service part.service\nDependents=chain.service idle.service\n")
		m.Run("systemctl", "reload", "upgraderd")
		are := func(want string, names ...string) {
			t.Helper()
			for _, name := range names {
				if got := m.Property(name+".service", "ActiveState"); got != want {
					t.Errorf("%s.service is %s, want %s", name, got, want)
				}
			}
		}
		says := func(name, what string) int {
			return strings.Count(m.Journal("upgraderd.service"), name+".service went down with hello.service and "+what)
		}
		awaits := func(version string) {
			t.Helper()
			m.Eventually("a dependent waits for "+version, func() bool {
				return strings.HasPrefix(current(m), version+"-") && strings.Trim(m.Property("requires.service", "Job"), "0") != ""
			})
		}

		// systemd itself restarts them with a release that starts.
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		confirmed(t, m, "2.0.0")
		are("active", "requires", "binds", "part", "chain", "ungranted")
		are("inactive", "idle")
		if text := m.Journal("upgraderd.service"); strings.Contains(text, "went down") {
			t.Error("the journal has a dependent go down in a restart that went well")
		}

		// One that does not takes them down.
		source.Publish("hello-3.0.0", script(t, "sleep 0.5; exit 1"))
		knownBad(t, m, "3.0.0")
		are("active", "requires", "binds", "part", "chain")
		are("inactive", "idle", "ungranted")
		for _, name := range []string{"binds", "chain"} { // which pulls up the one that it requires
			if says(name, "is active again") != 1 {
				t.Errorf("the journal does not say once that %s.service is active again", name)
			}
		}
		const command = "systemctl start ungranted.service"
		if says("ungranted", "stays down: [NOT_GRANTED] start it with: "+command+
			"; to have upgraderd do it, add to [Upgrade] in /etc/upgraderd/hello.upgrade: Dependents=ungranted.service") != 1 {
			t.Error("the journal does not say once what to do for ungranted.service")
		}
		m.Run(strings.Fields(command)...)

		// A person stops one in the middle of it.
		source.Publish("hello-3.1.0", kit.Hello(t, "3.1.0", "unready"))
		awaits("3.1.0")
		m.Run("systemctl", "stop", "requires.service")
		knownBad(t, m, "3.1.0")
		are("active", "binds", "part")
		are("inactive", "requires", "chain", "idle") // which needs the one that was stopped
		m.Run("systemctl", "start", "requires.service", "chain.service", "ungranted.service")

		// The daemon is killed in the middle of it, and comes back: systemd remembers.
		source.Publish("hello-3.2.0", kit.Hello(t, "3.2.0", "unready"))
		awaits("3.2.0")
		m.Signal(m.Property("upgraderd.service", "MainPID"), "KILL")
		m.Eventually("3.2.0 was undone", func() bool {
			now := target(t, m)
			last, _ := now["last"].(map[string]any)
			return now["state"] == "idle" && last["to"] == "3.2.0" && strings.HasPrefix(current(m), "2.0.0-")
		})
		are("active", "requires", "chain")
		are("inactive", "idle")
		m.Run("systemctl", "start", "binds.service")

		// A release that ends on trial takes down what is bound to it.
		configure(m, plain, source, dir, "WindowSec=1min\n[Upgrade]\nDependents=binds.service\n")
		m.Run("systemctl", "reload", "upgraderd")
		source.Publish("hello-3.3.0", kit.Hello(t, "3.3.0", "crash-later:2s"))
		before := says("binds", "is active again")
		knownBad(t, m, "3.3.0")
		are("active", "binds")
		if says("binds", "is active again") != before+1 {
			t.Error("the journal does not say that binds.service is active again")
		}
		m.Served(clients, "2.0.0", 20)
	})
}
