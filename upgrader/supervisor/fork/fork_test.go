package fork

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also a caller whose file limit is looked at, and one that
// is killed.
func TestMain(m *testing.M) {
	if os.Getenv("FORK_TEST_LIMIT") != "" {
		RestoreFileLimit()
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			panic(err)
		}
		fmt.Println(limit.Cur)
		os.Exit(0)
	}
	if ran := os.Getenv("FORK_TEST_KILLED"); ran != "" {
		if _, err := Start(Options{Program: "/bin/touch", Args: []string{"touch", ran}}); err != nil {
			panic(err)
		}
		fmt.Println("forked")
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	os.Exit(m.Run())
}

// shell starts a script whose output is the file out, on descriptor 3.
func shell(t *testing.T, script string, files ...int) (child *Child, out *os.File) {
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
	t.Cleanup(func() {
		child.Close()
		unix.Close(child.PIDFD)
	})
	return child, out
}

func wait(t *testing.T, child *Child) syscall.WaitStatus {
	t.Helper()
	var status unix.WaitStatus
	if _, err := unix.Wait4(child.PID, &status, 0, nil); err != nil {
		t.Fatal(err)
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

func TestGate(t *testing.T) {
	child, out := shell(t, `echo $LISTEN_PID $WATCHDOG_PID $$ $A`)
	time.Sleep(50 * time.Millisecond)
	if text := read(t, out); text != "" {
		t.Errorf("before the gate is open: got %q", text)
	}
	if group, err := unix.Getpgid(child.PID); err != nil || group != child.PID {
		t.Errorf("process group: got %d %v, want its own, %d", group, err, child.PID)
	}
	if err := child.Open(); err != nil {
		t.Fatal(err)
	}
	if status := wait(t, child); !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("got status %#x", status)
	}
	if got, want := read(t, out), fmt.Sprintln(child.PID, child.PID, child.PID, "b=c"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := child.Failed(); err != nil {
		t.Errorf("got %v of a child that ran", err)
	}
}

// One that is never let in never runs its program.
func TestGateGivenUp(t *testing.T) {
	child, out := shell(t, `echo ran`)
	child.Close()
	if status := wait(t, child); status.ExitStatus() != exitStatus {
		t.Errorf("got status %#x, want exit status %d", status, exitStatus)
	}
	if text := read(t, out); text != "" {
		t.Errorf("got %q, want nothing", text)
	}
}

// Nor does one whose caller was killed.
func TestCallerKilled(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ran := filepath.Join(t.TempDir(), "ran")
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "FORK_TEST_KILLED="+ran)
	// The child inherits stdout, so that its end is seen as the end of it.
	text, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("got %v, want a caller that was killed", err)
	}
	if string(text) != "forked\n" {
		t.Errorf("got %q", text)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the program ran")
	}
}

func TestFailed(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]string{
		"/nowhere/at/all": "never ran /nowhere/at/all: no such file or directory",
		"/":               "never ran /: permission denied",
		text:              "never ran " + text + ": exec format error",
	} {
		child, err := Start(Options{Program: program, Args: []string{"x"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Open(); err != nil {
			t.Error(err)
		}
		if status := wait(t, child); status.ExitStatus() != exitStatus {
			t.Errorf("%s: got status %#x, want exit status %d", program, status, exitStatus)
		}
		if err := child.Failed(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		child.Close()
		unix.Close(child.PIDFD)
	}
	if _, err := Start(Options{Program: "a\x00b"}); err == nil {
		t.Error("a NUL in the program: got no error")
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
	if err := child.Open(); err != nil {
		t.Fatal(err)
	}
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
// caller's runtime took them.
func TestSignals(t *testing.T) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Ignore(syscall.SIGUSR2)
	defer signal.Reset(syscall.SIGHUP, syscall.SIGUSR2)
	child, out := shell(t, `exec sed -nE '/^Sig(Blk|Ign|Cgt)/p' /proc/self/status`)
	if err := child.Open(); err != nil {
		t.Fatal(err)
	}
	wait(t, child)
	usr2 := fmt.Sprintf("%016x", 1<<(uint(syscall.SIGUSR2)-1))
	want := "SigBlk:\t0000000000000000\nSigIgn:\t" + usr2 + "\nSigCgt:\t0000000000000000\n"
	if got := read(t, out); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// Where it waits, a signal ends it.
	child, _ = shell(t, `:`)
	if err := unix.PidfdSendSignal(child.PIDFD, syscall.SIGHUP, nil, 0); err != nil {
		t.Fatal(err)
	}
	if status := wait(t, child); !status.Signaled() || status.Signal() != syscall.SIGHUP {
		t.Errorf("got status %#x, want the end by SIGHUP", status)
	}
}

func TestRestoreFileLimit(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `ulimit -S -n 200 && exec "$0"`, exe)
	cmd.Env = append(os.Environ(), "FORK_TEST_LIMIT=1")
	out, err := cmd.CombinedOutput()
	if err != nil || string(bytes.TrimSpace(out)) != "200" {
		t.Errorf("got %q %v, want 200", out, err)
	}
}

// Nothing is left of a hundred children.
func TestLeavesNothing(t *testing.T) {
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before := open()
	for i := range 100 {
		child, err := Start(Options{Program: "/bin/true", Args: []string{"true"}, Files: []int{int(null.Fd())}})
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			err = child.Open()
		}
		child.Close()
		if err != nil {
			t.Error(err)
		}
		wait(t, child)
		unix.Close(child.PIDFD)
	}
	if after := open(); after != before {
		t.Errorf("descriptors: got %d, want %d", after, before)
	}
	if _, err := io.ReadAll(null); err != nil {
		t.Errorf("the caller's file: %v", err)
	}
}
