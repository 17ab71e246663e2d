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

// syscalls are those of one name, and how often each is made to end the daemon,
// at the first, the second and so on.
type syscalls struct {
	call string
	most int
}

// swept are the system calls by which the daemon changes a disk or talks to
// somebody.
var swept = []syscalls{
	{"fsync", 40}, {"renameat", 30}, {"mkdirat", 8}, {"symlinkat", 12}, {"unlinkat", 30}, {"fchmod", 8}, {"fchmodat", 8},
	{"openat", 24}, {"write", 24}, {"pwrite64", 8}, {"flock", 2}, {"sendmsg", 24}, {"sendto", 8}, {"connect", 2}, {"getdents64", 12},
}

// decisive are those that a rollback, a first install and a change of keys are
// swept by: what they do beside it they have in common with an upgrade.
var decisive = []syscalls{{"renameat", 30}, {"fsync", 40}, {"unlinkat", 20}, {"symlinkat", 8}, {"sendmsg", 20}, {"openat", 24}}

// TestKillSweep kills the real daemon at its first, second, … call of each kind
// during a first install, an upgrade that has old releases pruned, a rollback and
// a change of the trusted key, by fault injection of strace(1): the call is not
// made. The next daemon must converge by itself each time, and clients lose
// nothing. Each second kill hits the daemon that recovers, too.
func TestKillSweep(t *testing.T) {
	limit := 8 * time.Minute
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

	fresh := l.freshSource()
	ways := []struct {
		name  string
		swept []syscalls
		share time.Duration // of the time, in tenths
		do    func()        // until all is quiet again
	}{
		{"a first install", decisive, 2, func() { l.installFresh(fresh) }},
		{"a rollback", decisive, 2, func() { l.publish("sicken:20ms"); l.calm() }},
		{"a change of the trusted key", decisive, 2, func() { l.changeKey(); l.calm() }},
		{"an upgrade", swept, 4, func() { l.publish(""); l.calm() }}, // and the fourth release and on have one pruned
	}
	began := time.Now()
	var figure []string
	total := 0
	for _, way := range ways {
		kills, points := l.sweep(way.swept, time.Now().Add(limit*way.share/10), way.do)
		t.Logf("%s: %d times, %d kills", way.name, points, kills)
		if t.Failed() {
			t.Fatalf("%s does not survive", way.name)
		}
		if kills < 4 {
			t.Errorf("%s: only %d kills: this shows little", way.name, kills)
		}
		figure = append(figure, fmt.Sprintf("%d in %s", kills, way.name))
		total += kills
	}
	r := m.NothingLost(l.clients)
	t.Logf("%d kills in %v", total, time.Since(began).Round(time.Second))
	if total < 20 {
		t.Errorf("only %d kills: this shows little", total)
	}
	err := figures.Note(figures.Row{
		Name: "kill sweep of the daemon, by system call", Target: "0 violations", Missed: t.Failed(),
		Figure: fmt.Sprintf("0 violations in %d kills (%s), %d requests, %d lost", total, strings.Join(figure, ", "), r.Sent, r.Failures()),
	})
	if err != nil {
		t.Error(err)
	}
}

// sweep has do happen again and again, and the daemon end at the next call each
// time, until it makes no so many calls or the time is over.
func (l *life) sweep(swept []syscalls, until time.Time, do func()) (kills, points int) {
	over := map[string]bool{}
	for n := 1; len(over) < len(swept); n++ {
		for _, s := range swept {
			if over[s.call] || n > s.most || time.Now().After(until) {
				over[s.call] = true
				continue
			}
			before := l.restarts()
			stop := l.inject(s.call, n)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if n%2 == 0 { // the next daemon ends early in what it finds
					l.killNext(before)
				}
			}()
			do()
			stop()
			<-ended
			points++
			if l.restarts() == before {
				over[s.call] = true
				continue
			}
			kills++
			if l.t.Failed() {
				l.t.Errorf("after a kill at %s number %d", s.call, n)
				return kills, points
			}
		}
	}
	return kills, points
}

func (l *life) restarts() string { return l.m.Property("upgraderd.service", "NRestarts") }

// killNext kills the daemon that follows one that ended, while it recovers. It
// gives up where none ended.
func (l *life) killNext(before string) {
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if l.restarts() != before {
			l.kill("upgraderd.service")
			return
		}
	}
}

// freshSource has one release of a program that nobody follows yet.
func (l *life) freshSource() *kit.Source {
	source := l.m.DirSource("/srv/fresh")
	source.Publish("fresh-1.0", kit.Hello(l.t, "1.0", ""))
	return source
}

// installFresh follows a target that is new, until its unit serves its first
// release, and takes it away again.
func (l *life) installFresh(source *kit.Source) {
	l.fresh++
	m, name := l.m, fmt.Sprintf("fresh%d", l.fresh)
	unit, config := "live@"+name, "/etc/upgraderd/"+name+".upgrade"
	m.Write("/etc/systemd/system/"+unit+".socket.d/address.conf", "[Socket]\nListenStream=/run/"+name+".sock\n")
	m.Write(config, fmt.Sprintf("[Upgrade]\nUnit=%s.service\n[Source]\nPath=/srv/fresh\nMatchPattern=fresh-@v\nKey=%s\nPollIntervalSec=1s\n[Confirm]\nWindowSec=200ms\n", unit, source.Key))
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "start", "--no-block", unit+".socket", unit+".service")
	l.reread()
	var why string
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		s, err := l.statusOf(name)
		switch {
		case err != nil:
			why = err.Error()
		case s.State != "idle" || s.Next != "" || !strings.HasPrefix(s.Current, "1.0-"):
			why = fmt.Sprintf("%+v", s)
		case m.Property(unit+".service", "ActiveState") != "active":
			why = "the unit is not active"
		default:
			why = ""
		}
		if why == "" || time.Now().After(deadline) {
			break
		}
	}
	if why != "" {
		l.t.Errorf("%s was not installed: %s", name, why)
	}
	m.Run("rm", config)
	l.reread()
	m.Run("systemctl", "stop", unit+".service", unit+".socket")
}

// reread has the daemon read its configuration again, and one that ends over
// that reads it when it starts.
func (l *life) reread() {
	if _, err := l.m.Machine.Run(l.t.Context(), "systemctl", "reload", "upgraderd.service"); err != nil {
		l.t.Logf("reload: %v", err)
	}
}

// changeKey has the publisher sign with another key, and the target trust that
// one alone.
func (l *life) changeKey() {
	old := l.source.Key
	if err := l.source.NewKey(); err != nil {
		l.t.Fatal(err)
	}
	l.publish("")
	l.m.Run("sed", "-i", "s|^Key="+old+"$|Key="+l.source.Key+"|", "/etc/upgraderd/hello.upgrade")
	l.reread()
}

// inject has the daemon that runs now end with its n-th call of that name from
// now on.
func (l *life) inject(call string, n int) (stop func()) {
	main := "0" // while systemd waits to start it again
	l.m.Eventually("the daemon runs", func() bool {
		main = l.m.Property("upgraderd.service", "MainPID")
		return main != "0"
	})
	pid := l.hostPID(main)
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
