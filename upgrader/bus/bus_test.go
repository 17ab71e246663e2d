package bus

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upgraderd/upgraderd/test/dbustest"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/progress"
	diskstore "github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// fakeDaemon has a target app, whose orders lie in a real store.
type fakeDaemon struct {
	mu     sync.Mutex
	looked []string
	taken  []string
}

func (d *fakeDaemon) Look(target string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looked = append(d.looked, target)
}

func (d *fakeDaemon) TakeBack(target, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.taken = append(d.taken, target+" "+id)
	return nil
}

func (d *fakeDaemon) Foresee(context.Context, string) (upgrader.Plan, error) {
	return upgrader.Plan{}, errors.New("the source is away")
}

// serve runs a server until stop is called, and returns once its name is taken: who
// connects before that hears of it as news.
func serve(t *testing.T, b *dbustest.Bus, state string) (*Server, *fakeDaemon, func()) {
	t.Helper()
	s, d := New(Options{Address: b.Address, StateDir: state, Version: "upgraderd 1"}), &fakeDaemon{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx, d)
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(stop)
	conn, err := dbus.Connect(b.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "the name is taken", func() (taken bool) {
		return conn.BusObject().Call(busFace+".NameHasOwner", 0, Name).Store(&taken) == nil && taken
	})
	return s, d, stop
}

