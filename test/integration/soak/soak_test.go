//go:build integration && soak

// Package soak lives a host's life at random: releases good and bad, daemons
// and supervisors that are killed at any moment, reloads, restarts, a systemd
// that re-executes itself. After each thing that happens the machine must find
// its way back by itself, and in all that time no client may lose a request.
package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/figures"
	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/lab"
	"github.com/upgraderd/upgraderd/test/load"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	unit     = "live@hello.service"
	address  = "127.0.0.1:8080"
	dir      = "/srv/hello"
	patience = 30 * time.Second
)

// TestSoak takes UPGRADERD_SOAK (a duration, default 1 min) in all, the same
// share on each suite. UPGRADERD_SEED plays a run again.
func TestSoak(t *testing.T) {
	total := time.Minute
	if text := os.Getenv("UPGRADERD_SOAK"); text != "" {
		var err error
		if total, err = time.ParseDuration(text); err != nil {
			t.Fatalf("UPGRADERD_SOAK: %v", err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("UPGRADERD_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("UPGRADERD_SEED: %v", err)
		}
	}
	t.Logf("UPGRADERD_SEED=%d", seed)
	share := total / time.Duration(len(lab.SelectedSuites()))
	kit.EachSuiteAlone(t, func(t *testing.T, m *kit.Machine) {
		l := &life{t: t, m: m, random: rand.New(rand.NewPCG(seed, 0)), source: m.DirSource(dir), good: make(map[string]bool)}
		l.live(share)
	})
}

// life is one machine's.
type life struct {
	t       *testing.T
	m       *kit.Machine
	random  *rand.Rand
	source  *kit.Source
	clients *load.Process
	count   int // of releases
	fresh   int // of targets that came and went
	// least is the version that must serve when all is quiet, or a newer one
	// that is good: what was interrupted is tried again, some time.
	least string
	good  map[string]bool
	names []string
}

// begin has the daemon follow the source, and the service wait for its first
// release.
func (l *life) begin(more string) {
	m := l.m
	m.Write("/etc/upgraderd/hello.upgrade", fmt.Sprintf(`[Upgrade]
Unit=%s
[Source]
Path=%s
MatchPattern=hello-@v
Key=%s
PollIntervalSec=1s
[Confirm]
WindowSec=1s
ProbeIntervalSec=100ms
Probe=http://%s/healthz
%s`, unit, dir, l.source.Key, address, more))
	m.Write("/etc/systemd/system/live@hello.socket.d/address.conf", "[Socket]\nListenStream="+address+"\n")
	m.Write("/etc/systemd/system/live@hello.service.d/fast.conf",
		"[Service]\nExecStart=\nExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/%i --start-timeout=1s -- bin/%i\n")
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "enable", "--now", "live@hello.socket", "upgraderd.service")
}

func (l *life) live(share time.Duration) {
	m := l.m
	l.begin("")
	l.clients = m.Load(load.Options{Address: address, Rate: 300, Kept: 4})
	l.publish("")
	l.calm()
	descriptors := l.descriptors()

	events := []struct {
		name   string
		happen func()
	}{
		{"a good release", func() { l.publish("") }},
		{"a release that crashes", func() { l.publish("crash") }},
		{"a release that never gets ready", func() { l.publish("unready") }},
		{"a release that turns bad", func() { l.publish("sicken:200ms") }},
		{"the daemon is killed", func() { l.kill("upgraderd.service") }},
		{"the daemon is killed during an upgrade", func() { l.publish(""); l.moment(); l.kill("upgraderd.service") }},
		{"the daemon is restarted during an upgrade", func() { l.publish(""); l.moment(); m.Run("systemctl", "restart", "upgraderd.service") }},
		{"the supervisor is killed", func() { l.kill(unit) }},
		{"the supervisor is killed during an upgrade", func() {
			before := l.least
			l.publish("")
			l.moment()
			l.kill(unit)
			l.least = before // the upgrade may have ended without a verdict
		}},
		{"the operator reloads the service", func() { m.Run("systemctl", "reload", unit) }},
		{"systemd re-executes itself", func() { m.Run("systemctl", "daemon-reexec") }},
		{"systemd reads its units again", func() { m.Run("systemctl", "daemon-reload") }},
	}
	rounds := 0
	for began := time.Now(); time.Since(began) < share; rounds++ {
		event := events[l.random.IntN(len(events))]
		l.t.Logf("%v: %s", time.Since(began).Round(time.Millisecond), event.name)
		event.happen()
		l.calm()
		if l.t.Failed() {
			break
		}
	}
	r := m.NothingLost(l.clients)
	l.t.Logf("%d rounds, %d releases", rounds, l.count)
	defer func() {
		err := figures.Note(figures.Row{
			Name: "a life at random, " + m.Suite, Target: "0 lost, always calm again", Missed: l.t.Failed(),
			Figure: fmt.Sprintf("%d rounds, %d releases, %d requests, %d lost", rounds, l.count, r.Sent, r.Failures()),
		})
		if err != nil {
			l.t.Error(err)
		}
	}()

	if got := l.descriptors(); got > descriptors+2 {
		l.t.Errorf("the supervisor's descriptors: got %d, want %d as in the beginning", got, descriptors)
	}
	if left := m.Run("sh", "-c", "ls -d /var/lib/upgraderd/hello/.incoming-* 2>/dev/null || :"); left != "" {
		l.t.Errorf("left in the store: %s", left)
	}
	// InstancesMax= is 3.
	releases := m.Run("find", "/var/lib/upgraderd/hello/releases", "-mindepth", "1", "-maxdepth", "1", "-type", "d")
	if n := len(strings.Fields(releases)); n > 3 {
		l.t.Errorf("got %d releases in the store, want 3 at most:\n%s\n%s", n, releases, m.Run("ls", "-l", "/var/lib/upgraderd/hello"))
	}
}

// moment is a random time within that of an upgrade.
func (l *life) moment() { time.Sleep(time.Duration(l.random.IntN(400)) * time.Millisecond) }

// publish publishes the next version, with a fault or none. Only the newest few
// stay online.
func (l *life) publish(fault string) {
	const placeholder = "9.9.999999"
	l.count++
	version := fmt.Sprintf("1.0.%06d", l.count)
	program, err := os.ReadFile(kit.Hello(l.t, placeholder, fault))
	if err != nil {
		l.t.Fatal(err)
	}
	// One build serves all versions: the string has the same length.
	program = bytes.ReplaceAll(program, []byte(placeholder), []byte(version))
	name := "hello-" + version
	if l.names = append(l.names, name); len(l.names) > 3 {
		l.source.Remove(l.names[0])
		l.m.Run("rm", dir+"/"+l.names[0])
		l.names = l.names[1:]
	}
	if fault == "" {
		l.good[version], l.least = true, version
	}
	l.source.PublishBytes(name, program)
}

// kill ends a unit's main process with SIGKILL.
func (l *life) kill(unit string) {
	if pid := l.m.Property(unit, "MainPID"); pid != "0" {
		// It may end by itself in between.
		_, _ = l.m.Machine.Run(l.t.Context(), "sh", "-c", "kill -s KILL "+pid)
	}
}

// status is what is read of `upgraderd status --json`.
type status struct {
	State   string `json:"state"`
	Current string `json:"current"`
	Next    string `json:"next"`
	Last    *struct {
		To      string    `json:"to"`
		Verdict string    `json:"verdict"`
		When    time.Time `json:"when"`
	} `json:"last"`
	KnownBad []struct {
		Version string `json:"version"`
	} `json:"known_bad"`
}

// tried tells whether there was an attempt at a version.
func (s status) tried(version string) bool {
	for _, bad := range s.KnownBad {
		if bad.Version == version {
			return true
		}
	}
	return s.Last != nil && s.Last.To == version
}

func (l *life) status() (status, error) { return l.statusOf("hello") }

func (l *life) statusOf(target string) (status, error) {
	out, err := l.m.Machine.Run(l.t.Context(), "upgraderd", "status", "--json", target)
	if err != nil {
		return status{}, err
	}
	var all []status
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return status{}, err
	}
	return all[0], nil
}

