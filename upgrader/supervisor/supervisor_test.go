package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

func TestHandover(t *testing.T) {
	m := newManager(t)
	addr := m.socket("web")
	v1, v2 := m.release("1.0", ""), m.release("2.0", "")
	m.link("current", v1)
	m.startReady()
	pid := m.cmd.Process.Pid
	got, old, err := get(addr)
	if err != nil || got != v1 {
		t.Fatalf("before: got %q %v, want %s", got, err, v1)
	}
	m.link("next", v2)
	reply, err := m.handover()
	if err != nil || reply.Release != v2 || reply.Already {
		t.Fatalf("handover: %+v %v", reply, err)
	}
	m.eventually("the old worker's end", func() bool { return processGone(old) })
	if got, _, err = get(addr); err != nil || got != v2 {
		t.Errorf("after: got %q %v, want %s", got, err, v2)
	}
	if m.cmd.Process.Pid != pid || m.cmd.ProcessState != nil {
		t.Error("the supervisor is another process")
	}
	m.eventually("status", func() bool {
		st, ok := statusline.Parse(m.status())
		return ok && st.Release == v2 && st.Generation == 2 && st.Draining == 0 && st.Note == "at work" && st.Handover != nil && st.Handover.Ready > 0 && st.Handover.Drained > 0 && !st.Handover.Killed
	})
	// Asked again with the same release on trial, nothing happens; without
	// one, the same release is started anew.
	told := m.status()
	before := m.count("STATUS=" + told)
	if reply, err := m.handover(); err != nil || !reply.Already {
		t.Errorf("handover to what serves: %+v %v", reply, err)
	}
	// Whoever asks again may not have heard.
	m.eventually("the status, again", func() bool { return m.count("STATUS="+told) > before })
	m.link("current", v2)
	m.link("next", "")
	if reply, err := m.handover(); err != nil || reply.Already || reply.Release != v2 {
		t.Errorf("graceful restart: %+v %v", reply, err)
	}
	if m.count("READY=1") != 1 || m.count("STOPPING=1") != 0 {
		t.Errorf("systemd was told of workers: %q", m.states)
	}
}

func TestHandoverFails(t *testing.T) {
	for _, tt := range []struct{ name, behave, want, exit string }{
		{"exits", "exit=3", "exited with status 3", "exited with status 3"},
		{"exits cleanly", "exit=0", "exited with status 0", "exited with status 0"},
		{"crashes", "segv", "was killed by SIGSEGV", "was killed by SIGSEGV"},
		// It may have taken a connection, which it may finish.
		{"never ready", "never", "was not ready after", "exited with status 0"},
		{"never ready, and will not go", "never stubborn", "was not ready after", "was killed by SIGKILL"},
		{"missing", "-", "no such file", ""},
		{"no program", "text", "exec format error", ""},
		{"a library is missing", "no libc", "exited with status 127", "exited with status 127"},
		{"a library is too old", "another libc", "exited with status 1", "exited with status 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newManager(t, "start=1s")
			addr := m.socket("web")
			v1 := m.release("1.0", "")
			m.link("current", v1)
			m.startReady()
			_, old, err := get(addr)
			if err != nil {
				t.Fatal(err)
			}
			bad := "2.0-bbbbbbbbbbbb"
			if tt.behave != "-" {
				bad = m.release("2.0", tt.behave)
			}
			switch tt.behave {
			case "no libc":
				link(t, filepath.Join(m.dir, "store/releases", bad, "bin/app"), `libc\.so\.6\x00`, "libx.so.6\x00")
			case "another libc":
				link(t, filepath.Join(m.dir, "store/releases", bad, "bin/app"), `GLIBC_2\.\d\d`, "GLIBC_9.99")
			}
			if tt.behave == "text" {
				program := filepath.Join(m.dir, "store/releases", bad, "bin/app")
				if err := errors.Join(os.Remove(program), os.WriteFile(program, []byte("words"), 0o755)); err != nil {
					t.Fatal(err)
				}
			}
			m.link("next", bad)
			_, err = m.handover()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("handover: got %v, want %q in it", err, tt.want)
			}
			if tt.exit != "" {
				m.eventually("the log says how it ended", func() bool { return strings.Contains(m.logs(), fmt.Sprintf("exit=%q", tt.exit)) })
			}
			got, pid, err := get(addr)
			if err != nil || got != v1 || pid != old {
				t.Errorf("after: got %s from %d, %v; want %s from %d", got, pid, err, v1, old)
			}
			m.eventually("status of the old", func() bool {
				st, ok := statusline.Parse(m.status())
				return ok && st.Release == v1 && st.Starting == "" && strings.Contains(st.Note, tt.want)
			})
			// Nothing of the failed one is left.
			m.eventually("one pidfd", func() bool {
				return slices.Equal(m.storedNames(), []string{"upgraderd.state", "upgraderd.worker.1"})
			})
		})
	}
}

