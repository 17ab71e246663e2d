package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

// A supervisor lives as long as its service, which is longer than a version of
// upgraderd. So it looks whether its own program was replaced on disk and goes
// on as the new one, by execve(2): process, sockets and workers stay. What it
// has open goes along, under the numbers it has and without close-on-exec; the
// new program adopts it just as after a kill, but to systemd it is one steady
// process, and to its workers one parent.
//
// For the millisecond in which the new runtime starts, signals have their default
// action, or none: see the package doc.

const (
	renewEvery = 5 * time.Second
	// proofLimit bounds the new program's proof that it starts at all.
	proofLimit = 5 * time.Second
	// keptVariable names what is open, NUMBER=NAME:NUMBER=NAME…: names of
	// descriptors have no colon, see sd_listen_fds_with_names(3).
	keptVariable = "UPGRADERD_KEPT"
	controlName  = internal + "control"
	notifyPrefix = internal + "notify."
)

// renewal follows the program on disk.
type renewal struct {
	path    string      // where it is installed
	running os.FileInfo // what runs; nil where that cannot be told
	refused os.FileInfo // what was found there and is of no use
	told    os.FileInfo // what was last said to be of no use, and why
	said    string
	proving bool
}

func newRenewal() renewal {
	running, err := os.Stat("/proc/self/exe")
	if err != nil {
		return renewal{}
	}
	// The kernel knows us by the file alone. The name we were started by may be
	// a symlink to it, and is what another version takes over.
	if named, err := os.Stat(os.Args[0]); err == nil && filepath.IsAbs(os.Args[0]) && os.SameFile(named, running) {
		return renewal{path: os.Args[0], running: running}
	}
	path, err := os.Executable()
	if err != nil {
		return renewal{}
	}
	return renewal{path: path, running: running}
}

// replaced tells what has taken the place of the program that runs, nil if
// nothing has that is worth a look.
func (r *renewal) replaced() os.FileInfo {
	if r.running == nil {
		return nil
	}
	found, err := os.Stat(r.path)
	if err != nil || os.SameFile(found, r.running) || r.refused != nil && sameContent(found, r.refused) {
		return nil // between a removal and what follows it, there is nothing
	}
	return found
}

// sameContent compares files of which one may be gone, and its inode's number
// another's by now. That of a program that runs stays taken.
func sameContent(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// renew looks for a new program, and goes on as it if there is one and this is
// a moment of rest.
func (s *Supervisor) renew() {
	if s.renewal.proving || !s.mayRenew() {
		return
	}
	found := s.renewal.replaced()
	if found == nil {
		return
	}
	s.renewal.proving = true
	go func() {
		err := prove(s.renewal.path, s.opts.Proof)
		s.post(func() { s.proved(found, err) })
	}()
}

// mayRenew is true where nothing would be lost: nobody waits for an answer, no
// worker is on trial, no command runs that only we would bury, no signal is
// unheard, and a memory says what each worker is.
func (s *Supervisor) mayRenew() bool {
	return len(s.opts.Proof) > 0 && s.memory != nil && s.serving != nil && s.beside == nil && s.starting == nil && s.reloading == nil && s.asking == 0 && len(s.waiting) == 0 &&
		len(s.signals) == 0 && !s.stopping && s.result == nil && s.reports.held == nil &&
		!strings.HasPrefix(s.failure, statusline.Refused)
}

// prove has a program show that it starts, and that it could take over, before
// anything depends on it.
func prove(path string, args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), proofLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second // for a child of it that holds its output open
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", path, err, journal.Clean(strings.TrimSpace(string(out[:min(len(out), 1<<10)]))))
	}
	return nil
}

// useless tells of a program that it will never do: it said so itself, or is
// none. Anything else may pass, like a file that is still being written.
func useless(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.Exited() || errors.Is(err, syscall.ENOEXEC)
}

