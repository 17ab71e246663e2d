package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// The daemon is upgraded as its targets are, by a restart of its unit. But who
// judges the release is the release itself, and who would undo it is gone. So it
// gets one start, and whatever ends that start ends the trial:
//
//  1. The daemon points next at the release, and asks for its own restart, which
//     ends it. That is planned: the job is systemd's.
//  2. The installed program, which the unit runs, moves next to tried, and becomes
//     the release ([Launch]).
//  3. The release finds itself in tried. It was ready, it read its configuration,
//     systemd answers it: it watches for the window, and then moves current to
//     itself. Nothing else does.
//  4. Should it exit, hang or be killed, or should the host go down, the next start
//     finds no next, and is of current, or of the installed program where there is
//     none. The daemon that runs then finds what failed in tried.
//  5. One that lives and never comes to an end, the guard restarts.
//
// All of this stands in links, since a record may be of a later upgraderd.
const (
	// OwnTarget is the name of the one target that is upgraderd itself.
	OwnTarget = "upgraderd"
	// OwnUnit is its unit.
	OwnUnit = "upgraderd.service"
	// OwnProgram is its program, inside a release.
	OwnProgram = "bin/upgraderd"
)

// ownPatience is how long the daemon's restart waits for trials of others: each
// would begin its window anew.
const ownPatience = 10 * time.Minute

// installed is what runs where no release does, in sentences.
const installed = "the installed program"

func (m *machine) own() bool { return m.target.Unit == OwnUnit }

// ownRelease is the release that a program of the daemon's belongs to, "" if none.
func ownRelease(stateDir, program string) string {
	r, ok := release(filepath.Base(filepath.Dir(filepath.Dir(program))))
	if !ok {
		return ""
	}
	s, err := store.View(filepath.Join(stateDir, OwnTarget))
	if err != nil {
		return ""
	}
	kept, err := s.Program(r, OwnProgram)
	if err != nil {
		return ""
	}
	a, err1 := os.Stat(program)
	b, err2 := os.Stat(kept)
	if err1 != nil || err2 != nil || !os.SameFile(a, b) {
		return ""
	}
	return r.Name
}

// ownSwap is [pickSwap] for the daemon.
func ownSwap(t *Target, f systemd.Facts) (Swap, string, error) {
	for _, line := range f.ExecStart {
		if slices.Contains(line, "launch") {
			return SwapRestart, "it is upgraderd itself", nil
		}
	}
	return "", "", &unitError{"UNIT_NO_LAUNCH", t.Unit, "would start the installed program again: ExecStart= does not run upgraderd launch",
		"remove what overrides it, see: systemctl cat " + t.Unit}
}

// awaitOthers waits until no other target is on trial, within reason.
func (m *machine) awaitOthers(ctx context.Context) error {
	for began := time.Now(); time.Since(began) < ownPatience; {
		other := m.busy(m.target.Name)
		if other == "" {
			return nil
		}
		m.log.DebugContext(ctx, "waiting for the trial of another target", "holder", other)
		if !sleep(ctx, time.Second) {
			return ctx.Err()
		}
	}
	return nil
}

// restartAs has this daemon's next start be of release to.
func (m *machine) restartAs(ctx context.Context, before systemd.Facts, to store.Release) (Event, error) {
	if err := m.store.ClearLink(store.Tried); err != nil { // of an earlier trial
		return StepFailed, err
	}
	if err := m.store.SetLink(store.Next, to); err != nil {
		return StepFailed, err
	}
	result, err := m.restartOwn(ctx, before)
	if ctx.Err() != nil {
		return StepFailed, ctx.Err() // it ends us, as it should
	}
	if err := m.store.ClearLink(store.Next); err != nil {
		return StepFailed, err
	}
	if refused(err) {
		return m.notQueued(ctx, err)
	}
	return m.inconclusive(ctx, fmt.Sprintf("the restart ended (%s) and changed nothing", result))
}

func (m *machine) restartOwn(ctx context.Context, before systemd.Facts) (systemd.Result, error) {
	job, cancel := context.WithTimeout(ctx, limit(before, true))
	defer cancel()
	return m.systemd.Restart(job, m.target.Unit)
}

