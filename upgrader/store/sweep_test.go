package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const memDir = "/lib/app"

// scenario is one operation on a store, and the state it starts from.
type scenario struct {
	name  string
	setup func(t *testing.T, s *Store)
	// begin makes what the operation is given, once per attempt.
	begin func(t *testing.T, s *Store)
	op    func(s *Store) error
	// undoes: after a failed fsync it undoes what it did. Where the undoing
	// fails, too, a later attempt finds nothing to do.
	undoes bool

	prepared *memFS // see prepare
}

func memRelease(version string) (Release, Digest) {
	d := digestOf(version)
	return Release{Name: version + "-" + d.Short(), Version: version, Digest12: d.Short()}, d
}

func memTree(version string) string {
	_, d := memRelease(version)
	return memDir + "/" + incomingPre + d.Short() + "/" + treeName
}

func beginInstall(version string) func(*testing.T, *Store) {
	return func(t *testing.T, s *Store) {
		t.Helper()
		_, d := memRelease(version)
		if _, err := s.IncomingTree(d); err != nil {
			t.Fatal(err)
		}
		fill(t, s.fs, memTree(version), version)
	}
}

func opInstall(version string) func(*Store) error {
	return func(s *Store) error {
		r, d := memRelease(version)
		return s.Install(context.Background(), memTree(version), r, d)
	}
}

// withReleases installs 1 and 2, with current at 1.
func withReleases(t *testing.T, s *Store) {
	t.Helper()
	for _, version := range []string{"1", "2"} {
		beginInstall(version)(t, s)
		if err := opInstall(version)(s); err != nil {
			t.Fatal(err)
		}
	}
	one, _ := memRelease("1")
	if err := errors.Join(s.SetLink(Current, one), s.SaveRecord(testRecord{Step: "idle"}), s.MarkBad(digestOf("3"), Bad{Reason: "old"})); err != nil {
		t.Fatal(err)
	}
}

// wish is what is done in turn, as the owner: neither is a matter of the disk.
func wish(text string) func(*Store) error {
	return func(s *Store) error {
		return s.changeWishes(func([]byte) ([]byte, error) {
			if text == "" {
				return nil, nil
			}
			return []byte(`"` + text + `"`), nil
		})
	}
}

func withWishes(t *testing.T, s *Store) {
	t.Helper()
	withReleases(t, s)
	if err := wish("hold")(s); err != nil {
		t.Fatal(err)
	}
}

