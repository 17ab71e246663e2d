package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// An order to upgrade can have the release serve beside the one before it, both from
// the same sockets, until an order to confirm or to roll back says which one stays.
// Nobody is asked for ever: after a time the release that is well stays, as after
// any confirm window, and one that broke before never does.
//
// The link beside stands for next meanwhile, and current goes on naming the old
// release: any start of the unit runs what proved itself. What both of them get is
// the reload of a handover; the supervisor reads in the links what that is about.
//
//	                 old ended by itself
//	swapping ─▶ beside ─────────────▶ confirming
//	              │  └─ confirmed, or in time ─▶ keeping ─▶ idle
//	              └─ rolled back, or it broke ─▶ rolling-back ─▶ idle

// The time for which two releases serve beside each other.
const (
	BesideDefault = 10 * time.Minute
	BesideMin     = time.Second
	BesideMax     = 24 * time.Hour // a host with two releases for longer is one that was forgotten
)

// besideNoteMax is how much of that time a restart of the daemon may forget.
const besideNoteMax = 10 * time.Second

// besideFor is how far the time is.
type besideFor struct {
	ForSec int64 `json:"for_sec"`
	Sec    int64 `json:"sec,omitempty"`
}

// BesideRelease is one that serves beside the one that is current.
type BesideRelease struct {
	Release string `json:"release"`
	// LeftSec is for how long at most, to a few seconds where the daemon is not asked.
	LeftSec int64 `json:"left_sec"`
}

// besideTime is what an order asks for, 0 where it does not.
func (o *Order) besideTime() time.Duration {
	if o == nil || o.Verb != OrderUpgrade {
		return 0
	}
	return time.Duration(o.BesideSec) * time.Second
}

// together reports that a supervisor has both releases of the record serve.
func (m *machine) together(f systemd.Facts) bool {
	st, ok := serving(f)
	return ok && f.Running() && st.Release == m.record.From && st.Beside == m.record.To
}

// alone reports that a supervisor says it runs release name, and no other.
func alone(f systemd.Facts, name string) bool {
	st, ok := serving(f)
	return ok && st.Release == name && st.Beside == ""
}

// noBeside tells why no release can serve beside what the target runs, "" if one can.
func (m *machine) noBeside(ctx context.Context) string {
	if m.own() {
		return "upgraderd itself runs once"
	}
	if _, has, err := m.store.Link(store.Current); err != nil || !has {
		return "no release is installed that another could serve beside"
	}
	f, err := m.facts(ctx)
	if err == nil {
		err = usable(m.target.Unit, f)
	}
	if err != nil {
		return m.errText(err)
	}
	way, why, err := pickSwap(m.target, f, m.store.Path())
	switch {
	case err != nil:
		return m.errText(err)
	case way != SwapHandover:
		return fmt.Sprintf("only a handover has two releases serve, and %s is moved by %s (%s); upgrade without --beside", m.target.Unit, way, why)
	case !f.Running():
		return fmt.Sprintf("%s does not run (%s); start it first, or upgrade without --beside", m.target.Unit, f.ActiveState)
	}
	return ""
}

// beside is the step of Beside: both releases serve, and are watched, until it is
// decided which one stays. After a start of the daemon the watch begins anew, and the
// time goes on.
func (m *machine) beside(ctx context.Context) (Event, error) {
	if err := m.takeUnit(ctx); err != nil { // after a start of ours
		return StepFailed, err
	}
	began, watched := time.Now(), time.Duration(0)
	t := m.record.Beside
	if t == nil {
		return StepFailed, errors.New("record does not say for how long two releases serve")
	}
	before := time.Duration(t.Sec) * time.Second
	return m.watch(ctx, func(g glimpse) (Event, error) {
		switch op, why := m.judgeBeside(g.facts); {
		case op == undecided:
			return "", nil
		case op == oldEnded:
			return m.goesOnAlone(ctx, g.facts, began)
		case op == turnedBad:
			m.record.Down = g.facts.ActiveState == "inactive"
			return m.turnedBad(ctx, began, why)
		case op == nobodysFault:
			return m.unchosen(ctx, why)
		}
		if err := m.followSupervisor(ctx, g.facts); err != nil {
			return StepFailed, err
		}
		// The choice first: who confirms knows what the probes say.
		switch keep, undo := m.choice(ctx); {
		case keep:
			return m.chosen(ctx, before+watched, "the operator confirms it")
		case undo:
			return m.turnedBad(ctx, began, WantedUndone)
		case g.sick != "":
			return m.turnedBad(ctx, began, g.sick)
		}
		m.watchDependents(ctx, g.facts)
		watched += g.watched
		limit := time.Duration(t.ForSec) * time.Second
		if before+watched >= limit && watched >= min(m.window(), limit) && g.good {
			return m.chosen(ctx, before+watched, fmt.Sprintf("nobody decided in %s, and it is well", limit))
		}
		if now := int64((before + watched) / time.Second); time.Duration(now-t.Sec)*time.Second >= min(limit/16, besideNoteMax) {
			t.Sec = min(now, t.ForSec)
			if err := m.save(); err != nil {
				return StepFailed, err
			}
			m.report()
		}
		return "", nil
	})
}