// recoverOwn finds out by the links how a trial of the daemon stands. No event:
// there was none, and the record tells the rest.
func (m *machine) recoverOwn(ctx context.Context) (Event, error) {
	tried, on, err := m.store.Link(store.Tried)
	if err != nil {
		return StepFailed, err
	}
	current, has, err := m.store.Link(store.Current)
	if err != nil {
		return StepFailed, err
	}
	r := &m.record
	if on && r.To != tried.Name { // the record was lost, or cannot be read
		digest, err := m.store.Digest(tried)
		if err != nil {
			return StepFailed, err
		}
		m.begin(current, has, tried, digest)
		r.State, r.Swap = Confirming, SwapRestart
	}
	switch {
	case !r.State.pending():
		return "", m.store.ClearLink(store.Tried)
	case has && current.Name == r.To: // which only its own verdict does
		if err := m.proveOwn(current); err != nil {
			return StepFailed, err
		}
		m.resume(ctx, "it had proved itself")
		m.finish(ctx, VerdictGood, "")
		return NothingPending, nil
	case r.State == RollingBack:
		return RollbackInterrupted, nil
	case on && m.self == tried.Name:
		return m.onTrial(ctx)
	case on:
		return m.trialEnded(ctx)
	case r.State == Confirming:
		if err := m.store.ClearLink(store.Next); err != nil {
			return StepFailed, err
		}
		m.unjudged(ctx, "the link tried was removed")
		return NothingPending, nil
	}
	if err := m.store.ClearLink(store.Next); err != nil {
		return StepFailed, err
	}
	to, ok := release(r.To)
	if !ok {
		return NothingPending, nil
	}
	return m.swapAgain(ctx, to)
}

// onTrial is the first thing that a release says of itself.
func (m *machine) onTrial(ctx context.Context) (Event, error) {
	f, err := m.still(ctx) // until READY=1 has been heard
	if err != nil {
		return StepFailed, err
	}
	if !f.Running() {
		return StepFailed, fmt.Errorf("%s runs, and %s", m.self, ending(f))
	}
	r := &m.record
	if m.unread != nil {
		r.Reason = "it cannot read the record of the upgraderd before it: " + m.errText(m.unread)
		m.emit(ctx, journal.ReleaseTurnedBad, slog.Duration("took", m.sinceStep()), slog.String("reason", r.Reason))
		return UpgradeAbandoned, nil
	}
	if err := m.arm(ctx); err != nil { // again: a reboot may have come in between
		text := m.errText(err)
		m.once(ctx, "unguarded "+text, journal.SwapUnguarded, slog.String("error", text))
	}
	m.base, m.resumed = f, true
	r.Invocation, r.Restarts = f.InvocationID, f.NRestarts
	m.emit(ctx, journal.ReleaseServes, slog.Duration("took", m.sinceStep()), slog.Duration("window", m.window()))
	return ReleaseServed, nil
}

// sinceStep is how long ago the record's step began, for people to read.
func (m *machine) sinceStep() time.Duration {
	if m.record.Since.IsZero() {
		return 0
	}
	return max(0, time.Since(m.record.Since))
}

// trialEnded judges a release that was started, and does not run any more.
func (m *machine) trialEnded(ctx context.Context) (Event, error) {
	f, err := m.still(ctx)
	if err != nil {
		return StepFailed, err
	}
	m.resumed = true
	r := &m.record
	digest, err := r.digest()
	if err != nil {
		return StepFailed, err
	}
	bad, isBad, err := m.store.Bad(digest)
	if err != nil {
		return StepFailed, err
	}
	failures := m.failures(ctx)
	switch {
	case isBad:
		r.Reason = bad.Reason // by the guard
	case f.NRestarts > 0: // of this very start: one that was asked for sets it to 0
		r.Reason = "it ended while it was on trial, and systemd had to start upgraderd again; see: journalctl -u " + m.target.Unit
	case failures != "" && failures != r.Failures:
		r.Reason = "the unit failed while it was on trial; see: journalctl -u " + m.target.Unit
	default:
		if err := m.store.ClearLink(store.Tried); err != nil {
			return StepFailed, err
		}
		_, err := m.inconclusive(ctx, "upgraderd was started anew before it had proved itself, as by a reboot")
		m.lookNow = false // in a while
		return NothingPending, err
	}
	m.emit(ctx, journal.ReleaseTurnedBad, slog.Duration("took", m.sinceStep()), slog.String("reason", r.Reason))
	return UpgradeAbandoned, nil
}

// proveOwn makes the release what every start runs. It may be done already.
func (m *machine) proveOwn(to store.Release) error {
	if current, has, err := m.store.Link(store.Current); err != nil || !has || current != to {
		if err := m.advance(to); err != nil {
			return err
		}
	}
	return errors.Join(m.store.ClearLink(store.Next), m.store.ClearLink(store.Tried))
}

