//go:build integration

package badinput

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// configFaults are slips of whoever writes .upgrade files. begin makes one,
// end mends it; both are followed by a reload of the daemon, for all at once.
func configFaults() []fault {
	edited := func(name string, edit func(text string) string, line string, says ...string) fault {
		f := fault{name: name, event: journal.ConfigRejected, says: says}
		f.begin = func(s *scene) {
			text := edit(s.upgrade())
			writeRoot(s.t, s.m, s.settings(), text)
			s.fault.says = append(s.fault.says, fmt.Sprintf("%s:%d: ", s.settings(), lineOf(s.t, text, line)))
		}
		f.end = func(s *scene) { writeRoot(s.t, s.m, s.settings(), s.upgrade()) }
		return f
	}
	replaced := func(name, old, by, line string, says ...string) fault {
		return edited(name, func(text string) string { return strings.Replace(text, old, by, 1) }, line, says...)
	}
	ghost := replaced("ghost", "Unit=live@ghost.service", "Unit=lively@ghost.service", "Unit=")
	ghost.event, ghost.says, ghost.leaves = journal.UnitUnusable, nil, staged
	begin := ghost.begin
	ghost.begin = func(s *scene) {
		begin(s)
		s.fault.says = []string{"[UNIT_NOT_FOUND]", "lively@ghost.service does not exist", "Unit="} // no line of the file
	}
	return []fault{
		replaced("unknown", "InstancesMax=", "InstanceMax=", "InstanceMax=", "InstanceMax= is unknown", "[CONFIG_KEY]", "did you mean InstancesMax=?"),
		replaced("value", "WindowSec=500ms", "WindowSec=soon", "WindowSec=", "WindowSec=", "soon", "[CONFIG_VALUE]"),
		replaced("missing", "MatchPattern=", "X-MatchPattern=", "[Source]", "MatchPattern= is missing", "[CONFIG_MISSING]", "for example MatchPattern="),
		replaced("syntax", "[Confirm]", "Confirm]", "Confirm]", "[CONFIG_SYNTAX]"),
		replaced("untrusted", "Key=", "X-Key=", "[Source]", "Key= is missing", "[CONFIG_TRUST]"),
		replaced("secret", "Key=", "Key=/etc/upgraderd/none.pub\nX-Key=", "Key=/etc", "none.pub", "[CONFIG_TRUST]"),
		{
			name: "dropin", event: journal.ConfigRejected,
			says:  []string{"/etc/upgraderd/dropin.upgrade.d/10-more.conf:2: ", "Swap=", "[CONFIG_VALUE]"},
			begin: func(s *scene) { writeRoot(s.t, s.m, s.settings()+".d/10-more.conf", "[Upgrade]\nSwap=later\n") },
			end:   func(s *scene) { s.m.Run("rm", s.settings()+".d/10-more.conf") },
		},
		{
			name: "owner", event: journal.ConfigRejected,
			says:  []string{"/etc/upgraderd/owner.upgrade: ", "not to root", "chown", "[CONFIG_FILE]"},
			begin: func(s *scene) { s.m.Run("chown", "upgraderd", s.settings()) },
			end:   func(s *scene) { s.m.Run("chown", "root", s.settings()) },
		},
		ghost,
	}
}

// settings is the target's .upgrade file.
func (s *scene) settings() string { return "/etc/upgraderd/" + s.name + ".upgrade" }

// lineOf is the first line that begins so.
func lineOf(t *testing.T, text, begin string) int {
	t.Helper()
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, begin) {
			return i + 1
		}
	}
	t.Fatalf("no line begins with %q:\n%s", begin, text)
	return 0
}

// misconfigure makes all slips, lets the daemon read them, and mends them.
func misconfigure(t *testing.T, m *kit.Machine, steady *scene, scenes []*scene) {
	diary := steady.diary
	reload := func() {
		t.Helper()
		place := diary.now()
		m.Run("systemctl", "reload", "upgraderd.service")
		diary.awaitEvent(t, place, "", journal.ConfigReloaded)
	}
	place := diary.now()
	pids, before := make(map[string]string), make(map[string][]string)
	for _, s := range scenes {
		s.t, s.m = t, m
		pids[s.name], before[s.name] = m.Property(s.unit, "MainPID"), s.store(m)
		s.fault.begin(s)
	}
	reload()
	for _, s := range scenes {
		s.publish("2.0.0")
	}
	steady.publish("1000.0.0")
	found := diary.awaitEvent(t, place, steady.name, journal.ReleaseFound)
	diary.awaitEvent(t, found, steady.name, journal.ReleaseServes)
	time.Sleep(settling)
	each := func(judge func(t *testing.T, s *scene)) {
		for _, s := range scenes {
			t.Run(s.name, func(t *testing.T) {
				s.t, s.m = t, m.In(t)
				judge(t, s)
			})
			s.t, s.m = t, m
		}
	}
	each(func(_ *testing.T, s *scene) {
		s.judgeJournal(place)
		s.unharmed(pids[s.name])
		s.judgeStore(before[s.name])
	})
	mended := diary.now()
	for _, s := range scenes {
		s.fault.end(s)
	}
	reload()
	each(func(_ *testing.T, s *scene) { s.healed(mended, mended, pids[s.name], "2.0.0") })
}
