package supervisor

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

// install puts a program in the place of the supervisor's, as a package does.
func (m *manager) install(program io.Reader) os.FileInfo {
	m.t.Helper()
	fresh := m.program + ".new"
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := io.Copy(f, program); err != nil {
		m.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(fresh, m.program); err != nil {
		m.t.Fatal(err)
	}
	info, err := os.Stat(m.program)
	if err != nil {
		m.t.Fatal(err)
	}
	return info
}

// installSelf installs this program once more.
func (m *manager) installSelf() os.FileInfo {
	m.t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		m.t.Fatal(err)
	}
	defer self.Close()
	return m.install(self)
}

// installLinked installs this program once more, beside the one before, and has
// the supervisor's name lead to it.
func (m *manager) installLinked(version string) os.FileInfo {
	m.t.Helper()
	link := m.program
	m.program = link + "-" + version
	info := m.installSelf()
	if err := os.Symlink(m.program, link+".new"); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		m.t.Fatal(err)
	}
	m.program = link
	return info
}

// becomes waits until the main process runs the program.
func (m *manager) becomes(program os.FileInfo) {
	m.t.Helper()
	m.renewals++
	m.eventually("the new program runs", func() bool {
		exe, err := os.Stat(fmt.Sprintf("/proc/%d/exe", m.cmd.Process.Pid))
		return err == nil && os.SameFile(exe, program)
	})
	m.eventually("it has taken over", func() bool { return strings.Count(m.logs(), "goes on as") == m.renewals })
}

// A supervisor whose program was replaced goes on as the new one: the same
// process, the same workers, and no connection notices.
func TestRenew(t *testing.T) {
	m := newManager(t, "renew=20ms", "listen=extra=tcp:127.0.0.1:0")
	m.program = filepath.Join(t.TempDir(), "upgraderd")
	m.installSelf()
	addr := m.socket("web")
	v1, v2 := m.release("1.0", "linger=500ms store=pipe"), m.release("2.0", "")
	m.link("current", v1)
	m.startReady()
	_, old, _ := get(addr)
	m.link("current", v2)
	if _, err := m.handover(); err != nil { // and 1.0 drains
		t.Fatal(err)
	}
	serving := m.servedBy(addr, v2)
	m.eventually("the old one has heard that it is to drain", func() bool {
		for range 20 { // until then both accept
			if got, _, err := get(addr); err != nil || got != v2 {
				return false
			}
		}
		return true
	})

	// Somebody asks all the time.
	stop, asked := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				asked <- nil
				return
			default:
			}
			if got, pid, err := get(addr); err != nil || got != v2 || pid != serving {
				asked <- fmt.Errorf("got %s from %d: %w", got, pid, err)
				return
			}
		}
	}()
	fds := func() int {
		e, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid))
		return len(e)
	}
	m.becomes(m.installSelf())
	m.eventually("the end of the drain", func() bool {
		st, ok := statusline.Parse(m.status())
		return ok && st.Draining == 0 && processGone(old)
	})
	before := fds()
	for range 5 {
		m.becomes(m.installSelf())
	}
	m.eventually("as few descriptors as before", func() bool { return fds() <= before })
	close(stop)
	if err := <-asked; err != nil {
		t.Error(err)
	}
	if strings.Contains(m.logs(), "asked twice") {
		t.Error("the worker that drains was asked a second time")
	}

	// Notifications, signals and handovers go on.
	if err := m.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	m.eventually("the worker's own status", func() bool { return strings.Contains(m.status(), "reloaded") })
	for range 2 { // the second ends a worker that the new program started
		ends := m.servedBy(addr, v2)
		if reply, err := m.handover(); err != nil || reply.Release != v2 {
			t.Fatalf("handover: %+v %v", reply, err)
		}
		m.eventually("the end of the worker before", func() bool { return processGone(ends) })
	}
	want := []string{"extra", "pipe", "upgraderd.state", "upgraderd.worker.4"}
	m.eventually(fmt.Sprint(want), func() bool { return slices.Equal(m.storedNames(), want) })

	// How its worker ended it can tell, as it is its parent still.
	syscall.Kill(m.servedBy(addr, v2), syscall.SIGKILL)
	if ws := m.exited().Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v, want SIGKILL", ws)
	}
}

// A command that tells whether a worker is ready may take its time, and the worker
// may say so first. Nobody would bury that command after the renewal.
func TestRenewLeavesNoChild(t *testing.T) {
	dir := t.TempDir()
	began := filepath.Join(dir, "began")
	command := filepath.Join(dir, "ready")
	if err := os.WriteFile(command, []byte("#!/bin/sh\n: >"+began+"\nsleep 0.5\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, "renew=20ms", "ready="+command)
	m.program = filepath.Join(t.TempDir(), "upgraderd")
	m.installSelf()
	addr := m.socket("web")
	v1 := m.release("1.0", "sleep=300ms")
	m.link("current", v1)
	m.startReady()
	serving := m.servedBy(addr, v1)
	m.eventually("the command runs", func() bool { _, err := os.Stat(began); return err == nil })
	m.becomes(m.installSelf())
	m.eventually("no child but the worker", func() bool {
		return slices.Equal(m.children(), []string{fmt.Sprint(serving)})
	})
}

// servedBy waits for a release to answer, and tells which process does.
func (m *manager) servedBy(addr, release string) (pid int) {
	m.t.Helper()
	m.eventually(release+" answers", func() bool {
		got, by, err := get(addr)
		pid = by
		return err == nil && got == release
	})
	return pid
}

// A name that is a symlink, as where packages of several versions lie side by
// side: what it leads to now counts, though the file that runs is still there.
func TestRenewLinked(t *testing.T) {
	m := newManager(t, "renew=20ms")
	m.program = filepath.Join(t.TempDir(), "upgraderd")
	m.installLinked("1")
	addr := m.socket("web")
	v1 := m.release("1.0", "")
	m.link("current", v1)
	m.startReady()
	serving := m.servedBy(addr, v1)
	for _, version := range []string{"2", "3"} {
		m.becomes(m.installLinked(version))
	}
	if got := m.servedBy(addr, v1); got != serving {
		t.Errorf("served by %d, want %d as before", got, serving)
	}
}

// What does not start is left alone, said once, and the next one is taken.
func TestRenewRefused(t *testing.T) {
	m := newManager(t, "renew=20ms")
	m.program = filepath.Join(t.TempDir(), "upgraderd")
	m.installSelf()
	addr := m.socket("web")
	v1 := m.release("1.0", "")
	m.link("current", v1)
	m.startReady()
	serving := m.servedBy(addr, v1)
	for i, broken := range []string{"#!/bin/sh\necho no such library >&2\nexit 127\n", "not a program", ""} {
		m.install(strings.NewReader(broken))
		m.eventually("a warning", func() bool { return strings.Count(m.logs(), "replaced by what does not run") == i+1 })
	}
	if !strings.Contains(m.logs(), "no such library") {
		t.Error("the log does not have the program's own words")
	}
	os.Remove(m.program)
	time.Sleep(100 * time.Millisecond)
	if n := strings.Count(m.logs(), "replaced by what does not run"); n != 3 {
		t.Errorf("warned %d times of 3 programs", n)
	}
	m.becomes(m.installSelf())
	if got := m.servedBy(addr, v1); got != serving {
		t.Errorf("served by %d, want %d as before", got, serving)
	}
}
