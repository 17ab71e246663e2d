package upgrader

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/statusline"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// world is one host: a real store and a real source in a temporary directory,
// and a systemd that behaves as told.
type world struct {
	t      *testing.T
	dir    string // the source
	state  string // the StateDir
	target *Target
	others []*Target // which the daemon follows beside it
	unit   *fakeUnit
	out    *lockedBuffer
	log    *slog.Logger
	stop   func() // ends the daemon that runs
	daemon *Daemon
	cancel func()
	// What the next daemon gets instead of the real store and the unit.
	wrap    func(*store.Store) disk
	systemd Systemd
	around  func(source) source // what the next daemon gets instead of its source
	notify  func(state ...string) error
	wall    wallClock // which jumps; nil if it does not
	failed  bool      // OnFailure= starts the guard
	private minisign.PrivateKey
}

// in runs a test in a world whose clock is its own: seconds pass as soon as
// nobody has anything else to do.
func in(t *testing.T, f func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}

// polled is a real source that is asked by the clock only: a goroutine that
// waits for inotify would stop the clock of a bubble.
type polled struct {
	*fetcher.Fetcher
	every time.Duration
}

func (p polled) Wait(ctx context.Context) error {
	if !sleep(ctx, p.every) {
		return ctx.Err()
	}
	return nil
}

// scratch is a temporary directory in memory where there is such a place:
// that fsync(2) keeps its word is for the store's own tests.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "upgrader")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: scratch(t), state: scratch(t), out: &lockedBuffer{}}
	w.target = &Target{
		Name: "app", Unit: "app.service", Swap: SwapAuto, Program: "bin/app", InstancesMax: 3,
		Source: fetcher.Options{
			Target: "app", Path: w.dir, Patterns: []string{"app_@v.sh"}, Verify: fetcher.VerifyNo,
			PollInterval: 10 * time.Second,
		},
		Confirm: Confirm{Window: time.Minute},
	}
	w.unit = &fakeUnit{root: filepath.Join(w.state, "app"), behave: map[string]behaviour{}}
	w.unit.facts = systemd.Facts{
		ID: "app.service", LoadState: "loaded", ActiveState: "inactive", SubState: "dead", Result: "success", Type: "notify", Watch: 1,
		ExecStart:    [][]string{{"/usr/bin/upgraderd", "supervise", "--root=" + w.unit.root, "--", "bin/app"}},
		ExecReload:   [][]string{{"/usr/bin/upgraderd", "handover"}},
		TimeoutStart: time.Second, TimeoutStop: time.Second,
	}
	w.log = slog.New(journal.NewHandler(w.out, journal.Options{}))
	t.Cleanup(func() {
		w.kill()
		if t.Failed() {
			t.Logf("journal:\n%s\nsystemd:\n%s", w.out.String(), w.unit.story())
		}
		_ = filepath.WalkDir(w.state, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	return w
}

// publish puts a release into the source, manifest last.
func (w *world) publish(version, body string) string {
	w.t.Helper()
	script := "#!/bin/sh\n# " + version + "\n" + body + "\n"
	name := "app_" + version + ".sh"
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(script), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.manifest()
	sum := sha256.Sum256([]byte(script))
	return fmt.Sprintf("%s-%x", version, sum[:6])
}

func (w *world) manifest() {
	w.t.Helper()
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "app_") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(w.dir, e.Name()))
		if err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), e.Name())
	}
	put := func(name string, data []byte) {
		tmp := filepath.Join(w.dir, ".sums")
		if err := errors.Join(os.WriteFile(tmp, data, 0o644), os.Rename(tmp, filepath.Join(w.dir, name))); err != nil {
			w.t.Fatal(err)
		}
	}
	if w.target.Source.Verify != fetcher.VerifyNo {
		put("SHA256SUMS.minisig", minisign.Sign(w.private, []byte(b.String())))
	}
	put("SHA256SUMS", []byte(b.String()))
}

// newKey has the source sign with another key from now on.
func (w *world) newKey() (public string) {
	w.t.Helper()
	key, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	w.private = private
	return key.String()
}

// edit changes the target's file and has the daemon read it again, if one is
// there to do so.
func (w *world) edit(change func(*Target)) {
	w.t.Helper()
	edited := *w.target
	change(&edited)
	w.target = &edited
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := w.daemon.Reload(ctx, []*Target{w.target}); err != nil && ctx.Err() == nil {
		w.t.Fatal(err)
	}
}

