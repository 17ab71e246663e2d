//go:build integration

package upgrade

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// The daemon has no descriptors left, or only a few: the service goes on, nothing
// half is installed, and once there are some again the release arrives, without a
// restart of anything.
func TestNoDescriptorsLeft(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source, clients := proved(t, m)
		told := 0
		for i, spare := range []int{0, 1, 2, 3, 5, 8} {
			version := fmt.Sprintf("2.%d.0", i)
			daemon := m.Property("upgraderd.service", "MainPID")
			limit := func(n int) { // root of a container may not, the daemon's user may
				m.Run("setpriv", "--reuid=upgraderd", "--regid=upgraderd", "--clear-groups", "--",
					"prlimit", "--pid", daemon, fmt.Sprintf("--nofile=%d:", n))
			}
			limit(highest(t, m, daemon) + 1 + spare)
			before := current(m)
			if spare == 0 { // and what it is to follow cannot be read again
				m.Signal(daemon, "HUP")
				m.Eventually("it says that it cannot read its files", func() bool {
					return strings.Contains(m.Journal("upgraderd.service"), "cannot be read, those read before stay in force")
				})
				if strings.Contains(m.Journal("upgraderd.service"), "no longer followed") {
					t.Error("the target was dropped")
				}
			}
			source.Publish("hello-"+version, kit.Hello(t, version, ""))
			m.Eventually("it is told, or it was enough", func() bool {
				trouble, _ := target(t, m)["trouble"].(string)
				if strings.Contains(trouble, "PROC_NOFILES") || strings.Contains(trouble, "too many open files") {
					told++
					return true
				}
				// With none at all it does not even see the source change.
				return spare == 0 || strings.HasPrefix(current(m), version+"-")
			})
			if got := current(m); got != before && !strings.HasPrefix(got, version+"-") {
				t.Errorf("current is %s", got)
			}
			limit(1024)
			confirmed(t, m, version)
			if got := m.Property("upgraderd.service", "MainPID"); got != daemon {
				t.Errorf("the daemon is process %s, want %s as before", got, daemon)
			}
		}
		if told == 0 {
			t.Error("it never ran out of descriptors: this shows little")
		}
		m.NothingLost(clients)
	})
}

// highest is the highest descriptor that a process of the machine has open.
func highest(t *testing.T, m *kit.Machine, pid string) (most int) {
	t.Helper()
	for _, name := range strings.Fields(m.Run("ls", "/proc/"+pid+"/fd")) {
		n, err := strconv.Atoi(name)
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, n)
	}
	return most
}
