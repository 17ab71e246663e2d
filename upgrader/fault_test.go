package upgrader

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/store/reason"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// fault is what happens at one call to disk or systemd.
type fault string

const (
	diskFull    fault = "the call fails with ENOSPC"
	killBefore  fault = "the daemon is killed before the call"
	killAfter   fault = "the daemon is killed after the call"
	failForever fault = "the call and all after it fail, until a person acts"
)

// breaker counts the calls of one daemon, and lets one of them go wrong.
type breaker struct {
	kind fault
	at   int // 1 is the first; 0 never

	mu    sync.Mutex
	n     int
	dead  bool
	where string
	kill  func() // ends the daemon's context; it must not be waited for here
}

var errKilled = errors.New("killed")

// call runs one call. A dead daemon does nothing any more.
func (b *breaker) call(name string, do func() error) error {
	b.mu.Lock()
	if b.dead {
		b.mu.Unlock()
		return errKilled
	}
	b.n++
	hit := b.n == b.at
	if hit {
		b.where = name
		b.dead = b.kind == killBefore || b.kind == killAfter
	}
	broken := b.kind == failForever && b.at > 0 && b.n >= b.at
	b.mu.Unlock()
	switch {
	case hit && b.kind == killBefore:
		b.kill()
		return errKilled
	case hit && b.kind == killAfter:
		err := do()
		b.kill()
		return errors.Join(errKilled, err)
	case hit && b.kind == diskFull, broken:
		return fmt.Errorf("%s: %w", name, syscall.ENOSPC)
	}
	return do()
}

// mend ends what fails for ever.
func (b *breaker) mend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = 0
}

// roomless is a disk that has no room for a release.
type roomless struct {
	*store.Store
	*breaker
}

func (d roomless) Preflight(int64) error {
	return reason.FS("make room", d.call("preflight", func() error { return nil }))
}

// faultyDisk is a real store behind a breaker. Reading does not count: a
// kill there is a kill before the next write.
type faultyDisk struct {
	disk
	*breaker
}

func (d faultyDisk) SetLink(which store.LinkName, r store.Release) error {
	return d.call("set "+string(which), func() error { return d.disk.SetLink(which, r) })
}

func (d faultyDisk) ClearLink(which store.LinkName) error {
	return d.call("clear "+string(which), func() error { return d.disk.ClearLink(which) })
}

func (d faultyDisk) SaveRecord(v any) error {
	return d.call("save record", func() error { return d.disk.SaveRecord(v) })
}

func (d faultyDisk) MarkBad(g store.Digest, bad store.Bad) error {
	return d.call("mark bad", func() error { return d.disk.MarkBad(g, bad) })
}

func (d faultyDisk) ClearOrder(over func([]byte) bool) error {
	return d.call("clear order", func() error { return d.disk.ClearOrder(over) })
}

func (d faultyDisk) ChangeWishes(change func([]byte) ([]byte, error)) error {
	return d.call("change wishes", func() error { return d.disk.ChangeWishes(change) })
}

func (d faultyDisk) Preflight(bytes int64) error {
	return d.call("preflight", func() error { return d.disk.Preflight(bytes) })
}

func (d faultyDisk) IncomingTree(g store.Digest) (tree string, err error) {
	err = d.call("incoming", func() error { tree, err = d.disk.IncomingTree(g); return err })
	return tree, err
}

func (d faultyDisk) Install(ctx context.Context, tree string, r store.Release, g store.Digest) error {
	return d.call("install", func() error { return d.disk.Install(ctx, tree, r, g) })
}

func (d faultyDisk) Remove(r store.Release) error {
	return d.call("remove", func() error { return d.disk.Remove(r) })
}

func (d faultyDisk) Verify(ctx context.Context, r store.Release) error {
	return d.call("verify", func() error { return d.disk.Verify(ctx, r) })
}

// faultySystemd is the unit behind the same breaker. What the daemon asked
// for happens even if it does not live to hear of it.
type faultySystemd struct {
	*fakeUnit
	*breaker
}

func (s faultySystemd) job(name string, do func() (systemd.Result, error)) (r systemd.Result, err error) {
	err = s.call(name, func() error { r, err = do(); return err })
	if errors.Is(err, syscall.ENOSPC) { // a job that went wrong on the way
		err = &systemd.Error{Code: systemd.CodeBusDown, Verb: name, Unit: "app.service", Err: err}
	}
	return r, err
}

