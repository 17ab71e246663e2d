//go:build integration && soak

package soak

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/figures"
	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

// swept are the system calls by which the daemon changes a disk or talks to
// somebody, and how often each is made to end it, once for each call of an
// upgrade in turn.
var swept = []struct {
	call string
	most int
}{
	{"fsync", 40}, {"renameat", 30}, {"mkdirat", 8}, {"symlinkat", 12}, {"unlinkat", 30}, {"fchmod", 8}, {"fchmodat", 8},
	{"openat", 24}, {"write", 24}, {"pwrite64", 8}, {"flock", 2}, {"sendmsg", 24}, {"sendto", 8}, {"connect", 2}, {"getdents64", 12},
}

// TestKillSweep kills the real daemon at its first, second, … call of each kind
// during an upgrade, by fault injection of strace(1): the call is not made. The
// next daemon must converge by itself each time, and clients lose nothing.
func TestKillSweep(t *testing.T) {
	limit := 5 * time.Minute
	if text := os.Getenv("UPGRADERD_SWEEP"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatalf("UPGRADERD_SWEEP: %v", err)
		}
	}
	m := kit.Boot(t, "trixie")
	l := &life{t: t, m: m, source: m.DirSource(dir), good: make(map[string]bool)}
	// strace counts calls by thread: one thread makes nearly all of them.
	m.Write("/etc/systemd/system/upgraderd.service.d/sweep.conf", "[Service]\nRestartSec=100ms\nEnvironment=GOMAXPROCS=1\n")
	l.begin("WindowSec=200ms\n")
	l.clients = m.Load(load.Options{Address: address, Rate: 300, Kept: 4})
	l.publish("")
	l.calm()

	kills, points := 0, 0
	began := time.Now()
	for _, s := range swept {
		for n := 1; n <= s.most && time.Since(began) < limit; n++ {
			before := m.Property("upgraderd.service", "NRestarts")
			stop := l.inject(s.call, n)
			l.publish("")
			l.calm()
			stop()
			points++
			if m.Property("upgraderd.service", "NRestarts") == before {
				break // an upgrade makes no so many calls of this kind
			}
			kills++
			if t.Failed() {
				t.Fatalf("after a kill at %s number %d", s.call, n)
			}
		}
	}
	r := m.NothingLost(l.clients)
	t.Logf("%d upgrades, %d kills in %v", points, kills, time.Since(began).Round(time.Second))
	if kills < 20 {
		t.Errorf("only %d kills: this shows little", kills)
	}
	err := figures.Note(figures.Row{
		Name: "kill sweep of the daemon, by system call", Target: "0 violations", Missed: t.Failed(),
		Figure: fmt.Sprintf("0 violations in %d kills of %d upgrades, %d requests, %d lost", kills, points, r.Sent, r.Failures()),
	})
	if err != nil {
		t.Error(err)
	}
}

// inject has the daemon that runs now end with its n-th call of that name from
// now on.
func (l *life) inject(call string, n int) (stop func()) {
	pid := l.hostPID(l.m.Property("upgraderd.service", "MainPID"))
	ctx, cancel := context.WithCancel(l.t.Context())
	var said strings.Builder
	cmd := exec.CommandContext(ctx, "strace", "-f", "-p", strconv.Itoa(pid), "-o", "/dev/null",
		"-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it lets go of the daemon
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	// Every thread is traced once their tracer stands in each status.
	deadline := time.Now().Add(5 * time.Second)
	for !traced(pid) {
		if time.Now().After(deadline) {
			cancel()
			_ = cmd.Wait()
			l.t.Fatalf("strace does not attach: %s", said.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
	return func() {
		cancel()
		_ = cmd.Wait() // whether it was interrupted or its daemon ended
	}
}

func traced(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, status := range threads {
		text, err := os.ReadFile(status)
		if err == nil && strings.Contains(string(text), "TracerPid:\t0\n") {
			return false
		}
	}
	return true
}

// hostPID is the number that a process of the machine has out here.
func (l *life) hostPID(inside string) int {
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", l.m.Leader()))
	if err != nil {
		l.t.Fatal(err)
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, proc := range all {
		if is, err := os.Readlink(proc + "/ns/pid"); err != nil || is != space {
			continue
		}
		status, err := os.ReadFile(proc + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "NSpid:" && f[len(f)-1] == inside {
				pid, _ := strconv.Atoi(filepath.Base(proc))
				return pid
			}
		}
	}
	l.t.Fatalf("the machine's process %s is not to be found", inside)
	return 0
}