// start runs a daemon; kill ends it as abruptly as its record allows.
func (w *world) start() {
	w.t.Helper()
	var sd Systemd = w.unit
	if w.systemd != nil {
		sd = w.systemd
	}
	d, err := New(Options{StateDir: w.state, Targets: append([]*Target{w.target}, w.others...), Systemd: sd, Log: w.log, Notify: w.notify})
	if err != nil {
		w.t.Fatal(err)
	}
	d.newest = w.source
	if w.wall != nil {
		d.wall = w.wall
	}
	if w.wrap != nil {
		d.disk = w.wrap
	}
	w.daemon = d
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			w.t.Errorf("Run: %v", err)
		}
	}
}

func (w *world) source(t *Target) (source, error) {
	f, err := fetcher.New(t.Source, w.log)
	if err != nil {
		return nil, err
	}
	if w.around != nil {
		return w.around(polled{f, t.Source.PollInterval}), nil
	}
	return polled{f, t.Source.PollInterval}, nil
}

func (w *world) kill() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

func (w *world) status() TargetStatus {
	for _, st := range ReadStatus(w.state, []*Target{w.target}) {
		return st
	}
	return TargetStatus{}
}

// eventually waits for something to become true of the status on disk.
func (w *world) eventually(what string, ok func(TargetStatus) bool) TargetStatus {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if st := w.status(); ok(st) {
			return st
		}
	}
	w.t.Fatalf("never: %s; status %+v, last %+v", what, w.status(), w.status().Last)
	return TargetStatus{}
}

// settles waits until release name is current and the machine idle with that
// verdict.
func (w *world) settles(name string, v Verdict) TargetStatus {
	w.t.Helper()
	return w.eventually(fmt.Sprintf("%s with verdict %s", name, v), func(st TargetStatus) bool {
		return st.State == Idle && st.Current == name && st.Last != nil && st.Last.Verdict == v
	})
}

// beside runs f next to the daemon, until the returned function is called.
func (w *world) beside(f func(context.Context, *world)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f(ctx, w)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// running gives the world a release that serves already.
func (w *world) running(version string) string {
	w.t.Helper()
	name := w.publish(version, "")
	w.start()
	w.settles(name, VerdictInstalled)
	w.kill()
	w.unit.startByHand()
	if got := w.unit.serving(); got != name {
		w.t.Fatalf("the unit serves %q, want %q", got, name)
	}
	return name
}

// oracle checks what must hold after every case.
func (w *world) oracle() {
	w.t.Helper()
	w.kill()
	s, err := store.View(filepath.Join(w.state, "app"))
	if err != nil {
		w.t.Fatal(err)
	}
	current, ok, err := s.Link(store.Current)
	if err != nil || !ok {
		w.t.Fatalf("current does not resolve: %v, %v", ok, err)
	}
	if err := s.Verify(context.Background(), current); err != nil {
		w.t.Errorf("current is damaged: %v", err)
	}
	for _, which := range []store.LinkName{store.Next, store.Beside} {
		if _, ok, err := s.Link(which); ok || err != nil {
			w.t.Errorf("%s is left: %v, %v", which, ok, err)
		}
	}
	var r record
	if ok, err := s.LoadRecord(&r); !ok || err != nil {
		w.t.Errorf("record: %v, %v", ok, err)
	}
	w.remembers(r)
	entries, err := os.ReadDir(s.Path())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".incoming-") || strings.HasPrefix(e.Name(), ".tmp-") {
			w.t.Errorf("left behind: %s", e.Name())
		}
	}
	bad, isBad, err := s.Bad(mustDigest(w.t, s, current))
	if err != nil || isBad && (r.Last == nil || r.Last.Verdict != VerdictStuck) {
		w.t.Errorf("current is known bad: %+v, %v", bad, err)
	}
}

// remembers checks that what ended last is in the history, and once.
func (w *world) remembers(r record) {
	w.t.Helper()
	all, err := History(w.state, "app")
	if err != nil {
		w.t.Errorf("history: %v", err)
	}
	for i, a := range all {
		if i > 0 && a.Number <= all[i-1].Number {
			w.t.Errorf("attempt %d comes after %d", a.Number, all[i-1].Number)
		}
	}
	if r.Last == nil {
		return
	}
	for _, a := range all {
		if a.Digest == r.Last.Digest && a.Verdict == r.Last.Verdict {
			return
		}
	}
	w.t.Errorf("the history has no attempt that ended as %+v: %+v", *r.Last, all)
}

