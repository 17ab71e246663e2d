package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// A target is retired when its .upgrade file goes, and with the file goes the
// right to move its unit. In the middle of an upgrade a daemon that lives comes
// to its verdict first. Where it ended meanwhile, nobody knows any more how to
// judge the release: what serves stays, and what was pending is settled, so that
// no reboot, months later, reverts what everybody has forgotten.

// retired tells that the daemon offers no configuration any more.
func (m *machine) retired() bool {
	o := m.offered.Load()
	return o != nil && o.target == nil
}

// Retire settles what is pending of a target that is gone: what serves stays, and
// counts as neither good nor bad. It moves links, and asks systemd what serves.
// A target that has nothing pending is left alone.
//
// Of the options, Targets and Broken are ignored. The error wraps
// [store.ErrLocked] where a daemon holds the target and comes to a verdict itself.
// Any other tells that it is not known what serves, or of the disk. Then nothing
// is settled, and it may be tried again.
func Retire(ctx context.Context, o Options, target string) error {
	o.Targets = nil
	d, err := New(o)
	if err != nil {
		return err
	}
	return d.retire(ctx, target)
}

func (d *Daemon) retire(ctx context.Context, name string) error {
	if pending, err := Pending(d.o.StateDir, name); err != nil || !pending {
		return err
	}
	held, err := d.open(&Target{Name: name})
	if err != nil {
		return err
	}
	defer held.unlock()
	m := d.machine(&Target{Name: name})
	m.store = d.disk(held.Store)
	if err := m.load(ctx); err != nil || !m.record.State.pending() {
		return err
	}
	m.use(&Target{Name: name, Unit: m.record.Unit, Swap: m.record.Swap})
	m.state = m.record.State
	return m.retire(ctx)
}

// retireAll settles what is left of targets that are gone since the daemon before
// this one. Where systemd cannot be asked, it tries again.
func (d *Daemon) retireAll(ctx context.Context) {
	entries, err := os.ReadDir(d.o.StateDir)
	if err != nil {
		d.o.Log.Warn("looking for targets that are gone", "error", err)
		return
	}
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || d.o.Broken(name) || slices.ContainsFunc(d.o.Targets, func(t *Target) bool { return t.Name == name }) {
			continue
		}
		var pause backoff
		var quiet hush
		for {
			err := d.retire(ctx, name)
			if err == nil || errors.Is(err, store.ErrLocked) {
				break
			}
			if text := err.Error(); quiet.isNews(journal.StepFailed, Recovering, text) {
				d.o.Log.Warn("settling what is left of a target that is gone", "target", name, "error", text)
			}
			if !sleep(ctx, pause.next(0)) {
				return
			}
		}
	}
}

// retire ends the attempt that the record names.
func (m *machine) retire(ctx context.Context) error {
	verdict, why := VerdictInconclusive, "its .upgrade file went while it was on trial; what serves stays"
	event, attr := journal.OperatorIntervened, slog.String("reason", why)
	switch m.record.State {
	case Swapping:
		if err := m.retireSwap(ctx); err != nil {
			return err
		}
	case Beside, Keeping:
		if err := m.retireSwap(ctx); err != nil {
			return err
		}
		why = "its .upgrade file went while two releases served; any reload or restart of the unit leaves one"
		attr = slog.String("reason", why)
	case RollingBack:
		// Its next start is of the one to return to, whatever serves now.
		back, ok, err := m.goal()
		if err != nil {
			return err
		}
		switch {
		case ok:
			err = m.store.SetLink(store.Current, back)
		case m.record.Swap == SwapReload: // the first configuration
			err = m.store.ClearLink(store.Current)
		}
		if err != nil {
			return err
		}
		text := errGone(m.target.Unit).Error()
		verdict, why = VerdictStuck, m.record.Reason+"; "+text
		event, attr = journal.RollbackFailed, slog.String("error", text)
	}
	if err := m.clearLinks(store.Next, store.Beside, store.Staged); err != nil {
		return err
	}
	m.emit(ctx, event, attr, slog.String("result", string(verdict)))
	m.conclude(verdict, why)
	return m.enter(ctx, Idle)
}

// retireSwap has the links name what serves.
func (m *machine) retireSwap(ctx context.Context) error {
	to, ok := release(m.record.To)
	if !ok || m.record.Swap == "" {
		return nil // it had not begun
	}
	f, err := m.still(ctx)
	if err != nil {
		return err
	}
	current, has, err := m.store.Link(store.Current)
	switch {
	case err != nil:
		return err
	case f.Running() && serves(f, to.Name):
		return m.advance(to)
	case m.record.Swap == SwapRestart && f.Running() && has && current == to && f.InvocationID != m.record.Invocation:
		return nil
	}
	return m.revert()
}

// errGone is a unit that may not be moved any more.
func errGone(unit string) error {
	return advice.Give(fmt.Errorf("the target's .upgrade file is gone, and with it the right to move %s", unit), "restart it by hand")
}
