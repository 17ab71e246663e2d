package upgrader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/unit"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// The guard is the dead man's switch, and PID 1 holds it: a timer that the
// daemon starts before each swap and stops after the verdict. While it runs it
// starts the guard again and again, which looks whether somebody holds the
// target's lock. Somebody does as long as the daemon lives, so that its restart
// is no case for the guard. When the daemon stays away, the guard undoes what
// nobody watches.

// GuardTimer is the template instance that guards a target during a swap.
func GuardTimer(target string) string {
	return "upgraderd-guard@" + unit.UnitNameEscape(target) + ".timer"
}

// FailedUnit is the template instance that OnFailure= of a target's unit starts.
func FailedUnit(target string) string {
	return "upgraderd-failed@" + unit.UnitNameEscape(target) + ".service"
}

// failedUnits are the names that it can have: OnFailure= of a template's instance
// passes that on as it is, without escaping it.
func failedUnits(target string) []string {
	return slices.Compact([]string{FailedUnit(target), "upgraderd-failed@" + target + ".service"})
}

// failures tells the failures of the unit from one another, by the runs of what
// OnFailure= starts. It is empty where there was none, or nobody can say.
func (m *machine) failures(ctx context.Context) string {
	var runs []string
	for _, name := range failedUnits(m.target.Name) {
		f, err := m.systemd.Facts(ctx, name)
		if err == nil && strings.Trim(f.InvocationID, "0") != "" {
			runs = append(runs, f.InvocationID)
		}
	}
	return strings.Join(runs, " ")
}

// armLimit bounds how long a swap waits for its guard: PID 1 starts a timer
// in a millisecond, and a swap without a guard is better than none.
const armLimit = 10 * time.Second

// arm starts the guard. A host without its units upgrades all the same: the error
// is for saying so.
func (m *machine) arm(ctx context.Context) error {
	timer := GuardTimer(m.target.Name)
	m.armed = true // in doubt it is, and has to be stopped
	limited, cancel := context.WithTimeout(ctx, armLimit)
	defer cancel()
	result, err := m.systemd.Start(limited, timer)
	if err == nil && result != systemd.ResultDone && result != systemd.ResultUnknown {
		err = fmt.Errorf("start %s: job is %q", timer, result)
	}
	return err
}

// disarm stops the guard. One that could not be stopped is tried again after the
// next verdict, and by itself where no daemon is.
func (m *machine) disarm(ctx context.Context) {
	if !m.armed {
		return
	}
	limited, cancel := context.WithTimeout(ctx, armLimit)
	defer cancel()
	if _, err := m.systemd.Stop(limited, GuardTimer(m.target.Name)); err != nil && !systemd.HasCode(err, systemd.CodeNotFound) {
		m.log.DebugContext(ctx, "stop the guard", "error", m.errText(err))
		return
	}
	m.armed = false
}

// pending reports a state that must not last without somebody who watches.
func (s State) pending() bool {
	return s == Swapping || s == Confirming || s == Beside || s == Keeping || s == RollingBack
}

// Pending reports whether an upgrade of a target is under way, from its swap to
// its verdict. A target that has no store yet has none.
func Pending(stateDir, target string) (bool, error) {
	s, err := store.View(filepath.Join(stateDir, target))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if target == OwnTarget {
		_, on, err := ownTrial(s)
		return on, err
	}
	var r record
	_, err = s.LoadRecord(&r)
	return r.State.pending(), err
}

// Guarded is what the guard is to look at.
type Guarded struct {
	Target *Target
	// Patience is how long a daemon that was killed may take to come back.
	Patience time.Duration
	// Failed tells that the unit failed, which is why the guard runs. Restart= or
	// a socket may have started it anew since, so that nothing else tells.
	Failed bool
}

// Guard undoes the upgrade that is under way, if nobody watches it: no daemon
// holds the target's lock, and none takes it in time. A release that broke
// meanwhile is known bad; one that nobody saw break is not, and comes up again
// when a daemon is back. Where the release is the first one, there is nothing to
// return to, and it stays.
//
// Of the options, Targets is ignored. Guard is for `upgraderd guard`, which the
// timer starts, and OnFailure= of a unit. It returns when there is nothing more
// to do for it, or when ctx ends; it may be killed at any point and run again.
func Guard(ctx context.Context, o Options, g Guarded) error {
	o.Targets = []*Target{g.Target}
	d, err := New(o)
	if err != nil {
		return err
	}
	return d.guard(ctx, g)
}

func (d *Daemon) guard(ctx context.Context, g Guarded) error {
	if g.Target.Unit == OwnUnit {
		return d.guardOwn(ctx, g)
	}
	s, err := store.View(filepath.Join(d.o.StateDir, g.Target.Name))
	if err != nil {
		return err
	}
	var r record
	if _, err := s.LoadRecord(&r); err != nil {
		return err
	}
	held, err := d.open(g.Target)
	if err == nil && r.State.pending() && !g.Failed {
		held.unlock()
		if !sleep(ctx, g.Patience) {
			return ctx.Err()
		}
		held, err = d.open(g.Target)
	}
	if errors.Is(err, store.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.unlock()
	m := d.machine(g.Target)
	m.store, m.guard, m.armed = d.disk(held.Store), &g, true
	if err := m.load(ctx); err != nil {
		return err
	}
	if !m.record.State.pending() { // what is being fetched is for the next daemon
		m.disarm(ctx)
		return nil
	}
	return m.run(ctx)
}

// abandoned is what the guard makes of a release that serves and that nobody
// watched: on with the rollback, with the reason that there is.
func (m *machine) abandoned(ctx context.Context) (Event, error) {
	f, err := m.still(ctx)
	if err != nil {
		return StepFailed, err
	}
	_, ok, err := m.goal()
	if err != nil {
		return StepFailed, err
	}
	const unwatched = "nobody watched it for its confirm window, the daemon was gone"
	r := &m.record
	op, why := m.judgeFacts(f)
	switch {
	case op == nobodysFault && m.guard.Failed:
		// By a socket, or by a person who restarted one that ended badly: undone,
		// but no verdict.
		r.Reason, r.Unproven = "the unit failed, and was started anew", true
	case op == turnedBad:
		r.Reason, r.Down = why, f.ActiveState == "inactive"
	case op == nobodysFault:
		m.unjudged(ctx, why)
		return NothingPending, nil
	case !ok:
		m.unjudged(ctx, unwatched+", and it was the first release, there is none to return to")
		return NothingPending, nil
	default:
		r.Reason, r.Unproven = unwatched, true
	}
	m.emit(ctx, journal.UpgradeAbandoned, slog.String("reason", r.Reason))
	return UpgradeAbandoned, nil
}
