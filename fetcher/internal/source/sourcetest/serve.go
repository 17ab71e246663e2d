package sourcetest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Serve runs a server on an address of its own until the test ends, and gives
// that once somebody listens there.
func Serve(t testing.TB, command func(address string) *exec.Cmd) string {
	t.Helper()
	var said string
	for range 5 { // somebody else may have taken the port meanwhile
		address := freeAddress(t)
		cmd := command(address)
		var out output
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			cmd.Wait()
		}()
		if accepts(address, ended) {
			t.Cleanup(func() {
				cmd.Process.Signal(syscall.SIGTERM)
				select {
				case <-ended:
				case <-time.After(10 * time.Second):
					cmd.Process.Kill()
					<-ended
				}
				if t.Failed() {
					t.Logf("%s says:\n%s", filepath.Base(cmd.Path), out.String())
				}
			})
			return address
		}
		cmd.Process.Kill()
		<-ended
		said = out.String()
	}
	t.Fatalf("the server does not come up:\n%s", said)
	return ""
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// accepts waits until somebody does, or until the server has ended.
func accepts(address string, ended <-chan struct{}) bool {
	for range 600 {
		select {
		case <-ended:
			return false
		default:
		}
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return true
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}

// output keeps what a server says, the newest 64 KiB or so.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf.Len() > 64<<10 {
		o.buf.Reset()
	}
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Tool finds a program that the Makefile has installed from its module, beside
// the linters, or that is in the PATH.
func Tool(t testing.TB, name string) string {
	t.Helper()
	cache := os.Getenv("UPGRADERD_CACHE")
	if cache == "" {
		cache = "/var/cache/upgraderd-lab"
	}
	found, err := filepath.Glob(filepath.Join(cache, "tools", runtime.Version(), name+"-*", name))
	if err == nil && len(found) > 0 {
		return found[len(found)-1]
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: make servers", name)
	}
	return path
}

// Program finds a program of the distribution.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: make packages", name)
	}
	return path
}
