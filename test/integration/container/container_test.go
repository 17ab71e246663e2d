//go:build integration

// Package container tests the supervisor as process 1 of a PID namespace, as a
// container starts it: no systemd, no fd store, releases on a volume.
package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

func TestMain(m *testing.M) { kit.Main(m) }

// container is a supervisor in a namespace of its own.
type container struct {
	t         *testing.T
	volume    string
	upgraderd string
	cmd       *exec.Cmd
	pid       int // as seen from here
	done      chan struct{}
	log       output
}

// output is what a process said so far.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func newContainer(t *testing.T) *container {
	t.Helper()
	c := &container{t: t, volume: t.TempDir(), upgraderd: kit.Build(t, "./cmd/upgraderd")}
	if err := os.Mkdir(c.path("run"), 0o700); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *container) path(name string) string { return filepath.Join(c.volume, name) }

// release puts a program on the volume and points current at it.
func (c *container) release(version, text string) {
	c.t.Helper()
	dir := c.path("releases/" + version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	kit.Script(c.t, filepath.Join(dir, "app"), text)
	if err := os.Symlink("releases/"+version, c.path(".current")); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(c.path(".current"), c.path("current")); err != nil {
		c.t.Fatal(err)
	}
}

// start starts it as a container engine would, with the kernel's word that nothing
// outlives it, or this test.
func (c *container) start(flags ...string) {
	c.t.Helper()
	args := append([]string{"--fork", "--pid", "--mount-proc", "--kill-child", c.upgraderd, "supervise", "--runtime-dir=" + c.path("run")}, flags...)
	c.cmd = exec.Command("unshare", append(args, "--", c.path("current/app"))...)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	c.done = make(chan struct{})
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // Pdeathsig is about the thread
		defer close(c.done)
		err := c.cmd.Start()
		started <- err
		if err == nil {
			_ = c.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.done
		if c.t.Failed() {
			c.t.Logf("the container said:\n%s", &c.log)
		}
	})
	c.eventually("process 1", func() bool {
		below := children(c.cmd.Process.Pid)
		if len(below) == 1 {
			c.pid = below[0]
		}
		return len(below) == 1 && len(children(c.pid)) > 0
	})
}

func (c *container) signal(sig syscall.Signal) {
	c.t.Helper()
	if err := syscall.Kill(c.pid, sig); err != nil {
		c.t.Fatal(err)
	}
}

// ended gives the exit status.
func (c *container) ended() int {
	c.t.Helper()
	select {
	case <-c.done:
		return c.cmd.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		c.t.Fatal("the container does not end")
		return 0
	}
}

func (c *container) eventually(what string, done func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("still not: %s", what)
		}
	}
}

// children are those of all threads of a process, zombies too.
func children(pid int) (pids []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		data, _ := os.ReadFile(list) // of a thread that is gone
		for _, f := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(f); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// serving is a program that starts the example service, and leaves a process
// behind whose parent is gone.
func serving(t *testing.T, version string) string {
	return "/bin/sh -c '/bin/sleep 0.1 &'\nexec " + kit.Hello(t, version, "")
}

func TestContainer(t *testing.T) {
	c := newContainer(t)
	c.release("1.0.0", serving(t, "1.0.0"))
	socket := c.path("web.sock")
	c.start("--listen=web=unix:" + socket)
	c.eventually("it listens", func() bool { _, err := os.Stat(socket); return err == nil })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	clients, err := load.Start(exec.Command(self), load.Options{Network: "unix", Address: socket, Rate: 200, Kept: 4})
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceValues(clients.Stop)
	defer stop()
	await := func(version string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := clients.AwaitVersion(ctx, version, 100); err != nil {
			t.Fatal(err)
		}
	}
	await("1.0.0")

	c.release("2.0.0", serving(t, "2.0.0"))
	c.signal(syscall.SIGHUP)
	await("2.0.0")

	// What a container's engine runs in it, or somebody on the volume.
	c.release("3.0.0", "exit 3")
	out, err := exec.CommandContext(t.Context(), c.upgraderd, "handover", "--runtime-dir="+c.path("run")).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(string(out), "exited with status 3") {
		t.Errorf("handover to a release that fails: got %v: %s", err, out)
	}
	await("2.0.0")
	c.eventually("one worker is left, and no zombie", func() bool { return len(children(c.pid)) == 1 })

	r, err := stop()
	if err != nil || r.Failures() != 0 {
		t.Errorf("got %d of %d requests failed, want 0: %v\n%s", r.Failures(), r.Sent, err, strings.Join(r.Errors, "\n"))
	}
	c.signal(syscall.SIGTERM)
	if got := c.ended(); got != 0 {
		t.Errorf("after SIGTERM: got exit status %d, want 0", got)
	}
}

// How a container ends: as its worker does, and after SIGQUIT, too, in good order.
func TestContainerEnds(t *testing.T) {
	t.Run("as the worker", func(t *testing.T) {
		c := newContainer(t)
		c.release("1.0.0", "read -r _ <"+c.path("go")+"\nexit 7")
		if err := syscall.Mkfifo(c.path("go"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.start("--ready=after=1ms")
		if err := os.WriteFile(c.path("go"), []byte("\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := c.ended(); got != 7 {
			t.Errorf("got exit status %d, want the worker's, 7", got)
		}
	})
	t.Run("on SIGQUIT", func(t *testing.T) {
		c := newContainer(t)
		c.release("1.0.0", "trap 'echo drained >"+c.path("word")+"; exit 0' TERM\n: >"+c.path("started")+"\nwhile :; do /bin/sleep 0.1; done")
		c.start("--ready=after=1ms")
		c.eventually("the worker serves, and has set its trap", func() bool {
			_, err := os.Stat(c.path("started"))
			return err == nil && strings.Contains(c.log.String(), "serves: worker")
		})
		c.signal(syscall.SIGQUIT)
		if got := c.ended(); got != 0 {
			t.Errorf("got exit status %d, want 0", got)
		}
		if word, err := os.ReadFile(c.path("word")); string(word) != "drained\n" {
			t.Errorf("the worker was not asked to drain: %q %v", word, err)
		}
	})
}
