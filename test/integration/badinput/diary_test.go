//go:build integration

package badinput

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// diary is the daemon's journal, as it is written.
type diary struct {
	mu      sync.Mutex
	lines   []line
	changed chan struct{} // closed, and made anew, with each line
}

// line is an entry of the daemon's journal.
type line struct{ target, id, message, priority, phase string }

func (l line) is(e journal.Event) bool { return l.id == e.Describe().ID }

// trouble is what an operator who looks for warnings sees.
func (l line) trouble() bool { return l.priority <= "4" }

func (l line) String() string { return fmt.Sprintf("<%s> %s", l.priority, l.message) }

// keepDiary follows the journal until the test ends.
func keepDiary(t *testing.T, m *kit.Machine) *diary {
	t.Helper()
	d := &diary{changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := m.Command(ctx, "journalctl", "--follow", "--no-tail", "--all", "--output=json", "_SYSTEMD_UNIT=upgraderd.service")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for dec := json.NewDecoder(stdout); ; {
			var fields map[string]any
			if dec.Decode(&fields) != nil {
				return
			}
			text := func(name string) string { s, _ := fields[name].(string); return s }
			d.add(line{text("UPGRADERD_TARGET"), text("MESSAGE_ID"), text("MESSAGE"), text("PRIORITY"), text("UPGRADERD_PHASE")})
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = cmd.Wait() // killed by cancel
	})
	return d
}

func (d *diary) add(l line) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, l)
	close(d.changed)
	d.changed = make(chan struct{})
}

// now is the place of the next line.
func (d *diary) now() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.lines)
}

// since gives a target's lines from a place on.
func (d *diary) since(place int, target string) []line {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.lines[place:]), func(l line) bool { return l.target != target })
}

// await waits for a line of a target, from a place on, and gives the place
// after it.
func (d *diary) await(t *testing.T, place int, target, what string, want func(line) bool) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for at := place; ; {
		d.mu.Lock()
		lines, changed := d.lines[at:], d.changed
		d.mu.Unlock()
		for i, l := range lines {
			if l.target == target && want(l) {
				return at + i + 1
			}
		}
		at += len(lines)
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("the journal never told %s of %s:\n%s", what, target, list(d.since(place, target)))
		}
	}
}

func (d *diary) awaitEvent(t *testing.T, place int, target string, e journal.Event) int {
	t.Helper()
	return d.await(t, place, target, e.Describe().Name, func(l line) bool { return l.is(e) })
}

func list(lines []line) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "\t%v\n", l)
	}
	return b.String()
}
