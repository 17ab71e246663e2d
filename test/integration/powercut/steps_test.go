//go:build integration

package powercut

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

// What the writer does is the same every time: the writes of an upgrade, of a
// rollback, and of pruning, for one release after the other. So what must be on
// disk follows from the number of steps taken.

// model is what a store should hold.
type model struct {
	links    map[store.LinkName]string
	releases map[string]bool
	bad      map[string]bool
	record   string
}

// step is one thing that a store acknowledges.
type step struct {
	name string
	do   func(*store.Store) error
	then func(*model)
}

// stepsPerRelease is how many steps there are for each release.
var stepsPerRelease = len(stepsFor(1))

// stepAt is step number n of all.
func stepAt(n int) step { return stepsFor(n/stepsPerRelease + 1)[n%stepsPerRelease] }

// stepsFor are the steps that bring release n, and every third of them back.
func stepsFor(n int) []step {
	r, d := release(n)
	good, _ := release(lastGood(n - 1))
	record := func(text string) step {
		text = fmt.Sprintf("%d %s", n, text)
		return step{"record " + text, func(s *store.Store) error { return s.SaveRecord(text) }, func(m *model) { m.record = text }}
	}
	link := func(which store.LinkName, r store.Release) step {
		return step{"link " + string(which), func(s *store.Store) error { return s.SetLink(which, r) }, func(m *model) { m.links[which] = r.Name }}
	}
	unlink := func(which store.LinkName) step {
		return step{"clear " + string(which), func(s *store.Store) error { return s.ClearLink(which) }, func(m *model) { delete(m.links, which) }}
	}
	nothing := func(what string) step {
		return step{what, func(*store.Store) error { return nil }, func(*model) {}}
	}
	previous, backward := nothing("no previous"), []step{nothing("good"), nothing("good"), nothing("good")}
	if n > 1 {
		previous = link(store.Previous, good)
	}
	if n > 1 && n%3 == 0 { // it turns bad
		backward = []step{
			{"mark bad", func(s *store.Store) error {
				return s.MarkBad(d, store.Bad{Version: r.Version, Reason: "it was its turn", When: time.Unix(0, 0)})
			}, func(m *model) { m.bad[d.String()] = true }},
			link(store.Current, good), unlink(store.Previous),
		}
	}
	prune := nothing("nothing to prune")
	if n > 4 {
		old, _ := release(n - 4)
		prune = step{"prune", func(s *store.Store) error {
			if err := s.Remove(old); !errors.Is(err, store.ErrInUse) {
				return err
			}
			return nil
		}, func(m *model) {
			if !slices.Contains(slices.Collect(maps.Values(m.links)), old.Name) {
				delete(m.releases, old.Name)
			}
		}}
	}
	steps := []step{
		record("staging"),
		{"install", func(s *store.Store) error { return install(s, n) }, func(m *model) { m.releases[r.Name] = true }},
		link(store.Staged, r),
		record("swapping"),
		link(store.Next, r),
		previous,
		link(store.Current, r),
		unlink(store.Next),
		record("confirming"),
	}
	steps = append(steps, backward...)
	return append(steps, unlink(store.Staged), record("idle"), prune)
}

// lastGood is the newest release up to n that did not turn bad.
func lastGood(n int) int {
	if n > 1 && n%3 == 0 {
		return n - 1
	}
	return n
}

func release(n int) (store.Release, store.Digest) {
	d := store.Digest(sha256.Sum256([]byte(strconv.Itoa(n))))
	r, err := store.NewRelease(fmt.Sprintf("1.%d", n), d)
	if err != nil {
		panic(err)
	}
	return r, d
}

// install makes a release of a large file, a small one and a directory.
func install(s *store.Store, n int) error {
	r, d := release(n)
	tree, err := s.IncomingTree(d)
	if err != nil {
		return err
	}
	large := make([]byte, 256<<10)
	for i := range large {
		large[i] = byte(n + i>>8)
	}
	if err := errors.Join(
		os.Mkdir(filepath.Join(tree, "bin"), 0o755),
		os.WriteFile(filepath.Join(tree, "bin/app"), large, 0o755),
		os.WriteFile(filepath.Join(tree, "notes"), []byte(r.Version), 0o644),
	); err != nil {
		return err
	}
	if err := s.Install(context.Background(), tree, r, d); err != nil {
		return err
	}
	return s.CleanIncoming(func(string) bool { return false })
}

