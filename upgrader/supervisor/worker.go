package supervisor

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/supervisor/spawn"
)

// role is what a worker is to the unit. There is at most one starting, one
// serving and one beside it; any number up to MaxDraining drain.
type role string

const (
	roleStarting role = "starting"
	roleServing  role = "serving"
	roleBeside   role = "beside" // serves too, and the operator decides which of the two stays
	roleDraining role = "draining"
)

// worker is one process that runs a release. All fields belong to the
// goroutine in Run, but for those a watcher is handed when it starts.
type worker struct {
	generation int
	pid        int
	pidfd      *os.File // owned; closed when the worker is gone
	role       role
	release    release
	started    time.Time
	drainStart time.Time
	// deadline is when the phase must be over: start, or drain. Zero while
	// serving.
	deadline time.Time
	timer    *time.Timer
	// alive is the watchdog's timer, nil where the unit has none.
	alive *time.Timer
	// failed is why we killed it, for the answer once it is gone.
	failed error
	// status is the worker's own STATUS=.
	status string
	// beside tells that it is to serve beside the one that serves, and not in its
	// place. took is how long it needed to become ready.
	beside bool
	took   time.Duration
	// stored are the names it put into the fd store while starting, or beside.
	stored []string
	// listening are the sockets that ReadyAccepting looks for.
	listening []socketID
	over      bool // gone: what is still in the inbox about it is too late
	notify    *notifySocket
	ack       *ackSocket // with PassEinhorn
	// stop ends the goroutines that watch this worker.
	stop context.CancelFunc
	// decided ends the look whether it is ready, nil where none was begun.
	decided context.CancelFunc
}

// spawn starts the worker's process.
func (s *Supervisor) spawn(w *worker) error {
	about, err := s.opts.Pass.tell(s.sockets.all(), w.generation, s.opts.ackPath(w.generation))
	if err != nil {
		return err
	}
	program := w.release.program
	env, pids := workerEnv(os.Environ(), w.release, about, w.notify.path, s.watchdog)
	if s.serving != nil {
		env = append(env, predecessorVariable+"="+strconv.Itoa(s.serving.pid))
	}
	p, err := startFree(spawn.Options{
		Program: program, Args: append([]string{cmp.Or(s.opts.Name, program)}, s.opts.arguments(w.release)...),
		Env: env, PIDs: pids, Files: about.files,
	})
	if err != nil {
		return err
	}
	w.pid, w.pidfd = p.PID, pidfdFile(p.PIDFD)
	return nil
}

// startFree starts a program that somebody may still hold open for writing:
// whoever wrote it, and started a process of its own just then, has a descriptor
// of it until that has become another program (go.dev/issue/22315).
func startFree(o spawn.Options) (spawn.Process, error) {
	const (
		tries = 10
		pause = 10 * time.Millisecond
	)
	for n := 1; ; n++ {
		p, err := spawn.Start(o)
		if !errors.Is(err, unix.ETXTBSY) || n == tries {
			return p, err
		}
		time.Sleep(pause)
	}
}

// faultyProgram tells if it is the release's own fault that it does not run, and
// not that of a machine which is short of something.
func faultyProgram(err error) bool {
	short := []error{unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EIO, unix.ETXTBSY}
	var path *os.PathError
	return errors.As(err, &path) && !slices.ContainsFunc(short, func(e error) bool { return errors.Is(err, e) })
}

// pidfdFile makes the runtime's poller watch a pidfd, so that waiting for a
// process holds no thread.
func pidfdFile(fd int) *os.File {
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "pidfd")
}

// workerVariable holds the worker's PID, so that a program knows whether it is
// meant where no socket, and so no LISTEN_PID, tells it.
const workerVariable = "UPGRADERD_WORKER_PID"

// predecessorVariable holds the PID of the worker that serves while another
// starts.
const predecessorVariable = "UPGRADERD_PREDECESSOR_PID"

// IsWorker tells if this process is a worker of a supervisor: of an environment
// that it inherited from one it is not.
func IsWorker() bool { return os.Getenv(workerVariable) == strconv.Itoa(os.Getpid()) }

