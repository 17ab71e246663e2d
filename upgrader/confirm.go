package upgrader

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

const (
	windowDefault        = time.Minute
	probeFailuresDefault = 3
	// factsInterval lets a crash be seen within a second, at the price of
	// two property reads of PID 1 a second while a release is watched.
	factsInterval = 500 * time.Millisecond
	// unwatchedMax is the longest time between two looks that counts as watched.
	// What goes beyond it a frozen daemon has slept, or a bus was down for.
	unwatchedMax = 5 * time.Second
)

func (m *machine) window() time.Duration {
	if m.target.Confirm.Window > 0 {
		return m.target.Confirm.Window
	}
	return windowDefault
}

// opinion is what one look says of the release.
type opinion int

const (
	noObjection opinion = iota
	turnedBad
	nobodysFault // somebody else acted: neither good nor bad
)

// confirm is the step of Confirming: the release proves itself for a window,
// by facts and by probes. After a crash of the daemon the window begins anew.
func (m *machine) confirm(ctx context.Context) (Event, error) {
	if err := m.takeUnit(ctx); err != nil { // after a start of ours
		return StepFailed, err
	}
	began, left := time.Now(), m.window()
	return m.watch(ctx, func(g glimpse) (Event, error) {
		if m.noteDrained(g.facts) {
			_ = m.save() // for who looks before the verdict, with which it comes again
		}
		switch op, why := m.judgeFacts(g.facts); {
		case op == turnedBad:
			m.record.Down = g.facts.ActiveState == "inactive"
			return m.turnedBad(ctx, began, why)
		case op == nobodysFault && m.own():
			return "", nil // we are being stopped
		case op == nobodysFault:
			// Or a socket did, after a failure that passed between two looks.
			// A person may have restarted one that ended badly, so it is undone
			// without a verdict on the release.
			if now := m.failures(ctx); now != "" && now != m.record.Failures {
				m.record.Unproven = true
				return m.turnedBad(ctx, began, "the unit failed, and was started anew")
			}
			m.unjudged(ctx, why)
			return OperatorActed, nil
		case g.sick != "":
			return m.turnedBad(ctx, began, g.sick)
		case m.stopped(ctx):
			return m.turnedBad(ctx, began, WantedUndone)
		}
		if m.base.Watch != g.facts.Watch {
			m.base = g.facts // from here on we see who acts
		}
		m.watchDependents(ctx, g.facts)
		left -= g.watched
		if left > 0 || !g.good {
			return "", nil
		}
		if m.own() {
			to, _ := release(m.record.To)
			if err := m.proveOwn(to); err != nil {
				return StepFailed, err
			}
		}
		m.emit(ctx, journal.ReleaseConfirmed, slog.Duration("took", time.Since(began)), slog.String("result", string(VerdictGood)))
		m.finish(ctx, VerdictGood, "")
		return ReleaseProved, nil
	})
}

// glimpse is what one look at a release on trial gives.
type glimpse struct {
	facts systemd.Facts
	// sick is why the probes have failed often enough, "" if they have not, and good
	// tells that nothing is open: a trial does not end in the middle of failures.
	sick string
	good bool
	// watched is the time since the look before, as far as it counts.
	watched time.Duration
}

// watch looks at the unit and asks the probes, again and again, until judge makes an
// event of what it sees. Where systemd cannot be asked, nothing is judged.
func (m *machine) watch(ctx context.Context, judge func(glimpse) (Event, error)) (Event, error) {
	began := time.Now()
	looked := began
	watching, cancel := context.WithCancel(ctx)
	rounds := make(chan error)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		probeRounds(watching, m.target.Confirm, rounds)
	}()
	defer func() {
		cancel()
		<-stopped
	}()
	facts := time.NewTicker(factsInterval)
	defer facts.Stop()
	health := streak{most: m.target.Confirm.ProbeFailuresMax, proven: len(m.target.Confirm.Probes) == 0}
	if health.most <= 0 {
		health.most = probeFailuresDefault
	}
	for {
		sick := ""
		select {
		case <-ctx.Done():
			return StepFailed, ctx.Err()
		case err := <-rounds:
			if err == nil {
				m.noteAnswer()
			}
			enough := health.add(err)
			if enough == "" {
				continue
			}
			// Why there is no answer the unit may know better: it ended, or it
			// was stopped.
			sick = fmt.Sprintf("%s (%s)", m.errText(err), enough)
		case <-facts.C:
		}
		f, err := m.facts(ctx)
		switch {
		case err != nil && sick != "":
			return m.turnedBad(ctx, began, sick)
		case err != nil:
			// A silent bus is no evidence against the release, and none
			// for it: without facts there is no good verdict.
			m.trouble(ctx, journal.StepFailed, err)
			continue
		}
		now := time.Now()
		watched := min(now.Sub(looked), unwatchedMax)
		looked = now
		if event, err := judge(glimpse{f, sick, health.good(), watched}); event != "" || err != nil {
			return event, err
		}
	}
}