// Opinions on two releases, besides those on one.
const (
	undecided opinion = iota + 100
	oldEnded
)

// judgeBeside tells from facts whether both still serve.
func (m *machine) judgeBeside(f systemd.Facts) (opinion, string) {
	r := &m.record
	st, ok := serving(f)
	switch {
	case m.together(f):
		return noObjection, ""
	case restarting(f) || moving(f):
		// A supervisor that was killed comes back with both.
		return undecided, ""
	case ok && f.Running() && st.Release == r.To:
		return oldEnded, ""
	case ok && f.Running() && st.Release == r.From && f.InvocationID == r.Invocation:
		if strings.Contains(st.Note, r.To) { // else it is the old one's own
			return turnedBad, journal.Clean(st.Note)
		}
		return turnedBad, fmt.Sprintf("it does not serve beside %s any more", version(r.From))
	}
	if op, why := m.judgeFacts(f); op != noObjection {
		return op, why
	}
	return undecided, ""
}

// followSupervisor takes note of one that came back, by systemd or by another daemon
// of ours, with both.
func (m *machine) followSupervisor(ctx context.Context, f systemd.Facts) error {
	r := &m.record
	if m.base.Watch != f.Watch {
		m.base = f // from here on we see who acts
	}
	if f.InvocationID == r.Invocation && f.NRestarts == r.Restarts {
		return nil
	}
	m.base = f
	r.Invocation, r.Restarts = f.InvocationID, f.NRestarts
	m.emit(ctx, journal.SupervisorReturned)
	return m.save()
}

// goesOnAlone has the new release pass the usual trial, after the old one ended by
// itself: it serves all clients from here on.
func (m *machine) goesOnAlone(ctx context.Context, f systemd.Facts, began time.Time) (Event, error) {
	to, ok := release(m.record.To)
	if !ok {
		return StepFailed, fmt.Errorf("record names no release that serves: %q", m.record.To)
	}
	event, err := m.tookOver(f, to)
	if event == ReleaseServed {
		m.record.Invocation, m.record.Restarts = f.InvocationID, f.NRestarts
		m.emit(ctx, journal.ReleaseServes, slog.Duration("took", time.Since(began)), slog.Duration("window", m.window()))
	}
	return event, err
}

// answerBeside ends the order that led to where two serve: another one decides.
func (m *machine) answerBeside() {
	o := m.record.Order
	if o == nil {
		return
	}
	if a := m.record.Attempt; a != nil {
		a.Asked = o.String()
	}
	m.answer(*o, VerdictBeside, "")
	m.record.Order = nil
}

// unchosen has the old release stay, after somebody else moved the unit, and no word
// of the new one: any start of the unit is of the old one.
func (m *machine) unchosen(ctx context.Context, why string) (Event, error) {
	m.record.Reason, m.record.Unproven = why, true
	m.emit(ctx, journal.OperatorIntervened, slog.String("reason", why), slog.String("result", string(VerdictInconclusive)))
	return ReleaseBroke, nil
}

// choice tells what an order says of the two that serve.
func (m *machine) choice(ctx context.Context) (keep, undo bool) {
	o, ok, err := m.order(ctx)
	if err != nil || !ok {
		return false, false
	}
	to, from := version(m.record.To), version(m.record.From)
	switch {
	case m.tookBack(o):
		m.emit(ctx, journal.OrderTakenBack, slog.String("order", o.String()))
		m.answer(o, VerdictCancelled, WantedBack)
	case o.Verb == OrderRollback:
		return false, m.stopped(ctx)
	case o.Verb == OrderConfirm && (o.Version == "" || o.Version == to):
		m.record.Order = &o
		return true, false
	case o.Verb == OrderConfirm:
		m.refuseOrder(ctx, o, "it is %s that serves beside %s", to, from)
	default:
		m.refuseOrder(ctx, o, "%s and %s serve beside each other; decide first: upgraderd confirm %s, or upgraderd rollback %s", from, to, m.target.Name, m.target.Name)
	}
	if err := m.save(); err == nil { // else with what comes next
		m.clearOrder(ctx)
	}
	m.report()
	return false, false
}

