package supervisor

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// Two releases serve beside each other where the link of that name is in the store
// when a handover is asked for: the new worker becomes ready, and the old one is
// not told. Both accept from the same sockets until the next handover, which the
// links decide again:
//
//	next names the new one        the old one drains, the new one stays
//	neither next nor beside       the new one drains, the old one stays
//
// The unit's own worker is the old one meanwhile: its STATUS= is the unit's, and
// any start of the unit runs it. Where it ends by itself, the new one goes on.

// joins has a worker serve beside the one that does.
func (s *Supervisor) joins(w *worker) {
	w.role, w.deadline = roleBeside, time.Time{}
	s.starting, s.beside = nil, w
	s.pat(w)
	_ = s.remember()
	s.emit(journal.WorkerBeside, append(s.about(w), slog.String("beside", s.serving.release.name()), slog.Duration("took", w.took))...)
	s.releaseReports() // who waits reads the status next
	s.status("")
	s.answerAll(w)
	s.rest()
}

// settleBeside is a handover while two releases serve.
func (s *Supervisor) settleBeside(rel release, beside bool, reply chan<- Reply, refuse func(string, ...any)) {
	old, w := s.serving, s.beside
	switch {
	case !beside && rel == w.release:
		s.leaves(old, w)
		s.holdReports()
		s.promote()
		s.drain(old, s.opts.StopSignal)
	case rel == old.release:
		s.beside = nil
		for _, name := range w.stored {
			s.unstore(name)
		}
		s.drain(w, s.opts.StopSignal)
	default:
		refuse("%s and %s serve beside each other: confirm or roll back first", old.release.name(), w.release.name())
		return
	}
	s.failure = "" // of who asked before it was decided
	s.releaseReports()
	s.status("")
	answer(reply, Reply{Release: s.serving.release.name()})
	s.rest()
}

// promote makes the worker beside the one that serves.
func (s *Supervisor) promote() {
	w := s.beside
	w.role, w.beside, w.stored = roleServing, false, nil
	s.serving, s.beside = w, nil
	s.emit(journal.WorkerReady, append(s.about(w), slog.Duration("took", w.took))...)
}

// besideEnded is the end of a new worker that nobody asked for: the old one goes on
// alone.
func (s *Supervisor) besideEnded(w *worker, e Exit) {
	s.beside = nil
	for _, name := range w.stored {
		s.unstore(name)
	}
	old := "nothing"
	if s.serving != nil {
		old = s.serving.release.name()
	}
	s.emit(journal.BesideEnded, append(s.about(w), slog.String("beside", old), slog.String("exit", e.String()))...)
	s.fault(fmt.Sprintf("%s: worker %d %s while it served beside %s", w.release.name(), w.pid, e, old))
}
