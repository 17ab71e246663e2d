//go:build integration

package badinput

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

const (
	patience = 40 * time.Second
	// settling is more than two polls, so that what repeats itself does.
	settling = 2500 * time.Millisecond
	stateDir = "/var/lib/upgraderd/"
)

// target is one service and what it follows.
type target struct {
	name    string
	port    int
	unit    string
	site    *site
	source  string // Path=
	pattern string
	more    string // lines of the .upgrade file
}

// upgrade is the target's .upgrade file.
func (g *target) upgrade() string {
	return fmt.Sprintf(`[Upgrade]
Unit=%s
InstancesMax=2
[Source]
Path=%s
MatchPattern=%s
Key=%s
CAFile=/etc/upgraderd/city.pem
PollIntervalSec=1s
StallTimeoutSec=10s
[Confirm]
WindowSec=500ms
ProbeIntervalSec=100ms
Probe=http://127.0.0.1:%d/healthz
%s`, g.unit, g.source, g.pattern, g.site.Key, g.port, g.more)
}

// file is the artifact's name at this version.
func (g *target) file(version string) string { return strings.Replace(g.pattern, "@v", version, 1) }

// writeRoot writes a file of root's into the machine.
func writeRoot(t *testing.T, m *kit.Machine, name, text string) {
	t.Helper()
	host := m.Root() + name
	if err := os.MkdirAll(host[:strings.LastIndexByte(host, '/')], 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(host, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// version is what the service answers.
func (g *target) version(t *testing.T, m *kit.Machine) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", g.port), nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return m.Dial(ctx, network, address)
		},
	}}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s does not serve: %v", g.name, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %s", g.name, answer.Status)
	}
	return answer.Header.Get("X-Version")
}

// awaitVersion waits until the service answers so.
func (g *target) awaitVersion(t *testing.T, m *kit.Machine, want string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if got = g.version(t, m); got == want {
			return
		}
	}
	t.Fatalf("%s serves %s, want %s", g.name, got, want)
}

// store lists what is on disk of the target: the releases, the links, and what
// is on its way. What the daemon remembers of releases is left out.
func (g *target) store(m *kit.Machine) []string {
	out := m.Run("find", stateDir+g.name, "-mindepth", "1", "-printf", "%P -> %l\n")
	lines := slices.DeleteFunc(strings.Split(out, "\n"), func(l string) bool {
		name, _, _ := strings.Cut(l, " ")
		return strings.HasPrefix(name, "record") || strings.HasPrefix(name, "known-bad") || strings.HasPrefix(name, ".reserve")
	})
	slices.Sort(lines)
	return lines
}

// fault is a thing that is wrong with one target, and how it shows.
type fault struct {
	name string
	// tar: the artifact is an archive.
	tar bool
	// more lines of the .upgrade file.
	more string
	// prepare is called before the daemon starts.
	prepare func(*scene)
	// begin brings the fault about and publishes what it is about.
	begin func(*scene)
	// end removes the cause; nil: a good version 3.0.0 is published.
	end func(*scene)
	// event and says are how the one line in the journal reads.
	event journal.Event
	says  []string
	lines int // in the journal, 0 for one
	// leaves tells what may be new in the target's directory meanwhile.
	leaves func(entry string) bool
}

// scene is a fault on a machine.
type scene struct {
	*target
	fault fault
	t     *testing.T
	m     *kit.Machine
	city  *city
	diary *diary
	make  func(version, name string) []byte // a program
	halt  func()                            // of what serves the site, if it is its own
}

// release is a good artifact of the target.
func (s *scene) release(version string) []byte {
	program := s.make(version, s.name)
	if s.fault.tar {
		return archive(s.t, entry{name: "bin/" + s.name, mode: 0o755, data: program})
	}
	return program
}

// publish puts a good version online.
func (s *scene) publish(version string) { s.site.publish(s.file(version), s.release(version)) }

// publishBad puts these bytes online as 2.0.0.
func (s *scene) publishBad(data []byte) { s.site.publish(s.file("2.0.0"), data) }

