// Package dbustest runs a real dbus-daemon for a test: one of its own, on a socket in
// a temporary directory, on which anybody may do anything.
package dbustest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Bus is a dbus-daemon that may be stopped and started again. Its methods end the
// test on errors.
type Bus struct {
	// Address is where clients connect, also after another Start.
	Address string
	// Cmd is the process that runs now, for a test to freeze.
	Cmd *exec.Cmd

	t   testing.TB
	dir string
}

const config = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`

// Start runs a bus until the test ends.
func Start(t testing.TB) *Bus {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus") // t.TempDir() can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &Bus{t: t, dir: dir}
	b.Address = "unix:path=" + b.socket()
	b.Start()
	t.Cleanup(b.Stop)
	return b
}

func (b *Bus) socket() string { return filepath.Join(b.dir, "socket") }

// Start runs the bus again, after Stop.
func (b *Bus) Start() {
	b.t.Helper()
	file := filepath.Join(b.dir, "bus.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, b.socket()), 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.Cmd = exec.Command("dbus-daemon", "--config-file="+file, "--nofork", "--print-address")
	out, err := b.Cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.Cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		b.t.Fatalf("dbus-daemon does not come up: %v", err)
	}
}

// Stop kills the bus, frozen or not.
func (b *Bus) Stop() {
	_ = b.Cmd.Process.Signal(syscall.SIGCONT)
	_ = b.Cmd.Process.Kill()
	_ = b.Cmd.Wait()
	_ = os.Remove(b.socket())
}