// calm waits until the newest release was tried and nothing is under way: the
// version that must serve serves, alone, and the supervisor has one worker.
func (l *life) calm() {
	var why string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if why = l.unrest(); why == "" {
			return
		}
	}
	l.t.Errorf("no calm after %v: %s", patience, why)
}

func (l *life) unrest() string {
	s, err := l.status()
	newest := fmt.Sprintf("1.0.%06d", l.count)
	switch {
	case err != nil:
		return err.Error()
	case s.State != "idle" || s.Next != "":
		return fmt.Sprintf("the target is %s, next is %q", s.State, s.Next)
	case !s.tried(newest):
		return fmt.Sprintf("%s was not tried", newest)
	case l.m.Property(unit, "ActiveState") != "active" || l.m.Property("upgraderd.service", "ActiveState") != "active":
		return "a unit is not active"
	}
	current, _, _ := strings.Cut(s.Current, "-")
	if !l.good[current] || current < l.least {
		return fmt.Sprintf("current is %s, want %s or a newer good one", current, l.least)
	}
	if processes := l.m.Processes(unit); len(processes) != 2 {
		return fmt.Sprintf("processes: %v", processes)
	}
	before := l.clients.Report().Versions
	soon, cancel := context.WithTimeout(l.t.Context(), time.Second)
	defer cancel()
	if err := l.clients.AwaitVersion(soon, current, 50); err != nil {
		return fmt.Sprintf("%s is current and does not answer: %v", current, err)
	}
	for version, n := range l.clients.Report().Versions {
		if version != current && n != before[version] {
			return fmt.Sprintf("%s still answers beside %s", version, current)
		}
	}
	l.least = current
	return ""
}

// descriptors is how many the supervisor has open.
func (l *life) descriptors() int {
	out := l.m.Run("sh", "-c", "ls /proc/"+l.m.Property(unit, "MainPID")+"/fd | wc -l")
	n, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}