func dialed(t *testing.T, b *dbustest.Bus) *Client {
	t.Helper()
	c, err := Dial(t.Context(), b.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// follows waits until the target app can be asked for.
func follows(t *testing.T, c *Client) {
	t.Helper()
	eventually(t, "app is on the bus", func() bool {
		_, err := c.target(t.Context(), "app")
		return err == nil
	})
}

func TestJobs(t *testing.T) {
	b, state := dbustest.Start(t), t.TempDir()
	disk, err := diskstore.Open(filepath.Join(state, "app"))
	if err != nil {
		t.Fatal(err)
	}
	s, d, stop := serve(t, b, state)
	c := dialed(t, b)
	app := upgrader.TargetStatus{Name: "app", Unit: "app.service", State: upgrader.Idle}
	s.Changed(app)
	follows(t, c)

	fetch, err := c.Order(t.Context(), "app", upgrader.Order{Verb: upgrader.OrderFetch, Version: "2.0"})
	if err != nil {
		t.Fatal(err)
	}
	if there, err := upgrader.Ordered(state, "app", fetch.Order.ID); err != nil || !there {
		t.Errorf("the order is on disk: %v, %v", there, err)
	}
	eventually(t, "the daemon looks", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return slices.Contains(d.looked, "app")
	})
	if _, err := c.Order(t.Context(), "app", upgrader.Order{Verb: upgrader.OrderUpgrade}); called(err) != errorTargetBusy {
		t.Errorf("a second order: got %v", err)
	}
	err = c.call(t.Context(), fetch.Path, jobFace, "Cancel", nil)
	d.mu.Lock()
	if err != nil || !slices.Equal(d.taken, []string{"app " + fetch.Order.ID}) {
		t.Errorf("cancel: %v, taken back: %v", err, d.taken)
	}
	d.mu.Unlock()
	var plan string
	if err := c.call(t.Context(), fetch.owner, targetFace, "Plan", nil, &plan); err == nil || !strings.Contains(err.Error(), "the source is away") {
		t.Errorf("plan: %q, %v", plan, err)
	}

	// A rollback takes the place of what waits.
	back, err := c.Order(t.Context(), "app", upgrader.Order{Verb: upgrader.OrderRollback})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Await(t.Context(), fetch, func(View) {}); err == nil || !strings.Contains(err.Error(), "took the place") {
		t.Errorf("the order that was replaced ends with %v", err)
	}
	// It is carried out, and answered.
	views := make(chan View, 100)
	end := make(chan upgrader.Answer, 1)
	go func() {
		a, err := c.Await(t.Context(), back, func(v View) { views <- v })
		if err != nil {
			t.Error(err)
		}
		end <- a
	}()
	app.State, app.To, app.Begun, app.Order = upgrader.Swapping, "1.0-000000000000", true, &back.Order
	app.Progress = &progress.Progress{Done: 1, Total: 4, LeftSec: 3}
	s.Changed(app)
	for v := range views {
		if v.State == "swapping" && v.Progress != nil && v.Progress.Total == 4 && v.Order == back.Order.ID {
			break
		}
	}
	app.State, app.To, app.Begun, app.Order, app.Progress = upgrader.Idle, "", false, nil, nil
	app.Answer = upgrader.Answer{ID: back.Order.ID, Verdict: upgrader.VerdictGood, Reason: "it\nis"}
	s.Changed(app)
	if a := <-end; a.Verdict != upgrader.VerdictGood || a.Reason != `it\nis` {
		t.Errorf("answer: %+v", a)
	}

	// An order of somebody else's is a job, too; and a target may go.
	app.Order = &upgrader.Order{ID: "X", Verb: upgrader.OrderImport, File: "f"}
	if err := disk.PlaceOrder(app.Order); err != nil {
		t.Fatal(err)
	}
	s.Changed(app)
	var jobs []jobEntry
	eventually(t, "the order is a job", func() bool {
		if err := c.call(t.Context(), basePath, managerFace, "ListJobs", nil, &jobs); err != nil {
			t.Fatal(err)
		}
		return len(jobs) == 1 && jobs[0].Type == "import" && jobs[0].Target == "app"
	})
	s.Gone("app")
	eventually(t, "app is gone", func() bool {
		_, err := c.target(t.Context(), "app")
		return called(err) == errorNoTarget
	})
	if err := c.call(t.Context(), jobs[0].Path, jobFace, "Cancel", nil); called(err) != errorUnknownObject {
		t.Errorf("cancel a job that is gone: %v", err)
	}
	stop()
	if _, err := c.target(t.Context(), "app"); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
}

// waitsFor gives a client that ordered an upgrade of app, which is idle.
func waitsFor(t *testing.T, b *dbustest.Bus, state string) (s *Server, stop func(), c *Client, j Job) {
	t.Helper()
	if _, err := diskstore.Open(filepath.Join(state, "app")); err != nil {
		t.Fatal(err)
	}
	s, _, stop = serve(t, b, state)
	s.Changed(upgrader.TargetStatus{Name: "app", State: upgrader.Idle})
	c = dialed(t, b)
	follows(t, c)
	j, err := c.Order(t.Context(), "app", upgrader.Order{Verb: upgrader.OrderUpgrade})
	if err != nil {
		t.Fatal(err)
	}
	return s, stop, c, j
}

// A signal of somebody else, who sends it to the client alone, is no answer.
func TestAwaitBelievesTheDaemonAlone(t *testing.T) {
	b, state := dbustest.Start(t), t.TempDir()
	s, _, c, j := waitsFor(t, b, state)
	app := upgrader.TargetStatus{Name: "app", State: upgrader.Idle}
	waits, end := make(chan struct{}), make(chan upgrader.Answer, 1)
	go func() {
		began := sync.OnceFunc(func() { close(waits) })
		a, err := c.Await(t.Context(), j, func(View) { began() })
		if err != nil {
			t.Error(err)
		}
		end <- a
	}()
	<-waits
	other := dialed(t, b)
	body := []any{targetFace, map[string]dbus.Variant{"Answer": dbus.MakeVariant(answered{j.Order.ID, "good", "trust me"})}, []string{}}
	other.conn.Send(&dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(j.owner), dbus.FieldInterface: dbus.MakeVariant(propsFace), dbus.FieldMember: dbus.MakeVariant("PropertiesChanged"),
		dbus.FieldDestination: dbus.MakeVariant(c.conn.Names()[0]), dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(body...)),
	}, Body: body}, nil)
	if err := other.conn.BusObject().Call(busFace+".GetId", 0).Err; err != nil { // it went out before
		t.Fatal(err)
	}
	app.Answer = upgrader.Answer{ID: j.Order.ID, Verdict: upgrader.VerdictRefused}
	s.Changed(app)
	if a := <-end; a.Verdict != upgrader.VerdictRefused {
		t.Errorf("got %+v, want the daemon's answer", a)
	}
}

