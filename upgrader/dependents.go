package upgrader

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// Other units may depend on the one that is swapped, and systemd stops them with
// it. This is what becomes of those that are active and ordered after the service,
// as tried on 252, 257 and 262:
//
//	                           Requires=   BindsTo=    PartOf=     StopPropa-   Wants=,
//	                           Requisite=                          gatedFrom=   Upholds=
//	reload, well or not        stays       stays       stays       stays        stays
//	restart                    restarted   restarted   restarted   down (1)     stays
//	restart, start fails       down        down        restarted   down         stays
//	  then a good start        down        down        restarted   down         stays
//	it ends by itself          stays       down        stays       down         stays
//	  then a restart           restarted   down        restarted   down         stays
//	it is stopped              down        down        down        down         stays
//	  then a start             down        down        down        down         stays
//
// (1) stays on 252.
//
// What depends on a dependent fares as that. With Restart=, each attempt of the
// service restarts those with PartOf=, until their own start limit is hit. So a
// handover disturbs none of them, and a restart that goes well none for long; but
// after one that failed, or a release that ended, the rollback brings the service
// back and not its dependents: their own jobs failed with the result "dependency",
// and nothing repeats those.
//
// So those that are active are noted before a swap, and started again once the
// service runs. Only they are, and only where it is seen that the swap took them
// down: a person who stops one meanwhile wins. Whether they come back is no verdict
// on the release; a probe can make it one.
//
// The right to start a unit comes from Dependents= in root's .upgrade file, by the
// polkit rule, for each unit by its name. It is no right to start just any
// dependent: many a unit that requires the service is there to be started by hand,
// to repair it or to empty it.
//
// Where a dependent shall be active whenever the service is, Wants= of the service
// does without this, and without any right: each start of the service pulls it up,
// also the one that a person stopped.

const (
	// dependentsMax bounds how many units of a unit's dependents are looked at.
	dependentsMax = 64
	// dependentLimit bounds how long the upgrade waits for the start of one, which
	// goes on without it.
	dependentLimit = 10 * time.Second
	// together is how close in time two units end of which one took down the other.
	together = 5 * time.Second
)

// dependents are those of a unit, by name.
type dependents map[string]dependent

// dependent is what was seen of one, and with which run of the service.
type dependent struct {
	systemd.Facts
	service string
}

// stands reports a unit that is active or on its way there.
func stands(f systemd.Facts) bool { return f.Running() || f.ActiveState == "activating" }

// noteDependents remembers what is active of the units that systemd stops with
// the service, and of those that it stops with them.
func (m *machine) noteDependents(ctx context.Context, service systemd.Facts) {
	m.record.Dependents, m.stood = nil, dependents{}
	if m.own() {
		return // its next start is the trial, and somebody else looks at that
	}
	seen := map[string]bool{m.target.Unit: true, service.ID: true}
	for queue := service.Dependents; len(queue) > 0 && len(seen) < dependentsMax; {
		name := queue[0]
		queue = queue[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		f, err := m.systemd.Facts(ctx, name)
		if err != nil {
			m.log.DebugContext(ctx, "a dependent cannot be looked at", "dependent", name, "error", m.errText(err))
			continue
		}
		queue = append(slices.Clip(queue), f.Dependents...)
		if stands(f) {
			m.noteDependent(name, f, service)
		}
	}
}

func (m *machine) noteDependent(name string, f, service systemd.Facts) {
	if m.record.Dependents == nil {
		m.record.Dependents = map[string]string{}
	}
	if m.stood == nil {
		m.stood = dependents{}
	}
	m.record.Dependents[name], m.stood[name] = f.InvocationID, dependent{f, service.InvocationID}
}

// watchDependents forgets those that went while the service ran: whoever stopped
// them, it was not us. service is the last look at that.
func (m *machine) watchDependents(ctx context.Context, service systemd.Facts) {
	if !service.Running() {
		return
	}
	for name := range m.record.Dependents {
		f, err := m.systemd.Facts(ctx, name)
		switch before, known := m.stood[name]; {
		case err != nil || f.Job != 0:
		case stands(f):
			m.noteDependent(name, f, service)
		case f.ActiveState == "failed" && m.record.Swap == SwapRestart:
			// It may have been started too soon, or not like the release.
		case !known || !stands(before.Facts) || before.service != service.InvocationID:
			// It went with an earlier run of the service.
		default:
			// Or the service ended just now.
			if now, err := m.facts(ctx); err == nil && now.Running() && now.InvocationID == service.InvocationID {
				delete(m.record.Dependents, name)
			}
		}
	}
}

// bringBack starts what our swap took down. With last set the attempt is over, and
// what is not back then is for a person.
func (m *machine) bringBack(ctx context.Context, last bool) {
	if len(m.record.Dependents) == 0 {
		return
	}
	service, err := m.facts(ctx)
	if err != nil || moving(service) || restarting(service) {
		return // looked at again when the next state is entered
	}
	if m.stood == nil {
		m.stood = dependents{} // nobody has seen them run since the daemon before this one
	}
	for _, name := range slices.Sorted(maps.Keys(m.record.Dependents)) {
		f, err := m.dependentAtRest(ctx, name)
		switch {
		case err != nil:
			m.log.DebugContext(ctx, "a dependent cannot be looked at", "dependent", name, "error", m.errText(err))
			continue
		case stands(f):
			m.noteDependent(name, f, service)
		case service.Running() && m.unseen(name, f):
			m.dependentDown(ctx, name, "nobody saw who stopped it; start it with: systemctl start "+name)
			delete(m.record.Dependents, name)
		case !m.tookDown(service, name, f):
			delete(m.record.Dependents, name)
		case service.Running():
			m.stood[name] = dependent{m.startDependent(ctx, name, f), service.InvocationID}
		case m.record.Last != nil && m.record.Last.Verdict == VerdictStuck:
			m.dependentDown(ctx, name, m.target.Unit+" does not run")
		}
		if ctx.Err() != nil {
			return
		}
	}
	if last {
		m.record.Dependents, m.stood = nil, nil
	}
}

// dependentAtRest waits until systemd has no job for the unit any more.
func (m *machine) dependentAtRest(ctx context.Context, name string) (systemd.Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, dependentLimit)
	defer cancel()
	for {
		f, err := m.systemd.Facts(ctx, name)
		if err == nil && f.Job == 0 || !sleep(ctx, glance) {
			return f, err
		}
	}
}

