package upgrader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// counted counts what is on its way at the same time.
type counted struct {
	mu        sync.Mutex
	now, most int
}

func (c *counted) enter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	c.most = max(c.most, c.now)
}

func (c *counted) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
}

// slowly is a source whose fetches take a second each.
type slowly struct {
	source
	*counted
}

func (s slowly) Fetch(ctx context.Context, c fetcher.Candidate, dir string, progress func(done, total int64)) (*fetcher.Verified, error) {
	s.enter()
	sleep(ctx, time.Second)
	v, err := s.source.Fetch(ctx, c, dir, progress)
	if err != nil {
		s.leave()
	}
	return v, err
}

// slowDisk takes a second to install what a slow source brought.
type slowDisk struct {
	*store.Store
	*counted
}

func (d slowDisk) Install(ctx context.Context, tree string, r store.Release, g store.Digest) error {
	defer d.leave()
	sleep(ctx, time.Second)
	return d.Store.Install(ctx, tree, r, g)
}

// TestFiftyTargets has fifty targets find a release each at the same moment, some
// of which never come: not more than a few are on their way at once, and all
// the others arrive.
func TestFiftyTargets(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		const targets, broken = 50, 5
		units := both{}
		var all []*Target
		for i := range targets {
			one := *w.target
			one.Name = fmt.Sprintf("app%d", i)
			one.Unit = one.Name + ".service"
			one.Source.Target, one.Source.Path = one.Name, filepath.Join(w.dir, one.Name)
			if err := os.Mkdir(one.Source.Path, 0o755); err != nil {
				t.Fatal(err)
			}
			body := fmt.Sprintf("#!/bin/sh\n# %d\n", i) // each its own artifact
			if err := os.WriteFile(filepath.Join(one.Source.Path, "app_1.0.sh"), []byte(body), 0o644); err != nil {
				t.Fatal(err)
			}
			if i < broken {
				if err := os.WriteFile(filepath.Join(one.Source.Path, "SHA256SUMS"), []byte(strings.Repeat("0", 64)+"  app_1.0.sh\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			units[one.Unit] = &fakeUnit{root: filepath.Join(w.state, one.Name), behave: map[string]behaviour{}, facts: w.unit.facts}
			all = append(all, &one)
		}
		d, err := New(Options{StateDir: w.state, Targets: all, Systemd: units, Log: w.log, Incoming: 3})
		if err != nil {
			t.Fatal(err)
		}
		way := &counted{}
		d.newest = func(t *Target) (source, error) {
			s, err := w.source(t)
			return slowly{s, way}, err
		}
		d.disk = func(s *store.Store) disk { return slowDisk{s, way} }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		arrived := func() (n int) {
			for _, st := range ReadStatus(w.state, all) {
				if st.State == Idle && st.Last != nil && st.Last.Verdict == VerdictInstalled {
					n++
				}
			}
			return n
		}
		for began := time.Now(); arrived() < targets-broken; time.Sleep(time.Second) {
			if time.Since(began) > 10*time.Minute {
				t.Fatalf("%d arrived, want %d", arrived(), targets-broken)
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		if way.most != 3 {
			t.Errorf("%d were on their way at once, want 3", way.most)
		}
		if n := len(d.slots); n != 0 {
			t.Errorf("%d slots are left taken", n)
		}
	})
}

// A newer release, and another configuration, that come in the middle of a swap
// wait for its end.
func TestNewsDuringTheSwap(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		inTheSwap := make(chan struct{})
		w.unit.set(func() {
			w.unit.hook = func(verb string) (systemd.Result, error, bool) {
				if verb == "reload" && w.unit.link("next") != "" && strings.HasPrefix(w.unit.link("next"), "1.1") {
					close(inTheSwap)
					time.Sleep(20 * time.Second)
				}
				return "", nil, false
			}
		})
		w.start()
		first := w.publish("1.1", "")
		<-inTheSwap
		second := w.publish("1.2", "")
		w.edit(func(t *Target) { t.Confirm.Window = 5 * time.Minute })
		time.Sleep(10 * time.Second)
		if st := w.status(); st.State != Swapping || st.To != first {
			t.Errorf("got %s %s, want the swap to %s to go on", st.State, st.To, first)
		}
		w.eventually("on trial", func(st TargetStatus) bool { return st.State == Confirming && st.To == first })
		began := time.Now()
		w.eventually("good", func(TargetStatus) bool { return strings.Contains(w.out.String(), "1.1 is good after") })
		about(t, "the window it began with", time.Since(began), time.Minute)
		w.eventually("on trial", func(st TargetStatus) bool { return st.State == Confirming && st.To == second })
		began = time.Now()
		w.settles(second, VerdictGood)
		about(t, "the window of the other", time.Since(began), 5*time.Minute)
		w.saysTimes(2, "moving app.service")
		w.oracle()
	})
}

// TestReloadManyTimes reads the configuration again and again, with errors in it
// or the target missing: what is followed in the end is what was read last.
func TestReloadManyTimes(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.start()
		for i := range 60 {
			targets, wrong := []*Target{w.target}, false
			switch i % 3 {
			case 1:
				targets = nil
			case 2:
				targets, wrong = []*Target{w.target, w.target}, true
			}
			if err := w.daemon.Reload(t.Context(), targets); (err != nil) != wrong {
				t.Fatalf("reload %d: %v", i, err)
			}
			if i%7 == 0 {
				time.Sleep(time.Duration(i) * time.Second) // else they follow at once
			}
		}
		if err := w.daemon.Reload(t.Context(), []*Target{w.target}); err != nil {
			t.Fatal(err)
		}
		w.settles(w.publish("1.1", ""), VerdictGood)
		if all := w.daemon.Status(); len(all) != 1 {
			t.Errorf("got %d targets, want 1", len(all))
		}
		w.oracle() // and synctest waits for every goroutine
	})
}