// Predecessor is the PID of the worker that served when this one was started, 0
// if none did.
func Predecessor() int {
	pid, err := strconv.Atoi(os.Getenv(predecessorVariable))
	if err != nil || !IsWorker() {
		return 0
	}
	return pid
}

// RequestOwnHandover is [RequestHandover] for a worker, which wants a new one in its
// place: to its own supervisor, whose notify socket lies beside the control
// socket.
func RequestOwnHandover(ctx context.Context) (Reply, error) {
	notify := os.Getenv("NOTIFY_SOCKET")
	if !IsWorker() || notify == "" {
		return Reply{}, errors.New("this process is no worker of a supervisor")
	}
	return request(ctx, filepath.Dir(notify), Request{Verb: "handover", New: true})
}

// listenKeys are the variables of sd_listen_fds(3), and what systemd 262 adds.
func listenKeys() []string {
	return []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"}
}

// workerEnv is the supervisor's environment without what systemd meant for
// the supervisor, and with what the worker needs of the same kind; pids are
// the variables that are to hold the worker's PID.
func workerEnv(env []string, rel release, about told, notifyPath string, watchdog time.Duration) (out, pids []string) {
	private := append(listenKeys(),
		"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "MAINPID", "MANAGERPID", "SYSTEMD_EXEC_PID",
		"FDSTORE", keptVariable, "UPGRADERD_RELEASE", "UPGRADERD_VERSION", workerVariable, predecessorVariable)
	for _, e := range env {
		if key, _, _ := strings.Cut(e, "="); !slices.Contains(private, key) && !dialectKeys(key) {
			out = append(out, e)
		}
	}
	out, pids = append(out, about.env...), append(append(pids, about.pids...), workerVariable)
	if notifyPath != "" {
		out = append(out, "NOTIFY_SOCKET="+notifyPath)
	}
	if watchdog > 0 {
		pids = append(pids, "WATCHDOG_PID")
		out = append(out, "WATCHDOG_USEC="+strconv.FormatInt(watchdog.Microseconds(), 10))
	}
	out = append(out, "UPGRADERD_RELEASE="+rel.name())
	if rel.Version != "" {
		out = append(out, "UPGRADERD_VERSION="+rel.Version)
	}
	return out, pids
}

// signal sends sig to the worker itself, through its pidfd: never to a
// stranger that got the same number.
func (w *worker) signal(sig syscall.Signal) error {
	var err error
	if cerr := control(w.pidfd, func(fd int) { err = unix.PidfdSendSignal(fd, sig, nil, 0) }); cerr != nil {
		return cerr
	}
	return err
}

// kill ends the worker's process group at once. Only a worker that can still
// be signalled, if only as a zombie, holds the group's number.
func (w *worker) kill() {
	if w.signal(syscall.SIGKILL) == nil {
		killGroup(w.pid)
	}
}

// Exit is how a worker ended. The zero Exit is one that nobody can tell.
type Exit struct {
	known  bool // false: an adopted worker on a kernel that does not tell
	status syscall.WaitStatus
}

func (e Exit) String() string {
	switch {
	case !e.known:
		return "ended, and this kernel does not tell how"
	case e.status.Signaled():
		return "was killed by " + unix.SignalName(e.status.Signal())
	default:
		return "exited with status " + strconv.Itoa(e.status.ExitStatus())
	}
}

// wait blocks until the worker is gone, kills what is left of its process
// group while the number cannot belong to anyone else, and tells how it
// ended. It ends early, with false, when the pidfd is closed.
func wait(pidfd *os.File, pid int) (Exit, bool) {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return Exit{}, false
	}
	var e Exit
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 0); err != nil || n == 0 {
			return false
		}
		if unix.PidfdSendSignal(int(fd), 0, nil, 0) == nil {
			killGroup(pid) // before reaping: a zombie leader keeps the group's number ours
		} else {
			killMembers(pid) // adopted, and reaped by another
		}
		e = reap(int(fd))
		return true
	})
	return e, err == nil
}

// reap takes the exit status of a process that a pidfd says is over.
func reap(pidfd int) Exit {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil { // ECHILD: adopted
			return exitInfo(pidfd)
		}
		break
	}
	return siginfoExit(&info)
}
