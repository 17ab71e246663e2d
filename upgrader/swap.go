package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/statusline"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/store/reason"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// attemptsMax ends a swap that never comes to a verdict: what is tried again
// for ever disturbs for ever.
const attemptsMax = 3

// swap is the step of Swapping. It may be entered again after a crash at any
// point of it; recover has put the links back then.
func (m *machine) swap(ctx context.Context) (Event, error) {
	to, ok := release(m.record.To)
	if !ok {
		return StepFailed, fmt.Errorf("record names no release to swap to: %q", m.record.To)
	}
	if err := m.takeTurn(ctx); err != nil { // after a start of ours, or a time of being held
		return StepFailed, err
	}
	if m.own() {
		if err := m.awaitOthers(ctx); err != nil {
			return StepFailed, err
		}
	}
	if err := m.takeUnit(ctx); err != nil {
		return StepFailed, err
	}
	f, err := m.still(ctx)
	if err == nil {
		err = usable(m.target.Unit, f)
	}
	if err != nil {
		return m.unusable(ctx, err)
	}
	way, why, err := pickSwap(m.target, f, m.store.Path())
	if err != nil {
		return m.unusable(ctx, err)
	}
	m.announce(ctx, way, why)
	if way == SwapNone {
		m.emit(ctx, journal.OperatorAwaited)
		return OperatorAwaited, nil
	}
	// What is about to run is compared with what was verified: disks rot.
	if err := m.store.Verify(ctx, to); err != nil {
		return m.damaged(ctx, to, err)
	}
	if m.record.Attempts >= attemptsMax {
		return m.refuse(ctx, fmt.Sprintf("%d attempts to swap ended without a verdict", m.record.Attempts))
	}
	return m.swapBy(ctx, way, f, to)
}

// swapBy notes what is about to happen, and lets it.
func (m *machine) swapBy(ctx context.Context, way Swap, f systemd.Facts, to store.Release) (Event, error) {
	from, has, err := m.store.Link(store.Current)
	if err != nil {
		return StepFailed, err
	}
	previous, hadPrevious, err := m.store.Link(store.Previous)
	if err != nil {
		return StepFailed, err
	}
	if way == SwapReload && (crashed(f) || f.ActiveState == "inactive" || waitsForFirst(f)) {
		way = SwapRestart // which the next start of what does not run is
	}
	r := &m.record
	r.From, r.Previous, r.Beside = "", "", nil
	if has && from != to {
		r.From = from.Name
	}
	if hadPrevious {
		r.Previous = previous.Name
	}
	if r.From != "" {
		// Disks rot here, too, and it is what a rollback returns to. The swap goes
		// on: the next start of what serves would be of rotten files anyway.
		if err := m.store.Verify(ctx, from); isRot(err) {
			m.once(ctx, "rotten "+from.Name, journal.ReleaseRotten, slog.String("error", m.errText(err)))
		}
	}
	if d := r.Order.besideTime(); d > 0 {
		if why := m.noBeside(ctx); why != "" { // any more: it was asked before
			return m.inconclusive(ctx, why)
		}
		r.Beside = &besideFor{ForSec: int64(d / time.Second)}
	}
	r.Swap, r.Invocation, r.Restarts, r.Down = way, f.InvocationID, f.NRestarts, false
	r.Failures = m.failures(ctx)
	r.Attempts++
	m.noteDependents(ctx, f)
	if err := m.save(); err != nil {
		return StepFailed, err
	}
	if f.ActiveState == "inactive" || m.target.Config != "" && waitsForFirst(f) {
		return m.installOnly(ctx, to)
	}
	if m.denied != r.Digest { // else it is the same news again
		m.emit(ctx, journal.SwapStarted, slog.String("swap", string(way)))
	}
	m.denied = ""
	unguarded := m.arm(ctx)
	began := time.Now()
	var event Event
	switch {
	case m.own():
		event, err = m.restartAs(ctx, f, to)
	case way == SwapReload:
		event, err = m.reload(ctx, f, to)
	case waitsForFirst(f):
		event, err = m.installFirst(ctx, to)
	case way == SwapHandover && !crashed(f) && r.From != "":
		event, err = m.handover(ctx, f, to)
	default:
		event, err = m.restart(ctx, f, to)
	}
	// Where systemd took no job at all, that is one error and not two.
	if unguarded != nil && event != UnitUnusable && ctx.Err() == nil {
		text := m.errText(unguarded)
		m.once(ctx, "unguarded "+text, journal.SwapUnguarded, slog.String("error", text))
	}
	if event == BothServed {
		r.Invocation, r.Restarts = m.base.InvocationID, m.base.NRestarts
		took := time.Since(began)
		m.totals().swapped(way, took)
		m.emit(ctx, journal.ReleaseBeside, slog.Duration("took", took), slog.Duration("limit", time.Duration(r.Beside.ForSec)*time.Second))
		m.answerBeside()
		m.calm(ctx)
	}
	if event == ReleaseServed {
		// Asked twice: systemd says so of every unit while it is told of one.
		if f.NeedDaemonReload && m.base.NeedDaemonReload {
			m.once(ctx, "daemon-reload "+m.record.Digest, journal.UnitChangedOnDisk)
		}
		m.record.Invocation, m.record.Restarts = m.base.InvocationID, m.base.NRestarts
		took := time.Since(began)
		m.totals().swapped(way, took)
		m.emit(ctx, journal.ReleaseServes, slog.Duration("took", took), slog.Duration("window", m.window()))
		m.calm(ctx)
	}
	return event, err
}