// take opens the store in dir as a daemon does that starts, and takes steps from
// number first up to last. It says how many the store has acknowledged.
func take(dir string, first, last int, say func(steps int) error) error {
	s, err := store.Open(filepath.Join(dir, "app"))
	if err != nil {
		return err
	}
	if err := s.CleanIncoming(func(string) bool { return false }); err != nil {
		return err
	}
	for n := first; n < last; n++ {
		if err := stepAt(n).do(s); err != nil {
			return fmt.Errorf("step %d, %s: %w", n, stepAt(n).name, err)
		}
		if err := say(n + 1); err != nil {
			return err
		}
	}
	return nil
}

// write is the process of a writer: it takes steps, and says so to a file.
func write(dir, first, last, acknowledged string) error {
	from, err := strconv.Atoi(first)
	if err != nil {
		return err
	}
	to, err := strconv.Atoi(last)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(acknowledged, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return take(dir, from, to, func(steps int) error {
		_, err := f.WriteString(strconv.Itoa(steps))
		return err
	})
}

// plan is what all steps from the first on lead to, worked out as far as it was
// asked for.
type plan struct{ after []*model }

func newPlan() *plan {
	return &plan{[]*model{{links: map[store.LinkName]string{}, releases: map[string]bool{}, bad: map[string]bool{}}}}
}

// at is the store after n steps.
func (p *plan) at(n int) *model {
	for taken := len(p.after) - 1; taken < n; taken++ {
		last := p.after[taken]
		m := &model{maps.Clone(last.links), maps.Clone(last.releases), maps.Clone(last.bad), last.record}
		stepAt(taken).then(m)
		p.after = append(p.after, m)
		if old := taken - 1000; old >= 0 {
			p.after[old] = nil // nobody asks for it any more
		}
	}
	return p.after[n]
}

// holds checks what is in dir against least steps, or some more up to most, and
// tells how many it is.
func (p *plan) holds(dir string, least, most int) (int, error) {
	s, err := store.Open(filepath.Join(dir, "app"))
	if err != nil {
		return 0, fmt.Errorf("open the store: %w", err)
	}
	have, err := look(s)
	if err != nil {
		return 0, fmt.Errorf("after step %d, in %q: %w", least, stepAt(least).name, err)
	}
	// Steps that do nothing lead to the same as those before them.
	for steps := most; steps >= least; steps-- {
		if have.equal(p.at(steps)) {
			return steps, nil
		}
	}
	return 0, fmt.Errorf("after %d to %d steps, in %q: got\n%+v\nwant\n%+v\nor up to\n%+v", least, most, stepAt(least).name, have, p.at(least), p.at(most))
}

func (m *model) equal(other *model) bool {
	return maps.Equal(m.links, other.links) && maps.Equal(m.releases, other.releases) && maps.Equal(m.bad, other.bad) && m.record == other.record
}

// look reads all that a store holds, every byte of it.
func look(s *store.Store) (*model, error) {
	m := &model{links: map[store.LinkName]string{}, releases: map[string]bool{}, bad: map[string]bool{}}
	for _, which := range store.LinkNames() {
		r, ok, err := s.Link(which)
		if err != nil {
			return nil, err
		}
		if ok {
			m.links[which] = r.Name
		}
	}
	releases, err := s.Releases()
	if err != nil {
		return nil, err
	}
	for _, r := range releases {
		if err := s.Verify(context.Background(), r); err != nil {
			return nil, err
		}
		m.releases[r.Name] = true
	}
	bad, err := s.KnownBad()
	if err != nil {
		return nil, err
	}
	for _, d := range bad {
		m.bad[d.String()] = true
	}
	_, err = s.LoadRecord(&m.record)
	return m, err
}