// link makes program one that is linked to a library which this host does not have, as
// a program that was built elsewhere is.
func link(t *testing.T, program, was, is string) {
	t.Helper()
	data, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	linked := regexp.MustCompile(was).ReplaceAll(data, []byte(is))
	if bytes.Equal(linked, data) || len(linked) != len(data) {
		t.Fatalf("/bin/true is not linked to %s", was)
	}
	if err := errors.Join(os.Remove(program), os.WriteFile(program, linked, 0o755)); err != nil {
		t.Fatal(err)
	}
}

// A program that is still held open for writing is tried again for a moment; for
// longer, that is not its fault, and the old worker serves.
func TestProgramBusy(t *testing.T) {
	m := newManager(t)
	addr := m.socket("web")
	v1, v2 := m.release("1.0", ""), m.release("2.0", "")
	m.link("current", v1)
	m.startReady()
	program := filepath.Join(m.dir, "store/releases", v2, "bin/app")
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(program), os.WriteFile(program, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	m.link("next", v2)
	held, err := os.OpenFile(program, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.handover(); err == nil || !strings.Contains(err.Error(), "text file busy") {
		t.Errorf("handover: got %v, want that the file is busy", err)
	}
	if got, _, err := get(addr); err != nil || got != v1 {
		t.Errorf("got %s, %v; want %s as before", got, err, v1)
	}
	if st, _ := statusline.Parse(m.status()); !strings.HasPrefix(st.Note, statusline.Refused) {
		t.Errorf("status %q blames the release", m.status())
	}
	time.AfterFunc(30*time.Millisecond, func() { held.Close() })
	if r, err := m.handover(); err != nil || r.Release != v2 {
		t.Errorf("handover: got %+v, %v", r, err)
	}
}

func TestExtendTimeout(t *testing.T) {
	m := newManager(t, "start=400ms")
	addr := m.socket("web")
	v1 := m.release("1.0", "extend=400000") // 4 × 300 ms
	m.link("current", v1)
	m.startReady()
	if got, _, err := get(addr); err != nil || got != v1 {
		t.Errorf("got %s %v", got, err)
	}
}

func TestDrainLimit(t *testing.T) {
	m := newManager(t, "drain=300ms")
	addr := m.socket("web")
	child := filepath.Join(m.dir, "child")
	v1, v2 := m.release("1.0", "stubborn child childfile="+child), m.release("2.0", "")
	m.link("current", v1)
	m.startReady()
	_, old, _ := get(addr)
	m.link("next", v2)
	if _, err := m.handover(); err != nil {
		t.Fatal(err)
	}
	m.eventually("the kill", func() bool { return processGone(old) })
	data, _ := os.ReadFile(child)
	pid, _ := strconv.Atoi(string(data))
	m.eventually("the end of its process group", func() bool { return pid > 0 && processGone(pid) })
}

func TestManyDrain(t *testing.T) {
	m := newManager(t, "drain=20s", "max=3")
	addr := m.socket("web")
	v1 := m.release("1.0", "linger=2s")
	m.link("current", v1)
	m.startReady()
	for range 3 {
		if _, err := m.handover(); err != nil {
			t.Fatal(err)
		}
	}
	m.eventually("3 draining", func() bool { st, _ := statusline.Parse(m.status()); return st.Draining == 3 })
	if _, err := m.handover(); err == nil || !strings.Contains(err.Error(), "3 old workers still drain") {
		t.Errorf("above the cap: %v", err)
	}
	if _, _, err := get(addr); err != nil {
		t.Error(err)
	}
	m.eventually("none draining", func() bool { st, _ := statusline.Parse(m.status()); return st.Draining == 0 })
	if _, err := m.handover(); err != nil {
		t.Errorf("below the cap again: %v", err)
	}
}

func TestJoinedHandover(t *testing.T) {
	m := newManager(t)
	m.socket("web")
	v1, v2 := m.release("1.0", ""), m.release("2.0", "sleep=300ms")
	m.link("current", v1)
	m.startReady()
	m.link("next", v2)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if r, err := m.handover(); err != nil || r.Release != v2 {
				t.Errorf("joined: %+v %v", r, err)
			}
		})
	}
	wg.Wait()
	m.eventually("the new worker in the status", func() bool { st, _ := statusline.Parse(m.status()); return st.Release == v2 })
	if st, _ := statusline.Parse(m.status()); st.Generation != 2 {
		t.Errorf("generation %d, want 2: five requests are one handover", st.Generation)
	}
}