func mustDigest(t *testing.T, s *store.Store, r store.Release) store.Digest {
	t.Helper()
	d, err := s.Digest(r)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// behaviour is what a release does when it is started.
type behaviour int

const (
	becomesReady behaviour = iota
	neverReady             // exits or hangs: the supervisor refuses, a restart fails
	exitsAtOnce            // exit 0 under a restart
	startedAgain           // as neverReady, and its socket starts it anew at once, each time
)

// fakeUnit is one service and the systemd that manages it. Reload does what a
// supervisor does with next and current.
type fakeUnit struct {
	root string

	mu         sync.Mutex
	facts      systemd.Facts
	generation int
	handed     *statusline.Handover // what its supervisor tells of a handover
	runs       string               // the release, whoever says so
	behave     map[string]behaviour // by version
	calls      []string
	looks      int
	frozen     time.Duration
	invocation int
	check      systemd.Result // of the check unit; default done
	checkCode  int32
	failure    string // the last run of what OnFailure= starts
	// depend are units with Requires= on it; those in denied nobody may start.
	depend map[string]*systemd.Facts
	denied map[string]bool
	// hook, if set, may take a call over.
	hook func(verb string) (systemd.Result, error, bool)
	// during runs in the middle of a job, after what it did.
	during func(verb string)
	// deny answers Facts with an error.
	deny error
	// forgets is true of a unit that nothing refers to, hasty of one that is over
	// before systemd takes it for active.
	forgets, hasty bool
	// lose answers a job with ResultUnknown.
	lose bool
}

func (u *fakeUnit) note(format string, a ...any) {
	u.calls = append(u.calls, fmt.Sprintf(format, a...))
}

func (u *fakeUnit) story() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return strings.Join(u.calls, "\n")
}

func (u *fakeUnit) count(verb string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for _, c := range u.calls {
		if strings.HasPrefix(c, verb) {
			n++
		}
	}
	return n
}

// freeze has the next look take d, whatever its context says: a process that
// does not run does not end its calls either.
func (u *fakeUnit) freeze(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.frozen = d
}

// asked counts the looks at the unit.
func (u *fakeUnit) asked() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.looks
}

func (u *fakeUnit) Facts(ctx context.Context, name string) (systemd.Facts, error) {
	u.mu.Lock()
	frozen := u.frozen
	u.frozen = 0
	u.mu.Unlock()
	time.Sleep(frozen)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.looks++
	if ctx.Err() != nil {
		return systemd.Facts{}, ctx.Err()
	}
	if u.deny != nil {
		return systemd.Facts{}, u.deny
	}
	if strings.HasPrefix(name, "upgraderd-failed@") {
		return systemd.Facts{ID: name, LoadState: "loaded", ActiveState: "inactive", InvocationID: u.failure}, nil
	}
	if strings.HasPrefix(name, "upgraderd-check@") {
		return systemd.Facts{ID: name, LoadState: "loaded", ActiveState: "inactive", Result: "exit-code", ExecMainCode: 1, ExecMainStatus: u.checkCode}, nil
	}
	if f := u.depend[name]; f != nil {
		return *f, nil
	}
	f := u.facts
	f.Dependents = slices.Sorted(maps.Keys(u.depend))
	return f, nil
}

// depends gives the unit a dependent that is active.
func (u *fakeUnit) depends(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.depend == nil {
		u.depend = map[string]*systemd.Facts{}
	}
	u.depend[name] = &systemd.Facts{ID: name, LoadState: "loaded", ActiveState: "active", SubState: "running", Watch: 1, InvocationID: name + " 1"}
}

// dependent changes a dependent; each change is the end of a job on it.
func (u *fakeUnit) dependent(name, state string, result systemd.Result) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.depend[name]
	f.ActiveState, f.LastJob = state, result
	f.JobsEnded++
	if state == "active" {
		f.InvocationID = fmt.Sprintf("%s %d", name, 1+f.JobsEnded)
	} else {
		f.ActiveExit = u.facts.ActiveExit
	}
}