// tookDown reports that a dependent that does not run any more was stopped by the
// swap, or by the end of the service, and by nobody else.
func (m *machine) tookDown(service systemd.Facts, name string, f systemd.Facts) bool {
	before, known := m.stood[name]
	switch {
	case f.LoadState != "loaded":
		return false // masked or deleted
	case f.ActiveState == "failed", known && !stands(before.Facts):
		return true
	case known && f.Watch != 0 && f.Watch == before.Watch:
		// The last job is the start that failed with the service's, or the only
		// one is the stop with it. A person's would be one more.
		return f.LastJob == systemd.ResultDependency || f.JobsEnded == before.JobsEnded+1
	}
	// Nobody saw it. It is the same run that was noted, and it ended when the
	// service did.
	return f.InvocationID != "" && f.InvocationID == m.record.Dependents[name] &&
		(f.ActiveExit-service.ActiveExit).Abs() <= together
}

// unseen reports one of which systemd knows nothing any more, since nothing refers
// to it, after a daemon or a bus that ended.
func (m *machine) unseen(name string, f systemd.Facts) bool {
	before, known := m.stood[name]
	return f.LoadState == "loaded" && f.ActiveState == "inactive" && f.InvocationID == "" && (!known || f.Watch != before.Watch)
}

// startDependent starts one again, and gives what has become of it.
func (m *machine) startDependent(ctx context.Context, name string, f systemd.Facts) systemd.Facts {
	if !slices.Contains(m.target.Dependents, name) {
		where := m.target.File
		if where == "" {
			where = "the target's .upgrade file"
		}
		m.dependentDown(ctx, name, fmt.Sprintf("[NOT_GRANTED] start it with: systemctl start %s; to have upgraderd do it, add to [Upgrade] in %s: Dependents=%s", name, where, name))
		return f
	}
	limited, cancel := context.WithTimeout(ctx, dependentLimit)
	defer cancel()
	result, err := m.systemd.Start(limited, name)
	if ctx.Err() != nil {
		return f
	}
	now, ferr := m.systemd.Facts(ctx, name)
	switch {
	case ferr == nil && stands(now):
		m.emit(ctx, journal.DependentReturned, slog.String("dependent", name))
		m.record.Dependents[name] = now.InvocationID
		return now
	case err != nil:
		m.dependentDown(ctx, name, m.errText(err))
	default:
		m.dependentDown(ctx, name, fmt.Sprintf("the start ended (%s); see: systemctl status %s", result, name))
	}
	return f
}

// dependentDown tells of a dependent once in an attempt.
func (m *machine) dependentDown(ctx context.Context, name, why string) {
	m.once(ctx, "dependent "+name+" "+m.record.Digest+" "+why, journal.DependentDown,
		slog.String("dependent", name), slog.String("reason", why))
}
