package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// rollbackAttempts is how often a rollback is tried while systemd does not
// answer, before a person is called.
const rollbackAttempts = 3

// rollBack is the step of RollingBack, the same swap to previous:
//
//  1. the digest is known bad, so that no crash from here on tries it again;
//  2. current → previous, so that any start from here on runs what is good;
//  3. the unit moves;
//  4. previous goes: what is installed has nothing to return to.
//
// Each of them may be done already, by the run that was interrupted.
func (m *machine) rollBack(ctx context.Context) (Event, error) {
	began := time.Now()
	var errs []error
	if err := m.markBad(m.record.Reason); err != nil {
		errs = append(errs, err)
	}
	back, ok, err := m.goal()
	if err != nil || !ok {
		if err == nil {
			err = fmt.Errorf("[NO_PREVIOUS] %s was the first release, there is none to return to; publish a repaired one", version(m.record.To))
		}
		return m.rollbackFailed(ctx, append(errs, err))
	}
	if err := m.store.SetLink(store.Current, back); err != nil {
		return m.rollbackFailed(ctx, append(errs, err))
	}
	if err := m.store.ClearLink(store.Next); err != nil {
		errs = append(errs, err)
	}
	for attempt := 0; ; attempt++ {
		event, err := m.moveBack(ctx, back)
		if ctx.Err() != nil {
			return StepFailed, ctx.Err()
		}
		if err == nil {
			return m.rolledBack(ctx, began, event, back, errs)
		}
		errs = append(errs, err)
		transient := systemd.HasCode(err, systemd.CodeBusDown, systemd.CodeBusTimeout)
		if !transient || attempt+1 >= rollbackAttempts {
			return m.rollbackFailed(ctx, errs)
		}
		if !sleep(ctx, m.pause.next(0)) {
			return StepFailed, ctx.Err()
		}
	}
}

// goal is the release to return to. The record knows it too, for the case
// that the link went before the unit came back.
func (m *machine) goal() (store.Release, bool, error) {
	back, ok, err := m.store.Link(store.Previous)
	if err == nil && ok && back.Name != m.record.To {
		return back, true, nil
	}
	if from, known := release(m.record.From); known {
		return from, true, nil
	}
	return store.Release{}, false, err
}

// moveBack moves the unit to release back. An error leaves the unit as it is;
// the event is RolledBack or OperatorActed.
func (m *machine) moveBack(ctx context.Context, back store.Release) (Event, error) {
	before, err := m.still(ctx)
	if err != nil {
		return "", err
	}
	if serves(before, back.Name) {
		return RolledBack, nil
	}
	if before.ActiveState == "inactive" && before.Result == "success" && !m.record.Down {
		return OperatorActed, nil // stopped by hand; its next start is good
	}
	if before.Running() && m.record.Swap == SwapHandover {
		return m.handBack(ctx, before, back)
	}
	f, result, err := m.restartUnit(ctx, before)
	switch {
	case systemd.HasCode(err, systemd.CodeJobConflict):
		return OperatorActed, nil
	case err != nil:
		return "", err
	case f.Running() && f.InvocationID != before.InvocationID:
		return RolledBack, nil
	case f.ActiveState == "inactive" && f.Result == "success":
		return OperatorActed, nil
	}
	return "", fmt.Errorf("restart %s for release %s: job is %q, %s", m.target.Unit, back, result, ending(f))
}

// handBack is the handover to what current names now.
func (m *machine) handBack(ctx context.Context, before systemd.Facts, back store.Release) (Event, error) {
	job, cancel := context.WithTimeout(ctx, limit(before, false))
	defer cancel()
	result, err := m.systemd.Reload(job, m.target.Unit)
	if systemd.HasCode(err, systemd.CodeJobConflict) {
		return OperatorActed, nil
	}
	if refused(err) || ctx.Err() != nil {
		return "", err
	}
	f, ferr := m.settle(ctx, reconcileTime, func(f systemd.Facts) bool {
		return serves(f, back.Name) || !f.Running() ||
			(err == nil && result != systemd.ResultDone && !moving(f))
	})
	switch {
	case ferr != nil:
		return "", errors.Join(err, ferr)
	case serves(f, back.Name):
		return RolledBack, nil
	case f.ActiveState == "inactive" && f.Result == "success":
		return OperatorActed, nil
	case !f.Running():
		// It died meanwhile, and current is good: start it.
		return m.revive(ctx, f, back)
	case err != nil:
		return "", err
	}
	st, _ := serving(f)
	return "", fmt.Errorf("hand %s back to release %s: job is %q and %q serves", m.target.Unit, back, result, st.Release)
}

// revive starts a unit that is down.
func (m *machine) revive(ctx context.Context, before systemd.Facts, back store.Release) (Event, error) {
	f, result, err := m.restartUnit(ctx, before)
	if err != nil {
		return "", err
	}
	if f.Running() {
		return RolledBack, nil
	}
	return "", fmt.Errorf("start %s with release %s: job is %q, %s", m.target.Unit, back, result, ending(f))
}

// rolledBack ends the attempt; errs did not stop it, but have to be said.
func (m *machine) rolledBack(ctx context.Context, began time.Time, event Event, back store.Release, errs []error) (Event, error) {
	bad, why := m.record.To, m.record.Reason
	m.record.Down = false
	m.emit(ctx, journal.RolledBack, slog.String("from", version(bad)), slog.String("to", back.Version),
		slog.Duration("took", time.Since(began)), slog.String("result", string(VerdictRolledBack)))
	m.finish(ctx, VerdictRolledBack, why)
	if err := m.store.ClearLink(store.Previous); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		m.trouble(ctx, journal.StepFailed, err)
	}
	return event, nil
}

// rollbackFailed calls a person, and leaves the unit alone.
func (m *machine) rollbackFailed(ctx context.Context, errs []error) (Event, error) {
	err := errors.Join(errs...)
	text := m.errText(err)
	m.emit(ctx, journal.RollbackFailed, slog.String("error", text), slog.String("result", string(VerdictStuck)))
	m.conclude(VerdictStuck, m.record.Reason+"; "+text)
	m.retryAfter(pauseMax)
	return RollbackFailed, err
}