// Whoever waits for an order goes on when the daemon is started again, and learns of
// an answer that was given meanwhile.
func TestAwaitOutlivesDaemon(t *testing.T) {
	b, state := dbustest.Start(t), t.TempDir()
	_, stop, c, j := waitsFor(t, b, state)
	app := upgrader.TargetStatus{Name: "app", State: upgrader.Idle}
	end := make(chan error, 1)
	go func() {
		a, err := c.Await(t.Context(), j, func(View) {})
		if err == nil && a.Verdict != upgrader.VerdictRefused {
			err = fmt.Errorf("answer: %+v", a)
		}
		end <- err
	}()
	stop()
	s, _, _ := serve(t, b, state)
	app.State, app.Order = upgrader.Recovering, &j.Order
	s.Changed(app)
	app.State, app.Order, app.Answer = upgrader.Idle, nil, upgrader.Answer{ID: j.Order.ID, Verdict: upgrader.VerdictRefused}
	s.Changed(app)
	if err := <-end; err != nil {
		t.Error(err)
	}
}

// The bus may go and come; the server takes its name again.
func TestBusReturns(t *testing.T) {
	b := dbustest.Start(t)
	s, _, _ := serve(t, b, t.TempDir())
	s.Changed(upgrader.TargetStatus{Name: "app", State: upgrader.Idle})
	follows(t, dialed(t, b))
	b.Stop()
	s.Changed(upgrader.TargetStatus{Name: "app", State: upgrader.Fetching}) // which nobody hears
	b.Start()
	follows(t, dialed(t, b))
}

func TestMonitor(t *testing.T) {
	b := dbustest.Start(t)
	s, _, stop := serve(t, b, t.TempDir())
	app := upgrader.TargetStatus{Name: "app", State: upgrader.Idle, Current: "1.0-000000000000"}
	s.Changed(app)
	c := dialed(t, b)
	follows(t, c)
	err := c.Monitor(t.Context(), []string{"nobody"}, nil)
	if called(err) != errorNoTarget {
		t.Errorf("of no target: %v", err)
	}
	if got := advice.Of(err); !slices.Equal(got, []string{"upgraderd status lists those that are"}) || !strings.HasSuffix(err.Error(), "; "+got[0]) {
		t.Errorf("what to do about %v: %q", err, got)
	}
	heard := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() {
		end <- c.Monitor(ctx, []string{"app"}, func(e Event) error { heard <- e.String(); return nil })
	}()
	hears := func(want ...string) {
		t.Helper()
		for _, w := range want {
			select {
			case got := <-heard:
				if got != w {
					t.Errorf("heard %q, want %q", got, w)
				}
			case <-time.After(time.Minute):
				t.Fatalf("did not hear %q", w)
			}
		}
	}
	hears("app: idle, 1.0-000000000000 is current")
	s.Changed(upgrader.TargetStatus{Name: "other", State: upgrader.Idle})
	app.State, app.To = upgrader.Fetching, "2.0-111111111111"
	s.Changed(app)
	app.Progress = &progress.Progress{Done: 512, Total: 1024, Rate: 256, LeftSec: 2}
	s.Changed(app)
	app.State, app.To, app.Progress = upgrader.Idle, "", nil
	app.Trouble = "no route"
	s.Changed(app)
	app.Trouble = ""
	app.Current = "2.0-111111111111"
	app.Last = &upgrader.Outcome{Verdict: upgrader.VerdictGood, From: "1.0", To: "2.0", When: time.Unix(1, 0)}
	s.Changed(app)
	hears("app: fetching 2.0-111111111111", "app: fetching 2.0-111111111111 512 B of 1.0 KiB (50 %), 256 B/s, 2s left", "app: idle", "app: no route",
		"app: 2.0-111111111111 is current", "app: 1.0 → 2.0 good", "app: the trouble is over")
	s.Gone("app")
	hears("app: no longer followed")
	stop()
	hears("upgraderd left the bus; it is waited for")
	s, _, _ = serve(t, b, t.TempDir())
	s.Changed(app)
	hears("upgraderd is on the bus", "app: idle, 2.0-111111111111 is current")
	cancel()
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestGate(t *testing.T) {
	g := newGate()
	var leave []func()
	for i := range callsAll {
		l, err := g.enter(uint32(1000 + i/callsEach))
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if _, err := g.enter(1999); err == nil {
		t.Error("one more than there may be together")
	}
	leave[0]()
	if _, err := g.enter(1001); err == nil {
		t.Error("one more than a client may have")
	}
	if _, err := g.enter(1999); err != nil {
		t.Error(err)
	}
	for _, l := range leave[1:] {
		l()
	}
	if len(g.of) != 1 || g.all != 1 {
		t.Errorf("%v are left, %d together", g.of, g.all)
	}
}

// One that asks in a loop is let in now and then, and keeps nobody else out.
func TestGatePaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		ask := func(uid uint32, n int) (in int) {
			for range n {
				leave, err := g.enter(uid)
				if err == nil {
					leave()
					in++
				} else if !strings.Contains(err.Error(), "wait, and ask less often") || err.Name != errorLimits {
					t.Fatal(err)
				}
			}
			return in
		}
		if in := ask(1000, 10000); in != callsBurst {
			t.Errorf("%d calls at once, want %d", in, callsBurst)
		}
		if in := ask(1001, 1); in != 1 {
			t.Error("another user is kept out")
		}
		time.Sleep(10 * callsEvery)
		if in := ask(1000, 10000); in != 10 {
			t.Errorf("%d calls after 10 s, want 10", in)
		}
		time.Sleep(time.Hour)
		if in := ask(1000, 10000); in != callsBurst {
			t.Errorf("%d calls after an hour, want %d", in, callsBurst)
		}

		told, untold := 0, 0
		for range 24 * 60 {
			for range 1000 {
				if n, yes := g.tells(1000); yes {
					told++
					untold += n
				}
			}
			time.Sleep(time.Minute)
		}
		if most := refusalsBurst + 24*60; told > most || told+untold < 24*60*1000-1000 {
			t.Errorf("%d refusals are logged in a day, want at most %d, and %d are counted", told, most, untold)
		}
		if ask(1002, 1); len(g.calls) != 1 {
			t.Errorf("users who do not ask are remembered: %v", g.calls)
		}
	})
}

