package supervisor

import (
	"cmp"
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/upgraderd/upgraderd/activation"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

// What is said, systemd and journald have to read: on the processors on which
// a new worker starts and the old one hands its clients over, and for about as
// long as a small one takes. So reports wait, in their order, until the handover
// is answered, and for no longer than reportsWait.
const reportsWait = 50 * time.Millisecond

// reports are what systemd and the journal are told.
type reports struct {
	held   []func() // nil while they are not held back
	timer  *time.Timer
	status string // the STATUS= that systemd has
}

// holdReports keeps back what is said from here on.
func (s *Supervisor) holdReports() {
	if s.reports.held == nil {
		s.reports.held = []func(){}
		s.reports.timer = s.after(reportsWait, s.releaseReports)
	}
}

// releaseReports says what was kept back.
func (s *Supervisor) releaseReports() {
	held := s.reports.held
	if held == nil {
		return
	}
	s.reports.timer.Stop()
	s.reports.held = nil
	for _, say := range held {
		say()
	}
	s.status("")
}

// say is where every report passes.
func (s *Supervisor) say(f func()) {
	if s.reports.held != nil {
		s.reports.held = append(s.reports.held, f)
		return
	}
	f()
}

// tell sends assignments to systemd. Outside systemd nobody listens.
func (s *Supervisor) tell(state ...string) {
	s.say(func() {
		if err := activation.Notify(state...); err != nil {
			s.log.Warn("telling systemd", "error", err)
		}
	})
}

// emit writes one event of the unit's story.
func (s *Supervisor) emit(e journal.Event, attrs ...slog.Attr) {
	s.say(func() { journal.Emit(context.Background(), s.log, e, attrs...) })
}

// about are the attributes that tell one worker from another.
func (s *Supervisor) about(w *worker) []slog.Attr {
	return []slog.Attr{
		slog.String("release", w.release.name()), slog.Int("pid", w.pid), slog.Int("generation", w.generation),
	}
}

// status tells systemd which release serves, if that is news. Held back, it is
// what is true when it is said.
func (s *Supervisor) status(note string) {
	if s.reports.held != nil {
		return
	}
	st := statusline.Status{Draining: len(s.draining), Note: note}
	if s.last != nil {
		h := *s.last
		st.Handover = &h
	}
	if w := s.serving; w != nil {
		st.Release, st.PID, st.Generation = w.release.name(), w.pid, w.generation
		if note == "" {
			st.Note = cmp.Or(s.failure, w.status)
		}
	}
	if w := s.beside; w != nil {
		st.Beside, st.BesidePID = w.release.name(), w.pid
	}
	if s.starting != nil {
		st.Starting = s.starting.release.name()
	}
	if text := statusline.Format(st); text != s.reports.status {
		s.reports.status = text
		s.tell("STATUS=" + text)
	}
}

// tellStatusAgain is for who asks for what is so already, and has not heard:
// systemd takes no notice of a unit that was masked, or whose file was gone, when
// it read its units last.
func (s *Supervisor) tellStatusAgain() {
	s.releaseReports()
	s.reports.status = ""
	s.status("")
}

// micros gives d, and some room for our own work after it, in µs.
func micros(d time.Duration) string {
	const room = 10 * time.Second
	return strconv.FormatInt((d + room).Microseconds(), 10)
}
