package upgrader

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/store/reason"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// recover is the step of Recovering. The record says what was about to be
// done, the links what the disk saw of it, and systemd what runs; the three
// together say whether to finish or to revert. It may be interrupted and
// begun again at any point.
func (m *machine) recover(ctx context.Context) (Event, error) {
	loaded := m.load(ctx)
	// A target that is gone comes to its verdict first.
	if loaded != nil || !m.retired() || !m.record.State.pending() {
		if err := m.adopt(ctx); err != nil {
			return "", err
		}
	}
	if loaded != nil {
		return StepFailed, loaded
	}
	if err := m.mend(ctx); err != nil {
		return StepFailed, err
	}
	if err := m.store.CleanIncoming(func(digest12 string) bool {
		// What was under way goes on where it stopped, also where it had just
		// failed and was about to be tried again.
		r, ok := release(m.record.To)
		return ok && r.Digest12 == digest12 && slices.Contains([]State{Idle, Fetching, Staging}, m.record.State)
	}); err != nil {
		return StepFailed, err
	}
	if m.own() {
		if event, err := m.recoverOwn(ctx); event != "" || err != nil {
			if err != nil {
				event = StepFailed
			}
			return event, err
		}
	}
	switch m.record.State {
	case Swapping:
		return m.recoverSwap(ctx)
	case Confirming:
		switch back, err := m.cameBack(ctx); {
		case err != nil:
			return StepFailed, err
		case back:
			return NothingPending, nil
		}
		if m.guard != nil {
			return m.abandoned(ctx)
		}
		m.resume(ctx, "it serves, the watch begins anew")
		return ReleaseServed, nil
	case Beside, Keeping:
		return m.recoverBeside(ctx)
	case RollingBack:
		m.resume(ctx, "the rollback goes on")
		return RollbackInterrupted, nil
	case Held:
		return m.recoverHeld()
	}
	// Before a swap nothing has moved. What was staged is found again.
	if err := m.clearLinks(store.Next, store.Beside); err != nil {
		return StepFailed, err
	}
	m.resumed = true
	return NothingPending, nil
}

// resume says how an interrupted swap goes on, once after a start: a step
// that failed said so itself.
func (m *machine) resume(ctx context.Context, how string) {
	if !m.resumed {
		m.emit(ctx, journal.SwapRecovered, slog.String("result", how))
	}
	m.resumed = true
}

// load reads the record, the first time.
func (m *machine) load(ctx context.Context) error {
	if m.loaded {
		return nil
	}
	m.record = record{}
	_, err := m.store.LoadRecord(&m.record)
	switch reason.Of(err) {
	case store.CodeRecordCorrupt:
		// The links tell what runs, and a swap that was under way shows in
		// next; going on without the record is safe, silence would not be.
		m.trouble(ctx, journal.StepFailed, err)
		m.record = record{}
	case store.CodeRecordNewer:
		if !m.own() {
			return err
		}
		m.trouble(ctx, journal.StepFailed, err)
		m.record, m.unread = record{}, err // the links tell of a trial
	default:
		if err != nil {
			return err
		}
	}
	m.loaded = true
	m.armed = true // whoever was here before may have left the guard on
	m.resumed = m.record.State == Idle || m.record.State == ""
	return nil
}

// mend repairs links that are not ours to read. next and staged say nothing
// that cannot be found again; for current the record knows what it was.
func (m *machine) mend(ctx context.Context) error {
	for _, which := range []store.LinkName{store.Next, store.Beside, store.Staged, store.Previous, store.Tried} {
		if _, _, err := m.store.Link(which); reason.Of(err) == store.CodeLinkBroken {
			m.trouble(ctx, journal.StepFailed, err)
			if err := m.store.ClearLink(which); err != nil {
				return err
			}
		}
	}
	_, _, err := m.store.Link(store.Current)
	if reason.Of(err) != store.CodeLinkBroken {
		return err
	}
	good := m.record.From
	if good == "" && m.record.Current != "" {
		good = m.record.Current
	}
	r, ok := release(good)
	if !ok {
		return nil // Idle says that nothing can be compared
	}
	m.trouble(ctx, journal.StepFailed, err)
	return m.store.SetLink(store.Current, r)
}