// rollBackOwn ends a trial that went wrong. current never moved, so all there is
// to undo is what runs, which may be ourselves.
func (m *machine) rollBackOwn(ctx context.Context) (Event, error) {
	began := time.Now()
	r := &m.record
	if err := m.markBad(r.Reason); err != nil {
		return StepFailed, err
	}
	if err := m.store.ClearLink(store.Next); err != nil {
		return StepFailed, err
	}
	if m.self == r.To {
		before, err := m.still(ctx)
		if err != nil {
			return StepFailed, err
		}
		result, err := m.restartOwn(ctx, before)
		if ctx.Err() != nil {
			return StepFailed, ctx.Err() // it ends us, as it should
		}
		return StepFailed, errors.Join(fmt.Errorf("restart %s without release %s: job is %q and it runs still", m.target.Unit, m.self, result), err)
	}
	if err := m.store.ClearLink(store.Tried); err != nil {
		return StepFailed, err
	}
	m.emit(ctx, journal.RolledBack, slog.String("from", version(r.To)), slog.String("to", m.ownBefore()),
		slog.Duration("took", time.Since(began)), slog.String("result", string(VerdictRolledBack)))
	m.finish(ctx, VerdictRolledBack, r.Reason)
	return RolledBack, nil
}

// ownBefore is what the release on its way is to replace, in a sentence.
func (m *machine) ownBefore() string {
	if m.record.From == "" {
		return installed
	}
	return version(m.record.From)
}

// ownTrial is the release of upgraderd that was started and has not proved itself.
func ownTrial(s *store.Store) (store.Release, bool, error) {
	tried, on, err := s.Link(store.Tried)
	if err != nil || !on {
		return tried, false, err
	}
	current, has, err := s.Link(store.Current)
	return tried, err == nil && (!has || current != tried), err
}

// guardOwn is the guard of the daemon's own trial. Who holds the target's lock is
// who is on trial, so it tells nothing, and cannot be waited for: of the store,
// only the verdict is written, which is a file of its own name and one rename.
// The restart does the rest.
func (d *Daemon) guardOwn(ctx context.Context, g Guarded) error {
	s, err := store.View(filepath.Join(d.o.StateDir, OwnTarget))
	if err != nil {
		return err
	}
	tried, on, err := ownTrial(s)
	if err != nil {
		return err
	}
	f, err := d.o.Systemd.Facts(ctx, OwnUnit)
	if err != nil {
		return err
	}
	if !on || f.ActiveState == "inactive" { // or somebody stopped it
		return d.standDown(ctx, s)
	}
	m := d.machine(g.Target)
	m.state = Confirming
	var why string
	switch {
	case f.ActiveState == "failed":
		why = "the unit failed while it was on trial: " + ending(f)
	case f.Running() && overdue(f, m, g.Patience):
		// It may be about to say so; and so may the one before it, that it ended.
		if !sleep(ctx, g.Patience) {
			return ctx.Err()
		}
		now, on, err := ownTrial(s)
		if err != nil || !on || now != tried {
			return err
		}
		why = "it did not prove itself in its time"
	default:
		return nil // systemd is at it, or it is
	}
	digest, err := s.Digest(tried)
	if err != nil {
		return err
	}
	m.record.To, m.record.Digest = tried.Name, digest.String()
	if current, has, err := s.Link(store.Current); err == nil && has {
		m.record.From = current.Name
	}
	m.emit(ctx, journal.ReleaseTurnedBad, slog.Duration("took", monotonic()-f.ActiveEnter), slog.String("reason", why))
	if err := s.MarkBad(digest, store.Bad{Version: tried.Version, Reason: why, When: time.Now().UTC()}); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, limit(f, true))
	defer cancel()
	_, err = d.o.Systemd.Restart(limited, OwnUnit)
	return err
}

// overdue tells of a daemon that is up for longer than its trial could take.
func overdue(f systemd.Facts, m *machine, patience time.Duration) bool {
	c := m.target.Confirm
	most := m.window() + 2*patience
	if len(c.Probes) > 0 { // a window does not end in the middle of failures
		most += time.Duration(max(c.ProbeFailuresMax, probeFailuresDefault)) * (max(c.ProbeInterval, probeIntervalDefault) + max(c.ProbeTimeout, probeTimeoutDefault))
	}
	return f.ActiveEnter > 0 && monotonic()-f.ActiveEnter > most
}

// standDown stops the guard's timer, unless a daemon is there to do it: one that
// is about to restart itself has armed it on purpose.
func (d *Daemon) standDown(ctx context.Context, s *store.Store) error {
	unlock, err := s.Lock()
	if errors.Is(err, store.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	unlock()
	_, err = d.o.Systemd.Stop(ctx, GuardTimer(OwnTarget))
	return err
}
