package supervisor

import (
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

// beside has v2 serve beside v1, and gives their workers' PIDs once each of them has
// answered.
func (m *manager) beside(addr, v1, v2 string) (old, fresh int) {
	m.t.Helper()
	m.link("current", v1)
	m.startReady()
	m.link("beside", v2)
	if reply, err := m.handover(); err != nil || reply.Release != v2 {
		m.t.Fatalf("handover to serve beside: %+v %v", reply, err)
	}
	m.serve(v1, v2)
	pids := m.both(addr)
	return pids[v1], pids[v2]
}

// serve waits for the status to name the two that serve, "" for none beside.
func (m *manager) serve(serving, beside string) {
	m.t.Helper()
	m.eventually("status of "+serving+" beside "+beside, func() bool {
		st, ok := statusline.Parse(m.status())
		return ok && st.Release == serving && st.Beside == beside && st.Starting == "" && (beside == "") == (st.BesidePID == 0)
	})
}

// both asks until two releases have answered, and gives their workers.
func (m *manager) both(addr string) map[string]int {
	m.t.Helper()
	pids := map[string]int{}
	m.eventually("answers of both", func() bool {
		got, pid, err := get(addr)
		if err != nil {
			m.t.Fatal(err)
		}
		pids[got] = pid
		return len(pids) == 2
	})
	return pids
}

// answersAlone has every request from here on answered by one worker.
func (m *manager) answersAlone(addr string, want int) {
	m.t.Helper()
	for range 50 {
		if _, pid, err := get(addr); err != nil || pid != want {
			m.t.Fatalf("answer of %d, %v; want one of %d", pid, err, want)
		}
	}
}

func TestBesideConfirmed(t *testing.T) {
	m := newManager(t)
	addr := m.socket("web")
	v1, v2 := m.release("1.0", ""), m.release("2.0", "")
	old, fresh := m.beside(addr, v1, v2)
	failed := m.load(addr)
	// Whoever reloads the unit now does not decide.
	if reply, err := m.handover(); err == nil || !reply.Refused || !strings.Contains(err.Error(), "confirm or roll back first") {
		t.Errorf("a reload meanwhile: %+v %v", reply, err)
	}
	m.both(addr)
	m.link("next", v2)
	m.link("beside", "")
	if reply, err := m.handover(); err != nil || reply.Release != v2 {
		t.Fatalf("confirm: %+v %v", reply, err)
	}
	m.eventually("the old worker's end", func() bool { return processGone(old) })
	m.serve(v2, "")
	m.answersAlone(addr, fresh)
	failed()
	if st, _ := statusline.Parse(m.status()); st.Note != "at work" || st.Handover == nil || st.Handover.Ready <= 0 || st.Handover.Drained <= 0 || st.Handover.Killed {
		t.Errorf("status tells of the handover: %q", m.status())
	}
	if m.count("READY=1") != 1 || m.count("STOPPING=1") != 0 {
		t.Errorf("systemd was told of workers: %q", m.states)
	}
}

func TestBesideRolledBack(t *testing.T) {
	m := newManager(t)
	addr := m.socket("web")
	v1, v2 := m.release("1.0", ""), m.release("2.0", "store=mine")
	old, fresh := m.beside(addr, v1, v2)
	m.eventually("what it stored", func() bool { return slices.Contains(m.storedNames(), "mine") })
	failed := m.load(addr)
	m.link("beside", "")
	if reply, err := m.handover(); err != nil || reply.Release != v1 {
		t.Fatalf("roll back: %+v %v", reply, err)
	}
	m.eventually("the new worker's end", func() bool { return processGone(fresh) })
	m.serve(v1, "")
	m.answersAlone(addr, old)
	failed()
	m.eventually("one pidfd", func() bool { return slices.Equal(m.storedNames(), []string{"upgraderd.state", "upgraderd.worker.1"}) })
}

// load asks all the time, until the function it returns is called: that fails the
// test if one request failed.
func (m *manager) load(addr string) (end func()) {
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, _, err := get(addr); err != nil {
					m.t.Errorf("a request failed: %v", err)
					return
				}
			}
		})
	}
	return func() { close(stop); clients.Wait() }
}

