package supervisor

import (
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// gone buries a worker.
func (s *Supervisor) gone(w *worker, e Exit) {
	w.over = true
	w.stop()
	w.timer.Stop()
	if w.alive != nil {
		w.alive.Stop()
	}
	w.notify.close()
	w.ack.close()
	w.pidfd.Close()
	// With the reports: systemd has time to close it, and who finds it there
	// meanwhile finds a process that is over.
	s.say(func() { s.forget(pidfdName(w.generation)) })
	switch w.role {
	case roleStarting:
		s.failedToStart(w, e)
	case roleServing:
		s.servingEnded(w, e)
	case roleBeside:
		s.besideEnded(w, e)
	case roleDraining:
		s.drained(w, e)
	}
	if r := s.reloading; r != nil && r.w == w {
		s.reloadEnded(r, fmt.Errorf("worker %d %s", w.pid, e))
	}
	s.buryOrphans()
	if s.result == nil { // else the next supervisor needs what is remembered
		_ = s.remember()
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
	reason := fmt.Sprintf("worker %d %v", w.pid, why)
	s.emit(journal.WorkerFailed, append(s.about(w), slog.String("reason", reason), slog.String("exit", e.String()))...)
	s.fault(w.release.name()+" never served: "+reason, s.waiting...)
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
	if s.beside != nil {
		s.promote()
		return
	}
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
	took := time.Since(w.drainStart)
	if w == s.left {
		s.last.Drained, s.last.Killed, s.left = took, w.failed != nil, nil
	}
	attrs := append(s.about(w), slog.String("exit", e.String()), slog.Duration("took", took))
	if w.failed != nil {
		s.emit(journal.WorkerKilled, append(attrs, slog.String("reason", w.failed.Error()))...)
		return
	}
	s.emit(journal.WorkerDrained, attrs...)
}
