//go:build integration

// Package upgrade tests the whole way, from a release that appears at a source
// to a worker that serves it and an old one that has drained: the daemon, D-Bus,
// polkit, the store and the supervisor, under load, on each systemd.
package upgrade

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	unit    = "live@hello.service"
	address = "127.0.0.1:8080"
	dir     = "/srv/hello"
)

// Some thousand requests a second: of three systemds at once more would be all that two
// processors do.
var traffic = load.Options{Address: address, Rate: 200, Kept: 4}

// configure writes hello.upgrade for a unit.
func configure(m *kit.Machine, unit string, source *kit.Source, path, more string) {
	m.Write("/etc/upgraderd/hello.upgrade", fmt.Sprintf(`[Upgrade]
Unit=%s
[Source]
Path=%s
MatchPattern=hello-@v
Key=%s
PollIntervalSec=1s
[Confirm]
WindowSec=2s
ProbeIntervalSec=100ms
Probe=http://%s/healthz
%s
`, unit, path, source.Key, address, more))
}

// follow writes hello.upgrade and starts the daemon and the service, which
// then waits for its first release.
func follow(t *testing.T, m *kit.Machine, source *kit.Source, path, more string) {
	t.Helper()
	configure(m, unit, source, path, more)
	m.Write("/etc/systemd/system/live@hello.socket.d/address.conf", "[Socket]\nListenStream="+address+"\n")
	m.Write("/etc/systemd/system/live@hello.service.d/fast.conf",
		"[Service]\nExecStart=\nExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/%i --start-timeout=8s -- bin/%i\n")
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "enable", "--now", "live@hello.socket", "upgraderd.service")
}

// target is what `upgraderd status --json` says about hello.
func target(t *testing.T, m *kit.Machine) map[string]any {
	t.Helper()
	var all []map[string]any
	text := m.Run("upgraderd", "status", "--json", "hello")
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 {
		t.Fatalf("status: %v: %s", err, text)
	}
	return all[0]
}

// current is the release that current points to.
func current(m *kit.Machine) string {
	return strings.TrimPrefix(m.Run("readlink", "/var/lib/upgraderd/hello/current"), "releases/")
}

// TestStory is the README's: a first release, an upgrade, four releases that
// are bad in different ways, and one more that is good. One load, from the
// first to the last.
func TestStory(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource(dir)
		follow(t, m, source, dir, "")

		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		pid := m.Property(unit, "MainPID")
		const bound = "bound.service"
		m.Write("/etc/systemd/system/"+bound, "[Unit]\nBindsTo="+unit+"\nAfter="+unit+"\n[Service]\nExecStart=/bin/sleep inf\n")
		m.Run("systemctl", "start", bound)
		run := m.Property(bound, "InvocationID")

		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		m.Served(clients, "2.0.0", 100)
		m.Eventually("2.0.0 is confirmed", func() bool {
			return strings.HasPrefix(current(m), "2.0.0-") && target(t, m)["state"] == "idle"
		})

		for _, bad := range []struct{ version, fault string }{
			{"3.0.0", "crash"},
			{"3.1.0", "unready"},
			{"3.2.0", "sicken:500ms"},
		} {
			source.Publish("hello-"+bad.version, kit.Hello(t, bad.version, bad.fault))
			knownBad(t, m, bad.version)
			if got := current(m); !strings.HasPrefix(got, "2.0.0-") {
				t.Errorf("after %s: current is %s, want 2.0.0", bad.version, got)
			}
			m.Served(clients, "2.0.0", 100)
		}
		source.Publish("hello-4.0.0", kit.Hello(t, "4.0.0", ""))
		m.Served(clients, "4.0.0", 100)

		r := m.NothingLost(clients)
		for _, version := range []string{"3.0.0", "3.1.0"} {
			if n := r.Versions[version]; n != 0 {
				t.Errorf("got %d answers from %s, want none", n, version)
			}
		}
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		if got := m.Property(bound, "InvocationID"); got != run || m.Property(bound, "ActiveState") != "active" {
			t.Errorf("what depends on the service was disturbed: run %s, want %s", got, run)
		}
		t.Log(m.Run("upgraderd", "status"))
		t.Log(m.Journal("upgraderd.service"))
	})
}