func TestSignals(t *testing.T) {
	m := newManager(t)
	addr := m.socket("web")
	v1 := m.release("1.0", "")
	m.link("current", v1)
	m.startReady()
	for i, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2} {
		_, old, _ := get(addr)
		m.cmd.Process.Signal(sig)
		m.eventually(sig.String(), func() bool {
			st, _ := statusline.Parse(m.status())
			return processGone(old) && st.Generation == i+2
		})
	}
	m.cmd.Process.Signal(syscall.SIGUSR1)
	m.eventually("the worker's reload", func() bool { st, _ := statusline.Parse(m.status()); return st.Note == "reloaded" })
	_, pid, _ := get(addr)
	m.cmd.Process.Signal(syscall.SIGTERM)
	if ps := m.exited(); ps.ExitCode() != 0 {
		t.Errorf("stopped with %s", ps)
	}
	if !processGone(pid) {
		t.Error("the worker outlived a stop")
	}
	if m.count("STOPPING=1") != 1 {
		t.Error("systemd was not told STOPPING=1")
	}
}

func TestWorkerDiesUnasked(t *testing.T) {
	for _, tt := range []struct {
		name string
		sig  syscall.Signal
	}{{"killed", syscall.SIGKILL}, {"segv", syscall.SIGSEGV}, {"abrt", syscall.SIGABRT}} {
		t.Run(tt.name, func(t *testing.T) {
			m := newManager(t)
			addr := m.socket("web")
			m.link("current", m.release("1.0", ""))
			m.startReady()
			_, pid, _ := get(addr)
			syscall.Kill(pid, tt.sig)
			ws := m.exited().Sys().(syscall.WaitStatus)
			if tt.sig == syscall.SIGKILL && (!ws.Signaled() || ws.Signal() != tt.sig) {
				t.Errorf("got %v, want %s", ws, tt.sig)
			}
			// Go turns the other two into exit status 2 with a trace.
			if tt.sig != syscall.SIGKILL && (ws.ExitStatus() != 2 && ws.Signal() != tt.sig) {
				t.Errorf("got %v, want what the worker did", ws)
			}
		})
	}
	t.Run("exit 7", func(t *testing.T) {
		m := newManager(t)
		m.socket("web")
		m.link("current", m.release("1.0", "die=50ms"))
		m.start()
		if ps := m.exited(); ps.ExitCode() != 7 {
			t.Errorf("got %s, want 7", ps)
		}
	})
	t.Run("crash at first start", func(t *testing.T) {
		m := newManager(t)
		m.socket("web")
		m.link("current", m.release("1.0", "segv"))
		m.start()
		ws := m.exited().Sys().(syscall.WaitStatus)
		if !ws.Signaled() || ws.Signal() != syscall.SIGSEGV {
			t.Errorf("got %v, want SIGSEGV", ws)
		}
	})
}