// announce says how the unit is swapped, when that is news.
func (m *machine) announce(ctx context.Context, way Swap, why string) {
	if text := string(way) + ": " + why; m.way != text {
		m.way = text
		if way != SwapNone { // which is told with the release that waits
			m.emit(ctx, journal.SwapChosen, slog.String("swap", string(way)), slog.String("reason", why))
		}
	}
}

// unusable leaves the release staged, and tries again on a slow schedule.
func (m *machine) unusable(ctx context.Context, err error) (Event, error) {
	if ctx.Err() != nil {
		return UnitUnusable, ctx.Err()
	}
	m.trouble(ctx, journal.UnitUnusable, err)
	m.retryAfter(m.pause.next(0))
	return UnitUnusable, err
}

// damaged throws a staged release away that is not what was verified; the
// next cycle fetches it again.
func (m *machine) damaged(ctx context.Context, to store.Release, err error) (Event, error) {
	if ctx.Err() != nil {
		return UnitUnusable, ctx.Err()
	}
	m.trouble(ctx, journal.StepFailed, err)
	m.retryAfter(m.pause.next(0))
	if isRot(err) {
		err = errors.Join(err, m.store.ClearLink(store.Staged))
		if current, has, lerr := m.store.Link(store.Current); lerr == nil && (!has || current != to) {
			err = errors.Join(err, m.store.Remove(to))
		}
	}
	return UnitUnusable, err
}

// isRot tells of a release that is not what was verified any more.
func isRot(err error) bool {
	code := reason.Of(err)
	return code == store.CodeReleaseCorrupt || code == store.CodeReleaseMissing
}

// advance moves current to to, and previous to what was current.
func (m *machine) advance(to store.Release) error {
	if from, ok := release(m.record.From); ok {
		if err := m.store.SetLink(store.Previous, from); err != nil {
			return err
		}
	}
	return m.store.SetLink(store.Current, to)
}

// revert puts the links back to what the record says was before the swap.
func (m *machine) revert() error {
	back := func(which store.LinkName, name string) error {
		r, ok := release(name)
		if !ok {
			return m.store.ClearLink(which)
		}
		have, has, err := m.store.Link(which)
		if err == nil && has && have == r {
			return nil
		}
		return m.store.SetLink(which, r)
	}
	return errors.Join(
		m.store.ClearLink(store.Next),
		m.store.ClearLink(store.Beside),
		back(store.Current, m.record.From),
		back(store.Previous, m.record.Previous),
	)
}

