package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

// refusedShown is how long a refusal stands in the status; the daemon reads it
// at once. A release that failed stands there until the next is tried.
const refusedShown = time.Minute

// handover begins the change from the worker that serves to a new one.
// reply gets the outcome, once; it must have room for it. It is nil where
// nobody waits. Unless anew is set, a worker of the very release that would be
// started is told to read its configuration again instead.
func (s *Supervisor) handover(reply chan<- Reply, anew bool) {
	refuse := func(format string, args ...any) {
		why := fmt.Sprintf(format, args...)
		s.releaseReports()
		s.emit(journal.HandoverRefused, slog.String("reason", why))
		s.failure = statusline.Refused + why
		s.status("") // before the answer: who waits for the job reads it next
		s.after(refusedShown, func() {
			if strings.HasPrefix(s.failure, statusline.Refused) {
				s.failure = ""
				s.status("")
			}
		})
		answer(reply, Reply{Error: why, Refused: true, Stopping: s.stopping})
	}
	if s.stopping {
		refuse("the unit is stopping")
		return
	}
	if s.serving == nil {
		refuse("no worker serves yet: wait until the unit is active")
		return
	}
	rel, beside, err := s.opts.pickTrial()
	if err != nil {
		refuse("%v", err)
		return
	}
	beside = beside && rel != s.serving.release
	if w := s.starting; w != nil {
		if w.release == rel && w.beside == beside && anew { // asking twice joins the one under way
			s.join(reply)
			return
		}
		refuse("a handover to %s is under way; wait for its end", w.release.name())
		return
	}
	if s.beside != nil {
		s.settleBeside(rel, beside, reply, refuse)
		return
	}
	if rel == s.serving.release && s.onTrial(rel) {
		s.tellStatusAgain()
		answer(reply, Reply{Release: rel.name(), Already: true})
		return
	}
	if rel == s.serving.release && !anew {
		if s.reloading != nil {
			refuse("the worker reads its configuration again already; wait for its end")
			return
		}
		s.reload(reply)
		return
	}
	if len(s.draining) >= s.opts.MaxDraining {
		refuse("%d old workers still drain, and --max-draining= allows no more; the first one ends in %s at the latest",
			len(s.draining), time.Until(s.draining[0].deadline).Round(time.Second))
		return
	}
	switch err := s.start(rel, beside); {
	case faultyProgram(err):
		s.emit(journal.WorkerFailed, slog.String("release", rel.name()), slog.Int("generation", s.generation),
			slog.String("reason", err.Error()))
		s.fault(fmt.Sprintf("%s never started: %v", rel.name(), err), reply)
		return
	case err != nil:
		refuse("%v", err)
		return
	}
	s.join(reply)
}

// fault tells that a release is no good: in the status, where the daemon reads
// the reason, and then to those who wait.
func (s *Supervisor) fault(why string, waiting ...chan<- Reply) {
	s.failure = why
	s.releaseReports()
	s.status("")
	for _, reply := range waiting {
		answer(reply, Reply{Error: why, Stopping: s.stopping})
	}
}

// onTrial tells if next names the release. Without next, asking again for
// the release that serves is the operator's plain graceful restart.
func (s *Supervisor) onTrial(rel release) bool {
	if s.opts.Root == "" {
		return false
	}
	next, err := s.opts.resolve(trial)
	return err == nil && next == rel
}

// start starts a worker. What it is goes into our memory before it exists, and
// its pidfd into the fd store after that: a supervisor that comes after us
// finds it by one or the other.
func (s *Supervisor) start(rel release, beside bool) error {
	s.generation++
	notify, err := listenNotify(s.opts.notifyPath(s.generation))
	if err != nil {
		return err
	}
	w := &worker{
		generation: s.generation, role: roleStarting, release: rel, beside: beside, notify: notify,
		started: time.Now(), listening: s.sockets.listening(),
	}
	s.openAck(w)
	s.starting = w
	_ = s.remember()
	if err := s.spawn(w); err != nil {
		s.starting = nil
		_ = s.remember()
		notify.close()
		w.ack.close()
		return err
	}
	s.failure = ""
	if s.serving != nil { // the first worker has no one to compete with
		s.holdReports()
	}
	s.keepPidfd(w.generation, w.pid, w.pidfd)
	_ = s.remember()
	s.setDeadline(w, s.opts.StartTimeout, s.startTooLong)
	s.watch(w)
	s.tell("EXTEND_TIMEOUT_USEC=" + micros(s.opts.StartTimeout))
	s.emit(journal.WorkerStarting, s.about(w)...)
	s.status("")
	return nil
}

// watch follows the worker's process, notifications and readiness.
func (s *Supervisor) watch(w *worker) {
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	go func() {
		if e, ok := wait(w.pidfd, w.pid); ok {
			s.post(func() { s.gone(w, e) })
		}
	}()
	if w.notify == nil { // an adopted worker that cannot reach us any more
		return
	}
	go w.notify.receive(w.pid, func(n notification) {
		handled := make(chan struct{})
		s.post(func() { s.notified(w, n); close(handled) })
		select { // one at a time, so that a flood waits in the worker
		case <-handled:
		case <-ctx.Done():
			n.close()
		}
	}, func(err error) {
		s.post(func() { s.log.Debug("notification refused", "pid", w.pid, "error", err) })
	})
	if w.ack != nil {
		go w.ack.receive(w.pid, func() {
			s.post(func() { s.ready(w) })
		}, func(err error) {
			s.post(func() { s.log.Debug("acknowledgement refused", "pid", w.pid, "error", err) })
		})
	}
	if w.role == roleStarting && s.opts.Ready.Kind != ReadyNotify {
		s.watchReady(ctx, w)
	}
}

