//go:build integration

package upgrade

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/lab"
)

// gate is a way to a source that can be held.
type gate struct {
	mu   sync.Mutex
	held string
	open chan struct{}
}

// hold has requests for a path wait until letThrough is called.
func (g *gate) hold(path string) (letThrough func()) {
	open := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held, g.open = path, open
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.held = ""
		close(open)
	}
}

func (g *gate) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		held, open := g.held, g.open
		g.mu.Unlock()
		if r.URL.Path == held {
			select {
			case <-open:
			case <-r.Context().Done():
			}
		}
		h.ServeHTTP(w, r)
	})
}

// unit stopped, masked, edited, deleted or restarted by the operator, at each
// step of an upgrade: what the operator did stands, the journal tells, and as soon
// as the unit is back upgrades go on. Of several systemds each plays its share of acts
// and steps; one alone, as in make soak, plays them all.
func TestOperator(t *testing.T) {
	type scene struct {
		t *testing.T
		*kit.Machine
		version string
	}
	says := func(text string) func(scene) {
		return func(s scene) {
			s.t.Helper()
			s.Eventually("the journal says "+text, func() bool {
				return strings.Contains(s.Journal("upgraderd.service"), text)
			})
		}
	}
	arrives := func(s scene) { s.t.Helper(); confirmed(s.t, s.Machine, s.version) }
	unjudged := func(s scene) {
		s.t.Helper()
		says("no verdict on " + s.version)(s)
		s.Eventually("nothing is left to do", func() bool { return target(s.t, s.Machine)["state"] == "idle" })
		if bad := fmt.Sprint(target(s.t, s.Machine)["known_bad"]); strings.Contains(bad, s.version+" ") {
			s.t.Errorf("known bad: %s", bad)
		}
	}
	down := func(s scene) {
		s.t.Helper()
		// systemd has it fail if the stop killed the helper of a reload.
		if got := s.Property(unit, "ActiveState"); got != "inactive" && got != "failed" {
			s.t.Errorf("the unit that the operator stopped is %s, want inactive", got)
		}
	}
	back := func(s scene) {
		s.t.Helper()
		knownBad(s.t, s.Machine, s.version)
		if got := current(s.Machine); strings.HasPrefix(got, s.version+"-") {
			s.t.Errorf("current is %s, which was rolled back", got)
		}
	}
	oldDefinition := says("changed on disk and runs with its old definition")
	stuck := func(why string) func(scene) { return says("ROLLBACK FAILED, " + unit + " is left as it is: " + why) }
	masked := says("[UNIT_MASKED] live@hello.service is masked; unmask it with")
	gone := says("live@hello.service does not exist")
	runs := func(s scene) {
		s.t.Helper()
		s.Eventually("the unit runs "+s.version, func() bool {
			return s.Property(unit, "ActiveState") == "active" && strings.Contains(s.Property(unit, "StatusText"), "Serving "+s.version+"-")
		})
	}
	all := func(checks ...func(scene)) func(scene) {
		return func(s scene) {
			s.t.Helper()
			for _, check := range checks {
				check(s)
			}
		}
	}
	const (
		socket   = "live@hello.socket"
		template = "/usr/lib/systemd/system/live@.service"
		edit     = "/etc/systemd/system/live@hello.service.d/edited.conf"
	)
	acts := []struct {
		name, act, undo string
		// What is true before the act is undone, by step, and once it is undone of
		// the release that was not moved to yet.
		fetching, staged, swapping, confirming, rollingBack, draining, afterwards func(scene)
	}{
		{
			"restart", "systemctl restart " + unit, "",
			arrives, arrives, unjudged, unjudged, back, runs, nil,
		},
		{
			"stop", "systemctl stop " + socket + " " + unit, "systemctl start " + socket + " " + unit,
			all(says("is not running and starts with it"), down), all(says("is not running and starts with it"), down), all(unjudged, down), all(unjudged, down),
			all(back, down, says("somebody else acted on "+unit+" during the rollback")), down, nil,
		},
		{
			"kill", "systemctl kill --signal=KILL --kill-whom=main " + unit, "", // the supervisor, which comes back and takes its workers over
			arrives, arrives, unjudged, back, back, runs, nil,
		},
		{
			"mask", "systemctl mask " + unit, "systemctl unmask " + unit,
			masked, masked, all(unjudged, masked), arrives, stuck("[UNIT_MASKED]"), runs, arrives,
		},
		{
			"mask --runtime", "systemctl mask --runtime " + unit, "systemctl unmask --runtime " + unit,
			masked, masked, all(unjudged, masked), arrives, stuck("[UNIT_MASKED]"), runs, arrives,
		},
		{
			"mask the socket", "systemctl mask --runtime " + socket, "systemctl unmask --runtime " + socket,
			arrives, arrives, arrives, arrives, back, runs, nil, // it listens still, and so does the supervisor
		},
		{
			"edit", "printf '[Service]\\nUnknown=1\\n' > " + edit, "rm " + edit + " && systemctl daemon-reload",
			all(arrives, oldDefinition), all(arrives, oldDefinition), arrives, arrives, back, runs, nil, // later than the check nobody looks
		},
		{
			"edit and reload", "printf '[Service]\\nNice=1\\n' > " + edit + " && systemctl daemon-reload", "rm " + edit + " && systemctl daemon-reload",
			arrives, arrives, arrives, arrives, back, runs, nil,
		},
		{
			"delete", "mv " + template + " /root/ && systemctl daemon-reload", "mv /root/live@.service " + template + " && systemctl daemon-reload",
			gone, gone, all(unjudged, gone), arrives, stuck("[UNIT_NOT_FOUND]"), runs, arrives,
		},
	}
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		const server = "127.0.0.1:8443"
		way := &gate{}
		source, authority := m.HTTPSSource(server, way.guard)
		m.Write("/etc/upgraderd/ca.pem", string(authority))
		const url, trusted = "https://" + server + "/", "[Source]\nCAFile=/etc/upgraderd/ca.pem\n"
		const window = "WindowSec=2s\n" + trusted
		follow(t, m, source, url, window)
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		program, err := os.ReadFile(kit.Hello(t, "2.0.0", slow))
		if err != nil {
			t.Fatal(err)
		}
		sick, err := os.ReadFile(kit.Hello(t, "2.0.1", "sicken:500ms"))
		if err != nil {
			t.Fatal(err)
		}
		stubborn, err := os.ReadFile(kit.Hello(t, "2.0.0", "stubborn"))
		if err != nil {
			t.Fatal(err)
		}
		minor := 0
		suites := lab.SelectedSuites()
		share := slices.Index(suites, m.Suite)
		for _, a := range acts {
			minor++
			for patch, step := range []string{"staged", "swapping", "confirming", "rolling-back", "fetching", "draining"} {
				if (minor+patch)%len(suites) != share {
					continue
				}
				then := []func(scene){a.staged, a.swapping, a.confirming, a.rollingBack, a.fetching, a.draining}[patch]
				ok := t.Run(a.name+"/"+step, func(t *testing.T) {
					s := scene{t: t, Machine: m.In(t), version: fmt.Sprintf("2.%d.%d", minor, patch)}
					publish := func() { source.PublishBytes("hello-"+s.version, append(program, s.version...)) }
					switch step {
					case "fetching":
						letThrough := way.hold("/hello-" + s.version)
						publish()
						s.Eventually("it is fetched", func() bool { return target(t, s.Machine)["state"] == "fetching" })
						s.Run("sh", "-c", a.act)
						letThrough()
					case "draining":
						source.PublishBytes("hello-"+s.version+".0", append(stubborn, s.version...))
						confirmed(t, s.Machine, s.version+".0")
						old := worker(s.Machine, s.version+".0", "serves")
						s.version += ".1"
						publish()
						s.Eventually("the old one drains", func() bool {
							text := s.Property(unit, "StatusText")
							return strings.HasPrefix(text, "Serving "+s.version+"-") && strings.Contains(text, " draining") && target(t, s.Machine)["state"] == "idle"
						})
						// A stop would wait for it, so it is killed, too, in the middle of its drain.
						s.Run("sh", "-c", "("+a.act+") & sleep 0.5; kill -KILL "+old+"; wait")
					case "staged":
						configure(s.Machine, unit, source, url, window+"[Upgrade]\nSwap=none\n")
						s.Run("systemctl", "reload", "upgraderd")
						publish()
						s.Eventually("it is staged", func() bool {
							now := target(t, s.Machine)
							return now["state"] == "held" && strings.HasPrefix(fmt.Sprint(now["staged"]), s.version)
						})
						s.Run("sh", "-c", a.act)
						configure(s.Machine, unit, source, url, window)
						s.Run("systemctl", "reload", "upgraderd")
					case "swapping":
						publish()
						starting(s.Machine, s.version)
						s.Run("sh", "-c", a.act)
					case "confirming":
						publish()
						s.Eventually("the window", func() bool {
							now := target(t, s.Machine) // an earlier one may be tried again first
							return now["state"] == "confirming" && strings.HasPrefix(current(s.Machine), s.version+"-")
						})
						s.Run("sh", "-c", a.act)
					case "rolling-back":
						source.PublishBytes("hello-"+s.version, append(sick, s.version...))
						s.Eventually("the rollback", func() bool { return target(t, s.Machine)["state"] == "rolling-back" })
						s.Run("sh", "-c", a.act)
					}
					then(s)
					if a.undo != "" {
						s.Run("sh", "-c", a.undo)
					}
					if a.afterwards != nil && (step == "staged" || step == "fetching") {
						a.afterwards(s)
					}
					if step == "rolling-back" {
						back(s)
					}
					s.Served(clients, "2.0.0", 20)
				})
				if !ok {
					t.FailNow()
				}
			}
		}
		// Of the daemon itself: nothing starts it behind the operator's back, and it
		// goes on where it was.
		for patch, step := range []string{"swapping", "confirming"} {
			version := fmt.Sprintf("2.90.%d", patch)
			configure(m, unit, source, url, "WindowSec=10min\n"+trusted)
			m.Run("systemctl", "reload", "upgraderd")
			source.PublishBytes("hello-"+version, append(program, version...))
			m.Eventually(step, func() bool {
				now := target(t, m)
				return now["state"] == step && (step == "swapping" || strings.HasPrefix(current(m), version+"-"))
			})
			m.Run("sh", "-c", "systemctl mask --runtime upgraderd.service && systemctl stop upgraderd.service")
			m.Served(clients, "2.0.0", 500)
			if now := target(t, m); now["state"] != step || m.Property("upgraderd.service", "ActiveState") != "inactive" {
				t.Errorf("without the daemon, which the operator stopped while %s: got %v", step, now)
			}
			configure(m, unit, source, url, window)
			m.Run("sh", "-c", "systemctl unmask --runtime upgraderd.service && systemctl start upgraderd.service")
			confirmed(t, m, version)
			if !strings.Contains(m.Journal("upgraderd.service"), "found the swap to "+version+" unfinished") {
				t.Errorf("the journal does not say that the swap to %s was interrupted", version)
			}
		}
		// Nothing is stuck.
		source.Publish("hello-3.0.0", kit.Hello(t, "3.0.0", ""))
		confirmed(t, m, "3.0.0")
		m.Served(clients, "3.0.0", 20)
	})
}