// installOnly swaps a unit that does not run: its next start is the swap.
func (m *machine) installOnly(ctx context.Context, to store.Release) (Event, error) {
	if err := m.advance(to); err != nil {
		return StepFailed, err
	}
	m.emit(ctx, journal.ReleaseInstalled, slog.String("result", string(VerdictInstalled)))
	m.finish(ctx, VerdictInstalled, "")
	return ReleaseInstalled, nil
}

// finish ends an attempt after which nothing is staged any more.
func (m *machine) finish(ctx context.Context, v Verdict, why string) {
	m.conclude(v, why)
	m.calm(ctx)
	if err := m.store.ClearLink(store.Staged); err != nil {
		m.trouble(ctx, journal.StepFailed, err)
	}
	m.lookNow = true
}

// installFirst gives a supervisor that waits for its first release one, and
// waits until it serves.
func (m *machine) installFirst(ctx context.Context, to store.Release) (Event, error) {
	if err := m.advance(to); err != nil {
		return StepFailed, err
	}
	f, err := m.facts(ctx)
	if err != nil {
		return StepFailed, err
	}
	// It looks at the link on its own, so the wait is for two things.
	f, err = m.settle(ctx, limit(f, false), func(f systemd.Facts) bool {
		return serves(f, to.Name) || crashed(f) || f.ActiveState == "inactive"
	})
	switch {
	case ctx.Err() != nil:
		return StepFailed, ctx.Err()
	case err != nil:
		return StepFailed, err
	case serves(f, to.Name):
		m.base = f
		return ReleaseServed, nil
	case f.ActiveState == "inactive":
		return m.inconclusive(ctx, "the unit was stopped")
	}
	why := "it never became ready: " + ending(f)
	if err := m.revert(); err != nil {
		return StepFailed, err
	}
	return m.refuse(ctx, why)
}

// handover puts the release on trial beside the one that serves:
//
//  1. next → the release;
//  2. ReloadUnit, and wait: the supervisor starts a worker from next;
//  3. facts decide who serves now;
//  4. it took over: previous and current follow, and only then next goes.
//     It did not: next goes, and nobody noticed.
//
// To serve beside, it is the link of that name, and nothing follows yet.
func (m *machine) handover(ctx context.Context, before systemd.Facts, to store.Release) (Event, error) {
	link := store.Next
	if m.record.Beside != nil {
		link = store.Beside
	}
	if err := m.store.SetLink(link, to); err != nil {
		return StepFailed, err
	}
	job, cancel := context.WithTimeout(ctx, limit(before, false))
	result, err := m.systemd.Reload(job, m.target.Unit)
	cancel()
	after := m.elapsed()
	if ctx.Err() != nil {
		return StepFailed, ctx.Err()
	}
	if refused(err) {
		if err := m.store.ClearLink(link); err != nil {
			return StepFailed, err
		}
		return m.notQueued(ctx, err)
	}
	f, ferr := m.settle(ctx, reconcileTime, func(f systemd.Facts) bool {
		return serves(f, to.Name) || m.together(f) || !f.Running() || f.InvocationID != before.InvocationID ||
			(err == nil && result != systemd.ResultDone && !moving(f))
	})
	if ctx.Err() != nil {
		return StepFailed, ctx.Err()
	}
	if ferr != nil {
		return StepFailed, ferr // next stays: recover looks again who serves
	}
	if m.together(f) {
		m.base = f
		return BothServed, nil
	}
	if serves(f, to.Name) {
		m.noteReady(f, after)
		return m.tookOver(f, to)
	}
	if err := m.store.ClearLink(link); err != nil {
		return StepFailed, err
	}
	return m.notTaken(ctx, before, f, result, err)
}

func (m *machine) tookOver(f systemd.Facts, to store.Release) (Event, error) {
	if err := m.follow(f, to); err != nil {
		return StepFailed, err
	}
	return ReleaseServed, nil
}

// follow has the links name what serves now.
func (m *machine) follow(f systemd.Facts, to store.Release) error {
	if err := m.advance(to); err != nil {
		return err
	}
	if err := m.clearLinks(store.Next, store.Beside); err != nil {
		return err
	}
	m.base, m.record.Beside = f, nil
	return nil
}