// play runs the fault from its beginning to its end.
func (s *scene) play(steady string) {
	t, m := s.t, s.m
	t.Helper()
	pid := m.Property(s.unit, "MainPID")
	before := s.store(m)
	place := s.diary.now()
	s.fault.begin(s)
	s.diary.await(t, place, s.name, "trouble", line.trouble)
	if steady != "" {
		found := s.diary.awaitEvent(t, s.diary.now(), steady, journal.ReleaseFound)
		s.diary.awaitEvent(t, found, steady, journal.ReleaseServes)
	}
	time.Sleep(settling)
	s.judgeJournal(place)
	s.unharmed(pid)
	s.judgeStore(before)

	mended := s.diary.now()
	want := "2.0.0"
	if s.fault.end == nil {
		want = "3.0.0"
		s.publish(want)
	} else {
		s.fault.end(s)
	}
	s.healed(mended, s.diary.now(), pid, want)
}

// healed wants the upgrade to come about since the mending began, without
// another word about trouble since it was over.
func (s *scene) healed(mended, whole int, pid, want string) {
	t, m := s.t, s.m
	t.Helper()
	s.awaitVersion(t, m, want)
	s.diary.awaitEvent(t, mended, s.name, journal.ReleaseConfirmed)
	if got := m.Property(s.unit, "MainPID"); got != pid {
		t.Errorf("MainPID after the upgrade: got %s, want %s as before", got, pid)
	}
	for _, l := range s.diary.since(whole, s.name) {
		if l.trouble() {
			t.Errorf("after the fault's end the journal says: %v", l)
		}
	}
	for _, entry := range s.store(m) {
		if strings.HasPrefix(entry, ".incoming") || strings.HasPrefix(entry, "staged") || strings.HasPrefix(entry, "next") {
			t.Errorf("after the upgrade the target's directory has %s", entry)
		}
	}
}

// judgeJournal wants one line about the fault, which says it all.
func (s *scene) judgeJournal(place int) {
	s.t.Helper()
	lines := s.diary.since(place, s.name)
	troubles := slices.DeleteFunc(slices.Clone(lines), func(l line) bool { return !l.trouble() })
	// A source may go bad between the two requests of one look.
	of := func(l line) string { return strings.Replace(l.message, "SHA256SUMS.minisig: ", "SHA256SUMS: ", 1) }
	troubles = slices.CompactFunc(troubles, func(a, b line) bool { return of(a) == of(b) })
	if want := max(s.fault.lines, 1); len(troubles) != want {
		s.t.Errorf("got %d errors, want %d:\n%s", len(troubles), want, list(lines))
	}
	for _, l := range troubles {
		if !l.is(s.fault.event) {
			s.t.Errorf("MESSAGE_ID: got %s, want %s of %s: %v", l.id, s.fault.event.Describe().ID, s.fault.event.Describe().Name, l)
		}
		if !strings.HasPrefix(l.message, s.name+": ") {
			s.t.Errorf("want the line to begin with %s: %v", s.name, l)
		}
		if _, todo, ok := strings.Cut(l.message, "; "); !ok || todo == "" {
			s.t.Errorf("want it to say what to do: %v", l)
		}
		for _, part := range s.fault.says {
			if !strings.Contains(l.message, part) {
				s.t.Errorf("want %q in: %v", part, l)
			}
		}
	}
	s.t.Log(troubles)
}

// unharmed wants the first release to serve, from the same main process.
func (s *scene) unharmed(pid string) {
	s.t.Helper()
	if got := s.version(s.t, s.m); got != "1.0.0" {
		s.t.Errorf("%s serves, want 1.0.0", got)
	}
	if got := s.m.Property(s.unit, "MainPID"); got != pid || pid == "0" {
		s.t.Errorf("MainPID: got %s, want %s as before", got, pid)
	}
}

// judgeStore wants the target's directory as it was, but for what the fault
// leaves. It may be looked at in the middle of a fetch, so it gets a while.
func (s *scene) judgeStore(before []string) {
	s.t.Helper()
	wrong := s.changes(before)
	for deadline := time.Now().Add(30 * time.Second); len(wrong) > 0 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
		wrong = s.changes(before)
	}
	for _, entry := range wrong {
		s.t.Errorf("the target's directory: %s", entry)
	}
}

func (s *scene) changes(before []string) (wrong []string) {
	after := s.store(s.m)
	for _, entry := range before {
		if !slices.Contains(after, entry) {
			wrong = append(wrong, "- "+entry)
		}
	}
	for _, entry := range after {
		if !slices.Contains(before, entry) && (s.fault.leaves == nil || !s.fault.leaves(entry)) {
			wrong = append(wrong, "+ "+entry)
		}
	}
	return wrong
}
