package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

// send tells the notify socket at path, as anybody can who may write to it.
func send(path, text string, fds ...int) error {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	for {
		err = unix.Sendmsg(socket, []byte(text), unix.UnixRights(fds...), &unix.SockaddrUnix{Name: path}, 0)
		if err != unix.EINTR {
			return err
		}
	}
}

// onTrial has a worker serve, and another that never becomes ready by itself on
// trial. done waits for the end of the handover.
func onTrial(t *testing.T, old string) (m *manager, addr, v1 string, pid int, done func() error) {
	t.Helper()
	m = newManager(t, "start=2s")
	addr = m.socket("web")
	v1 = m.release("1.0", old)
	v2 := m.release("2.0", "never")
	m.link("current", v1)
	m.startReady()
	_, pid, err := get(addr) // later the one on trial may answer
	if err != nil {
		t.Fatal(err)
	}
	m.link("next", v2)
	ended := make(chan error, 1)
	go func() {
		_, err := m.handover()
		ended <- err
	}()
	m.eventually("on trial", func() bool { st, _ := statusline.Parse(m.status()); return st.Starting == v2 })
	return m, addr, v1, pid, func() error { return <-ended }
}

// Only a worker says that it is ready, and only of itself.
func TestReadyOfAnother(t *testing.T) {
	for name, forge := range map[string]func(m *manager, old int){
		"a process that is no worker": func(m *manager, _ int) {
			sockets, err := filepath.Glob(filepath.Join(m.dir, "run/notify.*"))
			if err != nil || len(sockets) != 2 {
				m.t.Errorf("sockets %v, %v; want two", sockets, err)
			}
			for _, path := range sockets {
				if err := send(path, "READY=1\nSTATUS=not mine"); err != nil {
					m.t.Error(err)
				}
			}
			m.eventually("refused", func() bool { return strings.Count(m.logs(), "which is not worker") == 2 })
		},
		"the old worker, of itself and of the new one": func(m *manager, old int) {
			if err := unix.Kill(old, syscall.SIGUSR1); err != nil {
				m.t.Error(err)
			}
			m.eventually("refused", func() bool { return strings.Contains(m.logs(), "which is not worker") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, addr, v1, pid, done := onTrial(t, "ready-for-all")
			forge(m, pid)
			if err := done(); err == nil {
				t.Error("the new worker counts as ready, and never said so")
			}
			if release, now, err := get(addr); err != nil || release != v1 || now != pid {
				t.Errorf("got %q from %d, %v; want %q from %d", release, now, err, v1, pid)
			}
			if strings.Contains(m.status(), "not mine") && name == "a process that is no worker" {
				t.Errorf("the status was forged: %q", m.status())
			}
		})
	}
}

// A flood of descriptors ends in the supervisor, and takes none of its own.
func TestDescriptorFlood(t *testing.T) {
	m := newManager(t)
	addr := m.socket("web")
	v1 := m.release("1.0", "flood")
	m.link("current", v1)
	m.startReady()
	before := m.fds()
	_, pid, err := get(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	m.eventually("the end of the flood", func() bool { return strings.Contains(m.status(), "flooded") })
	if n := len(m.storedNames()); n > maxStored+8 {
		t.Errorf("%d descriptors in the fd store, want %d and a few of ours", n, maxStored)
	}
	m.eventually("no more descriptors than may be stored", func() bool { return m.fds() <= before+maxStored })
	if _, now, err := get(addr); err != nil || now != pid {
		t.Errorf("got an answer of %d, %v; want %d", now, err, pid)
	}
	// The next worker inherits what was stored, and nothing grows.
	if _, err := m.handover(); err != nil {
		t.Fatal(err)
	}
	m.eventually("no more than before", func() bool { return m.fds() <= before+maxStored })
}

// BARRIER=1 closes its descriptor once all before it was handled (sd_notify(3)).
func TestBarrier(t *testing.T) {
	m := newManager(t)
	addr := m.socket("web")
	m.link("current", m.release("1.0", "barrier"))
	m.startReady()
	before := m.fds()
	_, pid, err := get(addr)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := unix.Kill(pid, syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	m.eventually("past the barrier", func() bool { return strings.Contains(m.status(), "past") })
	m.eventually("as few descriptors as before", func() bool { return m.fds() <= before })
}

// playForger does what a worker should not, when SIGUSR1 comes.
func playForger(has func(string) bool) {
	own := os.Getenv("NOTIFY_SOCKET")
	switch {
	case has("ready-for-all"):
		all, _ := filepath.Glob(filepath.Join(filepath.Dir(own), "notify.*"))
		for _, path := range all {
			_ = send(path, "READY=1\nSTATUS=not mine to say")
		}
	case has("flood"):
		fds := make([]int, 100)
		for i := range fds {
			fds[i] = 1
		}
		for range 100 {
			for _, text := range []string{"FDSTORE=1\nFDNAME=flood", "WATCHDOG=1", "FDSTORE=1\nFDNAME=no:name", "FDSTOREREMOVE=1\nFDNAME=" + internal + "x"} {
				if err := send(own, text, fds...); err != nil {
					panic(err)
				}
			}
		}
		_ = send(own, "STATUS=flooded")
	case has("barrier"):
		r, w, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		if err := send(own, "BARRIER=1", int(w.Fd())); err != nil {
			panic(err)
		}
		w.Close()
		_, _ = r.Read(make([]byte, 1)) // until nobody has the other end
		r.Close()
		_ = send(own, "STATUS=past")
	}
}