// turnedBad notes the reason; the rollback follows.
func (m *machine) turnedBad(ctx context.Context, began time.Time, why string) (Event, error) {
	m.record.Reason = why
	m.emit(ctx, journal.ReleaseTurnedBad, slog.Duration("took", time.Since(began)), slog.String("reason", why))
	return ReleaseBroke, nil
}

// unjudged ends the watch without a verdict; what the operator did stands.
func (m *machine) unjudged(ctx context.Context, why string) {
	m.emit(ctx, journal.OperatorIntervened, slog.String("reason", why), slog.String("result", string(VerdictInconclusive)))
	m.finish(ctx, VerdictInconclusive, why)
}

// judgeFacts compares what systemd says now with what it said after the swap.
func (m *machine) judgeFacts(f systemd.Facts) (opinion, string) {
	r := &m.record
	switch {
	case crashed(f):
		return turnedBad, "it crashed: " + ending(f)
	case f.NRestarts > r.Restarts:
		// Units with Restart=always never read "failed"; the counter tells.
		return turnedBad, fmt.Sprintf("systemd had to start it again: NRestarts went from %d to %d", r.Restarts, f.NRestarts)
	case f.FailedSince(m.base):
		// It may run again, by its socket; then nothing else tells.
		return turnedBad, "it failed, and was started anew"
	case f.ActiveState == "inactive" && f.Result != "success":
		return turnedBad, "it ended: " + ending(f)
	case m.leftDown(f):
		// With a socket it may have been idle; without, nothing would start
		// it again.
		return turnedBad, "it ended by itself: " + ending(f)
	case f.ActiveState == "inactive" || f.ActiveState == "deactivating":
		return nobodysFault, "the unit was stopped"
	case f.InvocationID != r.Invocation:
		return nobodysFault, "the unit was started anew by somebody else"
	case r.Swap == SwapReload:
		// Where the reload is over once the signal is sent, this comes later.
		if why, bad := keptItsOwn(f); bad {
			return turnedBad, why
		}
	case r.Swap == SwapHandover:
		if st, ok := serving(f); ok && st.Release != "" && st.Release != r.To {
			return nobodysFault, fmt.Sprintf("the unit was moved to release %q by somebody else", st.Release)
		}
	}
	return noObjection, ""
}

// streak tells from the rounds of probes when it is enough: after so many
// failures in a row, or, since a check that flaps never fails that often, when it
// has failed anew more often than that in the last rounds. Those are counted, and
// not all: in a long window every check fails now and then.
type streak struct {
	most, failures int
	proven         bool // one round went well, or there is nothing to ask
	rounds         int
	anew           []int // the rounds in which it failed after it had gone well
}

// recentRounds is how far back a failure counts that was over soon, in units of
// ProbeFailuresMax=.
const recentRounds = 10

// add takes the outcome of a round, and says what was too much, "" if nothing.
func (s *streak) add(err error) (enough string) {
	s.rounds++
	if err == nil {
		s.failures, s.proven = 0, true
		return ""
	}
	if s.failures == 0 && s.proven {
		s.anew = append(s.anew, s.rounds)
	}
	s.failures++
	for len(s.anew) > 0 && s.anew[0] <= s.rounds-recentRounds*s.most {
		s.anew = s.anew[1:]
	}
	switch {
	case s.failures >= s.most:
		return fmt.Sprintf("%d times in a row", s.failures)
	case len(s.anew) > s.most:
		return fmt.Sprintf("it failed anew %d times in %d rounds", len(s.anew), min(s.rounds, recentRounds*s.most))
	}
	return ""
}

// good reports that nothing is open.
func (s *streak) good() bool { return s.proven && s.failures == 0 }
