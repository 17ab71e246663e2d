package upgrader

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// both is one systemd with two units.
type both map[string]*fakeUnit

func (b both) Facts(ctx context.Context, unit string) (systemd.Facts, error) {
	if u := b[unit]; u != nil {
		return u.Facts(ctx, unit)
	}
	return systemd.Facts{ID: unit, LoadState: "not-found"}, nil
}

func (b both) Reload(ctx context.Context, unit string) (systemd.Result, error) {
	return b[unit].Reload(ctx, unit)
}

func (b both) Restart(ctx context.Context, unit string) (systemd.Result, error) {
	return b[unit].Restart(ctx, unit)
}

func (b both) Start(ctx context.Context, unit string) (systemd.Result, error) {
	if u := b[unit]; u != nil {
		return u.Start(ctx, unit)
	}
	return systemd.ResultDone, nil // a guard
}

// Stop is asked of a guard only.
func (b both) Stop(context.Context, string) (systemd.Result, error) { return systemd.ResultDone, nil }

func (b both) ResetFailed(ctx context.Context, unit string) error {
	return b[unit].ResetFailed(ctx, unit)
}

// pair is a world with a second target on the same source, both running 1.0.
func pair(t *testing.T, w *world) (twin *Target, other *fakeUnit, start func()) {
	t.Helper()
	w.running("1.0")
	two := *w.target
	two.Name, two.Unit = "twin", "twin.service"
	root := filepath.Join(w.state, "twin")
	other = &fakeUnit{root: root, behave: map[string]behaviour{}, facts: w.unit.facts}
	other.facts.ExecStart = [][]string{{"/usr/bin/upgraderd", "supervise", "--root=" + root, "--", "bin/app"}}
	other.facts.ActiveState, other.facts.SubState, other.facts.StatusText = "inactive", "dead", ""
	start = func() {
		d, err := New(Options{StateDir: w.state, Targets: []*Target{w.target, &two}, Systemd: both{"app.service": w.unit, "twin.service": other}, Log: w.log})
		if err != nil {
			t.Fatal(err)
		}
		d.newest = w.source
		w.daemon = d
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		w.stop = func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		}
	}
	start()
	for ReadStatus(w.state, []*Target{&two})[0].Current == "" {
		time.Sleep(time.Second)
	}
	other.startByHand()
	return &two, other, start
}

// Two units on one artifact: one after the other, fetched once.
func TestUnitsShareAnArtifact(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		twin, other, _ := pair(t, w)
		name := w.publish("1.1", "")
		overlap := false
		w.eventually("both run 1.1", func(st TargetStatus) bool {
			second := ReadStatus(w.state, []*Target{twin})[0]
			busy := func(s TargetStatus) bool { return s.State == Swapping || s.State == Confirming }
			// The two are read one after the other: only what holds before and
			// after counts.
			overlap = overlap || busy(st) && busy(second) && busy(w.status())
			return st.State == Idle && st.Current == name && second.State == Idle && second.Current == name
		})
		if overlap {
			t.Error("both were swapped at once, want one after the other")
		}
		if a, b := w.unit.serving(), other.serving(); a != name || b != name {
			t.Errorf("the units serve %q and %q, want %q", a, b, name)
		}
		text := w.out.String()
		if n := strings.Count(text, "fetched 1.1"); n != 1 {
			t.Errorf("1.1 was fetched %d times, want once", n)
		}
		if !strings.Contains(text, "took 1.1 over from target") || !strings.Contains(text, "waits for its turn") {
			t.Error("the journal does not say that the release was shared")
		}
		w.oracle()
	})
}

// What turned bad in one unit never reaches the other.
func TestBadArtifactStopsAtTheFirstUnit(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		twin, other, start := pair(t, w)
		before := w.status().Current
		w.kill()
		w.unit.behave["1.1"], other.behave["1.1"] = neverReady, neverReady
		w.publish("1.1", "")
		start()
		w.eventually("both know 1.1 as bad", func(st TargetStatus) bool {
			return len(st.KnownBad) == 1 && len(ReadStatus(w.state, []*Target{twin})[0].KnownBad) == 1
		})
		w.kill()
		if n := w.unit.count("reload") + other.count("reload"); n != 1 {
			t.Errorf("1.1 was tried %d times, want once", n)
		}
		if a, b := w.unit.serving(), other.serving(); a != before || b != before {
			t.Errorf("the units serve %q and %q, want %q", a, b, before)
		}
		if !strings.Contains(w.out.String(), "found it bad") {
			t.Error("the journal does not say who found it bad")
		}
		w.oracle()
	})
}

// A patch is believed for what the target's own source says of it: a source that
// another target does not believe cannot put its bytes under a digest there.
func TestPatchesOfAnotherSourceAreNotBorrowed(t *testing.T) {
	body := strings.Repeat("# this is said over and over again, and differs in number: ", 200)
	in(t, func(t *testing.T, w *world) {
		twin, _, start := pair(t, w)
		before := w.publish("1.1", body)
		w.eventually("both run 1.1", func(st TargetStatus) bool {
			second := ReadStatus(w.state, []*Target{twin})[0]
			return st.State == Idle && st.Current == before && second.State == Idle && second.Current == before
		})
		w.kill()

		trusted := scratch(t)
		twin.Source.Path = trusted
		w.patch("1.1", "2.0", body) // which does not make what the artifact holds
		name := w.publish("2.0", body+"# and this is the release")
		start()
		w.eventually("the one runs what the patch made", func(st TargetStatus) bool { return st.State == Idle && st.Current == name })
		w.saysOnce("patched")

		want, err := os.ReadFile(filepath.Join(w.dir, "app_2.0.sh"))
		if err != nil {
			t.Fatal(err)
		}
		list, err := os.ReadFile(filepath.Join(w.dir, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(list)) {
			if strings.HasSuffix(line, "  app_2.0.sh\n") {
				list = []byte(line)
			}
		}
		if err := errors.Join(os.WriteFile(filepath.Join(trusted, "app_2.0.sh"), want, 0o644), os.WriteFile(filepath.Join(trusted, "SHA256SUMS"), list, 0o644)); err != nil {
			t.Fatal(err)
		}
		w.eventually("the other runs 2.0", func(TargetStatus) bool {
			st := ReadStatus(w.state, []*Target{twin})[0]
			return st.State == Idle && st.Current == name
		})
		got, err := os.ReadFile(filepath.Join(w.state, "twin", "releases", name, "bin", "app"))
		if err != nil || string(got) != string(want) {
			t.Errorf("the other runs %d bytes that its source does not have (%v)", len(got), err)
		}
	})
}

// A turn that is waited for in vain leaves nothing behind.
func TestTurns(t *testing.T) {
	c := newCommons()
	digest := store.Digest{1}
	first, err := c.take(t.Context(), digest.String(), "a", func(string) { t.Error("nobody has it") })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told := ""
	cancelled := make(chan error)
	go func() {
		_, err := c.take(ctx, digest.String(), "b", func(holder string) { told = holder; cancel() })
		cancelled <- err
	}()
	if err := <-cancelled; !errors.Is(err, context.Canceled) || told != "a" {
		t.Errorf("got %v after %q, want it cancelled after a", err, told)
	}
	if other, err := c.take(t.Context(), store.Digest{2}.String(), "c", func(string) { t.Error("another artifact") }); err != nil {
		t.Error(err)
	} else {
		other()
	}
	first()
	if len(c.turns) != 0 {
		t.Errorf("%d turns are left", len(c.turns))
	}
}
