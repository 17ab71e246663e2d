package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/upgraderd/upgraderd/test/dbustest"
)

func TestFacts(t *testing.T) {
	b := dbustest.Start(t)
	startPID1(t, b)
	got, err := newClient(t, b).Facts(withTimeout(t), "app.service")
	if err != nil {
		t.Fatal(err)
	}
	want := Facts{
		ID: "app.service", LoadState: "loaded", ActiveState: "active", SubState: "running", InvocationID: "abcd",
		TriggeredBy: []string{"app.socket"}, Dependents: []string{"bound.service", "needs.service"}, Type: "notify", MainPID: 812, NRestarts: 2, StatusText: "Serving x", StatusErrno: 22,
		ExecStart:    [][]string{{"/bin/a", "supervise"}},
		TimeoutStart: 90 * time.Second, TimeoutStop: -1,
		Watch: 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUndisturbed(t *testing.T) {
	b := dbustest.Start(t)
	p := startPID1(t, b)
	c := newClient(t, b)
	facts := func() Facts {
		t.Helper()
		f, err := c.Facts(withTimeout(t), "app.service")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	before := facts()
	if _, err := c.Reload(withTimeout(t), "app.service"); err != nil {
		t.Fatal(err)
	}
	own := facts()
	if !own.Undisturbed(before, 1) || own.Undisturbed(before, 0) {
		t.Errorf("after a job of ours: %+v since %+v", own, before)
	}
	p.script(func(p *pid1) { p.result = "dependency" })
	p.end(77) // somebody else's
	other := facts()
	if own.LastJob != ResultDone || other.LastJob != ResultDependency {
		t.Errorf("last jobs: got %q and %q, want done and dependency", own.LastJob, other.LastJob)
	}
	if other.Undisturbed(own, 0) || !facts().Undisturbed(other, 0) {
		t.Errorf("after a job of another: %+v since %+v", other, own)
	}
	b.Stop()
	b.Start()
	startPID1(t, b)
	if f := facts(); f.Undisturbed(other, 0) || (Facts{}).Undisturbed(Facts{}, 0) {
		t.Errorf("over a broken connection: %+v since %+v", f, other)
	}
}

func TestEndedItself(t *testing.T) {
	cases := map[string]struct {
		state               string
		began, ended, left  uint64
		itself, neverActive bool
	}{
		"runs":              {"active", 15, 10, 12, false, false}, // of the run before
		"ended":             {"inactive", 5, 10, 11, true, false},
		"crashed":           {"failed", 5, 10, 11, true, false},
		"stopped":           {"inactive", 5, 11, 10, false, false},
		"never was active":  {"inactive", 9, 10, 0, false, true},
		"not this time":     {"inactive", 9, 10, 8, false, true},
		"systemd forgot it": {"inactive", 0, 0, 0, false, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			unit := map[string]dbus.Variant{
				"ActiveState":                    dbus.MakeVariant(c.state),
				"InactiveExitTimestampMonotonic": dbus.MakeVariant(c.began),
				"ActiveExitTimestampMonotonic":   dbus.MakeVariant(c.left),
			}
			service := map[string]dbus.Variant{"ExecMainExitTimestampMonotonic": dbus.MakeVariant(c.ended)}
			f := parseFacts(unit, service)
			if f.EndedItself != c.itself || f.NeverActive != c.neverActive {
				t.Errorf("got %v, %v, want %v, %v", f.EndedItself, f.NeverActive, c.itself, c.neverActive)
			}
		})
	}
}

// A unit that failed between two looks, and runs again, is not mistaken for one
// that a person restarted.
func TestFailedSince(t *testing.T) {
	b := dbustest.Start(t)
	p := startPID1(t, b)
	c := newClient(t, b)
	facts := func() Facts {
		t.Helper()
		f, err := c.Facts(withTimeout(t), "app.service")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	before := facts()
	p.becomes("deactivating", 7)
	p.becomes("failed", 7) // it ended badly, in a job
	p.becomes("failed", 0)
	p.becomes("active", 0)
	if f := facts(); f.FailedSince(before) {
		t.Errorf("after a stop that ended badly: %+v since %+v", f, before)
	}
	p.becomes("failed", 0)
	p.becomes("failed", 8) // the socket's
	p.becomes("active", 0)
	after := facts()
	if !after.FailedSince(before) || after.Failures != 1 || facts().FailedSince(after) {
		t.Errorf("after a failure: %+v since %+v", after, before)
	}
	forger, err := dbus.Connect(b.Address, dbus.WithAuth(dbus.AuthExternal(fmt.Sprint(os.Getuid()))))
	if err != nil {
		t.Fatal(err)
	}
	defer forger.Close()
	emitChange(t, forger, "failed", 0)
	if err := forger.BusObject().Call("org.freedesktop.DBus.GetId", 0).Err; err != nil { // the bus has passed it on
		t.Fatal(err)
	}
	if f := facts(); f.FailedSince(after) {
		t.Error("somebody else's word counts")
	}
	b.Stop()
	b.Start()
	startPID1(t, b)
	if f := facts(); f.FailedSince(before) || (Facts{Failures: 1}).FailedSince(Facts{}) {
		t.Errorf("over a broken connection: %+v since %+v", f, before)
	}
}

func TestFactsOfWhatIsNoService(t *testing.T) {
	b := dbustest.Start(t)
	p := startPID1(t, b)
	p.script(func(p *pid1) { p.props[svcFace] = nil })
	got, err := newClient(t, b).Facts(withTimeout(t), "app.socket")
	if err != nil || got.ActiveState != "active" || got.MainPID != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestJobs(t *testing.T) {
	dbusError := func(name string) func(string, uint32) (func(), *dbus.Error) {
		return func(string, uint32) (func(), *dbus.Error) {
			return nil, &dbus.Error{Name: name, Body: []any{"because"}}
		}
	}
	for _, tt := range []struct {
		name   string
		script func(*pid1)
		want   Result
		code   string
	}{
		{"done", func(*pid1) {}, ResultDone, ""},
		{"failed", func(p *pid1) { p.result = "failed" }, ResultFailed, ""},
		{"canceled", func(p *pid1) { p.result = "canceled" }, ResultCanceled, ""},
		{"the end overtakes the answer", func(p *pid1) { p.early = true }, ResultDone, ""},
		{"the signal is lost", func(p *pid1) {
			p.answer = func(_ string, id uint32) (func(), *dbus.Error) { return func() { p.drop(id) }, nil }
		}, ResultUnknown, ""},
		{"denied", func(p *pid1) { p.answer = dbusError("org.freedesktop.DBus.Error.AccessDenied") }, "", CodeDenied},
		{"interactive", func(p *pid1) {
			p.answer = dbusError("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired")
		}, "", CodeDenied},
		{"masked", func(p *pid1) { p.answer = dbusError("org.freedesktop.systemd1.UnitMasked") }, "", CodeMasked},
		{"missing", func(p *pid1) { p.answer = dbusError("org.freedesktop.systemd1.NoSuchUnit") }, "", CodeNotFound},
		{"no ExecReload", func(p *pid1) { p.answer = dbusError("org.freedesktop.systemd1.JobTypeNotApplicable") }, "", CodeNoReload},
		{"conflict", func(p *pid1) { p.answer = dbusError("org.freedesktop.systemd1.TransactionIsDestructive") }, "", CodeJobConflict},
		{"polkit sleeps", func(p *pid1) { p.answer = dbusError("org.freedesktop.DBus.Error.NoReply") }, "", CodeBusTimeout},
		{"other", func(p *pid1) { p.answer = dbusError("org.freedesktop.systemd1.ShuttingDown") }, "", CodeRefused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := dbustest.Start(t)
			p := startPID1(t, b)
			p.script(tt.script)
			got, err := newClient(t, b).Reload(withTimeout(t), "app.service")
			if got != tt.want || (err == nil) != (tt.code == "") || tt.code != "" && !HasCode(err, tt.code) {
				t.Errorf("got %q, %v; want %q, code %q", got, err, tt.want, tt.code)
			}
			if err != nil && !strings.Contains(err.Error(), "app.service") {
				t.Errorf("%q does not name the unit", err)
			}
			if !strings.Contains(p.seen(), "reload app.service fail") {
				t.Errorf("systemd was asked %q", p.seen())
			}
		})
	}
}

func TestVerbs(t *testing.T) {
	b := dbustest.Start(t)
	p := startPID1(t, b)
	c := newClient(t, b)
	ctx := withTimeout(t)
	_, err1 := c.Restart(ctx, "app.service")
	_, err2 := c.Start(ctx, "upgraderd-check@app.service")
	err3 := c.ResetFailed(ctx, "app.service")
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	want := "subscribe, restart app.service fail, start upgraderd-check@app.service fail, reset-failed app.service"
	if got := p.seen(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A signal that somebody else sends must not end a wait.
func TestForgedJobRemovedIsIgnored(t *testing.T) {
	b := dbustest.Start(t)
	p := startPID1(t, b)
	forger, err := dbus.Connect(b.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer forger.Close()
	c := newClient(t, b)
	if _, err := c.Facts(withTimeout(t), "app.service"); err != nil {
		t.Fatal(err)
	}
	forged := func(_ string, id uint32) (func(), *dbus.Error) {
		// A broadcast, and one sent straight to the client: the match rule
		// stops the first, the check of the sender the second.
		if err := forger.Emit(busPath, manager+".JobRemoved", id, jobPath(id), "app.service", "done"); err != nil {
			t.Error(err)
		}
		msg := &dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath:        dbus.MakeVariant(busPath),
			dbus.FieldInterface:   dbus.MakeVariant(manager),
			dbus.FieldMember:      dbus.MakeVariant("JobRemoved"),
			dbus.FieldDestination: dbus.MakeVariant(c.link.conn.Names()[0]),
			dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(id, jobPath(id), "", "")),
		}, Body: []any{id, jobPath(id), "app.service", "done"}}
		forger.Send(msg, nil)
		return func() { time.Sleep(100 * time.Millisecond); p.end(id) }, nil
	}
	p.script(func(p *pid1) { p.answer, p.result = forged, "failed" })
	if got, err := c.Reload(withTimeout(t), "app.service"); got != ResultFailed || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, ResultFailed)
	}
}

// The bus dies during a job and comes back without it.
func TestBusDiesInAJob(t *testing.T) {
	b := dbustest.Start(t)
	p := startPID1(t, b)
	p.script(func(p *pid1) {
		p.answer = func(string, uint32) (func(), *dbus.Error) { return nil, nil } // never ends
	})
	c := newClient(t, b)
	type outcome struct {
		r   Result
		err error
	}
	ended := make(chan outcome, 1)
	ctx := withTimeout(t)
	go func() {
		r, err := c.Reload(ctx, "app.service")
		ended <- outcome{r, err}
	}()
	for !strings.Contains(p.seen(), "reload") {
		time.Sleep(time.Millisecond)
	}
	b.Stop()
	time.Sleep(150 * time.Millisecond)
	b.Start()
	startPID1(t, b)
	if got := <-ended; got.r != ResultUnknown || got.err != nil {
		t.Errorf("got %q, %v; want %q", got.r, got.err, ResultUnknown)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	b := dbustest.Start(t)
	p := startPID1(t, b)
	p.script(func(p *pid1) {
		p.answer = func(string, uint32) (func(), *dbus.Error) { return nil, nil }
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := newClient(t, b).Reload(ctx, "app.service")
	if !HasCode(err, CodeBusTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %s", err, CodeBusTimeout)
	}
}

func TestFrozenBus(t *testing.T) {
	b := dbustest.Start(t)
	if err := b.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := newClient(t, b).Facts(ctx, "app.service")
	if !HasCode(err, CodeBusTimeout) || time.Since(began) > 5*time.Second {
		t.Errorf("got %v after %v, want %s at once", err, time.Since(began), CodeBusTimeout)
	}
}

func TestNoBus(t *testing.T) {
	c := New(Options{Address: "unix:path=/nonexistent/socket"})
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Reload(ctx, "app.service"); !HasCode(err, CodeBusDown) {
		t.Errorf("reload: got %v, want %s", err, CodeBusDown)
	}
	if _, err := c.Facts(ctx, "app.service"); !HasCode(err, CodeBusDown, CodeBusTimeout) {
		t.Errorf("facts: got %v, want %s", err, CodeBusDown)
	}
}

// systemd executes itself anew: another unique name, nobody subscribed.
func TestReexec(t *testing.T) {
	b := dbustest.Start(t)
	first := startPID1(t, b)
	c := newClient(t, b)
	if _, err := c.Facts(withTimeout(t), "app.service"); err != nil {
		t.Fatal(err)
	}
	if _, err := first.conn.ReleaseName(busName); err != nil {
		t.Fatal(err)
	}
	second := startPID1(t, b)
	if r, err := c.Reload(withTimeout(t), "app.service"); r != ResultDone || err != nil {
		t.Errorf("got %q, %v", r, err)
	}
	for range 100 {
		if strings.Contains(second.seen(), "subscribe") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the new systemd was asked %q, want subscribe too", second.seen())
}

// systemd goes while it is asked: the bus answers for it, that nobody will.
func TestReexecWhileAsked(t *testing.T) {
	b := dbustest.Start(t)
	first := startPID1(t, b)
	first.mu.Lock()
	first.asked = func() { first.conn.Close() }
	first.mu.Unlock()
	c := newClient(t, b)
	got := make(chan error, 1)
	go func() {
		f, err := c.Facts(withTimeout(t), "app.service")
		if err == nil && f.MainPID != 812 {
			err = fmt.Errorf("got %+v", f)
		}
		got <- err
	}()
	<-first.conn.Context().Done()
	startPID1(t, b)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestNothingIsLeft(t *testing.T) {
	b := dbustest.Start(t)
	startPID1(t, b)
	count := func() (goroutines, fds int) {
		runtime.GC()
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return runtime.NumGoroutine(), len(entries)
	}
	g0, f0 := count()
	for range 10 {
		c := New(Options{Address: b.Address})
		if _, err := c.Reload(withTimeout(t), "app.service"); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Facts(t.Context(), "app.service"); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v, want ErrClosed", err)
		}
	}
	var g, f int
	for range 200 {
		if g, f = count(); g <= g0 && f <= f0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("goroutines %d → %d, files %d → %d", g0, g, f0, f)
}

func TestUnitPath(t *testing.T) {
	for in, want := range map[string]string{
		"app.service":     "app_2eservice",
		"a-b@c\\x2d.d":    "a_2db_40c_5cx2d_2ed",
		"9p.service":      "_39p_2eservice",
		"":                "_",
		"app.service\n/.": "app_2eservice_0a_2f_2e",
	} {
		got := unitPath(in)
		if string(got) != "/org/freedesktop/systemd1/unit/"+want || !got.IsValid() {
			t.Errorf("unitPath(%q) = %s, want …/%s", in, got, want)
		}
	}
}

func ExampleFacts_Exit() {
	f := Facts{ExecMainCode: 2, ExecMainStatus: 9}
	fmt.Println(f.Exit())
	// Output: killed by signal 9
}
