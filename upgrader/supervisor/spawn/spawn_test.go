package spawn

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary is also a caller whose file limit is looked at.
func TestMain(m *testing.M) {
	if os.Getenv("SPAWN_TEST_LIMIT") != "" {
		RestoreFileLimit()
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			panic(err)
		}
		fmt.Println(limit.Cur)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// shell starts a script whose output is the file out, on descriptor 3.
func shell(t *testing.T, script string, files ...int) (child Process, out *os.File) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	child, err = Start(Options{
		Program: "/bin/sh", Args: []string{"sh", "-c", "exec >&3\n" + script},
		Env: []string{"PATH=" + os.Getenv("PATH"), "A=b=c"}, PIDs: []string{"LISTEN_PID", "WATCHDOG_PID"},
		Files: append([]int{int(out.Fd())}, files...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(child.PIDFD) })
	return child, out
}

func wait(t *testing.T, child Process) syscall.WaitStatus {
	t.Helper()
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(child.PID, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Error(err)
		}
		break
	}
	return syscall.WaitStatus(status)
}

func read(t *testing.T, out *os.File) string {
	t.Helper()
	data, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestPID(t *testing.T) {
	child, out := shell(t, `echo $LISTEN_PID $WATCHDOG_PID $$ $A; read forever </dev/null; exec sleep 0.1`)
	if group, err := unix.Getpgid(child.PID); err != nil || group != child.PID {
		t.Errorf("process group: got %d %v, want its own, %d", group, err, child.PID)
	}
	if status := wait(t, child); !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("got status %#x", status)
	}
	if got, want := read(t, out), fmt.Sprintln(child.PID, child.PID, child.PID, "b=c"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The reason is told at once, and no child is left to be waited for.
func TestNoProgram(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]string{
		"/nowhere/at/all": "start program /nowhere/at/all: no such file or directory",
		"/":               "start program /: permission denied",
		text:              "start program " + text + ": exec format error",
		"a\x00b":          `start program "a\x00b": invalid argument`,
	} {
		if _, err := Start(Options{Program: program, Args: []string{"x"}}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("got child %d %v, want none", pid, err)
	}
}

// Files arrive in order, whatever numbers they had, and nothing else does.
func TestFiles(t *testing.T) {
	var files []int
	for i := range 4 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		fmt.Fprintln(w, "file", i)
		w.Close()
		files = append(files, int(r.Fd()))
	}
	// The numbers it wants for one are held by another, and the other way round.
	files[0], files[3] = files[3], files[0]
	child, out := shell(t, `for fd in 4 5 6 7; do read line <&$fd; echo "$line"; done; exec ls /proc/self/fd`, files...)
	wait(t, child)
	const want = "file 3\nfile 1\nfile 2\nfile 0\n"
	got, found := strings.CutPrefix(read(t, out), want)
	if !found {
		t.Fatalf("got %q, want %q first", got, want)
	}
	// What the test inherited itself, and ls for its work, is no mistake.
	plain, err := exec.Command("ls", "/proc/self/fd").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(strings.Fields(got)), len(strings.Fields(string(plain)))+1+len(files); got != want {
		t.Errorf("got %d descriptors, want %d", got, want)
	}
}

// Signals mean to the program what they meant to the caller before the
// caller's runtime took them: as to a child of the standard library.
func TestSignals(t *testing.T) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Ignore(syscall.SIGUSR2)
	defer signal.Reset(syscall.SIGHUP, syscall.SIGUSR2)
	const script = `exec sed -nE '/^Sig(Blk|Ign|Cgt)/p' /proc/self/status`
	child, out := shell(t, script)
	wait(t, child)
	want, err := exec.Command("/bin/sh", "-c", script).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, out); got != string(want) || !strings.Contains(got, "SigBlk:\t0000000000000000\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRestoreFileLimit(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `ulimit -S -n 200 && exec "$0"`, exe)
	cmd.Env = append(os.Environ(), "SPAWN_TEST_LIMIT=1")
	out, err := cmd.CombinedOutput()
	if err != nil || string(bytes.TrimSpace(out)) != "200" {
		t.Errorf("got %q %v, want 200", out, err)
	}
}

// Nothing is left of some hundred children, started from many goroutines while
// others allocate, and the collector runs.
func TestLeavesNothing(t *testing.T) {
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before := open()
	stop := make(chan struct{})
	var busy, starters sync.WaitGroup
	for range 2 {
		busy.Go(func() {
			for kept := [][]byte(nil); ; kept = append(kept, make([]byte, 4096)) {
				select {
				case <-stop:
					return
				default:
				}
				if len(kept) > 1000 {
					kept = nil
					runtime.GC()
				}
			}
		})
	}
	for range 4 {
		starters.Go(func() {
			for range 50 {
				child, err := Start(Options{Program: "/bin/true", Args: []string{"true"}, Files: []int{int(null.Fd())}})
				if err != nil {
					t.Error(err)
					return
				}
				if status := wait(t, child); status != 0 {
					t.Errorf("got status %#x", status)
				}
				unix.Close(child.PIDFD)
			}
		})
	}
	starters.Wait()
	close(stop)
	busy.Wait()
	if after := open(); after != before {
		t.Errorf("descriptors: got %d, want %d", after, before)
	}
}

// BenchmarkStart stands beside the standard library's way, which cannot tell
// the child its PID.
func BenchmarkStart(b *testing.B) {
	b.Run("spawn", func(b *testing.B) {
		for b.Loop() {
			child, err := Start(Options{Program: "/bin/true", Args: []string{"true"}, Env: os.Environ(), PIDs: []string{"LISTEN_PID"}})
			if err != nil {
				b.Fatal(err)
			}
			bury(child.PID, child.PIDFD)
		}
	})
	b.Run("syscall.ForkExec", func(b *testing.B) {
		for b.Loop() {
			pidfd := -1
			pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{
				Env: os.Environ(), Files: []uintptr{0, 1, 2},
				Sys: &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
			})
			if err != nil {
				b.Fatal(err)
			}
			bury(pid, pidfd)
		}
	})
}
