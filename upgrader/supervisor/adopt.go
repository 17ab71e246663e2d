package supervisor

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/statusline"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// estate is what another supervisor of this unit left in the fd store.
type estate struct {
	memory   *memory
	pidfds   map[string]*os.File // by name
	notifies map[string]*os.File // by name, of workers that the same process had
	control  *net.UnixListener
	// inPlace: that supervisor was this very process.
	inPlace bool
}

// inherit sorts what systemd passed: the workers' sockets, and what is our
// own. It owns the files.
func (s *Supervisor) inherit(files []*os.File) (estate, error) {
	left := estate{pidfds: map[string]*os.File{}, notifies: map[string]*os.File{}}
	for _, f := range files {
		name := f.Name()
		switch {
		case name == memoryName && left.memory == nil:
			m, err := openMemory(f)
			if err != nil {
				return left, err
			}
			left.memory = m
		case name == controlName:
			l, err := keptControl(f)
			if err != nil {
				return left, err
			}
			left.control = l
		case strings.HasPrefix(name, notifyPrefix):
			left.notifies[name] = f
		case strings.HasPrefix(name, internal):
			if old := left.pidfds[name]; old != nil {
				old.Close()
			}
			left.pidfds[name] = f
		default:
			if err := s.sockets.add(name, f); err != nil {
				return left, err
			}
		}
	}
	return left, nil
}

// adopt takes over the workers that live. It is called once, before the
// first worker is started.
func (s *Supervisor) adopt(left estate) {
	s.memory = left.memory
	if s.memory == nil && os.Getenv("NOTIFY_SOCKET") != "" {
		m, err := newMemory()
		if err != nil {
			s.log.Warn("going on without a memory: a supervisor that is killed loses its workers", "error", err)
		}
		s.memory = m
	}
	if s.memory != nil {
		if f := s.memory.last.Failure; !strings.HasPrefix(f, statusline.Refused) {
			s.failure = f
		}
		if len(left.pidfds) > 0 { // else nobody waits on the sockets
			s.sockets.unblock(s.memory.last.Nonblocking)
		}
		s.generation = s.memory.last.Generation
		for _, r := range s.memory.last.Workers {
			name := pidfdName(r.Generation)
			pidfd := left.pidfds[name]
			delete(left.pidfds, name)
			if pidfd != nil {
				s.adoptWorker(r, pidfd, left)
				continue
			}
			// Its supervisor was killed a moment after it was started.
			r.PID, pidfd = findReporting(unitProcesses(), s.opts.notifyPath(r.Generation))
			if pidfd == nil {
				continue
			}
			s.keepPidfd(r.Generation, r.PID, pidfd)
			s.adoptWorker(r, pidfd, left)
		}
	}
	for name, f := range left.pidfds { // none is left where memory is whole
		f.Close()
		s.forget(name)
	}
	if len(s.workers()) == 0 {
		if n := sweep(); n > 0 {
			s.emit(journal.LeftoversKilled, slog.Int("count", n))
		}
		return
	}
	if s.serving == nil && s.beside != nil { // the other ended while nobody looked
		s.promote()
	}
	_ = s.remember()
	s.status("")
	if s.serving != nil {
		s.tell("READY=1")
	}
	s.rest()
}

// adoptWorker takes one worker over, if it lives. One of this process's own that
// does not is still to be buried.
func (s *Supervisor) adoptWorker(r remembered, stored *os.File, left estate) {
	kept := left.notifies[notifyPrefix+strconv.Itoa(r.Generation)]
	// A pidfd from the fd store is in blocking mode or not as its last
	// holder left it; ours must be watched by the poller.
	fd, err := dupFD(stored)
	stored.Close()
	if err != nil || !left.inPlace && !alive(fd) {
		if err == nil {
			unix.Close(fd)
		}
		kept.Close() // nil is no error worth a word
		s.forget(pidfdName(r.Generation))
		return
	}
	w := &worker{
		generation: r.Generation, pid: r.PID, pidfd: pidfdFile(fd), role: r.Role,
		release: rememberedRelease(r), started: time.Now(), status: r.Status,
		listening: s.sockets.listening(),
	}
	notify, err := s.renewNotify(s.opts.notifyPath(r.Generation), kept)
	if err != nil {
		s.log.Warn("adopting a worker without its notify socket", "pid", w.pid, "error", err)
	}
	w.notify = notify
	s.openAck(w)
	switch r.Role {
	case roleServing:
		s.serving = w
		w.timer = time.NewTimer(time.Hour)
		w.timer.Stop()
		s.pat(w)
	case roleBeside:
		s.beside, w.beside = w, true
		w.timer = time.NewTimer(time.Hour)
		w.timer.Stop()
		s.pat(w)
	case roleStarting:
		// Unproven, and nobody waits for it any more; but it may have taken a
		// connection already, which it may finish.
		s.emit(journal.WorkerFailed, append(s.about(w),
			slog.String("reason", fmt.Sprintf("worker %d was on trial when the supervisor ended, and is stopped", w.pid)))...)
		s.adoptDraining(w, min(trialLimit, s.opts.DrainTimeout), true)
	case roleDraining:
		s.adoptDraining(w, max(0, time.Duration(r.Deadline-monotonic())), !left.inPlace)
	}
	s.watch(w)
	s.emit(journal.WorkerAdopted, append(s.about(w), slog.String("role", string(r.Role)))...)
}

// renewNotify opens a worker's notify socket, or takes the one that was kept.
func (s *Supervisor) renewNotify(path string, kept *os.File) (*notifySocket, error) {
	if kept == nil {
		return listenNotify(path)
	}
	conn, err := net.FileConn(kept)
	kept.Close()
	if err != nil {
		return nil, fmt.Errorf("take the notify socket over: %w", err)
	}
	return &notifySocket{path: path, conn: conn.(*net.UnixConn)}, nil
}

// trialLimit is how long a worker may finish what it has that was on trial when
// its supervisor was killed: it must not serve for long.
const trialLimit = 5 * time.Second

// adoptDraining has a worker end within limit. ask is false where it was told
// for certain: to many programs a second SIGTERM means at once.
func (s *Supervisor) adoptDraining(w *worker, limit time.Duration, ask bool) {
	w.role, w.drainStart = roleDraining, time.Now()
	s.draining = append(s.draining, w)
	s.setDeadline(w, limit, s.drainTooLong)
	if ask { // the one before us may have died between recording and signalling
		_ = w.signal(s.opts.StopSignal)
	}
}

func rememberedRelease(r remembered) release {
	rel := release{program: r.Program}
	if r.Release != "" {
		var err error
		if rel.Release, err = store.ParseRelease(r.Release); err != nil { // its name is not of the store
			rel.Release = store.Release{Name: r.Release}
		}
	}
	return rel
}

// alive tells if the process of a pidfd is not over.
func alive(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 0 && unix.PidfdSendSignal(pidfd, syscall.Signal(0), nil, 0) == nil
}

// forget takes a name of ours out of the fd store.
func (s *Supervisor) forget(name string) {
	if err := unkeep(name); err != nil {
		s.log.Warn("taking a descriptor out of the fd store", "error", fmt.Errorf("%s: %w", filepath.Base(name), err))
	}
}