// restarted is what a restart of the unit does to those that are active.
func (u *fakeUnit) restarted(r systemd.Result) {
	for name, f := range u.depend {
		if f.ActiveState != "active" {
			continue
		}
		u.mu.Unlock()
		if r == systemd.ResultDone {
			u.dependent(name, "active", r)
		} else {
			u.dependent(name, "inactive", systemd.ResultDependency)
		}
		u.mu.Lock()
	}
}

// link reads a link as a supervisor does.
func (u *fakeUnit) link(name string) string {
	to, err := os.Readlink(filepath.Join(u.root, name))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

func (u *fakeUnit) behaviourOf(release string) behaviour {
	r, err := store.ParseRelease(release)
	if err != nil {
		return neverReady
	}
	return u.behave[r.Version]
}

func (u *fakeUnit) serve(release string) {
	u.generation++
	u.runs = release
	if supervision(u.facts) == nil {
		return // nobody speaks our sentence then
	}
	u.facts.StatusText = statusline.Format(statusline.Status{Release: release, PID: 100 + u.generation, Generation: u.generation, Handover: u.handed})
}

func (u *fakeUnit) begin(release string) {
	u.invocation++
	u.generation = 0
	u.facts.InvocationID = fmt.Sprintf("%032x", u.invocation)
	u.facts.MainPID = uint32(1000 + u.invocation)
	u.facts.ActiveState, u.facts.SubState, u.facts.Result = "active", "running", "success"
	u.facts.ExecMainCode, u.facts.EndedItself, u.facts.NeverActive = 0, false, false
	u.serve(release)
}

func (u *fakeUnit) end(state, sub, result string) {
	u.facts.ActiveState, u.facts.SubState, u.facts.Result = state, sub, result
	u.facts.MainPID, u.facts.StatusText, u.facts.ExecMainCode = 0, "", 1
	u.runs, u.facts.EndedItself = "", true
	if u.forgets && state == "inactive" {
		u.facts.InvocationID, u.facts.EndedItself, u.facts.ExecMainCode = "", false, 0
	}
	if u.hasty && state == "inactive" {
		u.facts.EndedItself, u.facts.NeverActive = false, true
	}
	u.facts.ExecMainStatus = 1
	if result == "success" {
		u.facts.ExecMainStatus = 0
	}
}

func (u *fakeUnit) startByHand() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.facts.NRestarts = 0
	u.facts.JobsEnded++
	u.begin(u.link("current"))
}

func (u *fakeUnit) stopByHand() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.end("inactive", "dead", "success")
	u.facts.EndedItself, u.facts.NeverActive = false, false
	u.facts.JobsEnded++
}

// exit ends the main process with status 0; Restart=on-failure leaves it.
func (u *fakeUnit) exit() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.end("inactive", "dead", "success")
}

// crash ends the main process; systemd starts the unit again.
func (u *fakeUnit) crash(restarts bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !restarts {
		u.end("failed", "failed", "exit-code")
		u.failure = fmt.Sprintf("%032x", 1<<16+u.invocation)
		u.facts.Failures++
		return
	}
	u.facts.NRestarts++
	u.begin(u.link("current"))
}

func (u *fakeUnit) serving() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.runs
}

func (u *fakeUnit) do(ctx context.Context, verb string, act func() systemd.Result) (systemd.Result, error) {
	u.mu.Lock()
	u.note("%s (current %s, next %s)", verb, u.link("current"), u.link("next"))
	hook, during := u.hook, u.during
	u.mu.Unlock()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if hook != nil {
		if r, err, took := hook(verb); took {
			return r, err
		}
	}
	u.mu.Lock()
	r := act()
	if strings.HasPrefix(verb, "reload") || strings.HasPrefix(verb, "restart") {
		u.facts.JobsEnded++
	}
	u.mu.Unlock()
	if during != nil {
		during(verb)
	}
	if u.lose {
		return systemd.ResultUnknown, nil
	}
	return r, nil
}

func (u *fakeUnit) Reload(ctx context.Context, _ string) (systemd.Result, error) {
	return u.do(ctx, "reload", func() systemd.Result {
		release, beside := u.link("next"), u.link("beside")
		st, _ := statusline.Parse(u.facts.StatusText)
		switch {
		case st.Beside != "" && release == st.Beside:
			u.serve(release)
			return systemd.ResultDone
		case st.Beside != "" && release == "" && beside == "":
			u.serve(st.Release)
			return systemd.ResultDone
		case st.Beside != "":
			return systemd.ResultFailed
		case release == "" && beside != "" && beside != st.Release && u.facts.ActiveState == "active" && u.behaviourOf(beside) == becomesReady:
			st.Beside, st.BesidePID = beside, 200
			u.facts.StatusText = statusline.Format(st)
			return systemd.ResultDone
		}
		release = cmp.Or(release, beside, u.link("current"))
		if supervision(u.facts) == nil && u.behaviourOf(release) == exitsAtOnce { // when it reads it
			u.end("inactive", "dead", "success")
		}
		if u.facts.ActiveState != "active" || u.behaviourOf(release) != becomesReady {
			return systemd.ResultFailed
		}
		u.serve(release)
		return systemd.ResultDone
	})
}