// clearLinks takes links away, in this order, up to the first that stays.
func (m *machine) clearLinks(all ...store.LinkName) error {
	for _, which := range all {
		if err := m.store.ClearLink(which); err != nil {
			return err
		}
	}
	return nil
}

// refused reports that no job was queued, so that nothing can have happened.
func refused(err error) bool {
	return systemd.HasCode(err, systemd.CodeDenied, systemd.CodeNotFound, systemd.CodeMasked, systemd.CodeBadUnit,
		systemd.CodeNoReload, systemd.CodeJobConflict, systemd.CodeRefused)
}

// notQueued ends an attempt that systemd did not take up.
func (m *machine) notQueued(ctx context.Context, err error) (Event, error) {
	if systemd.HasCode(err, systemd.CodeJobConflict) {
		return m.inconclusive(ctx, m.errText(err))
	}
	m.record.Attempts-- // the release was not even tried
	m.denied = m.record.Digest
	return m.unusable(ctx, err)
}

// notTaken finds out why a handover left the old release in place.
func (m *machine) notTaken(ctx context.Context, before, f systemd.Facts, result systemd.Result, err error) (Event, error) {
	if uerr := usable(m.target.Unit, f); uerr != nil {
		// Of such a unit systemd takes no notifications: who serves nobody can say.
		return m.inconclusive(ctx, m.errText(uerr))
	}
	switch {
	case f.InvocationID != before.InvocationID:
		return m.inconclusive(ctx, "the unit was started anew meanwhile")
	case f.MainPID != before.MainPID:
		return m.inconclusive(ctx, "the unit's main process changed meanwhile")
	case !f.Running():
		return m.inconclusive(ctx, "meanwhile "+ending(f))
	case err != nil:
		return m.inconclusive(ctx, m.errText(err))
	case result == systemd.ResultCanceled:
		return m.inconclusive(ctx, "another job took the reload's place")
	case m.record.Beside != nil && result == systemd.ResultDone:
		return m.inconclusive(ctx, "its supervisor has no two releases serve, since it is of an older upgraderd; upgrade without --beside")
	case result != systemd.ResultFailed && result != systemd.ResultTimeout:
		st, _ := serving(f)
		return m.inconclusive(ctx, fmt.Sprintf("the reload ended (%s), and %q serves", result, st.Release))
	}
	if why, ok := supervisorRefused(before, f); ok {
		m.record.Attempts-- // the supervisor could not, whatever the release
		return m.inconclusive(ctx, why)
	}
	was, _ := serving(before)
	now, _ := serving(f)
	why := fmt.Sprintf("the handover failed; the reason stands in: journalctl -u %s", m.target.Unit)
	if now.Note != "" && now.Note != was.Note {
		why = "the handover failed: " + journal.Clean(now.Note)
	}
	return m.refuse(ctx, why)
}

// inconclusive ends an attempt that says nothing about the release. It comes
// up again on a slow schedule, attemptsMax times at most.
func (m *machine) inconclusive(ctx context.Context, why string) (Event, error) {
	m.emit(ctx, journal.OperatorIntervened, slog.String("reason", why), slog.String("result", string(VerdictInconclusive)))
	m.conclude(VerdictInconclusive, why)
	m.retryAfter(max(m.pause.next(0), pauseMax))
	return OperatorActed, nil
}