// A release crashes just before the end of its window, another just after: the one
// is undone, the other stays. Either way clients lose what the worker had in its
// hands, and nobody is refused.
func TestCrashAtTheEndOfTheWindow(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source, clients := proved(t, m)
		configure(m, unit, source, dir, "WindowSec=4s\n")
		m.Run("systemctl", "reload", "upgraderd")
		// The window begins when it has been ready for a moment.
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", "crash-later:3800ms"))
		m.Served(clients, "2.0.0", 100)
		knownBad(t, m, "2.0.0")
		m.Served(clients, "1.0.0", 100)
		text := m.Journal("upgraderd.service")
		if !strings.Contains(text, "2.0.0 turned bad") || strings.Contains(text, "2.0.0 is good") {
			t.Error("the journal does not say that 2.0.0 turned bad")
		}

		source.Publish("hello-3.0.0", kit.Hello(t, "3.0.0", ""))
		confirmed(t, m, "3.0.0")
		crashed := worker(m, "3.0.0", "serves")
		m.Signal(crashed, "SEGV")
		m.Eventually("another worker", func() bool { return worker(m, "3.0.0", "serves") != crashed })
		m.Served(clients, "3.0.0", 100)
		if now := target(t, m); now["state"] != "idle" || strings.Contains(fmt.Sprint(now["known_bad"]), "3.0.0 ") || !strings.HasPrefix(current(m), "3.0.0-") {
			t.Errorf("after the window a crash is systemd's: got %v", now)
		}

		lostInHand(t, clients)
	})
}

// lostInHand ends the load: clients lost what workers that crashed had in their hands,
// and no more.
func lostInHand(t *testing.T, clients *load.Process) {
	t.Helper()
	r, err := clients.Stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("load: %v", r)
	if lost := r.Failed[load.EOF] + r.Failed[load.Reset]; r.Failures() != lost {
		t.Errorf("clients lost more than the workers had in their hands: %v\n%s", r, strings.Join(r.Errors, "\n"))
	}
}

// What the publisher did not sign is not even looked at.
func TestBadSignature(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource(dir)
		follow(t, m, source, dir, "")
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)

		impostor := m.DirSource(dir)
		impostor.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		m.Eventually("the journal says why", func() bool {
			return strings.Contains(m.Journal("upgraderd.service"), "[SIG_")
		})
		time.Sleep(2 * time.Second)
		if r := m.NothingLost(clients); r.Versions["2.0.0"] != 0 {
			t.Error("the impostor's release serves")
		}
	})
}

// From a server that stalls, breaks off and says 500 before it behaves: the
// old release serves meanwhile, and the fetch goes on where it was.
func TestHTTPS(t *testing.T) {
	const server = "127.0.0.1:8443"
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		trouble := &trouble{}
		source, authority := m.HTTPSSource(server, trouble.before)
		m.Write("/etc/upgraderd/releases-ca.pem", string(authority))
		follow(t, m, source, "https://"+server+"/", "[Source]\nCAFile=/etc/upgraderd/releases-ca.pem\nStallTimeoutSec=1s")
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)

		trouble.begin()
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		m.Served(clients, "2.0.0", 100)
		m.NothingLost(clients)
		if got := trouble.resumed(); got == 0 {
			t.Error("no fetch was resumed")
		}
	})
}

// trouble is a server's bad day: once begun, the next requests for an artifact
// end in a 500, in an answer that breaks off halfway, and in one that stalls.
type trouble struct {
	mu      sync.Mutex
	left    int
	resumes int
}

func (b *trouble) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = 3
}

func (b *trouble) resumed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.resumes
}

func (b *trouble) next(r *http.Request) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !strings.HasPrefix(r.URL.Path, "/hello-") {
		return 0
	}
	if r.Header.Get("Range") != "" {
		b.resumes++
	}
	if b.left == 0 {
		return 0
	}
	b.left--
	return b.left + 1
}

func (b *trouble) before(behave http.Handler) http.Handler {
	const some = 1 << 20
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch b.next(r) {
		case 3:
			http.Error(w, "no", http.StatusInternalServerError)
		case 2:
			behave.ServeHTTP(&short{w, some}, r)
			panic(http.ErrAbortHandler)
		case 1:
			behave.ServeHTTP(&short{w, some}, r)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			behave.ServeHTTP(w, r)
		}
	})
}

// short lets so many bytes pass.
type short struct {
	http.ResponseWriter
	left int
}

func (s *short) Write(p []byte) (int, error) {
	if s.left == 0 {
		return 0, http.ErrHandlerTimeout
	}
	n, err := s.ResponseWriter.Write(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}