// A supervisor that is killed refuses no connection: the next one adopts.
func TestAdopt(t *testing.T) {
	m := newManager(t, "listen=extra=tcp:127.0.0.1:0")
	addr := m.socket("web")
	v1, v2 := m.release("1.0", "linger=1500ms store=pipe"), m.release("2.0", "")
	m.link("current", v1)
	m.startReady()
	_, old, _ := get(addr)
	m.link("next", v2)
	if _, err := m.handover(); err != nil {
		t.Fatal(err)
	}
	m.link("current", v2)
	m.link("next", "")
	var serving int // the old one may accept until it has seen its signal
	m.eventually("2.0 answers", func() bool {
		got, pid, err := get(addr)
		serving = pid
		return err == nil && got == v2
	})
	for range 3 {
		m.cmd.Process.Kill()
		m.exited()
		if got, pid, err := get(addr); err != nil || got != v2 || pid != serving {
			t.Fatalf("without a supervisor: got %s from %d, %v", got, pid, err)
		}
		m.startReady()
		// A worker that hangs in accept(2) does not see that it is to drain.
		for _, f := range m.sockets {
			err := control(f, func(fd int) {
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
					t.Errorf("socket %s blocks the adopted worker (%v)", f.Name(), err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, pid, _ := get(addr); pid != serving {
		t.Errorf("serving is %d, want the adopted %d", pid, serving)
	}
	m.eventually("the end of the adopted drain", func() bool {
		st, ok := statusline.Parse(m.status())
		return ok && st.Draining == 0 && st.Release == v2 && processGone(old)
	})
	if reply, err := m.handover(); err != nil || reply.Release != v2 {
		t.Errorf("handover from an adopted worker: %+v %v", reply, err)
	}
	m.eventually("the end of the adopted worker", func() bool { return processGone(serving) })
	want := []string{"extra", "pipe", "upgraderd.state", "upgraderd.worker.3"}
	m.eventually(fmt.Sprint(want), func() bool { return slices.Equal(m.storedNames(), want) })

	// An adopted worker that dies unasked ends the supervisor too.
	m.cmd.Process.Kill()
	m.exited()
	m.startReady()
	_, pid, _ := get(addr)
	syscall.Kill(pid, syscall.SIGKILL)
	if ps := m.exited(); ps.Success() {
		t.Errorf("got %s", ps)
	}
}

// Killed in the middle of a handover: the unproven worker does not serve.
func TestAdoptDuringHandover(t *testing.T) {
	m := newManager(t)
	addr := m.socket("web")
	v1, v2 := m.release("1.0", ""), m.release("2.0", "deaf sleep=10s")
	m.link("current", v1)
	m.startReady()
	m.link("next", v2)
	go m.handover()
	m.eventually("the start of 2.0", func() bool { st, _ := statusline.Parse(m.status()); return st.Starting == v2 })
	m.cmd.Process.Kill()
	m.exited()
	m.link("next", "")
	m.startReady()
	if got, _, err := get(addr); err != nil || got != v1 {
		t.Errorf("got %s %v, want %s", got, err, v1)
	}
	m.eventually("only the proven worker", func() bool {
		return slices.Equal(m.storedNames(), []string{"upgraderd.state", "upgraderd.worker.1"})
	})
}

func TestReadyWithoutNotify(t *testing.T) {
	for _, tt := range []struct {
		name, ready, behave string
		ok                  bool
	}{ // the start deadline is short where it has to pass
		{"accepting", "accepting", "never", true},
		{"deaf", "accepting", "never deaf", false},
		{"after", "after=100ms", "never", true},
		{"dies before", "after=1m", "never die=50ms", false},
		{"command", "/bin/true", "never", true},
		{"command fails", "/bin/false", "never", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limit := "start=10s"
			switch {
			case tt.name == "dies before": // and not for its time
				limit = "start=2m"
			case !tt.ok:
				limit = "start=2s"
			}
			m := newManager(t, limit, "ready="+tt.ready)
			addr := m.socket("web")
			m.socket("admin")
			v1 := m.release("1.0", "") // READY=1 counts always
			m.link("current", v1)
			m.startReady()
			v2 := m.release("2.0", tt.behave)
			m.link("next", v2)
			_, err := m.handover()
			if (err == nil) != tt.ok {
				t.Fatalf("handover: %v", err)
			}
			want := v1
			if tt.ok {
				want = v2
			}
			m.eventually("who serves", func() bool { got, _, err := get(addr); return err == nil && got == want })
			if tt.name == "deaf" && !strings.Contains(err.Error(), `socket "web"`) {
				t.Errorf("the error does not name the socket: %v", err)
			}
		})
	}
}

// Connections wait in the backlog until the first release is there.
func TestFirstRelease(t *testing.T) {
	m := newManager(t)
	addr := m.socket("web")
	m.start()
	m.eventually("Waiting", func() bool { return strings.HasPrefix(m.status(), "Waiting: no release yet") })
	answer := make(chan string, 1)
	go func() { r, _, err := get(addr); answer <- fmt.Sprint(r, err) }()
	v1 := m.release("1.0", "")
	m.link("current", v1)
	if got := <-answer; got != v1+"<nil>" {
		t.Errorf("the waiting connection got %s", got)
	}
}

func TestForgedNotifications(t *testing.T) {
	m := newManager(t)
	m.socket("web")
	v1, v2 := m.release("1.0", "forge"), m.release("2.0", "")
	m.link("current", v1)
	m.startReady()
	m.link("next", v2)
	if _, err := m.handover(); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"MAINPID=1", "STOPPING=1"} {
		if m.count(bad) > 0 {
			t.Errorf("%s reached systemd", bad)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.states {
		if strings.ContainsAny(s, "\x01\x7f") {
			t.Errorf("control characters reached systemd: %q", s)
		}
	}
}

func TestNoGrowth(t *testing.T) {
	m := newManager(t, "max=100")
	addr := m.socket("web")
	m.link("current", m.release("1.0", ""))
	m.startReady()
	fds := func() int {
		e, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid))
		return len(e)
	}
	settle := func() {
		m.eventually("drained", func() bool { st, _ := statusline.Parse(m.status()); return st.Draining == 0 })
	}
	for range 3 {
		m.handover()
	}
	settle()
	before := fds()
	for range 30 {
		if _, err := m.handover(); err != nil {
			t.Fatal(err)
		}
	}
	settle()
	if _, _, err := get(addr); err != nil {
		t.Error(err)
	}
	m.eventually("as few descriptors as before", func() bool { return fds() <= before })
	m.eventually("no child but the one that serves", func() bool { return len(m.children()) == 1 })
}

// Without systemd there is no fd store, and everything else works.
func TestAlone(t *testing.T) {
	m := newManager(t, "listen=tcp:127.0.0.1:0", "listen=sock=unix:"+filepath.Join(t.TempDir(), "s"))
	m.alone = true
	v1 := m.release("1.0", "")
	m.link("current", v1)
	m.start()
	m.eventually("a worker", func() bool { return strings.Contains(m.logs(), "serves: worker") })
	if r, err := m.handover(); err != nil || r.Release != v1 {
		t.Errorf("handover: %+v %v", r, err)
	}
	m.cmd.Process.Signal(syscall.SIGINT)
	if ps := m.exited(); !ps.Success() {
		t.Errorf("stopped with %s", ps)
	}
	if strings.Contains(m.logs(), "level=WARN") {
		t.Errorf("warnings without a reason:\n%s", m.logs())
	}
}

// A worker whose pidfd never reached the fd store is known by where it reports
// to, and nobody else is taken for it: no other worker, and no child of its own.
func TestFindReporting(t *testing.T) {
	start := func(leads bool, env ...string) int {
		cmd := exec.Command("/bin/sleep", "300")
		cmd.Env, cmd.SysProcAttr = env, &syscall.SysProcAttr{Setpgid: leads}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		// The kernel closes what tells of the start before it places the environment.
		environ := fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if text, err := os.ReadFile(environ); err != nil || len(text) > 0 || time.Now().After(deadline) {
				return cmd.Process.Pid
			}
		}
	}
	path := filepath.Join(t.TempDir(), "notify.7")
	others := []int{
		1 << 30,
		start(false, "NOTIFY_SOCKET="+path),
		start(true, "NOTIFY_SOCKET="+path+"1"),
		start(true, "XNOTIFY_SOCKET="+path),
		start(true),
	}
	if pid, pidfd := findReporting(others, path); pid != 0 || pidfd != nil {
		t.Errorf("got %d, want none of %v", pid, others)
	}
	want := start(true, "A=b", "NOTIFY_SOCKET="+path, "LISTEN_FDS=1")
	pid, pidfd := findReporting(append(others, want), path)
	if pid != want || pidfd == nil {
		t.Fatalf("got %d %v, want %d", pid, pidfd, want)
	}
	pidfd.Close()
}
