package supervisor

import (
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

// Reload says what a reload of the unit means while the release that is to run
// serves already. The zero Reload is a handover all the same: a new worker.
type Reload struct {
	// Signal goes to the worker that serves, which reads its configuration again.
	// No process is started.
	Signal syscall.Signal
	// Notify has the reload last until the worker said RELOADING=1, with
	// MONOTONIC_USEC, and then READY=1, as Type=notify-reload of
	// systemd.service(5) has it. With ERRNO= other than 0 it has failed. Without
	// Notify it is over when the signal is sent, and nobody can say how it went.
	Notify bool
}

// ParseReload reads the value of --reload: "handover", a signal's name, or
// "notify=SIGNAL".
func ParseReload(s string) (Reload, error) {
	if s == "handover" {
		return Reload{}, nil
	}
	name, notify := strings.CutPrefix(s, "notify=")
	sig := signalNamed(name)
	switch sig {
	case 0:
		return Reload{}, advice.Give(fmt.Errorf("--reload=%q: not a way to reload", s), "give handover, a signal such as SIGHUP, or notify=SIGNAL")
	case syscall.SIGKILL, syscall.SIGSTOP:
		return Reload{}, advice.Give(fmt.Errorf("--reload=%s: no program can handle %s", s, unix.SignalName(sig)), "give a signal that it handles, such as SIGHUP")
	}
	return Reload{Signal: sig, Notify: notify}, nil
}

// signalNamed reads "SIGQUIT" or "QUIT"; 0 is no signal.
func signalNamed(name string) syscall.Signal {
	return unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
}

// reloading is a worker that was told to read its configuration again, and has
// not said yet how that went.
type reloading struct {
	w     *worker
	reply chan<- Reply
	// since is when it was told, on CLOCK_MONOTONIC: what it says of a reload
	// that began before is of another one.
	since time.Duration
	began time.Time
	begun bool // RELOADING=1 came
	errno int
	timer *time.Timer
}

// reload has the worker that serves read its configuration again. reply gets the
// outcome, once.
func (s *Supervisor) reload(reply chan<- Reply) {
	w, way := s.serving, s.opts.Reload
	r := &reloading{w: w, reply: reply, since: time.Duration(monotonic()).Truncate(time.Microsecond), began: time.Now()}
	if err := w.signal(way.Signal); err != nil {
		s.reloadEnded(r, fmt.Errorf("signal worker %d: %w", w.pid, err))
		return
	}
	s.emit(journal.WorkerTold, append(s.about(w), slog.String("signal", unix.SignalName(way.Signal)))...)
	if !way.Notify {
		s.reloadEnded(r, nil)
		return
	}
	s.reloading = r
	s.setReloadLimit(r, s.opts.StartTimeout)
	s.tell("EXTEND_TIMEOUT_USEC=" + micros(s.opts.StartTimeout))
}

func (s *Supervisor) setReloadLimit(r *reloading, d time.Duration) {
	if r.timer != nil {
		r.timer.Stop()
	}
	r.timer = s.after(d, func() {
		if s.reloading != r {
			return
		}
		missing := "RELOADING=1 with MONOTONIC_USEC"
		if r.begun {
			missing = "READY=1"
		}
		s.reloadEnded(r, fmt.Errorf("worker %d did not say %s within %s", r.w.pid, missing, time.Since(r.began).Round(time.Millisecond)))
	})
}

// heardReload takes what a worker says while it reads its configuration again.
func (s *Supervisor) heardReload(w *worker, n notification) {
	r := s.reloading
	if r == nil || r.w != w {
		return
	}
	if n.reloading >= r.since {
		r.begun = true
	}
	if !r.begun {
		return
	}
	if n.errno != nil {
		r.errno = *n.errno
	}
	if n.extend > 0 {
		s.setReloadLimit(r, n.extend)
		s.tell("EXTEND_TIMEOUT_USEC=" + micros(n.extend))
	}
	switch {
	case !n.ready:
	case r.errno != 0:
		why := syscall.Errno(r.errno).Error()
		if w.status != "" {
			why = w.status
		}
		s.reloadEnded(r, fmt.Errorf("worker %d says: %s", w.pid, journal.Clean(why)))
	default:
		s.reloadEnded(r, nil)
	}
}

// reloadEnded answers a reload.
func (s *Supervisor) reloadEnded(r *reloading, err error) {
	if r.timer != nil {
		r.timer.Stop()
	}
	s.reloading = nil
	if err != nil {
		s.emit(journal.ReloadFailed, append(s.about(r.w), slog.String("reason", err.Error()))...)
		s.fault(statusline.ReloadFailed+err.Error(), r.reply)
		return
	}
	if strings.HasPrefix(s.failure, statusline.ReloadFailed) {
		s.failure = ""
	}
	s.releaseReports()
	s.status("")
	answer(r.reply, Reply{Release: r.w.release.name(), Told: true})
}
