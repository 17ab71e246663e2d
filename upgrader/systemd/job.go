package systemd

import (
	"context"
	"errors"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// Result is how a job ended (org.freedesktop.systemd1(5), JobRemoved).
type Result string

const (
	ResultDone     Result = "done"
	ResultCanceled Result = "canceled" // somebody queued another job, or cancelled this one
	ResultTimeout  Result = "timeout"
	ResultFailed   Result = "failed"
	ResultSkipped  Result = "skipped"
	// ResultDependency: what the unit requires did not start, so it was not
	// started either.
	ResultDependency Result = "dependency"
	// ResultUnknown is ours: the job is over, and how it ended was lost
	// with a connection. Facts tell.
	ResultUnknown Result = "unknown"
)

// Reload queues ExecReload= of unit and waits for the job to end. An error
// means that no job was queued, or that ctx ended during the wait.
func (c *Client) Reload(ctx context.Context, unit string) (Result, error) {
	return c.run(ctx, "reload", "ReloadUnit", unit, yielding)
}

// Restart stops and starts unit, or starts it if it is not active, and waits
// for the job to end. Errors as in [Client.Reload].
func (c *Client) Restart(ctx context.Context, unit string) (Result, error) {
	return c.run(ctx, "restart", "RestartUnit", unit, yielding)
}

// Start starts unit and waits for the job to end: for Type=oneshot that is
// when the program has ended. Errors as in [Client.Reload].
func (c *Client) Start(ctx context.Context, unit string) (Result, error) {
	return c.run(ctx, "start", "StartUnit", unit, yielding)
}

// Stop stops unit and waits for the job to end. Errors as in [Client.Reload].
func (c *Client) Stop(ctx context.Context, unit string) (Result, error) {
	return c.run(ctx, "stop", "StopUnit", unit, yielding)
}

// Displace is [Client.Stop] in the place of whatever job the unit has, as systemctl
// has it. It is for what an operator types, and not for the daemon.
func (c *Client) Displace(ctx context.Context, unit string) (Result, error) {
	return c.run(ctx, "stop", "StopUnit", unit, "replace")
}

// yielding has a job of ours refused where another stands in its way.
const yielding = "fail"

// waiter hears of the end of one job. Between asking and learning the job's
// path it keeps what it hears, as the end may overtake the answer.
type waiter struct {
	path  dbus.ObjectPath
	early map[dbus.ObjectPath]Result
	done  chan Result // one result fits
}

// earlyMax bounds what is kept. Each entry is a job that ended within one
// call's duration.
const earlyMax = 4096

// removed is called with the link's lock held.
func (w *waiter) removed(path dbus.ObjectPath, r Result) {
	if w.path == "" {
		if len(w.early) < earlyMax {
			w.early[path] = r
		}
		return
	}
	if path == w.path {
		select {
		case w.done <- r:
		default:
		}
	}
}

func (l *link) wait() *waiter {
	w := &waiter{early: map[dbus.ObjectPath]Result{}, done: make(chan Result, 1)}
	l.mu.Lock()
	l.waiters[w] = struct{}{}
	l.mu.Unlock()
	return w
}

func (l *link) forget(w *waiter) {
	l.mu.Lock()
	delete(l.waiters, w)
	l.mu.Unlock()
}

// name tells w which job it waits for.
func (l *link) name(w *waiter, path dbus.ObjectPath) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.path = path
	if r, ok := w.early[path]; ok {
		w.done <- r
	}
	w.early = nil
}

func (c *Client) run(ctx context.Context, verb, method, unit, mode string) (Result, error) {
	call, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	l, err := c.connect(call)
	if err != nil {
		return "", classify(verb, unit, err)
	}
	w := l.wait()
	defer l.forget(w)
	var path dbus.ObjectPath
	err = l.conn.Object(busName, busPath).CallWithContext(call, manager+"."+method, 0, unit, mode).Store(&path)
	switch {
	case err == nil:
		l.name(w, path)
		return c.await(ctx, l, w, verb, unit)
	case lost(err):
		// The request may have arrived or not, and so may its job.
		return c.settle(ctx, verb, unit)
	}
	return "", classify(verb, unit, err)
}

// await waits for the job's end, and does not rely on hearing of it.
func (c *Client) await(ctx context.Context, l *link, w *waiter, verb, unit string) (Result, error) {
	for {
		check, cancel := context.WithTimeout(ctx, jobCheck)
		select {
		case r := <-w.done:
			cancel()
			return r, nil
		case <-l.conn.Context().Done():
			cancel()
			return c.settle(ctx, verb, unit)
		case <-check.Done():
			cancel()
		}
		if ctx.Err() != nil {
			return "", &Error{Code: CodeBusTimeout, Verb: verb, Unit: unit, Err: fmt.Errorf("job did not end: %w", ctx.Err())}
		}
		if c.exists(ctx, l, w.path) {
			continue
		}
		// Gone. Its signal, if there was one, is older than this answer.
		select {
		case r := <-w.done:
			return r, nil
		default:
			return ResultUnknown, nil
		}
	}
}

// exists asks whether a job is still there; in doubt it is.
func (c *Client) exists(ctx context.Context, l *link, job dbus.ObjectPath) bool {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	err := l.conn.Object(busName, job).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0,
		"org.freedesktop.systemd1.Job", "State").Err
	var de dbus.Error
	if !errors.As(err, &de) {
		return true
	}
	switch de.Name {
	case "org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.DBus.Error.UnknownMethod",
		"org.freedesktop.DBus.Error.UnknownInterface", "org.freedesktop.systemd1.NoSuchJob":
		return false
	}
	return true
}

// settle connects again and waits until no job of unit is left.
func (c *Client) settle(ctx context.Context, verb, unit string) (Result, error) {
	for {
		if _, err := c.reach(ctx); err != nil {
			return "", classify(verb, unit, err)
		}
		f, err := c.Facts(ctx, unit)
		if err == nil && f.Job == 0 {
			return ResultUnknown, nil
		}
		if !sleep(ctx, redialMax/10) {
			return "", classify(verb, unit, ctx.Err())
		}
	}
}
