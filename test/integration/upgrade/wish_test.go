//go:build integration

package upgrade

import (
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// wishes has the operator forbid one thing after the other of a target that runs
// 2.0.0, and ends with 3.3.0, and 2.0.0 before it.
func wishes(t *testing.T, m *kit.Machine, source *kit.Source, serves func(version string)) {
	t.Helper()
	tells := func(text string) {
		t.Helper()
		m.Eventually("the journal says "+text, func() bool { return strings.Contains(m.Journal("upgraderd.service"), text) })
	}
	says := func(want string, argv ...string) {
		t.Helper()
		if out := m.Run(argv...); !strings.Contains(out, want) {
			t.Errorf("%q: got %q, want %q", argv, out, want)
		}
	}

	says("because fair", "upgraderd", "hold", "hello", "--for=1h", "--reason=fair")
	says("upgraderd upgraderd 644", "stat", "-c", "%U %G %a", "/var/lib/upgraderd/hello/wishes.json")
	if out := m.Fails("runuser", "-u", "nobody", "--", "upgraderd", "unhold", "hello"); !strings.Contains(out, "polkit does not allow") && !strings.Contains(out, "needs a password") {
		t.Errorf("nobody may not: %q", out)
	}
	source.Publish("hello-3.2.0", kit.Hello(t, "3.2.0", ""))
	tells("3.2.0 is not taken: held until")
	m.Run("systemctl", "restart", "upgraderd.service")
	if out := m.Fails("upgraderd", "upgrade", "hello"); !strings.Contains(out, "upgraderd unhold hello") {
		t.Errorf("an upgrade against a hold is refused with: %s", out)
	}
	says("held until", "upgraderd", "status", "hello")
	says("not now  held until", "upgraderd", "plan", "hello")
	says("3.2.0", "upgraderd", "list", "hello")
	serves("2.0.0")
	says("no more held", "upgraderd", "unhold", "hello")
	confirmed(t, m, "3.2.0")

	m.Run("upgraderd", "pin", "hello", "1.*")
	confirmed(t, m, "1.5.0")
	says("pin to 1.*", "upgraderd", "history", "hello")
	m.Run("upgraderd", "skip", "hello", "3.2.0")
	m.Run("upgraderd", "pin", "hello", "--none")
	confirmed(t, m, "2.0.0")
	says("skipped", "upgraderd", "list", "hello", "--check")

	m.Run("upgraderd", "hold", "hello", "--for=5s")
	source.Publish("hello-3.3.0", kit.Hello(t, "3.3.0", ""))
	confirmed(t, m, "3.3.0")
	tells("its time is over: held until")
	says("3.3.0", "upgraderd", "status", "hello")
}
