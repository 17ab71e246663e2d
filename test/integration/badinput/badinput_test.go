//go:build integration

// Package badinput tests that whatever comes from outside, and whatever is
// wrong with the host, ends in one clear line in the journal: the release that
// serves goes on serving, so do other targets with their upgrades, nothing
// half-written stays, and when the cause is gone so is its effect.
//
// Every fault has a target and a service of its own, and all happen at the
// same time on one machine, beside a target that is upgraded over and over.
package badinput

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The faults wait more than they work.
	if err := flag.Set("test.parallel", "100"); err != nil {
		panic(err)
	}
	kit.Main(m)
}

// placeholder is a version as long as all others, which replace it.
const placeholder = "9.0.9"

func TestBadInput(t *testing.T) {
	kit.EachSuiteAlone(t, func(t *testing.T, m *kit.Machine) {
		began := time.Now()
		blank, err := os.ReadFile(kit.Hello(t, "version-"+placeholder, ""))
		if err != nil {
			t.Fatal(err)
		}
		program := func(version, name string) []byte {
			made := bytes.ReplaceAll(blank, []byte("version-"+placeholder), []byte(fmt.Sprintf("%-13s", version)))
			return append(made, name...) // so that no two targets share an artifact
		}
		city := newCity(t, m)
		writeRoot(t, m, "/etc/upgraderd/city.pem", city.authority)

		var scenes []*scene
		add := func(f fault) *scene {
			g := &target{name: f.name, port: 10001 + len(scenes), unit: "live@" + f.name + ".service", site: newSite(t), pattern: f.name + "-@v", more: f.more}
			if f.tar {
				g.pattern += ".tar"
			}
			g.source = "https://" + cityAddress + "/" + f.name + "/"
			city.add(f.name, g.site)
			s := &scene{target: g, fault: f, t: t, m: m, city: city, make: program}
			writeRoot(t, m, "/etc/systemd/system/live@"+f.name+".socket.d/address.conf", fmt.Sprintf("[Socket]\nListenStream=127.0.0.1:%d\n", g.port))
			if f.prepare != nil {
				f.prepare(s)
			}
			s.publish("1.0.0")
			writeRoot(t, m, "/etc/upgraderd/"+f.name+".upgrade", g.upgrade())
			scenes = append(scenes, s)
			return s
		}
		steady := add(fault{name: "steady"})
		for _, faults := range [][]fault{artifactFaults(), sourceFaults(), hostFaults()} {
			for _, f := range faults {
				add(f)
			}
		}
		own := scenes[1:]
		for _, f := range configFaults() {
			add(f)
		}
		configured := scenes[1+len(own):]
		alone := add(noPolkit())
		m.Run("systemctl", "daemon-reload")
		sockets := []string{"systemctl", "start"}
		for _, s := range scenes {
			sockets = append(sockets, strings.TrimSuffix(s.unit, ".service")+".socket")
		}
		m.Run(sockets...)
		diary := keepDiary(t, m)
		m.Run("systemctl", "enable", "--now", "upgraderd.service")
		for _, s := range scenes {
			s.diary = diary
			diary.awaitEvent(t, 0, s.name, journal.ReleaseInstalled)
			s.awaitVersion(t, m, "1.0.0")
		}
		t.Logf("%d targets serve after %v", len(scenes), time.Since(began))

		t.Run("faults", func(t *testing.T) {
			var running sync.WaitGroup
			for _, s := range own {
				running.Add(1)
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					defer running.Done()
					s.t, s.m = t, m.In(t)
					s.play(steady.name)
				})
			}
			over := make(chan struct{})
			go func() { running.Wait(); close(over) }()
			t.Run("steady", func(t *testing.T) {
				t.Parallel()
				upgradeUntil(t, steady, over)
			})
		})
		// These two concern the whole daemon, and the whole machine.
		t.Run("configuration", func(t *testing.T) { misconfigure(t, m.In(t), steady, configured) })
		t.Run("polkit", func(t *testing.T) {
			alone.t, alone.m = t, m.In(t)
			alone.play("") // nobody is upgraded without
			m.Run("systemctl", "stop", "polkit.service")
			place := diary.now()
			alone.publish("3.0.0") // by a polkit that the bus starts
			alone.healed(place, place, m.Property(alone.unit, "MainPID"), "3.0.0")
		})
		t.Logf("over after %v", time.Since(began))
	})
}

// upgradeUntil publishes one release after another, each when the one before
// is confirmed.
func upgradeUntil(t *testing.T, s *scene, over <-chan struct{}) {
	for n := 2; ; n++ {
		place := s.diary.now()
		s.publish(strconv.Itoa(n) + ".0.0")
		s.diary.awaitEvent(t, place, s.name, journal.ReleaseConfirmed)
		select {
		case <-over:
			t.Logf("%d upgrades meanwhile", n-1)
			return
		default:
		}
	}
}