func (u *fakeUnit) Restart(ctx context.Context, _ string) (systemd.Result, error) {
	return u.do(ctx, "restart", func() (r systemd.Result) {
		defer func() { u.restarted(r) }()
		release := u.link("current")
		u.facts.NRestarts = 0
		u.begin(release)
		switch u.behaviourOf(release) {
		case neverReady:
			u.end("failed", "failed", "exit-code")
			return systemd.ResultFailed
		case startedAgain:
			u.begin(release)
			u.facts.ActiveState, u.facts.SubState = "activating", "start"
			return systemd.ResultFailed
		case exitsAtOnce:
			u.end("inactive", "dead", "success")
		}
		return systemd.ResultDone
	})
}

func (u *fakeUnit) Start(ctx context.Context, name string) (systemd.Result, error) {
	if u.denied[name] {
		u.set(func() { u.note("start %s, denied", name) })
		return "", &systemd.Error{Code: systemd.CodeDenied, Verb: "start", Unit: name, Err: errors.New("not allowed")}
	}
	return u.do(ctx, "start "+name, func() systemd.Result {
		if u.depend[name] != nil {
			u.mu.Unlock()
			defer u.mu.Lock()
			u.dependent(name, "active", systemd.ResultDone)
			return systemd.ResultDone
		}
		if u.check != "" {
			return u.check
		}
		return systemd.ResultDone
	})
}

func (u *fakeUnit) Stop(ctx context.Context, name string) (systemd.Result, error) {
	return u.do(ctx, "stop "+name, func() systemd.Result { return systemd.ResultDone })
}

func (u *fakeUnit) ResetFailed(context.Context, string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.note("reset-failed")
	return nil
}

// set changes the unit under its lock.
func (u *fakeUnit) set(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f()
}

// alone has one of two workers that serve end.
func (u *fakeUnit) alone(release, note string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	st, _ := statusline.Parse(u.facts.StatusText)
	st.Release, st.Beside, st.BesidePID, st.Note = release, "", 0, note
	u.runs, u.facts.StatusText = release, statusline.Format(st)
}

// breakBeside has the new one of two that serve end, if two do.
func (u *fakeUnit) breakBeside() {
	u.mu.Lock()
	st, _ := statusline.Parse(u.facts.StatusText)
	u.mu.Unlock()
	if st.Beside != "" {
		u.alone(st.Release, st.Beside+": worker 200 was killed by SIGSEGV while it served beside "+st.Release)
	}
}

// returns is a supervisor that was killed, and came back with its workers.
func (u *fakeUnit) returns() {
	u.invocation++
	u.facts.InvocationID = fmt.Sprintf("%032x", u.invocation)
	u.facts.NRestarts++
	u.facts.MainPID++
}

// drain makes the supervisor say that old workers drain.
func (u *fakeUnit) drain(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	st, _ := statusline.Parse(u.facts.StatusText)
	st.Draining = n
	u.facts.StatusText = statusline.Format(st)
}

// waits makes the unit a supervisor that has no release yet.
func (u *fakeUnit) waits() {
	u.facts.ActiveState, u.facts.SubState, u.facts.Job = "activating", "start", 7
	u.facts.StatusText = statusline.Format(statusline.Status{Note: "no release yet"})
}

// startWhen is a supervisor that waits for its first release.
func (u *fakeUnit) startWhen(link string) {
	for u.link(link) == "" {
		time.Sleep(100 * time.Millisecond)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.facts.Job = 0
	u.begin(u.link(link))
}

// plain makes the unit one that no supervisor runs.
func (u *fakeUnit) plain() {
	u.facts.ExecStart = [][]string{{u.root + "/current/bin/app"}}
	u.facts.ExecReload = nil
}

// lockedBuffer is a log that a test reads while a daemon writes it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