// chosen has the new release stay.
func (m *machine) chosen(ctx context.Context, took time.Duration, why string) (Event, error) {
	m.emit(ctx, journal.ReleaseKept, slog.Duration("took", took), slog.String("reason", why))
	return ReleaseChosen, nil
}

// keep is the step of Keeping: the old release drains. It may have been done by the
// run that was interrupted.
//
//  1. next → the release, in place of beside;
//  2. ReloadUnit: the supervisor has the old worker drain;
//  3. the release serves alone: current and previous follow, then next goes.
func (m *machine) keep(ctx context.Context) (Event, error) {
	if err := m.takeUnit(ctx); err != nil { // after a start of ours
		return StepFailed, err
	}
	began := time.Now()
	to, ok := release(m.record.To)
	if !ok {
		return StepFailed, fmt.Errorf("record names no release to keep: %q", m.record.To)
	}
	f, err := m.still(ctx)
	if err != nil {
		return StepFailed, err
	}
	if m.together(f) {
		if f, err = m.drainOld(ctx, f, to); err != nil {
			return StepFailed, err
		}
	}
	if !alone(f, to.Name) || !f.Running() {
		op, why := m.judgeBeside(f)
		if op == undecided || op == noObjection {
			return StepFailed, fmt.Errorf("have %s serve alone: %s", to.Version, standing(f))
		}
		if op == nobodysFault {
			return m.unchosen(ctx, why)
		}
		m.record.Down = f.ActiveState == "inactive"
		return m.turnedBad(ctx, began, why)
	}
	if err := m.follow(f, to); err != nil {
		return StepFailed, err
	}
	m.record.Invocation = f.InvocationID
	m.emit(ctx, journal.ReleaseConfirmed, slog.Duration("took", time.Since(began)), slog.String("result", string(VerdictGood)))
	m.finish(ctx, VerdictGood, "")
	return ReleaseProved, nil
}

// standing is how a unit is that does not do what was asked of it.
func standing(f systemd.Facts) string {
	st, _ := serving(f)
	if st.Note != "" {
		return journal.Clean(st.Note)
	}
	return fmt.Sprintf("the unit is %s (%s)", f.ActiveState, f.SubState)
}

// drainOld asks for the old release to drain, and waits until the new one serves
// alone, or something else came of it.
func (m *machine) drainOld(ctx context.Context, before systemd.Facts, to store.Release) (systemd.Facts, error) {
	if err := m.store.SetLink(store.Next, to); err != nil {
		return before, err
	}
	if err := m.store.ClearLink(store.Beside); err != nil {
		return before, err
	}
	job, cancel := context.WithTimeout(ctx, limit(before, false))
	result, err := m.systemd.Reload(job, m.target.Unit)
	cancel()
	if refused(err) || ctx.Err() != nil {
		return before, errors.Join(err, ctx.Err())
	}
	f, ferr := m.settle(ctx, reconcileTime, func(f systemd.Facts) bool {
		return alone(f, to.Name) || !f.Running() ||
			(err == nil && result != systemd.ResultDone && !moving(f))
	})
	if ferr != nil {
		return f, errors.Join(err, ferr)
	}
	return f, nil
}

// recoverBeside goes on with two that served when somebody was here last.
func (m *machine) recoverBeside(ctx context.Context) (Event, error) {
	if m.record.State == Keeping {
		m.resume(ctx, "the new one stays, as was decided")
		return KeepInterrupted, nil
	}
	f, err := m.still(ctx)
	if err != nil {
		return StepFailed, err
	}
	_, has, err := m.store.Link(store.Beside)
	if err != nil {
		return StepFailed, err
	}
	if !has && !m.together(f) && !serves(f, m.record.To) {
		// See RevertUnproven.
		m.resume(ctx, version(m.record.From)+" serves alone again")
		m.conclude(VerdictInconclusive, version(m.record.From)+" serves alone again, as after a reboot, before it was decided which one stays")
		return NothingPending, nil
	}
	if m.guard != nil {
		return m.abandonedBeside(ctx, f)
	}
	m.resume(ctx, "both serve, the watch begins anew")
	return BothServed, nil
}

// abandonedBeside is what the guard makes of two that nobody watched: the old one
// stays.
func (m *machine) abandonedBeside(ctx context.Context, f systemd.Facts) (Event, error) {
	r := &m.record
	switch op, why := m.judgeBeside(f); op {
	case turnedBad:
		r.Reason, r.Down = why, f.ActiveState == "inactive"
	case nobodysFault:
		r.Reason, r.Unproven = why, true
	default:
		r.Reason, r.Unproven = "nobody watched it while it served beside "+version(r.From)+", the daemon was gone", true
	}
	m.emit(ctx, journal.UpgradeAbandoned, slog.String("reason", r.Reason))
	return UpgradeAbandoned, nil
}