// recoverSwap finds out how far a swap got.
func (m *machine) recoverSwap(ctx context.Context) (Event, error) {
	to, ok := release(m.record.To)
	if !ok {
		return NothingPending, nil
	}
	current, has, err := m.store.Link(store.Current)
	if err != nil {
		return StepFailed, err
	}
	if m.record.Swap == "" {
		return m.swapAgain(ctx, to) // it had not begun
	}
	f, err := m.still(ctx)
	if err != nil {
		return StepFailed, err // only systemd knows; ask again
	}
	restarted := m.record.Swap == SwapRestart && has && current == to
	// It ran when it was asked to reload, or nobody would have asked.
	reloaded := m.record.Swap == SwapReload && has && current == to
	anew := f.InvocationID != m.record.Invocation
	switch {
	case m.record.Beside != nil && m.together(f):
		m.base = f
		m.record.Invocation, m.record.Restarts = f.InvocationID, f.NRestarts
		if m.guard != nil {
			return m.abandonedBeside(ctx, f)
		}
		m.resume(ctx, "both serve, the watch begins")
		m.answerBeside()
		return BothServed, nil
	case f.Running() && serves(f, to.Name):
		if event, err := m.tookOver(f, to); err != nil {
			return event, err
		}
	case reloaded && (crashed(f) || leftDown(f) || forgotten(f)):
		return m.fell(ctx, f, true)
	case m.guard != nil && reloaded:
		m.base = f // whether it has read it nobody knows; it reads the one before again
	case restarted && anew && f.Running():
		m.base = f
	case restarted && anew && (crashed(f) || leftDown(f) || forgotten(f)), restarted && m.guard != nil && crashed(f):
		return m.fell(ctx, f, anew) // else nobody would start it again
	default:
		if err := m.revert(); err != nil {
			return StepFailed, err
		}
		return m.swapAgain(ctx, to)
	}
	m.record.Invocation, m.record.Restarts = m.base.InvocationID, m.base.NRestarts
	if m.guard != nil {
		return m.abandoned(ctx)
	}
	m.resume(ctx, "it serves, the watch begins")
	return ReleaseServed, nil
}

// fell goes back from a release that ended in the middle of a swap which nobody
// watched. Where it may not have been the one that ran, or somebody may
// have stopped it, that is no verdict on it.
func (m *machine) fell(ctx context.Context, f systemd.Facts, anew bool) (Event, error) {
	r := &m.record
	r.Down, r.Unproven = f.ActiveState == "inactive", !anew || forgotten(f)
	why := fmt.Sprintf("it ended in the %s: %s", r.Swap, ending(f))
	if m.guard == nil {
		m.resume(ctx, "it ended, the release before it comes back")
		return m.turnedBad(ctx, r.Since, why)
	}
	r.Reason = why
	m.emit(ctx, journal.UpgradeAbandoned, slog.String("reason", why))
	return UpgradeAbandoned, nil
}

// swapAgain begins the swap anew, if the release is still there.
func (m *machine) swapAgain(ctx context.Context, to store.Release) (Event, error) {
	if _, err := m.store.Digest(to); err != nil {
		m.resume(ctx, "reverted, the release is gone")
		m.conclude(VerdictInconclusive, fmt.Sprintf("release %s is gone", to))
		return NothingPending, nil
	}
	if digest, err := m.record.digest(); err == nil {
		// It had its verdict, which did not come into the record any more.
		switch bad, isBad, err := m.bad(ctx, digest); {
		case err != nil:
			return StepFailed, err
		case isBad:
			m.resumed = true
			m.endRefused(ctx, bad.Reason)
			return NothingPending, nil
		}
	}
	if m.guard != nil {
		m.resume(ctx, "reverted, the daemon was gone")
		m.conclude(VerdictInconclusive, "the daemon was gone in the middle of the swap")
		return NothingPending, nil
	}
	m.resume(ctx, "reverted, it is tried again")
	return SwapInterrupted, nil
}

// recoverHeld looks whether what was staged still is.
func (m *machine) recoverHeld() (Event, error) {
	staged, ok, err := m.store.Link(store.Staged)
	if err != nil {
		return StepFailed, err
	}
	if !ok || staged.Name != m.record.To {
		return NothingPending, nil
	}
	return OperatorAwaited, nil
}
