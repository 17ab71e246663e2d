//go:build integration && soak

package soak

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/figures"
	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

// TestWholeMachine ends the machine's init with SIGKILL at some moment of an
// upgrade, again and again, and boots it. What serves first is a release that
// proved itself; then the upgrade that was cut off arrives.
func TestWholeMachine(t *testing.T) {
	const kills = 10
	kit.EachSuiteAlone(t, func(t *testing.T, m *kit.Machine) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		l := &life{t: t, m: m, random: rand.New(rand.NewPCG(seed, 0)), source: m.DirSource(dir), good: make(map[string]bool)}
		l.begin("")
		m.Run("systemctl", "enable", unit)
		l.publish("")
		requests, tried := 0, 0
		defer func() {
			err := figures.Note(figures.Row{
				Name: "the whole machine killed, " + m.Suite, Target: "0 violations", Missed: t.Failed(),
				Figure: fmt.Sprintf("%d boots on what proved itself, %d requests, 0 lost", tried, requests),
			})
			if err != nil {
				t.Error(err)
			}
		}()
		for range kills {
			l.clients = m.Load(load.Options{Address: address, Rate: 300, Kept: 4})
			l.calm()
			requests += m.NothingLost(l.clients).Sent
			if t.Failed() {
				return
			}
			proved := l.least
			l.publish("")
			newest := l.least
			time.Sleep(time.Duration(l.random.IntN(2500)) * time.Millisecond) // fetch, swap, window, and after
			killed := time.Now()
			if err := m.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := m.PowerOn(t.Context()); err != nil {
				t.Fatal(err)
			}
			tried++
			switch first := l.firstStarted(); {
			case first == proved:
			case first == newest && l.confirmedBefore(newest, killed):
			default:
				t.Errorf("the machine came up with %s, which nobody proved; %s was", first, proved)
			}
		}
	})
}

// firstStarted is the version that the unit started with in this boot.
func (l *life) firstStarted() (version string) {
	l.m.Eventually("the unit starts a release", func() bool {
		_, rest, ok := strings.Cut(l.m.Run("journalctl", "--boot", "--unit="+unit), "hello: starting ")
		version, _, _ = strings.Cut(rest, "-")
		return ok
	})
	return version
}

// confirmedBefore tells whether a version was found good before that time.
func (l *life) confirmedBefore(version string, then time.Time) bool {
	s, err := l.status()
	return err == nil && s.Last != nil && s.Last.To == version && s.Last.Verdict == "good" && s.Last.When.Before(then)
}