func scenarios() []*scenario {
	one, _ := memRelease("1")
	two, _ := memRelease("2")
	nothing := func(*testing.T, *Store) {}
	return []*scenario{
		{"first install", nothing, beginInstall("1"), opInstall("1"), true, nil},
		{"another install", withReleases, beginInstall("3"), opInstall("3"), true, nil},
		{"install what is there", withReleases, beginInstall("2"), opInstall("2"), true, nil},
		{"mend a release", func(t *testing.T, s *Store) {
			withReleases(t, s)
			if err := s.fs.Chmod(s.Dir(one)+"/bin/app", 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := s.fs.Overwrite(s.Dir(one) + "/bin/app")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write([]byte("rot")); err != nil {
				t.Fatal(err)
			}
		}, beginInstall("1"), opInstall("1"), true, nil},
		{"first link", withReleases, nothing, func(s *Store) error { return s.SetLink(Next, two) }, false, nil},
		{"change a link", withReleases, nothing, func(s *Store) error { return s.SetLink(Current, two) }, false, nil},
		{"set a link as it is", withReleases, nothing, func(s *Store) error { return s.SetLink(Current, one) }, false, nil},
		{"clear a link", withReleases, nothing, func(s *Store) error { return s.ClearLink(Current) }, true, nil},
		{"move a link", func(t *testing.T, s *Store) {
			withReleases(t, s)
			if err := s.SetLink(Next, two); err != nil {
				t.Fatal(err)
			}
		}, nothing, func(s *Store) error { return s.MoveLink(Next, Tried) }, true, nil},
		{"first record", nothing, nothing, func(s *Store) error { return s.SaveRecord(testRecord{Step: "staged"}) }, false, nil},
		{"next record", withReleases, nothing, func(s *Store) error { return s.SaveRecord(testRecord{Step: "staged"}) }, false, nil},
		{"mark bad", withReleases, nothing, func(s *Store) error { return s.MarkBad(digestOf("2"), Bad{Reason: "new"}) }, false, nil},
		{"mark bad again", withReleases, nothing, func(s *Store) error { return s.MarkBad(digestOf("3"), Bad{Reason: "new"}) }, false, nil},
		{"forgive", withReleases, nothing, func(s *Store) error { return s.Forgive(digestOf("3")) }, true, nil},
		{"first wishes", withReleases, nothing, wish("hold"), false, nil},
		{"other wishes", withWishes, nothing, wish("pin"), false, nil},
		{"no wishes any more", withWishes, nothing, wish(""), true, nil},
		{"remove", withReleases, nothing, func(s *Store) error { return s.Remove(two) }, true, nil},
		{"preflight", withReleases, func(t *testing.T, s *Store) {
			if err := s.removeAll(s.path(reservePre + "1")); err != nil {
				t.Fatal(err)
			}
		}, func(s *Store) error { return s.Preflight(1) }, false, nil},
		{"clean", func(t *testing.T, s *Store) {
			withReleases(t, s)
			beginInstall("9")(t, s)
			for _, name := range []string{".tmp-record.json", "releases/gone-" + digestOf("x").Short() + manifestTail} {
				if err := put(s.fs, s.path(name), "left", 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.fs.Mkdir(s.path("releases/.old-x"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, nothing, func(s *Store) error { return s.CleanIncoming(nil) }, false, nil},
	}
}

// prepare is a store in memory in the scenario's first state, all of it on
// the disk.
func (sc *scenario) prepare(t *testing.T) (*memFS, *Store) {
	t.Helper()
	if sc.prepared == nil {
		m := newMemFS()
		if err := m.Mkdir("/lib", 0o755); err != nil {
			t.Fatal(err)
		}
		s, err := openOn(m, memDir)
		if err != nil {
			t.Fatal(err)
		}
		sc.setup(t, s)
		sc.begin(t, s)
		sc.prepared = m
	}
	m := sc.prepared.reboot()
	m.settle()
	return m, &Store{dir: memDir, fs: m}
}

// describe is the whole state as anybody can read it. It fails the test on a
// release that is not what its name says.
func describe(t *testing.T, s *Store, what string) string {
	t.Helper()
	var b strings.Builder
	for _, which := range LinkNames() {
		r, ok, err := s.Link(which)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if ok {
			fmt.Fprintf(&b, "%s=%s ", which, r.Version)
		}
	}
	list, err := s.Releases()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	for _, r := range list {
		if err := s.Verify(context.Background(), r); err != nil {
			fmt.Fprintf(&b, "%s:damaged ", r.Version)
			continue
		}
		fmt.Fprintf(&b, "%s ", r.Version)
		for _, name := range []string{"", "bin", "bin/app", "share/motd"} {
			if info, err := s.fs.Lstat(filepath.Join(s.Dir(r), name)); err != nil || info.Mode().Perm()&0o222 != 0 {
				t.Errorf("%s: release %s: %q has mode %v, %v; want it read-only", what, r, name, info.Mode(), err)
			}
		}
	}
	var record testRecord
	ok, err := s.LoadRecord(&record)
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	fmt.Fprintf(&b, "record=%v:%s ", ok, record.Step)
	var wishes string
	if _, err := s.Wishes(&wishes); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	fmt.Fprintf(&b, "wishes=%s ", wishes)
	bad, err := s.KnownBad()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	for _, d := range bad {
		why, _, err := s.Bad(d)
		fmt.Fprintf(&b, "bad=%s:%s:%v ", d.Short(), why.Reason, err)
	}
	return b.String()
}

// tidy fails the test on anything a listing should not show.
func tidy(t *testing.T, s *Store, what string) {
	t.Helper()
	for _, dir := range []string{s.dir, s.path(releasesDir), s.path(knownBadDir)} {
		entries, err := s.fs.ReadDir(dir)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") && !strings.HasPrefix(e.Name(), reservePre) {
				t.Errorf("%s: %s is left in %s", what, e.Name(), dir)
			}
		}
	}
}

// recover is what the daemon does at its start, and then the operation once
// more: the state has to be the old or the new one before, the new one after.
func (sc *scenario) recover(t *testing.T, m *memFS, what, before, after string) {
	t.Helper()
	s, err := openOn(m, memDir)
	if err != nil {
		t.Errorf("%s: open again: %v", what, err)
		return
	}
	if got := describe(t, s, what); got != before && got != after {
		t.Errorf("%s:\n got %q\nwant %q\n  or %q", what, got, before, after)
	}
	if err := s.CleanIncoming(nil); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	tidy(t, s, what)
	sc.begin(t, s)
	if err := sc.op(s); err != nil {
		t.Errorf("%s: once more: %v", what, err)
	}
	if got := describe(t, s, what+", once more"); got != after {
		t.Errorf("%s: once more:\n got %q\nwant %q", what, got, after)
	}
	if err := s.CleanIncoming(nil); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	tidy(t, s, what+", once more")
	if t.Failed() {
		t.FailNow()
	}
}

// run does the operation undisturbed, and tells the states before and after
// and how many changes it makes.
func (sc *scenario) run(t *testing.T) (before, after string, calls int) {
	t.Helper()
	m, s := sc.prepare(t)
	before = describe(t, s, "before")
	m.calls = 0
	if err := sc.op(s); err != nil {
		t.Fatal(err)
	}
	calls = m.calls
	after = describe(t, s, "after")
	// What was promised is there after a cut, whatever else is lost.
	for i, keep := range m.cuts(rand.New(rand.NewPCG(1, 2)), 50) {
		s, err := openOn(m.cut(keep), memDir)
		if err != nil {
			t.Fatal(err)
		}
		if got := describe(t, s, "after a cut"); got != after {
			t.Fatalf("power cut %d after the end:\n got %q\nwant %q", i, got, after)
		}
	}
	return before, after, calls
}

// Every call fails, once or from then on.
func TestFaultSweep(t *testing.T) {
	errnos := []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EMFILE} // a full disk is the only one treated in a way of its own
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			before, after, calls := sc.run(t)
			if calls == 0 {
				t.Fatal("the operation makes no call that could fail")
			}
			for n := 1; n <= calls; n++ {
				for _, errno := range errnos {
					for _, always := range []bool{false, true} {
						what := fmt.Sprintf("call %d is %v (from then on: %v)", n, errno, always)
						m, s := sc.prepare(t)
						var failed string
						m.fault = func(call int, op string) error {
							if call != n && (!always || call < n) {
								return nil
							}
							failed = op
							return errno
						}
						err := sc.op(s)
						m.fault = nil
						if failed == "" {
							t.Errorf("%s: it was never made", what)
						}
						what += " in " + failed
						// The reserve and a courtesy may hide an error; then
						// the promise is kept all the same.
						if got := describe(t, s, what); err == nil && got != after {
							t.Errorf("%s: no error, but\n got %q\nwant %q", what, got, after)
						}
						if err != nil && !errors.Is(err, errno) {
							t.Errorf("%s: got error %v", what, err)
						}
						if err == nil {
							kept, openErr := openOn(m.cut(func(int) int { return 0 }), memDir)
							if openErr != nil {
								t.Fatal(openErr)
							}
							if got := describe(t, kept, what); got != after {
								t.Errorf("%s: no error, but lost by a power cut:\n got %q\nwant %q", what, got, after)
							}
						}
						sc.recover(t, m.reboot(), what, before, after)
						// An fsync that failed must not be believed later.
						again := m.reboot()
						s, openErr := openOn(again, memDir)
						if openErr != nil {
							t.Fatal(openErr)
						}
						sc.begin(t, s)
						if err := sc.op(s); err != nil {
							t.Errorf("%s: once more: %v", what, err)
						}
						kept, openErr := openOn(again.cut(func(int) int { return 0 }), memDir)
						if openErr != nil {
							t.Fatal(openErr)
						}
						if got := describe(t, kept, what+", once more, then a cut"); got != after && !(always && sc.undoes) {
							t.Errorf("%s: once more, then a power cut:\n got %q\nwant %q", what, got, after)
						}
						if t.Failed() {
							t.FailNow()
						}
					}
				}
			}
		})
	}
}

