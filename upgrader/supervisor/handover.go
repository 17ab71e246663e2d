package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
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
// reply gets the outcome, once; it must have room for it.
func (s *Supervisor) handover(reply chan<- Reply) {
	refuse := func(format string, args ...any) {
		why := fmt.Sprintf(format, args...)
		s.emit(journal.HandoverRefused, slog.String("reason", why))
		s.failure = statusline.Refused + why
		s.status("") // before the answer: who waits for the job reads it next
		s.after(refusedShown, func() {
			if strings.HasPrefix(s.failure, statusline.Refused) {
				s.failure = ""
				s.status("")
			}
		})
		reply <- Reply{Error: why}
	}
	if s.stopping {
		refuse("the unit is stopping")
		return
	}
	if s.serving == nil {
		refuse("no worker serves yet: wait until the unit is active")
		return
	}
	rel, err := s.opts.pick(true)
	if err != nil {
		refuse("%v", err)
		return
	}
	if w := s.starting; w != nil {
		if w.release == rel { // asking twice joins the one under way
			s.waiting = append(s.waiting, reply)
			return
		}
		refuse("a handover to %s is under way; wait for its end", w.release.name())
		return
	}
	if rel == s.serving.release && s.onTrial(rel) {
		reply <- Reply{Release: rel.name(), Already: true}
		return
	}
	if len(s.draining) >= s.opts.MaxDraining {
		refuse("%d old workers still drain, and --max-draining= allows no more; the first one ends in %s at the latest",
			len(s.draining), time.Until(s.draining[0].deadline).Round(time.Second))
		return
	}
	switch err := s.start(rel); {
	case errors.Is(err, errProgram):
		s.fault(fmt.Sprintf("%s never started: %v", rel.name(), err), reply)
		return
	case err != nil:
		refuse("%v", err)
		return
	}
	s.waiting = append(s.waiting, reply)
}

