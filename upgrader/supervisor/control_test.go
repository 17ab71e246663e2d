package supervisor

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

// fds is how many descriptors the supervisor has open.
func (m *manager) fds() int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid))
	return len(entries)
}

// TestHundredClients has a hundred ask at once, while others ask what makes no
// sense, fall silent or leave: it is one handover, each that waits is told how
// it went, and nothing of them is left.
func TestHundredClients(t *testing.T) {
	m := newManager(t)
	addr := m.socket("web")
	v1, v2 := m.release("1.0", ""), m.release("2.0", "sleep=300ms")
	m.link("current", v1)
	m.startReady()
	m.eventually("calm", func() bool { st, _ := statusline.Parse(m.status()); return st.Release == v1 })
	before := m.fds()
	m.link("next", v2)
	var clients sync.WaitGroup
	for range 100 {
		clients.Go(func() {
			if r, err := m.handover(); err != nil || r.Release != v2 {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
	for i, line := range []string{"", "{", "nonsense\n", `{"verb":"explode"}` + "\n", strings.Repeat("x", 2*maxRequest), `{"verb":"handover"}` + "\n"} {
		for range 3 {
			clients.Go(func() {
				c, err := net.Dial("unix", controlPath(filepath.Join(m.dir, "run")))
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				io.WriteString(c, line)
				if i == 2 || i == 3 { // the others leave
					c.SetReadDeadline(time.Now().Add(15 * time.Second))
					var r Reply
					if err := json.NewDecoder(c).Decode(&r); err != nil || r.Error == "" {
						t.Errorf("%q: got %+v, %v; want to be told why not", line, r, err)
					}
				}
			})
		}
	}
	clients.Wait()
	m.eventually("the new worker alone", func() bool {
		st, _ := statusline.Parse(m.status())
		return st.Release == v2 && st.Draining == 0
	})
	if st, _ := statusline.Parse(m.status()); st.Generation != 2 {
		t.Errorf("generation %d, want 2: all of them are one handover", st.Generation)
	}
	if release, _, err := get(addr); err != nil || release != v2 {
		t.Errorf("got %q, %v", release, err)
	}
	m.eventually("as few descriptors as before", func() bool { return m.fds() <= before })
	m.link("current", v2)
	m.link("next", "")
	if r, err := m.handover(); err != nil || r.Release != v2 { // a plain reload, as ever
		t.Errorf("got %+v, %v", r, err)
	}
}