func (s faultySystemd) Reload(ctx context.Context, unit string) (systemd.Result, error) {
	return s.job("reload", func() (systemd.Result, error) { return s.fakeUnit.Reload(ctx, unit) })
}

func (s faultySystemd) Restart(ctx context.Context, unit string) (systemd.Result, error) {
	return s.job("restart", func() (systemd.Result, error) { return s.fakeUnit.Restart(ctx, unit) })
}

func (s faultySystemd) Start(ctx context.Context, unit string) (systemd.Result, error) {
	return s.job("start", func() (systemd.Result, error) { return s.fakeUnit.Start(ctx, unit) })
}

func (s faultySystemd) Stop(ctx context.Context, unit string) (systemd.Result, error) {
	return s.job("stop", func() (systemd.Result, error) { return s.fakeUnit.Stop(ctx, unit) })
}

// startBroken runs a daemon behind a breaker.
func (w *world) startBroken(b *breaker) {
	w.t.Helper()
	w.wrap = func(s *store.Store) disk { return faultyDisk{s, b} }
	w.systemd = faultySystemd{w.unit, b}
	cancelled := make(chan struct{})
	b.kill = sync.OnceFunc(func() { close(cancelled) })
	w.start()
	stop, cancel := w.stop, w.cancel
	go func() {
		<-cancelled
		cancel()
	}()
	w.stop = func() {
		b.kill()
		stop()
	}
	w.wrap, w.systemd = nil, nil
}

// scenario is a way to upgrade, and where it has to end whatever happens on
// the way.
type scenario struct {
	name    string
	first   bool // no release serves yet
	brief   bool // killed before a call is left out: it is as after the one before
	set     func(*world)
	during  func(context.Context, *world) // while the daemon works, beside it
	publish func(*world) (name string)    // default: 1.1, and nothing else
	// end reports that the world converged; old and name are the releases.
	end func(w *world, st TargetStatus, old, name string) bool
}

