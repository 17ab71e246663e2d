package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/activation"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/statusline"
	"github.com/upgraderd/upgraderd/upgrader/supervisor/spawn"
)

// Supervisor is the state of one run. It belongs to the goroutine in loop.
type Supervisor struct {
	opts     Options
	log      *slog.Logger
	sockets  socketSet
	memory   *memory
	control  *net.UnixListener
	renewal  renewal
	watchdog time.Duration // the unit's WatchdogSec=, 0 for none

	generation int
	serving    *worker
	beside     *worker // nil but while two releases serve, see beside.go
	starting   *worker
	draining   []*worker
	reloading  *reloading // nil while no reload is waited for
	// waiting are those who asked for the handover under way.
	waiting []chan<- Reply
	// lost is how the serving worker ended while another was starting.
	lost *Exit

	// last is how the last handover went, nil before there was one, and left the
	// worker that it took the place of.
	last *statusline.Handover
	left *worker

	asking   int  // looks whether a worker is ready, which may have a command run
	waits    bool // for the first release
	stopping bool
	reports  reports
	// failure is why the last handover came to nothing, for the status:
	// that is where the daemon, and a person, look for the reason.
	failure string
	signals chan os.Signal
	// orphaned is nil unless this is process 1.
	orphaned chan os.Signal
	inbox    chan func() // what watchers saw, run by the owner
	ended    chan struct{}
	resting  *time.Timer // until shrink
	result   *Exit       // set when it is time to leave
}

// Run supervises until the unit is stopped, or its worker ends by itself: then
// [Exit.Become] is how this process should end. The error tells why
// supervising could not begin.
func Run(opts Options) (Exit, error) {
	opts, err := opts.complete()
	if err != nil {
		return Exit{}, err
	}
	watchdog, err := activation.WatchdogInterval()
	if err != nil {
		return Exit{}, err
	}
	s := &Supervisor{
		opts: opts, log: opts.Log, watchdog: watchdog,
		inbox: make(chan func()), ended: make(chan struct{}), renewal: newRenewal(),
	}
	return s.run()
}

// Hear begins to listen for the usual signals, for [Options.Signals]: a program
// that will be a supervisor calls it first of all, see become.
func Hear() chan os.Signal { return hear(usualMeaning()) }

func hear(meaning map[syscall.Signal]Meaning) chan os.Signal {
	c := make(chan os.Signal, 8)
	signal.Notify(c, heard(meaning)...)
	return c
}

// heard are the signals that mean something to a supervisor.
func heard(meaning map[syscall.Signal]Meaning) (all []os.Signal) {
	for sig := range meaning {
		all = append(all, sig)
	}
	return all
}

func (s *Supervisor) run() (Exit, error) {
	spawn.RestoreFileLimit()
	if s.signals = s.opts.Signals; s.signals == nil {
		s.signals = hear(s.opts.Meaning)
	}
	defer signal.Stop(s.signals)
	end := sync.OnceFunc(func() { close(s.ended) })
	defer end()
	if s.orphaned = orphans(s.opts); s.orphaned != nil {
		defer signal.Stop(s.orphaned)
	}

	files, err := activation.Files()
	if err != nil {
		return Exit{}, fmt.Errorf("take the sockets from systemd: %w", err)
	}
	kept, err := takeKept()
	if err != nil {
		return Exit{}, err
	}
	left, err := s.inherit(append(files, kept...))
	if err != nil {
		return Exit{}, err
	}
	left.inPlace = len(kept) > 0
	for _, l := range s.opts.Listen {
		if err := s.sockets.open(context.Background(), l); err != nil {
			return Exit{}, err
		}
	}
	if s.control = left.control; s.control == nil {
		if s.control, err = listenControl(s.opts.RuntimeDir); err != nil {
			return Exit{}, err
		}
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		serveControl(s.control, s.ask)
	}()
	defer func() {
		closeControl(s.control, s.opts.RuntimeDir)
		end()
		<-answered
	}()

	if left.inPlace {
		s.emit(journal.SupervisorRenewed, slog.String("path", s.renewal.path))
	}
	s.adopt(left)
	if s.serving == nil {
		s.startFirst()
	}
	return s.loop(), nil
}

func closeControl(l *net.UnixListener, runtimeDir string) {
	l.Close()
	_ = os.Remove(controlPath(runtimeDir))
}

// loop owns the state: one thing at a time, until there is a result.
func (s *Supervisor) loop() Exit {
	var ping <-chan time.Time
	if s.watchdog > 0 {
		t := time.NewTicker(s.watchdog / 2) // sd_watchdog_enabled(3) advises half
		defer t.Stop()
		ping = t.C
		s.tell("WATCHDOG=1") // a renewal may have come late in the turn before
	}
	renew := time.NewTicker(s.opts.renewEvery)
	defer renew.Stop()
	for s.result == nil {
		select {
		case f := <-s.inbox:
			f()
		case sig := <-s.signals:
			s.signalled(sig.(syscall.Signal))
		case <-s.orphaned:
			s.buryOrphans()
		case <-ping:
			s.tell("WATCHDOG=1")
		case <-renew.C:
			s.renew()
		}
	}
	return *s.result
}

