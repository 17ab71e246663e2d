package upgrader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// rollBack is the step of RollingBack, the same swap to previous:
//
//  1. the digest is known bad, so that no crash from here on tries it again;
//     but not where the guard undoes what nobody saw break;
//  2. current → previous, so that any start from here on runs what is good; if
//     that is not what was verified any more, an older one that proved itself;
//  3. the unit moves;
//  4. previous goes: what is installed has nothing to return to.
//
// Each of them may be done already, by the run that was interrupted.
func (m *machine) rollBack(ctx context.Context) (Event, error) {
	if m.own() {
		return m.rollBackOwn(ctx)
	}
	if err := m.takeUnit(ctx); err != nil { // after a start of ours
		return StepFailed, err
	}
	began := time.Now()
	back, ok, err := m.goal()
	if err != nil {
		return StepFailed, err
	}
	if !m.record.Unproven {
		if err := m.markBad(m.record.Reason); err != nil {
			return StepFailed, err
		}
	}
	if !ok && m.target.Config != "" {
		return m.withdraw(ctx, began)
	}
	if !ok {
		return m.rollbackFailed(ctx, fmt.Errorf("[NO_PREVIOUS] %s was the first release, there is none to return to; publish a repaired one", version(m.record.To)))
	}
	if err := m.store.Verify(ctx, back); isRot(err) {
		older, ok := m.older(ctx, back)
		if !ok {
			return m.rollbackFailed(ctx, err)
		}
		m.once(ctx, "damaged "+back.Name, journal.ReleaseDamaged, slog.String("release", back.Name), slog.String("error", m.errText(err)))
		back = older
	}
	if err := m.store.SetLink(store.Current, back); err != nil {
		return StepFailed, err
	}
	if err := m.clearLinks(store.Next, store.Beside); err != nil {
		return StepFailed, err
	}
	return m.moved(ctx, began, back)
}

// withdraw rolls back the first configuration, before which there was none.
func (m *machine) withdraw(ctx context.Context, began time.Time) (Event, error) {
	if err := m.store.ClearLink(store.Current); err != nil {
		return StepFailed, err
	}
	return m.moved(ctx, began, store.Release{})
}

// moved moves the unit to release back, which current names, and ends the attempt.
func (m *machine) moved(ctx context.Context, began time.Time, back store.Release) (Event, error) {
	event, err := m.moveBack(ctx, back)
	for busy := (*busyError)(nil); errors.As(err, &busy) && ctx.Err() == nil; event, err = m.moveBack(ctx, back) {
		m.trouble(ctx, journal.StepFailed, err)
		m.awaitRoom(ctx)
	}
	var stuck *stuckError
	switch {
	case ctx.Err() != nil:
		return StepFailed, ctx.Err()
	case errors.As(err, &stuck):
		return m.rollbackFailed(ctx, err)
	case m.retired() && systemd.HasCode(err, systemd.CodeDenied):
		return m.rollbackFailed(ctx, errGone(m.target.Unit))
	case err != nil:
		return StepFailed, err // nobody could be asked; try again
	}
	if event == OperatorActed {
		m.emit(ctx, journal.RollbackYielded, slog.String("from", version(m.record.To)), slog.String("to", versionOrNothing(back)))
	}
	m.rolledBack(ctx, began, back)
	return event, nil
}

func versionOrNothing(r store.Release) string { return cmp.Or(r.Version, "nothing") }

// stuckError is a rollback that systemd carried out and that did not help:
// trying it again would only disturb more.
type stuckError struct{ what string }

func (e *stuckError) Error() string { return e.what }

func stuck(format string, args ...any) error { return &stuckError{fmt.Sprintf(format, args...)} }

// busyError is a supervisor that could not, whatever the release. What serves goes on
// until it can: a restart would cut what drains.
type busyError struct{ why string }

func (e *busyError) Error() string { return "the way back waits: " + e.why }

// roomGlance is how soon a supervisor is asked again that tells of no change.
const roomGlance = time.Minute

// awaitRoom waits until a supervisor says that less is under way, or until it is time
// to ask again.
func (m *machine) awaitRoom(ctx context.Context) {
	const unknown = 1 << 30
	load := func(f systemd.Facts) int {
		st, ok := serving(f)
		switch {
		case !ok || !f.Running():
			return -1 // nobody is to be waited for
		case st.Starting != "":
			return unknown
		}
		return st.Draining
	}
	f, err := m.facts(ctx)
	before := load(f)
	if err != nil || before < 0 {
		_ = sleep(ctx, glance)
		return
	}
	_, _ = m.settle(ctx, roomGlance, func(f systemd.Facts) bool { return load(f) < before })
}

// goal is the release to return to. The record knows it too, for the case
// that the link went before the unit came back.
func (m *machine) goal() (store.Release, bool, error) {
	if from, known := release(m.record.From); known && m.record.Beside != nil {
		return from, true, nil // previous is that of From still
	}
	back, ok, err := m.store.Link(store.Previous)
	if err == nil && ok && back.Name != m.record.To {
		return back, true, nil
	}
	if from, known := release(m.record.From); known {
		return from, true, nil
	}
	return store.Release{}, false, err
}

// older is a release on disk that proved itself, that is whole, and that came
// before the rotten one: of what came after it, somebody may have known why it
// was left.
func (m *machine) older(ctx context.Context, rotten store.Release) (store.Release, bool) {
	for _, name := range slices.Backward(m.record.Proved) {
		r, ok := release(name)
		if !ok || name == m.record.To || versionOf(r).Compare(versionOf(rotten)) >= 0 {
			continue
		}
		if bad, err := m.isBad(r); err != nil || bad {
			continue
		}
		if err := m.store.Verify(ctx, r); err == nil {
			return r, true
		}
	}
	return store.Release{}, false
}