func scenarios() []scenario {
	isGood := func(w *world, st TargetStatus, _, name string) bool {
		return st.State == Idle && st.Current == name && w.unit.serving() == name
	}
	isBad := func(w *world, st TargetStatus, old, _ string) bool {
		return st.State == Idle && st.Current == old && w.unit.serving() == old && len(st.KnownBad) == 1
	}
	crashing := func(ctx context.Context, w *world) {
		// Whenever 1.1 serves, it crashes soon after.
		for sleep(ctx, 2*time.Second) {
			if r, err := store.ParseRelease(w.unit.serving()); err == nil && r.Version == "1.1" {
				w.unit.crash(true)
			}
		}
	}
	plain := func(w *world) { w.unit.plain() }
	forgets := func(w *world) { w.unit.forgets = true }
	hasty := func(w *world) { w.unit.hasty = true }
	leaves := func(w *world) { w.unit.behave["1.1"] = exitsAtOnce }
	refuses := func(w *world) { w.unit.behave["1.1"] = neverReady }
	both := func(fs ...func(*world)) func(*world) {
		return func(w *world) {
			for _, f := range fs {
				f(w)
			}
		}
	}
	few := func(w *world) { // three releases will be one too many
		w.running("0.9")
		w.unit.stopByHand()
		w.target.InstancesMax = 2
	}
	pruned := func(w *world, st TargetStatus, old, name string) bool {
		s, err := store.View(w.unit.root)
		if err != nil {
			return false
		}
		releases, err := s.Releases()
		return isGood(w, st, old, name) && err == nil && len(releases) == 2
	}
	signed := func(w *world) {
		w.target.Source.Verify, w.target.Source.Keys = fetcher.VerifySigned, []string{w.newKey()}
	}
	newKey := func(w *world) string {
		key := w.newKey()
		name := w.publish("1.1", "")
		time.Sleep(15 * time.Second) // signed by nobody that is trusted
		if st := w.status(); st.Current == name {
			w.t.Error("the key that is not trusted yet was believed")
		}
		w.edit(func(t *Target) { t.Source.Keys = []string{key} })
		return name
	}
	held := func(w *world) string {
		w.hold(30 * time.Second)
		return w.publish("1.1", "")
	}
	pinned := func(w *world) string {
		name := w.publish("0.9", "")
		w.pin("0.*")
		return name
	}
	waits := func(w *world) {
		w.unit.waits()
		go w.unit.startWhen("current")
	}
	configured := func(w *world) {
		w.unit.plain()
		w.unit.facts.CanReload = true
		w.target.Config = "app.conf"
	}
	beside := func(w *world) string {
		w.hold(0) // it comes by the operator alone
		return w.publish("1.1", "")
	}
	// An operator has two serve, and decides; where an order came to nothing, it is
	// given again.
	orders := func(decision OrderVerb) func(context.Context, *world) {
		return func(ctx context.Context, w *world) {
			for sleep(ctx, 2*time.Second) {
				o := Order{Verb: OrderUpgrade, Version: "1.1", BesideSec: 20, DespiteHold: true}
				switch st := w.status(); {
				case st.State == Beside && decision != "":
					o = Order{Verb: decision}
				case st.State != Idle || st.Order != nil || st.Hold == nil || len(st.KnownBad) > 0 || strings.HasPrefix(st.Current, "1.1"):
					continue
				}
				_, _ = Place(w.state, "app", o) // a disk that is broken takes none; it is seen at the next look
			}
		}
	}
	breaks := func(ctx context.Context, w *world) {
		defer w.beside(orders(""))()
		for sleep(ctx, 2*time.Second) {
			w.unit.breakBeside()
		}
	}
	return []scenario{
		{name: "first install", first: true, set: waits, end: isGood},
		{name: "handover", end: isGood},
		{name: "handover, old releases go", brief: true, set: few, end: pruned},
		{name: "handover, with another key", brief: true, set: signed, publish: newKey, end: isGood},
		{name: "handover, held before", brief: true, publish: held, end: isGood},
		{name: "handover, back by a pin", brief: true, publish: pinned, end: isGood},
		{name: "handover refused", set: refuses, end: isBad},
		{name: "handover, crash in the window", during: crashing, end: isBad},
		{name: "beside, confirmed", publish: beside, during: orders(OrderConfirm), end: isGood},
		{name: "beside, rolled back", brief: true, publish: beside, during: orders(OrderRollback), end: isBad},
		{name: "beside, nobody decides", brief: true, publish: beside, during: orders(""), end: isGood},
		{name: "beside, the new one ends", brief: true, publish: beside, during: breaks, end: isBad},
		{name: "restart", set: plain, end: isGood},
		{name: "restart fails", set: both(plain, refuses), end: isBad},
		{name: "restart, ends at once", set: both(plain, leaves), end: isBad},
		{name: "restart, ends at once, forgotten", set: both(plain, leaves, forgets), end: isBad},
		{name: "restart, ends too soon", set: both(plain, leaves, hasty), end: isBad},
		{name: "restart, crash in the window", set: plain, during: crashing, end: isBad},
		{name: "reload", brief: true, set: configured, end: isGood},
		{name: "reload fails", brief: true, set: both(configured, refuses), end: isBad},
		{name: "reload, ends in it", brief: true, set: both(configured, leaves), end: isBad},
		{name: "reload, ends in it, forgotten", brief: true, set: both(configured, leaves, forgets), end: isBad},
		{name: "reload, crash in the window", brief: true, set: configured, during: crashing, end: isBad},
	}
}

// TestFaultAtEveryCall runs each scenario once for each call it makes and each
// fault at that call; then the fault is gone, a new daemon may have to start,
// and the world must be whole and arrive where it would have without.
func TestFaultAtEveryCall(t *testing.T) {
	for _, sc := range scenarios() {
		for _, kind := range []fault{diskFull, killBefore, killAfter, failForever} {
			if sc.brief && kind == killBefore {
				continue
			}
			t.Run(sc.name+"/"+string(kind), func(t *testing.T) {
				t.Parallel()
				const most = 200 // no scenario makes that many calls
				for at := 1; at < most; at += stride {
					hit := false
					t.Run(fmt.Sprint(at), func(t *testing.T) { hit = faultAt(t, sc, kind, at) })
					if !hit {
						if at < 15 {
							t.Errorf("only %d calls were broken", at-1)
						}
						return
					}
					if t.Failed() {
						return
					}
				}
				t.Errorf("more than %d calls", most)
			})
		}
	}
}

