package upgrader

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/statusline"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// reload swaps a configuration, by what runs:
//
//  1. previous and current follow;
//  2. ReloadUnit, and wait: ExecReload= has the unit read current again, and
//     under a supervisor a new worker does;
//  3. the unit could not, or did not survive it: the rollback has it read what
//     it read before.
//
// No process is started that the unit does not start by itself.
func (m *machine) reload(ctx context.Context, before systemd.Facts, to store.Release) (Event, error) {
	if err := m.advance(to); err != nil {
		return StepFailed, err
	}
	began := time.Now()
	f, result, err := m.reloadUnit(ctx, before)
	switch {
	case ctx.Err() != nil:
		return StepFailed, ctx.Err()
	case refused(err):
		if uerr := m.revert(); uerr != nil {
			return StepFailed, errors.Join(err, uerr)
		}
		return m.notQueued(ctx, err)
	case f.LoadState == "":
		return StepFailed, err // nobody could say what happened
	case stoppedMeanwhile(f, result): // by somebody, see there
	case f.FailedSince(before) || crashed(f) || leftDown(f) || forgotten(f) && f.Undisturbed(before, 1):
		m.record.Down = f.ActiveState == "inactive"
		return m.turnedBad(ctx, began, "it ended in the reload: "+ending(f))
	case f.Running() && f.InvocationID == before.InvocationID && result == systemd.ResultDone:
		if why, ok := keptItsOwn(f); ok {
			return m.turnedBad(ctx, began, why)
		}
		m.base = f
		return ReleaseServed, nil
	case f.Running() && f.InvocationID == before.InvocationID && vain(result):
		if why, ok := supervisorRefused(before, f); ok {
			m.record.Attempts--
			if uerr := m.revert(); uerr != nil {
				return StepFailed, uerr
			}
			return m.inconclusive(ctx, why)
		}
		why := fmt.Sprintf("the reload ended as %q; the reason stands in: journalctl -u %s", result, m.target.Unit)
		if st, ok := serving(f); ok && strings.HasPrefix(st.Note, statusline.ReloadFailed) {
			why = journal.Clean(st.Note)
		}
		return m.turnedBad(ctx, began, why)
	case result == systemd.ResultUnknown && f.InvocationID == before.InvocationID:
		return StepFailed, errors.Join(fmt.Errorf("nobody saw how the reload of %s ended", m.target.Unit), err)
	}
	if uerr := m.revert(); uerr != nil {
		return StepFailed, errors.Join(err, uerr)
	}
	return m.inconclusive(ctx, fmt.Sprintf("somebody else acted on the unit: the reload ended as %q, and %s", result, ending(f)))
}

// keptItsOwn tells of a service that did not take its configuration, and said so
// in the one way that there is for it: ERRNO= of sd_notify(3) at the end of the
// reload. systemd has no reload that fails with Type=notify-reload.
func keptItsOwn(f systemd.Facts) (why string, ok bool) {
	if f.StatusErrno == 0 {
		return "", false
	}
	why = fmt.Sprintf("the service did not take it: %s", syscall.Errno(f.StatusErrno))
	if f.StatusText != "" {
		why = "the service did not take it: " + journal.Clean(f.StatusText)
	}
	return why, true
}

// reloadUnit reloads the unit and waits for it to come to rest. Facts with an
// empty LoadState mean that systemd could not be asked.
func (m *machine) reloadUnit(ctx context.Context, before systemd.Facts) (systemd.Facts, systemd.Result, error) {
	job, cancel := context.WithTimeout(ctx, limit(before, false))
	defer cancel()
	result, err := m.systemd.Reload(job, m.target.Unit)
	if refused(err) || ctx.Err() != nil {
		return systemd.Facts{}, result, err
	}
	f, ferr := m.settle(ctx, reconcileTime, func(f systemd.Facts) bool { return !moving(f) })
	if ferr != nil {
		return systemd.Facts{}, result, errors.Join(err, ferr)
	}
	return f, result, err
}

// reloadBack has a unit that runs read what current names now. It is false where
// that did not help, and a start of the unit has to.
func (m *machine) reloadBack(ctx context.Context, before systemd.Facts) (event Event, ok bool, err error) {
	f, result, err := m.reloadUnit(ctx, before)
	switch {
	case systemd.HasCode(err, systemd.CodeJobConflict), err == nil && stoppedMeanwhile(f, result):
		return OperatorActed, true, nil
	case err != nil:
		return "", false, err
	}
	if why, ok := supervisorRefused(before, f); ok && f.Running() && vain(result) {
		return "", false, &busyError{why}
	}
	return RolledBack, f.Running() && result == systemd.ResultDone, nil
}