func TestBesideWorkerDies(t *testing.T) {
	for _, tt := range []struct {
		name            string
		diesOld         bool
		stays, released string
	}{{"the old one", true, "2.0", ""}, {"the new one", false, "1.0", "while it served beside"}} {
		t.Run(tt.name, func(t *testing.T) {
			m := newManager(t)
			addr := m.socket("web")
			v1, v2 := m.release("1.0", ""), m.release("2.0", "")
			old, fresh := m.beside(addr, v1, v2)
			dies, stays, serving := fresh, old, v1
			if tt.diesOld {
				dies, stays, serving = old, fresh, v2
			}
			if err := unix.Kill(dies, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			m.serve(serving, "")
			m.answersAlone(addr, stays)
			if st, _ := statusline.Parse(m.status()); !strings.Contains(st.Note, tt.released) {
				t.Errorf("status %q, want %q in it", m.status(), tt.released)
			}
			m.eventually("one pidfd", func() bool { return len(m.storedNames()) == 2 })
		})
	}
}

// A supervisor that comes back has both in their roles; where one of them is gone,
// the other serves.
func TestBesideAdopted(t *testing.T) {
	for _, gone := range []string{"none", "old", "new"} {
		t.Run(gone, func(t *testing.T) {
			m := newManager(t)
			addr := m.socket("web")
			v1, v2 := m.release("1.0", ""), m.release("2.0", "")
			old, fresh := m.beside(addr, v1, v2)
			if err := m.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			m.exited()
			switch gone {
			case "old":
				_ = unix.Kill(old, syscall.SIGKILL)
			case "new":
				_ = unix.Kill(fresh, syscall.SIGKILL)
			}
			m.eventually("its end", func() bool {
				return gone == "none" || gone == "old" && processGone(old) || gone == "new" && processGone(fresh)
			})
			m.startReady()
			switch gone {
			case "old":
				m.serve(v2, "")
				m.answersAlone(addr, fresh)
				return
			case "new":
				m.serve(v1, "")
				m.answersAlone(addr, old)
				return
			}
			m.serve(v1, v2)
			if pids := m.both(addr); pids[v1] != old || pids[v2] != fresh {
				t.Errorf("answers of %v, want %d and %d", pids, old, fresh)
			}
			m.link("next", v2)
			if reply, err := m.handover(); err != nil || reply.Release != v2 {
				t.Fatalf("confirm: %+v %v", reply, err)
			}
			m.eventually("the old worker's end", func() bool { return processGone(old) })
			m.answersAlone(addr, fresh)
		})
	}
}

// A new one that does not become ready never serves beside.
func TestBesideNeverReady(t *testing.T) {
	m := newManager(t, "start=1s")
	addr := m.socket("web")
	v1 := m.release("1.0", "")
	m.link("current", v1)
	m.startReady()
	_, old, err := get(addr)
	if err != nil {
		t.Fatal(err)
	}
	m.link("beside", m.release("2.0", "never"))
	if _, err := m.handover(); err == nil || !strings.Contains(err.Error(), "was not ready after") {
		t.Errorf("handover: %v", err)
	}
	m.serve(v1, "")
	m.answersAlone(addr, old)
}

// What has become ready has no deadline, whatever it asks for. SIGUSR1 goes to both.
func TestBesideHasNoDeadline(t *testing.T) {
	m := newManager(t, "start=1s")
	addr := m.socket("web")
	v1, v2 := m.release("1.0", ""), m.release("2.0", "again=1200000")
	old, fresh := m.beside(addr, v1, v2)
	if err := m.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	m.eventually("the old one's reload", func() bool { st, _ := statusline.Parse(m.status()); return st.Note == "reloaded" })
	time.Sleep(2 * time.Second) // longer than what it asked for
	if pids := m.both(addr); pids[v1] != old || pids[v2] != fresh {
		t.Errorf("answers of %v, want %d and %d", pids, old, fresh)
	}
}

// A stop ends both.
func TestBesideStopped(t *testing.T) {
	m := newManager(t)
	addr := m.socket("web")
	old, fresh := m.beside(addr, m.release("1.0", ""), m.release("2.0", ""))
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if st := m.exited(); !st.Success() {
		t.Errorf("the supervisor: %v", st)
	}
	if !processGone(old) || !processGone(fresh) {
		t.Error("a worker outlived the stop")
	}
}