// play runs a scenario until its end, or until the call that goes wrong, if that
// is not one the daemon survives. What runs beside it goes on until stop.
func (w *world) play(sc scenario, b *breaker) (old, name string, hit bool, stop func()) {
	w.t.Helper()
	if sc.set != nil {
		sc.set(w)
	}
	if !sc.first {
		old = w.running("1.0")
	}
	stop = func() {}
	if sc.during != nil {
		stop = w.beside(sc.during)
	}
	w.startBroken(b)
	if sc.publish != nil {
		name = sc.publish(w)
	} else {
		name = w.publish("1.1", "")
	}
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		b.mu.Lock()
		hit = b.n >= b.at
		b.mu.Unlock()
		if hit && b.kind != diskFull || sc.end(w, w.status(), old, name) {
			break
		}
	}
	return old, name, hit, stop
}

// faultAt reports whether the scenario made the at-th call at all.
func faultAt(t *testing.T, sc scenario, kind fault, at int) (hit bool) {
	in(t, func(t *testing.T, w *world) {
		b := &breaker{kind: kind, at: at}
		old, name, broke, stop := w.play(sc, b)
		defer stop()
		hit = broke
		if hit && kind == failForever {
			time.Sleep(time.Minute) // let it fail some more
		}
		w.kill()
		w.holds(old, name)
		w.start()
		w.eventually(fmt.Sprintf("converged after %q at call %d (%s)", kind, at, b.where), func(st TargetStatus) bool {
			return sc.end(w, st, old, name)
		})
		w.oracle()
	})
	return hit
}

// holds is the part of the oracle that is true even while broken.
func (w *world) holds(old, name string) {
	w.t.Helper()
	s, err := store.View(w.unit.root)
	if err != nil {
		w.t.Fatal(err)
	}
	current, ok, err := s.Link(store.Current)
	if err == nil && !ok && old == "" {
		return
	}
	if err != nil || !ok {
		w.t.Fatalf("current does not resolve: %v, %v", ok, err)
	}
	if err := s.Verify(context.Background(), current); err != nil {
		w.t.Errorf("current is damaged: %v", err)
	}
	if current.Name != old && current.Name != name {
		w.t.Errorf("current is %s, want %s or %s", current, old, name)
	}
	if serving := w.unit.serving(); serving != "" && serving != old && serving != name {
		w.t.Errorf("%q serves, want %s or %s", serving, old, name)
	}
}

// halfUnpacked ends the daemon when so many entries of an archive are unpacked.
type halfUnpacked struct {
	*store.Store
	w       *world
	entries []string
}

func (d halfUnpacked) IncomingTree(g store.Digest) (string, error) {
	defer d.w.cancel()
	tree, err := d.Store.IncomingTree(g)
	for _, name := range d.entries {
		file := filepath.Join(tree, name)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("half"), 0o644))
	}
	return "", errors.Join(errKilled, err)
}

// The daemon is killed at each entry of an archive, in the middle of it.
func TestKilledWhileUnpacking(t *testing.T) {
	entries := []string{"bin/app", "share/a", "share/b/c", "share/removed-since"}
	for n := range len(entries) + 1 {
		in(t, func(t *testing.T, w *world) {
			w.running("1.0")
			w.target.Source.Patterns = append(w.target.Source.Patterns, "app_@v.tar")
			var archive bytes.Buffer
			tw := tar.NewWriter(&archive)
			for _, name := range entries[:3] {
				text := "#!/bin/sh\n# " + name + "\n"
				must(t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}))
				_, err := tw.Write([]byte(text))
				must(t, err)
			}
			must(t, tw.Close())
			must(t, os.WriteFile(filepath.Join(w.dir, "app_1.1.tar"), archive.Bytes(), 0o644))
			w.manifest()
			w.wrap = func(s *store.Store) disk { return halfUnpacked{s, w, entries[:n]} }
			w.start()
			time.Sleep(time.Minute)
			w.kill()
			if left, _ := filepath.Glob(filepath.Join(w.unit.root, ".incoming-*", "*", entries[0])); n > 0 && len(left) == 0 {
				t.Fatal("nothing is half done, so this shows nothing")
			}
			w.wrap = nil
			w.start()
			st := w.eventually("it arrives", func(st TargetStatus) bool {
				return st.State == Idle && strings.HasPrefix(st.Current, "1.1-") && st.Last.Verdict == VerdictGood
			})
			var has []string
			root := filepath.Join(w.unit.root, "releases", st.Current)
			must(t, filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					name, _ := filepath.Rel(root, file)
					has = append(has, name)
				}
				return err
			}))
			if !slices.Equal(has, entries[:3]) {
				t.Errorf("the release has %q, want %q", has, entries[:3])
			}
			w.oracle()
		})
	}
}
