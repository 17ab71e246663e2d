package supervisor

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// notified obeys one datagram of a worker.
func (s *Supervisor) notified(w *worker, n notification) {
	defer n.close()
	if w.over {
		return
	}
	speaks := w == s.serving || w == s.beside || w == s.starting
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
	if w == s.serving && n.watchdogEvery > 0 && s.watchdog > 0 {
		s.watchdog = n.watchdogEvery
		s.tell("WATCHDOG_USEC=" + fmt.Sprint(n.watchdogEvery.Microseconds()))
	}
	if w == s.serving || w == s.beside {
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
	s.heardReload(w, n)
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
		_ = s.remember()
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
	if w != s.serving {
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

// pat starts the watchdog of a worker that serves anew.
func (s *Supervisor) pat(w *worker) {
	if s.watchdog == 0 || w.role != roleServing && w.role != roleBeside {
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
	if w != s.serving && w != s.beside {
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