// moveBack moves the unit to release back. The event is RolledBack or
// OperatorActed. An error leaves the unit as it is; only a stuckError is
// final.
func (m *machine) moveBack(ctx context.Context, back store.Release) (Event, error) {
	before, err := m.facts(ctx)
	if err == nil && !m.startsInVain(before) {
		before, err = m.still(ctx)
	}
	if err != nil {
		return "", err
	}
	if back.Name != "" && alone(before, back.Name) {
		return RolledBack, nil
	}
	if before.ActiveState == "inactive" && before.Result == "success" && !m.record.Down && !m.leftDown(before) {
		return OperatorActed, nil // stopped by hand; its next start is good
	}
	if before.Running() && m.record.Swap == SwapHandover {
		return m.handBack(ctx, before, back)
	}
	if before.Running() && m.record.Swap == SwapReload {
		if event, ok, err := m.reloadBack(ctx, before); ok || err != nil {
			return event, err
		}
	}
	f, result, err := m.restartUnit(ctx, before)
	switch {
	case systemd.HasCode(err, systemd.CodeJobConflict):
		return OperatorActed, nil
	case err != nil:
		return "", err
	case f.Running() && f.InvocationID != before.InvocationID:
		return m.cameUp(ctx, f, back)
	case f.ActiveState == "inactive" && f.Result == "success" && !leftDown(f), stoppedMeanwhile(f, result):
		return OperatorActed, nil
	}
	return "", stuck("restart %s for release %s: job is %q, %s", m.target.Unit, back, result, ending(f))
}

// startsInVain reports a unit that its socket or Restart= has start what turned
// bad, once more: that is not waited for, as it may never end, and clients wait
// meanwhile. Under a supervisor it may be an old worker that is taken over.
func (m *machine) startsInVain(f systemd.Facts) bool {
	return m.record.Swap == SwapRestart && f.ActiveState == "activating" && supervision(f) == nil
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
		return alone(f, back.Name) || !f.Running() || adopted(before, f, back) ||
			(err == nil && result != systemd.ResultDone && !moving(f))
	})
	switch {
	case ferr != nil:
		return "", errors.Join(err, ferr)
	case alone(f, back.Name):
		return RolledBack, nil
	case f.ActiveState == "inactive" && f.Result == "success", stoppedMeanwhile(f, result):
		return OperatorActed, nil
	case !f.Running():
		// It died meanwhile, and current is good: start it.
		return m.revive(ctx, f, back)
	case adopted(before, f, back):
		return m.handBack(ctx, f, back)
	case err != nil:
		return "", err
	}
	if err := usable(m.target.Unit, f); err != nil {
		return "", err // of such a unit systemd takes no notifications: who serves nobody can say
	}
	if why, ok := supervisorRefused(before, f); ok && vain(result) {
		return "", &busyError{why}
	}
	st, _ := serving(f)
	return "", stuck("hand %s back to release %s: job is %q and %q serves", m.target.Unit, back, result, st.Release)
}

// adopted reports a supervisor that was killed since, and has taken its old worker
// over: the job that was to move that may have ended with its start.
func adopted(since, f systemd.Facts, back store.Release) bool {
	return f.Running() && f.InvocationID != since.InvocationID && servesOther(f, back.Name)
}

// stoppedMeanwhile reports a unit that somebody stopped in the middle of a job of
// ours, which that took the place of. systemd kills the helper of a reload then,
// and has the unit fail by that (tried on 252, 257 and 262).
func stoppedMeanwhile(f systemd.Facts, result systemd.Result) bool {
	return result == systemd.ResultCanceled && !f.Running() && f.ActiveState != "activating"
}

// revive starts a unit that is down.
func (m *machine) revive(ctx context.Context, before systemd.Facts, back store.Release) (Event, error) {
	f, result, err := m.restartUnit(ctx, before)
	if err != nil {
		return "", err
	}
	if f.Running() {
		return m.cameUp(ctx, f, back)
	}
	return "", stuck("start %s with release %s: job is %q, %s", m.target.Unit, back, result, ending(f))
}

// cameUp ends the way back of a unit that was started, unless a supervisor that had
// been killed took its old worker over: now that it runs, it can hand over.
func (m *machine) cameUp(ctx context.Context, f systemd.Facts, back store.Release) (Event, error) {
	if m.target.Config == "" && servesOther(f, back.Name) {
		return m.handBack(ctx, f, back)
	}
	return RolledBack, nil
}

// rolledBack ends the attempt.
func (m *machine) rolledBack(ctx context.Context, began time.Time, back store.Release) {
	bad, why, verdict := m.record.To, m.record.Reason, VerdictRolledBack
	if m.record.Unproven {
		verdict = VerdictInconclusive
	}
	m.emit(ctx, journal.RolledBack, slog.String("from", version(bad)), slog.String("to", versionOrNothing(back)),
		slog.Duration("took", time.Since(began)), slog.String("result", string(verdict)))
	previous, kept := release(m.record.Previous)
	kept = kept && m.record.Beside != nil // back never went
	m.finish(ctx, verdict, why)
	err := m.store.ClearLink(store.Previous)
	if kept {
		err = m.store.SetLink(store.Previous, previous)
	}
	if err != nil {
		m.trouble(ctx, journal.StepFailed, err)
	}
}

// rollbackFailed calls a person, and leaves the unit alone.
func (m *machine) rollbackFailed(ctx context.Context, err error) (Event, error) {
	text := m.errText(err)
	m.emit(ctx, journal.RollbackFailed, slog.String("error", text), slog.String("result", string(VerdictStuck)))
	m.conclude(VerdictStuck, m.record.Reason+"; "+text)
	m.retryAfter(pauseMax)
	return RollbackFailed, err
}