func TestEscape(t *testing.T) {
	for name, want := range map[string]string{"app": "app", "": "_", "1.app": "_31_2eapp", "a1": "a1", "foo-bar_baz": "foo_2dbar_5fbaz", "ä": "_c3_a4"} {
		if got := escape(name); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
		if !targetPath(name).IsValid() {
			t.Errorf("%s is no path", targetPath(name))
		}
	}
}

// Whatever waits to be told, the newest of each target is.
func TestNewestOfEach(t *testing.T) {
	s := New(Options{})
	for i := range 3 * newsMax {
		s.Changed(upgrader.TargetStatus{Name: fmt.Sprint("t", i%3), To: fmt.Sprint(i)})
	}
	if len(s.news) >= newsMax {
		t.Errorf("%d wait, want fewer than %d", len(s.news), newsMax)
	}
	last := map[string]string{}
	for _, n := range s.news {
		last[n.name] = n.status.To
	}
	for name, want := range map[string]string{"t0": fmt.Sprint(3*newsMax - 3), "t1": fmt.Sprint(3*newsMax - 2), "t2": fmt.Sprint(3*newsMax - 1)} {
		if last[name] != want {
			t.Errorf("%s: got %s, want %s", name, last[name], want)
		}
	}
}

// Every value is of the type that introspection says, and there is none that it does
// not tell.
func TestPropertiesAreDescribed(t *testing.T) {
	s := New(Options{})
	j := &job{id: 7, target: "app"}
	for what, c := range map[string]struct {
		said []property
		have map[string]any
	}{
		"target": {targetProperties(), s.properties(&target{status: upgrader.TargetStatus{
			Name: "app", KnownBad: []upgrader.KnownBad{{}}, Last: &upgrader.Outcome{}, Progress: &progress.Progress{},
		}})},
		"job": {jobProperties(), s.jobProps(j)},
		"log": {(&link{Server: s}).logFace().props, (&link{Server: s}).readLogs("")},
	} {
		for _, p := range c.said {
			v, ok := c.have[p.name]
			if !ok || dbus.SignatureOf(v) != dbus.SignatureOf(p.zero) {
				t.Errorf("%s: %s is %T, want %T", what, p.name, v, p.zero)
			}
			delete(c.have, p.name)
		}
		if len(c.have) > 0 {
			t.Errorf("%s: not described: %v", what, c.have)
		}
	}
}