// openAck opens the socket for what a worker of einhorn's says. Without it the
// worker can still be seen to be ready.
func (s *Supervisor) openAck(w *worker) {
	if s.opts.Pass != PassEinhorn {
		return
	}
	ack, err := listenAck(s.opts.ackPath(w.generation))
	if err != nil {
		s.log.Warn("a worker without einhorn's socket", "generation", w.generation, "error", err)
	}
	w.ack = ack
}

// watchReady looks whether a worker is ready until it is, by whatever means, or
// ctx ends.
func (s *Supervisor) watchReady(ctx context.Context, w *worker) {
	ctx, w.decided = context.WithCancel(ctx)
	s.asking++
	go func() {
		err := s.opts.Ready.watchReady(ctx, w)
		s.post(func() {
			s.asking--
			s.buryOrphans()
			switch {
			case err == nil:
				s.ready(w)
			case ctx.Err() == nil:
				s.log.Warn("looking whether the worker is ready", "error", err)
			}
		})
	}()
}

// ready promotes the worker on trial.
func (s *Supervisor) ready(w *worker) {
	if w != s.starting || w.failed != nil {
		return
	}
	if w.decided != nil {
		w.decided()
	}
	old := s.serving
	first := old == nil && s.lost == nil
	w.timer.Stop()
	w.took = time.Since(w.started)
	if w.beside && old != nil {
		s.joins(w)
		return
	}
	w.role, w.deadline, w.stored = roleServing, time.Time{}, nil
	s.starting, s.serving, s.lost = nil, w, nil
	s.pat(w)
	if old != nil { // both take connections until the old one is told
		s.leaves(old, w)
		s.holdReports()
	} else {
		_ = s.remember()
	}
	s.emit(journal.WorkerReady, append(s.about(w), slog.Duration("took", w.took))...)
	if old != nil {
		s.drain(old, s.opts.StopSignal)
	}
	if r := s.reloading; r != nil { // the new one has read it, since it was started later
		s.reloadEnded(r, nil)
	}
	if len(s.waiting) > 0 { // they read the status next
		s.releaseReports()
	}
	s.status("") // with READY=1 it has to be true already
	if first {
		s.tell("READY=1")
	}
	s.answerAll(w)
	s.rest()
}

// leaves begins the account of a handover from old to w.
func (s *Supervisor) leaves(old, w *worker) {
	s.last = &statusline.Handover{Ready: w.took, Connections: statusline.Unknown, Cut: statusline.Unknown}
	s.left = old
}

// answerAll tells those who wait that w serves.
func (s *Supervisor) answerAll(w *worker) {
	for _, reply := range s.waiting {
		answer(reply, Reply{Release: w.release.name()})
	}
	s.waiting = nil
}

// join has reply wait for the end of the handover under way.
func (s *Supervisor) join(reply chan<- Reply) {
	if reply != nil {
		s.waiting = append(s.waiting, reply)
	}
}

func answer(reply chan<- Reply, r Reply) {
	if reply != nil {
		reply <- r
	}
}

// startTooLong gives a worker up that did not become ready in time.
func (s *Supervisor) startTooLong(w *worker) {
	why := fmt.Errorf("was not ready after %s", time.Since(w.started).Round(time.Millisecond))
	if s.opts.Ready.Kind == ReadyAccepting {
		if err := waitsOnAll(w.pid, w.listening); err != nil {
			why = fmt.Errorf("%w: %w", why, err)
		}
	}
	w.failed = why
	s.end(w)
}

// end has a worker that never served finish what it may have taken, and kills it
// if it does not.
func (s *Supervisor) end(w *worker) {
	if err := w.signal(s.opts.StopSignal); err != nil {
		w.kill()
	}
	_ = w.signal(syscall.SIGCONT) // a stopped process would never see it
	s.after(trialLimit, func() {
		if !w.over {
			w.kill()
		}
	})
}

// drain asks a worker to end once it has finished what it has.
func (s *Supervisor) drain(w *worker, sig syscall.Signal) {
	w.role, w.drainStart = roleDraining, time.Now()
	if w.alive != nil {
		w.alive.Stop()
	}
	s.draining = append(s.draining, w)
	s.setDeadline(w, s.opts.DrainTimeout, s.drainTooLong)
	_ = s.remember() // before it is told: a restart of ours must not choose it
	if w == s.left {
		s.countConnections(w)
	}
	if err := w.signal(sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.log.Warn("asking the worker to drain", "pid", w.pid, "error", err)
	}
	// A stopped process would never see the signal.
	_ = w.signal(syscall.SIGCONT)
	s.emit(journal.WorkerDraining, append(s.about(w), slog.Duration("limit", s.opts.DrainTimeout))...)
	s.status("")
}

// drainTooLong ends a worker whose time is over, with its process group.
func (s *Supervisor) drainTooLong(w *worker) {
	w.failed = fmt.Errorf("still there after %s", s.opts.DrainTimeout)
	if w == s.left {
		s.last.Cut = count(w.pid, s.sockets.listening(), fewSockets)
	}
	w.kill()
}

// setDeadline arms the timer of the worker's phase.
func (s *Supervisor) setDeadline(w *worker, d time.Duration, late func(*worker)) {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.deadline = time.Now().Add(d)
	phase := w.role
	w.timer = s.after(d, func() {
		if !w.over && w.role == phase && w.failed == nil && time.Until(w.deadline) <= 0 {
			late(w)
		}
	})
}