// The process dies, or the power is cut, before every call.
func TestCrashSweep(t *testing.T) {
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			before, after, calls := sc.run(t)
			rng := rand.New(rand.NewPCG(uint64(calls), 3))
			states := 0
			for n := 1; n <= calls+1; n++ {
				m, s := sc.prepare(t)
				m.fault = func(call int, _ string) error {
					if call >= n {
						return errCut
					}
					return nil
				}
				err := sc.op(s)
				if n <= calls && err == nil && n < calls {
					// Only work after the promise may be left out silently.
					if got := describe(t, s, "cut short"); got != after {
						t.Fatalf("killed at call %d: no error, but %q", n, got)
					}
				}
				m.fault = nil
				sc.recover(t, m.reboot(), fmt.Sprintf("killed at call %d", n), before, after)
				for i, keep := range m.cuts(rng, 15) {
					sc.recover(t, m.cut(keep), fmt.Sprintf("power cut %d at call %d", i, n), before, after)
					states++
				}
			}
			t.Logf("%d calls, %d states after a power cut", calls, states)
		})
	}
}

// A crash while recovering from a crash, five deep.
func TestCrashInRecovery(t *testing.T) {
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			before, after, _ := sc.run(t)
			for seed := range uint64(100) {
				rng := rand.New(rand.NewPCG(seed, 5))
				m, s := sc.prepare(t)
				for range 5 {
					at := 1 + rng.IntN(40)
					m.fault = func(call int, _ string) error {
						if call >= at {
							return errCut
						}
						return nil
					}
					_ = sc.op(s)
					m = m.cut(func(int) int { return rng.IntN(3) })
					// The next start dies, too.
					at = 1 + rng.IntN(20)
					m.fault = func(call int, _ string) error {
						if call >= at {
							return errCut
						}
						return nil
					}
					if s, err := openOn(m, memDir); err == nil {
						_ = s.CleanIncoming(nil)
					}
					m = m.cut(func(int) int { return rng.IntN(3) })
					var err error
					if s, err = openOn(m, memDir); err != nil {
						t.Fatal(err)
					}
					sc.begin(t, s)
				}
				sc.recover(t, m, fmt.Sprintf("seed %d", seed), before, after)
			}
		})
	}
}