func (s *Supervisor) proved(found os.FileInfo, err error) {
	s.renewal.proving = false
	s.buryOrphans()
	s.settleInbox()
	if !s.mayRenew() {
		return // another time
	}
	if now := s.renewal.replaced(); now == nil || !sameContent(now, found) {
		return // replaced again meanwhile: that one has to be proved, too
	}
	if err == nil {
		err = s.become() // returns only if it failed
	}
	if useless(err) {
		s.renewal.refused = found
	}
	if text := err.Error(); text != s.renewal.said || !sameContent(found, s.renewal.told) {
		s.renewal.told, s.renewal.said = found, text
		s.emit(journal.SupervisorOutdated, slog.String("path", s.renewal.path), slog.String("error", text))
	}
}

// settleInbox handles what watchers have seen already: what only they know
// would be lost.
func (s *Supervisor) settleInbox() {
	for {
		select {
		case f := <-s.inbox:
			f()
		default:
			return
		}
	}
}

// become makes this process the program on disk. It returns if that failed, and
// then nothing has changed.
//
// A signal that asks for something (SIGHUP, SIGUSR1, SIGUSR2) is ignored from
// here until the new program listens: its default action would end the process.
func (s *Supervisor) become() error {
	if err := s.remember(); err != nil {
		return err
	}
	kept, err := s.kept()
	if err != nil {
		return err
	}
	if s.watchdog > 0 { // its next turn comes after a start
		s.tell("WATCHDOG=1")
	}
	// No other process may be started while descriptors would pass to it.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	var names []string
	for _, k := range kept {
		if _, err := unix.FcntlInt(uintptr(k.fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep %s: %w", k.name, err)
		}
		defer unix.CloseOnExec(k.fd)
		names = append(names, strconv.Itoa(k.fd)+"="+k.name)
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Notify(s.signals, heard(s.opts.Meaning)...)
	env := append(s.successorEnv(os.Environ()), keptVariable+"="+strings.Join(names, ":"))
	return os.NewSyscallError("execve", syscall.Exec(s.renewal.path, os.Args, env))
}

// kept are all descriptors that the new program needs, named as in the fd
// store; the supervisor's own beyond those are its listening ends.
func (s *Supervisor) kept() ([]socket, error) {
	kept := append([]socket{}, s.sockets.all()...)
	var failed error
	add := func(name string, c syscall.Conn) {
		if err := control(c, func(fd int) { kept = append(kept, socket{name, fd}) }); err != nil {
			failed = fmt.Errorf("keep %s: %w", name, err)
		}
	}
	add(memoryName, s.memory.file)
	add(controlName, s.control)
	for _, w := range s.workers() {
		add(pidfdName(w.generation), w.pidfd)
		if w.notify != nil {
			add(notifyPrefix+strconv.Itoa(w.generation), w.notify.conn)
		}
	}
	return kept, failed
}

// successorEnv is the environment as systemd would pass it on now: what it said
// of sockets is not true any more, as the numbers have changed, and the worker
// may have set another time for the watchdog.
func (s *Supervisor) successorEnv(env []string) []string {
	var out []string
	for _, e := range env {
		switch key, _, _ := strings.Cut(e, "="); {
		case slices.Contains(listenKeys(), key):
			continue
		case key == "WATCHDOG_USEC":
			e = key + "=" + strconv.FormatInt(s.watchdog.Microseconds(), 10)
		}
		out = append(out, e)
	}
	return out
}

// takeKept gives what the program before us, in this same process, had open;
// the caller owns the files. It is called once, before anything is opened.
func takeKept() ([]*os.File, error) {
	text, ok := os.LookupEnv(keptVariable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(keptVariable); err != nil {
		return nil, err
	}
	var files []*os.File
	for k := range strings.SplitSeq(text, ":") {
		number, name, _ := strings.Cut(k, "=")
		fd, err := strconv.Atoi(number)
		if err != nil || fd <= 2 || name == "" {
			return files, fmt.Errorf("read %s: %q is no descriptor", keptVariable, k)
		}
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	return files, nil
}