// restart swaps by stopping the old and starting the new; sockets that
// systemd holds queue what comes meanwhile.
func (m *machine) restart(ctx context.Context, before systemd.Facts, to store.Release) (Event, error) {
	if err := m.advance(to); err != nil {
		return StepFailed, err
	}
	began := time.Now()
	f, result, err := m.restartUnit(ctx, before)
	if ctx.Err() != nil {
		return StepFailed, ctx.Err()
	}
	if refused(err) {
		if uerr := m.revert(); uerr != nil {
			return StepFailed, errors.Join(err, uerr)
		}
		return m.notQueued(ctx, err)
	}
	switch {
	case f.LoadState == "":
		return StepFailed, err // nobody could say what happened
	case f.InvocationID == before.InvocationID && f.Running():
		// The old one never stopped.
		if uerr := m.revert(); uerr != nil {
			return StepFailed, errors.Join(err, uerr)
		}
		return m.inconclusive(ctx, fmt.Sprintf("the restart ended (%s) and changed nothing", result))
	case f.Running() && f.InvocationID != before.InvocationID && servesOther(f, to.Name):
		// A supervisor that had been killed came back and took its old worker
		// over. Now that it runs, it can hand over.
		if uerr := m.revert(); uerr != nil {
			return StepFailed, errors.Join(err, uerr)
		}
		if m.record.Swap != SwapHandover {
			return StepFailed, errors.New("the restart brought the old worker back; it is restarted once more")
		}
		return m.handover(ctx, f, to)
	case f.Running() && f.FailedSince(before):
		return m.turnedBad(ctx, began, "it does not start: it failed, and was started anew")
	case f.Running() && f.InvocationID != before.InvocationID:
		m.base = f
		return ReleaseServed, nil
	case crashed(f), vain(result):
		m.record.Down = true
		why := ending(f)
		if f.Result == "success" { // what it says is of the next start
			why = fmt.Sprintf("the job is %q, and the unit is being started again already", result)
		}
		return m.turnedBad(ctx, began, "it does not start: "+why)
	case f.ActiveState == "inactive" && (f.Undisturbed(before, 1) || leftDown(f) && f.InvocationID != before.InvocationID):
		m.record.Down = true
		return m.turnedBad(ctx, began, "it ended at once: "+ending(f))
	}
	// Stopped by somebody: what starts next shall be the release that proved
	// itself.
	if uerr := m.revert(); uerr != nil {
		return StepFailed, errors.Join(err, uerr)
	}
	return m.inconclusive(ctx, "the unit was stopped meanwhile: "+ending(f))
}

// vain reports a job that ended without a unit that runs.
func vain(r systemd.Result) bool { return r == systemd.ResultFailed || r == systemd.ResultTimeout }

// restartUnit restarts the unit and waits for it to come to rest. Facts with
// an empty LoadState mean that systemd could not be asked.
func (m *machine) restartUnit(ctx context.Context, before systemd.Facts) (systemd.Facts, systemd.Result, error) {
	// A restart of ours must not be the one that hits the start limit; the
	// verb may be denied or pointless, and the restart tells.
	if err := m.systemd.ResetFailed(ctx, m.target.Unit); err != nil {
		m.log.DebugContext(ctx, "reset-failed was refused", "error", m.errText(err))
	}
	m.watchDependents(ctx, before) // as late as can be: what is down now, others stopped
	job, cancel := context.WithTimeout(ctx, limit(before, true))
	defer cancel()
	result, err := m.systemd.Restart(job, m.target.Unit)
	if refused(err) || ctx.Err() != nil {
		return systemd.Facts{}, result, err
	}
	f, ferr := m.settle(ctx, reconcileTime, func(f systemd.Facts) bool {
		if moving(f) {
			return vain(result) && f.ActiveState == "activating" // again, by its socket or Restart=
		}
		return f.InvocationID != before.InvocationID || !f.Running() || result != systemd.ResultDone
	})
	if ferr != nil {
		return systemd.Facts{}, result, errors.Join(err, ferr)
	}
	return f, result, err
}

// supervisorRefused tells that a supervisor did not try what it was asked for, which
// says nothing about the release.
func supervisorRefused(before, f systemd.Facts) (string, bool) {
	was, _ := serving(before)
	now, ok := serving(f)
	if why, refused := strings.CutPrefix(now.Note, statusline.Refused); ok && refused {
		return "the supervisor refused: " + journal.Clean(why), true
	}
	if ok && strings.HasPrefix(now.Note, statusline.ReloadFailed) {
		return "", false
	}
	if was.Starting != "" || was.Draining > 0 && now.Generation == was.Generation && now.Note == was.Note {
		return fmt.Sprintf("the handover was refused while %d old workers drain", was.Draining), true
	}
	return "", false
}