// Opening for the first time is an operation as well.
func TestOpenSweep(t *testing.T) {
	fresh := func() *memFS {
		m := newMemFS()
		if err := m.Mkdir("/lib", 0o755); err != nil {
			t.Fatal(err)
		}
		m.settle()
		return m
	}
	m := fresh()
	if _, err := openOn(m, memDir); err != nil {
		t.Fatal(err)
	}
	calls := m.calls
	for n := 1; n <= calls; n++ {
		m := fresh()
		m.fault = func(call int, _ string) error {
			if call >= n {
				return errCut
			}
			return nil
		}
		_, _ = openOn(m, memDir)
		// The process dies, the machine goes on, and then the power is cut:
		// what is promised on top of that has to be there.
		live := m.reboot()
		s, err := openOn(live, memDir)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SaveRecord(testRecord{Step: "kept"}); err != nil {
			t.Fatal(err)
		}
		if s, err = openOn(live.cut(func(int) int { return 0 }), memDir); err != nil {
			t.Fatal(err)
		}
		if got := describe(t, s, "kept"); !strings.Contains(got, "record=true:kept") {
			t.Fatalf("killed at call %d: got %q, want the record that was saved after", n, got)
		}
		for i, keep := range m.cuts(rand.New(rand.NewPCG(uint64(n), 7)), 10) {
			s, err := openOn(m.cut(keep), memDir)
			if err != nil {
				t.Fatalf("call %d, cut %d: %v", n, i, err)
			}
			if err := s.CleanIncoming(nil); err != nil {
				t.Fatal(err)
			}
			tidy(t, s, fmt.Sprintf("call %d, cut %d", n, i))
			if err := s.SaveRecord(testRecord{Step: "idle"}); err != nil {
				t.Fatal(err)
			}
			if _, ok := s.takeReserve(); !ok {
				t.Fatalf("call %d, cut %d: no reserve", n, i)
			}
		}
	}
}

// Not a block, not an inode is free: what went wrong can still be written
// down, marked bad and undone, and survives a power cut.
func TestFullDisk(t *testing.T) {
	one, _ := memRelease("1")
	two, d2 := memRelease("2")
	for _, inPlace := range []bool{true, false} {
		t.Run(fmt.Sprintf("overwriting works: %v", inPlace), func(t *testing.T) {
			m, s := (&scenario{setup: withReleases, begin: func(*testing.T, *Store) {}}).prepare(t)
			if err := s.SetLink(Current, two); err != nil {
				t.Fatal(err)
			}
			m.full, m.spare = true, 0
			if !inPlace { // as where every write takes a new block
				m.fault = func(_ int, op string) error {
					if op == "write" && m.spare == 0 {
						return syscall.ENOSPC
					}
					return nil
				}
			}
			if err := s.Preflight(1 << 20); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("preflight: got %v, want %v", err, syscall.ENOSPC)
			}
			if err := s.SetLink(Current, one); err != nil {
				t.Errorf("roll back: %v", err)
			}
			if err := s.SaveRecord(testRecord{Step: "failed"}); err != nil {
				t.Errorf("save: %v", err)
			}
			if err := s.MarkBad(d2, Bad{Reason: "full"}); err != nil {
				t.Errorf("mark bad: %v", err)
			}
			s, err := openOn(m.cut(func(int) int { return 0 }), memDir)
			if err != nil {
				t.Fatal(err)
			}
			if got := describe(t, s, "full"); !strings.Contains(got, "current=1") || !strings.Contains(got, "record=true:failed") || !strings.Contains(got, "bad="+d2.Short()) {
				t.Errorf("got %q, want all three", got)
			}
		})
	}
}

// Two threads of control: one changes links, the other always reads one of
// the two.
func TestReadWhileWriting(t *testing.T) {
	s := newStore(t)
	one, two := install(t, s, "1"), install(t, s, "2")
	if err := s.SetLink(Current, one); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if r, ok, err := s.Link(Current); err != nil || !ok || r != one && r != two {
				done <- fmt.Errorf("got %v, %v, %w", r, ok, err)
				return
			}
		}
	}()
	end := time.Now().Add(100 * time.Millisecond)
	for i := 0; time.Now().Before(end); i++ {
		if err := s.SetLink(Current, []Release{one, two}[i%2]); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

var _ fs.FileInfo = memInfo{}