// following gives a client of a daemon whose one target app is idle, and the daemon's
// state.
func following(t *testing.T) (c *Client, state string) {
	t.Helper()
	b, state := dbustest.Start(t), t.TempDir()
	if _, err := diskstore.Open(filepath.Join(state, "app")); err != nil {
		t.Fatal(err)
	}
	s, _, _ := serve(t, b, state)
	s.Changed(upgrader.TargetStatus{Name: "app", State: upgrader.Idle})
	c = dialed(t, b)
	follows(t, c)
	return c, state
}

// Of what is wished already, what changes is asked for, and nothing else.
func TestWish(t *testing.T) {
	c, state := following(t)
	says := func(w wish.Wishes) string {
		text := fmt.Sprint(w.Skips)
		if w.Hold != nil {
			text += fmt.Sprintf(" held %d %s", w.Hold.ForSec, w.Hold.Reason)
		}
		if w.Pin != nil {
			text += fmt.Sprintf(" %s %s", w.Pin.Version, w.Pin.Reason)
		}
		return text
	}
	hold, err := wish.NewHold(time.Hour, wish.Mark{Reason: "fair"})
	if err != nil {
		t.Fatal(err)
	}
	skip := func(versions ...string) (all []wish.Skip) {
		for _, v := range versions {
			all = append(all, wish.Skip{Version: v})
		}
		return all
	}
	before := wish.Wishes{}
	for _, after := range []wish.Wishes{
		{Hold: &hold, Pin: &wish.Pin{Version: "1.*", Mark: wish.Mark{Reason: "old"}}, Skips: skip("1.4", "1.5")},
		{Hold: &hold, Skips: skip("1.5", "1.6")},
		{Pin: &wish.Pin{Version: "1.*"}},
		{Pin: &wish.Pin{Version: "2.*"}},
		{},
	} {
		if err := c.Wish(t.Context(), "app", before, after); err != nil {
			t.Fatal(err)
		}
		got, err := upgrader.Wished(state, "app")
		if err != nil {
			t.Fatal(err)
		}
		for i := range got.Skips {
			got.Skips[i].Mark = wish.Mark{}
		}
		if says(got) != says(after) {
			t.Errorf("got %s, want %s", says(got), says(after))
		}
		before = after
	}
	if err := c.Wish(t.Context(), "app", before, before); err != nil {
		t.Errorf("nothing: %v", err)
	}
	if err := c.Wish(t.Context(), "nobody", before, before); called(err) != errorNoTarget {
		t.Errorf("of no target: %v", err)
	}
}