// fault tells that a release is no good: in the status, where the daemon reads
// the reason, and then to those who wait.
func (s *Supervisor) fault(why string, waiting ...chan<- Reply) {
	s.failure = why
	s.status("")
	for _, reply := range waiting {
		reply <- Reply{Error: why}
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

// start spawns a worker and lets it run once systemd and our own memory know
// of it.
func (s *Supervisor) start(rel release) error {
	s.generation++
	path := s.opts.notifyPath(s.generation)
	notify, err := listenNotify(path)
	if err != nil {
		return err
	}
	w, gate, err := s.spawn(rel, s.generation, path)
	if err != nil {
		notify.close()
		return err
	}
	defer gate.Close()
	w.notify = notify
	s.starting, s.failure = w, ""
	s.setDeadline(w, s.opts.StartTimeout, s.startTooLong)
	s.tell("EXTEND_TIMEOUT_USEC=" + micros(s.opts.StartTimeout))
	s.remember(w)
	s.watch(w)
	if _, err := gate.Write([]byte{1}); err != nil {
		s.log.Warn("opening the gate of a worker that is gone", "pid", w.pid, "error", err)
	}
	s.emit(journal.WorkerStarting, s.about(w)...)
	s.status("")
	return nil
}

// remember puts the worker's pidfd into the fd store and its role into our
// memory. Without them a supervisor that was killed could not find it again,
// so not being able to is worth a warning, but no reason to stop serving.
func (s *Supervisor) remember(w *worker) {
	if w != nil {
		if err := keep(pidfdName(w.generation), w.pidfd); err != nil {
			s.log.Warn("keeping the worker's pidfd in the fd store", "pid", w.pid, "error", err)
		}
	}
	m := memoir{Generation: s.generation, Nonblocking: s.sockets.nonblocking()}
	now := time.Now()
	for _, w := range s.workers() {
		r := remembered{
			Generation: w.generation, PID: w.pid, Role: w.role,
			Release: w.release.Name, Program: w.release.program, Status: w.status,
		}
		if w.role == roleDraining {
			r.Deadline = monotonic() + int64(w.deadline.Sub(now))
		}
		m.Workers = append(m.Workers, r)
	}
	if err := s.memory.save(m); err != nil {
		s.log.Warn("remembering the workers", "error", err)
	}
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
	if w.role == roleStarting && s.opts.Ready.Kind != ReadyNotify {
		go func() {
			if err := s.opts.Ready.watchReady(ctx, w); err == nil {
				s.post(func() { s.ready(w) })
			} else if ctx.Err() == nil {
				s.post(func() { s.log.Warn("looking whether the worker is ready", "error", err) })
			}
		}()
	}
}

// ready promotes the worker on trial.
func (s *Supervisor) ready(w *worker) {
	if w != s.starting || w.failed != nil {
		return
	}
	old := s.serving
	first := old == nil && s.lost == nil
	w.timer.Stop()
	w.role, w.deadline, w.stored = roleServing, time.Time{}, nil
	s.starting, s.serving, s.lost = nil, w, nil
	s.pat(w)
	s.remember(nil) // before the old one is told: a restart of ours must not choose it
	s.status("")    // with READY=1 it has to be true already
	if first {
		s.tell("READY=1")
	}
	s.emit(journal.WorkerReady, append(s.about(w), slog.Duration("took", time.Since(w.started)))...)
	if old != nil {
		s.drain(old)
	}
	s.answer(Reply{Release: w.release.name()})
	s.rest()
}

// answer ends the handover for all who asked for it.
func (s *Supervisor) answer(r Reply) {
	for _, reply := range s.waiting {
		reply <- r
	}
	s.waiting = nil
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
	w.kill()
}

// drain asks a worker to end once it has finished what it has.
func (s *Supervisor) drain(w *worker) {
	w.role, w.drainStart = roleDraining, time.Now()
	if w.alive != nil {
		w.alive.Stop()
	}
	s.draining = append(s.draining, w)
	s.setDeadline(w, s.opts.DrainTimeout, s.drainTooLong)
	s.remember(nil)
	if err := w.signal(s.opts.StopSignal); err != nil && !errors.Is(err, syscall.ESRCH) {
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

// gone buries a worker.
func (s *Supervisor) gone(w *worker, e Exit) {
	w.over = true
	w.stop()
	w.timer.Stop()
	if w.alive != nil {
		w.alive.Stop()
	}
	w.notify.close()
	w.pidfd.Close()
	if err := unkeep(pidfdName(w.generation)); err != nil {
		s.log.Warn("taking a worker's pidfd out of the fd store", "error", err)
	}
	switch w.role {
	case roleStarting:
		s.failedToStart(w, e)
	case roleServing:
		s.servingEnded(w, e)
	case roleDraining:
		s.drained(w, e)
	}
	if s.result == nil { // else the next supervisor needs what is remembered
		s.remember(nil)
		s.status("")
		s.rest()
	}
	s.endIfIdle()
}

// failedToStart ends a handover without effect.
func (s *Supervisor) failedToStart(w *worker, e Exit) {
	s.starting = nil
	for _, name := range w.stored {
		s.unstore(name)
	}
	why := w.failed
	if why == nil {
		why = fmt.Errorf("%s, %s after its start and before it was ready", e, time.Since(w.started).Round(time.Millisecond))
	}
	s.emit(journal.WorkerFailed, append(s.about(w), slog.String("reason", why.Error()), slog.String("exit", e.String()))...)
	s.fault(fmt.Sprintf("%s never served: worker %d %v", w.release.name(), w.pid, why), s.waiting...)
	s.waiting = nil
	switch {
	case s.stopping:
	case s.lost != nil:
		s.finish(*s.lost)
	case s.serving == nil:
		if w.failed != nil { // we killed it: that is our failure, not a signal from outside
			e = Exit{known: true, status: syscall.WaitStatus(1 << 8)}
		}
		s.finish(e)
	}
}

// servingEnded: nobody asked for it, so its status becomes ours and
// systemd's Restart= decides. Where another worker is starting, that one may
// save the unit.
func (s *Supervisor) servingEnded(w *worker, e Exit) {
	s.serving = nil
	s.emit(journal.WorkerEnded, append(s.about(w), slog.String("exit", e.String()))...)
	if s.starting != nil {
		s.lost = &e
		return
	}
	if e.known && e.status == 0 && len(s.draining) > 0 {
		// systemd does not restart after a clean end, so the unit is over:
		// but only when the others have finished.
		s.stopping = true
		s.tell("STOPPING=1", "EXTEND_TIMEOUT_USEC="+micros(s.opts.DrainTimeout))
		return
	}
	s.finish(e)
}

// drained is the end of an old worker.
func (s *Supervisor) drained(w *worker, e Exit) {
	for i, d := range s.draining {
		if d == w {
			s.draining = append(s.draining[:i], s.draining[i+1:]...)
			break
		}
	}
	attrs := append(s.about(w), slog.String("exit", e.String()), slog.Duration("took", time.Since(w.drainStart)))
	if w.failed != nil {
		s.emit(journal.WorkerKilled, append(attrs, slog.String("reason", w.failed.Error()))...)
		return
	}
	s.emit(journal.WorkerDrained, attrs...)
}

// about are the attributes that tell one worker from another.
func (s *Supervisor) about(w *worker) []slog.Attr {
	return []slog.Attr{
		slog.String("release", w.release.name()), slog.Int("pid", w.pid), slog.Int("generation", w.generation),
	}
}

// emit writes one event of the unit's story.
func (s *Supervisor) emit(e journal.Event, attrs ...slog.Attr) {
	journal.Emit(context.Background(), s.log, e, attrs...)
}

// pidfdName is the worker's name in the fd store.
func pidfdName(generation int) string { return fmt.Sprintf("%sworker.%d", internal, generation) }

// notified obeys one datagram of a worker.
func (s *Supervisor) notified(w *worker, n notification) {
	defer n.close()
	if w.over {
		return
	}
	speaks := w == s.serving || w == s.starting
	if n.status != nil && speaks {
		w.status = *n.status
		s.status("")
	}
	if n.extend > 0 {
		s.extend(w, n.extend)
	}
	if n.store && speaks {
		s.store(w, n)
	}
	if n.unstore && w == s.serving {
		s.unstore(n.fdName)
	}
	if w == s.serving {
		if n.watchdogEvery > 0 && s.watchdog > 0 {
			s.watchdog = n.watchdogEvery
			s.tell("WATCHDOG_USEC=" + fmt.Sprint(n.watchdogEvery.Microseconds()))
		}
		if n.watchdog {
			s.pat(w)
		}
		if n.watchdogTrigger {
			s.stalled(w)
		}
	}
	if n.ready {
		s.ready(w)
	}
}

// extend moves the deadline of the worker's phase: at least d from now.
func (s *Supervisor) extend(w *worker, d time.Duration) {
	if w.deadline.IsZero() || time.Until(w.deadline) >= d {
		return
	}
	late := s.startTooLong
	if w.role == roleDraining {
		late = s.drainTooLong
	}
	s.setDeadline(w, d, late)
	if w.role == roleStarting || s.stopping {
		s.tell("EXTEND_TIMEOUT_USEC=" + micros(d))
	}
	if w.role == roleDraining {
		s.remember(nil)
	}
}

// maxStored bounds what a worker may put into the fd store, so that a flood
// does not take the supervisor's descriptors.
const maxStored = 128

// store keeps descriptors for the workers that come after, as systemd does.
func (s *Supervisor) store(w *worker, n notification) {
	name := n.fdName
	if name == "" {
		name = "stored" // sd_pid_notify_with_fds(3)
	}
	if err := validName(name); err != nil {
		s.log.Warn("storing a descriptor", "pid", w.pid, "error", err)
		return
	}
	files := n.files
	n.files = nil
	for i, f := range files {
		if len(s.sockets.all()) >= maxStored {
			s.log.Warn("the fd store is full", "pid", w.pid, "name", name, "limit", maxStored)
			closeAll(files[i:])
			return
		}
		if err := keep(name, f); err != nil {
			s.log.Warn("storing a descriptor", "pid", w.pid, "name", name, "error", err)
		}
		if err := s.sockets.add(name, f); err != nil {
			s.log.Warn("storing a descriptor", "pid", w.pid, "error", err)
		}
	}
	if w == s.starting {
		w.stored = append(w.stored, name)
	}
}

// unstore forgets all descriptors of a name.
func (s *Supervisor) unstore(name string) {
	if strings.HasPrefix(name, internal) {
		return
	}
	s.sockets.remove(name)
	if err := unkeep(name); err != nil {
		s.log.Warn("removing from the fd store", "name", name, "error", err)
	}
}

// pat starts the watchdog of the serving worker anew.
func (s *Supervisor) pat(w *worker) {
	if s.watchdog == 0 || w.role != roleServing {
		return
	}
	if w.alive != nil {
		w.alive.Stop()
	}
	w.alive = s.after(s.watchdog, func() { s.stalled(w) })
}

// stalled ends a worker that missed its watchdog, with SIGABRT as systemd
// would: then it has ended by itself.
func (s *Supervisor) stalled(w *worker) {
	if w != s.serving {
		return
	}
	s.emit(journal.WorkerStalled, append(s.about(w), slog.Duration("limit", s.watchdog))...)
	_ = w.signal(syscall.SIGABRT)
	// One that ignores the signal is ended at the next turn of the timer.
	w.alive = s.after(s.watchdog, w.kill)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