// post hands something seen to the owner; it is dropped after the end.
func (s *Supervisor) post(f func()) {
	select {
	case s.inbox <- f:
	case <-s.ended:
	}
}

// after posts f when d has passed.
func (s *Supervisor) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { s.post(f) })
}

// signalled does what a signal means.
func (s *Supervisor) signalled(sig syscall.Signal) {
	switch s.opts.Meaning[sig] {
	case Handover:
		s.handover(nil, true) // the outcome is in the journal
	case Forward:
		for _, w := range []*worker{s.serving, s.beside} {
			if w == nil {
				continue
			}
			if err := w.signal(sig); err != nil {
				s.log.Warn("forwarding a signal", "signal", unix.SignalName(sig), "pid", w.pid, "error", err)
			}
		}
	case Stop:
		s.stop(sig)
	}
}

// ask hands a request to the owner and waits for its reply.
func (s *Supervisor) ask(r Request) Reply {
	reply := make(chan Reply, 1)
	s.post(func() {
		switch r.Verb {
		case "handover":
			s.handover(reply, r.New || s.opts.Reload.Signal == 0)
		default:
			reply <- Reply{Error: fmt.Sprintf("verb %q is not known; this supervisor knows handover", r.Verb)}
		}
	})
	select {
	case answer := <-reply:
		return answer
	case <-s.ended:
	}
	select {
	case answer := <-reply: // which came with the end
		return answer
	default:
		return Reply{Error: "the supervisor stopped before the handover was over", Ended: true}
	}
}

// startFirst starts the unit's first worker, or waits for a release to
// appear. Connections queue in the sockets meanwhile, and the unit counts as
// started: a boot must not wait for a release to be published.
func (s *Supervisor) startFirst() {
	if s.stopping || s.serving != nil || s.starting != nil {
		return
	}
	rel, err := s.opts.pick(false)
	switch {
	case errors.Is(err, errNoRelease):
		const again = 200 * time.Millisecond
		if !s.waits {
			s.waits = true
			s.status("no release yet in " + s.opts.Root)
			s.tell("READY=1")
			s.emit(journal.ReleaseAwaited, slog.String("path", s.opts.Root))
		}
		s.after(again, s.startFirst)
	case err != nil:
		s.fail(err)
	default:
		if err := s.start(rel, false); err != nil {
			s.fail(err)
		}
	}
}

// fail ends a supervisor that never had a worker serving.
func (s *Supervisor) fail(err error) {
	s.log.Error("no worker can be started", "error", err)
	s.finish(Exit{known: true, status: syscall.WaitStatus(1 << 8)})
}

// finish makes the loop end; the first result stands.
func (s *Supervisor) finish(e Exit) {
	s.releaseReports()
	if s.result == nil {
		s.result = &e
	}
}

// stop ends every worker: first politely, at the drain limit by force.
func (s *Supervisor) stop(sig syscall.Signal) {
	if s.stopping { // asked twice: somebody is in a hurry
		for _, w := range s.workers() {
			w.kill()
		}
		return
	}
	s.stopping = true
	s.releaseReports()
	s.tell("STOPPING=1", "EXTEND_TIMEOUT_USEC="+micros(s.opts.DrainTimeout))
	s.emit(journal.UnitStopping, slog.String("signal", unix.SignalName(sig)), slog.Int("workers", len(s.workers())))
	if w := s.starting; w != nil {
		w.failed = errors.New("the unit was stopped")
		w.kill()
	}
	serving := []*worker{s.serving, s.beside}
	s.serving, s.beside = nil, nil
	if !s.opts.PassStop {
		sig = s.opts.StopSignal
	}
	for _, w := range serving {
		if w != nil {
			s.drain(w, sig)
		}
	}
	s.endIfIdle()
}

// endIfIdle leaves when a stop has nothing more to wait for.
func (s *Supervisor) endIfIdle() {
	if !s.stopping || len(s.workers()) > 0 {
		return
	}
	if n := sweep(); n > 0 {
		s.emit(journal.LeftoversKilled, slog.Int("count", n))
	}
	s.finish(Exit{known: true})
}

// workers lists all that are alive.
func (s *Supervisor) workers() []*worker {
	all := make([]*worker, 0, len(s.draining)+3)
	for _, w := range []*worker{s.serving, s.beside, s.starting} {
		if w != nil {
			all = append(all, w)
		}
	}
	return append(all, s.draining...)
}