func TestBeside(t *testing.T) {
	b, state := dbustest.Start(t), t.TempDir()
	disk, err := diskstore.Open(filepath.Join(state, "app"))
	if err != nil {
		t.Fatal(err)
	}
	s, _, _ := serve(t, b, state)
	c := dialed(t, b)
	app := upgrader.TargetStatus{Name: "app", Unit: "app.service", State: upgrader.Idle, Current: "1.0-000000000000"}
	s.Changed(app)
	follows(t, c)
	for _, seconds := range []uint64{86401, 1 << 63} {
		var id uint32
		var job dbus.ObjectPath
		var order string
		err := c.call(t.Context(), targetPath("app"), targetFace, "UpgradeBeside", []any{"2.0", seconds}, &id, &job, &order)
		if called(err) != errorInvalidArgs {
			t.Errorf("beside for %d s: %v", seconds, err)
		}
	}
	if _, err := c.Order(t.Context(), "app", upgrader.Order{Verb: upgrader.OrderUpgrade, Version: "2.0", BesideSec: 5, AllowDowngrade: true}); err == nil {
		t.Error("a downgrade was to serve beside")
	}
	for _, step := range []struct {
		order   upgrader.Order
		verdict upgrader.Verdict
	}{
		{upgrader.Order{Verb: upgrader.OrderUpgrade, Version: "2.0", BesideSec: 60}, upgrader.VerdictBeside},
		{upgrader.Order{Verb: upgrader.OrderConfirm}, upgrader.VerdictGood},
	} {
		j, err := c.Order(t.Context(), "app", step.order)
		if err != nil {
			t.Fatal(err)
		}
		var have upgrader.Order
		if ok, err := disk.Order(&have); err != nil || !ok || have.Verb != step.order.Verb || have.Version != step.order.Version || have.BesideSec != step.order.BesideSec {
			t.Errorf("on disk is %+v, %v; want %+v", have, err, step.order)
		}
		if step.verdict == upgrader.VerdictBeside {
			app.State, app.Beside = upgrader.Beside, &upgrader.BesideRelease{Release: "2.0-000000000000", LeftSec: 60}
		} else {
			app.State, app.Beside = upgrader.Idle, nil
		}
		app.Answer = upgrader.Answer{ID: j.Order.ID, Verdict: step.verdict}
		s.Changed(app)
		if a, err := c.Await(t.Context(), j, func(View) {}); err != nil || a.Verdict != step.verdict {
			t.Errorf("%s: %+v, %v", step.order, a, err)
		}
		if got := resultOf(step.order, app.Answer); got != ResultDone {
			t.Errorf("%s: the job is %s", step.order, got)
		}
		var beside string
		values := map[string]dbus.Variant{}
		if err := c.call(t.Context(), targetPath("app"), propsFace, "GetAll", []any{targetFace}, &values); err != nil || !store(values["Beside"], &beside) {
			t.Fatalf("properties: %v", err)
		}
		if want := app.Beside; (want == nil) != (beside == "") || want != nil && beside != want.Release {
			t.Errorf("Beside is %q, want %+v", beside, want)
		}
	}
}

func TestWishes(t *testing.T) {
	c, state := following(t)
	do := func(member string, args ...any) error {
		return c.call(t.Context(), targetPath("app"), targetFace, member, args)
	}
	for _, bad := range []struct {
		member string
		args   []any
	}{
		{"Hold", []any{uint64(1) << 63, ""}}, {"Hold", []any{uint64(1) << 32, ""}}, {"Hold", []any{uint64(1), "two\nlines"}},
		{"Pin", []any{"*", ""}}, {"Pin", []any{"../etc", ""}}, {"Pin", []any{strings.Repeat("1", wishTextMax+1), ""}},
		{"Skip", []any{"", ""}}, {"Skip", []any{"1.4.*", ""}}, {"Unskip", []any{"a b"}},
	} {
		if err := do(bad.member, bad.args...); called(err) != errorInvalidArgs {
			t.Errorf("%s %.60v: got %v", bad.member, bad.args, err)
		}
	}
	for _, step := range []struct {
		member string
		args   []any
		want   string
	}{
		{"Hold", []any{uint64(7200), "fair"}, "held 7200 fair, pin , skips 0"},
		{"Pin", []any{"1.4.*", "old clients"}, "held 7200 fair, pin 1.4.*, skips 0"},
		{"Skip", []any{"1.4.2", ""}, "held 7200 fair, pin 1.4.*, skips 1"},
		{"Unhold", nil, "pin 1.4.*, skips 1"}, {"Unpin", nil, "pin , skips 1"}, {"Unskip", []any{"1.4.2"}, "pin , skips 0"},
	} {
		if err := do(step.member, step.args...); err != nil {
			t.Fatalf("%s: %v", step.member, err)
		}
		w, err := upgrader.Wished(state, "app")
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if w.Hold != nil {
			got = fmt.Sprintf("held %d %s, ", w.Hold.ForSec, w.Hold.Reason)
			if w.Hold.By != "root" {
				t.Errorf("it is held by %q", w.Hold.By)
			}
		}
		pin := ""
		if w.Pin != nil {
			pin = w.Pin.Version
		}
		if got += fmt.Sprintf("pin %s, skips %d", pin, len(w.Skips)); got != step.want {
			t.Errorf("after %s: %s, want %s", step.member, got, step.want)
		}
	}
}
