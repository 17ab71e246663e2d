package tableflip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/activation"
	"github.com/upgraderd/upgraderd/activation/internal/drain"
	"github.com/upgraderd/upgraderd/upgrader/supervisor"
)

// DefaultUpgradeTimeout is how long a new process may take to become ready.
const DefaultUpgradeTimeout = time.Minute

// ErrNotSupported is there for who compares with it. Where this package builds, it
// works.
var ErrNotSupported = errors.New("tableflip: platform does not support graceful restart")

// Options say how to upgrade.
type Options struct {
	// UpgradeTimeout is how long a new process may take until it calls Ready.
	// Default DefaultUpgradeTimeout. Under upgraderd --start-timeout= of the unit
	// counts instead.
	UpgradeTimeout time.Duration
	// PIDFile gets the PID of the main process, which stays the same. Default: none
	// is written.
	PIDFile string
	// ListenConfig opens what was not inherited. Default: an empty one.
	ListenConfig *net.ListenConfig
}

// Upgrader is this process's part in upgrades.
type Upgrader struct {
	*Fds
	opts Options

	mu        sync.Mutex
	ready     bool
	upgrading bool
	upgraded  bool
	stopped   bool
	exit      chan struct{}
	leave     sync.Once
}

var (
	onlyMu sync.Mutex
	only   *Upgrader
)

// New begins: once in a process, and before anything that must happen in one process
// only. See the package doc for where it does not return.
func New(opts Options) (*Upgrader, error) {
	onlyMu.Lock()
	defer onlyMu.Unlock()
	if only != nil {
		return nil, errors.New("tableflip: only a single Upgrader allowed")
	}
	if opts.UpgradeTimeout <= 0 {
		opts.UpgradeTimeout = DefaultUpgradeTimeout
	}
	if opts.ListenConfig == nil {
		opts.ListenConfig = &net.ListenConfig{}
	}
	if !supervisor.IsWorker() {
		return nil, supervise(opts)
	}
	fds, err := inherit(opts.ListenConfig)
	if err != nil {
		return nil, fmt.Errorf("tableflip: %w", err)
	}
	u := &Upgrader{Fds: fds, opts: opts, exit: make(chan struct{})}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		select {
		case <-term:
			_ = activation.Stopping()
			u.end()
		case <-u.exit:
		}
		// A second one ends the program at once.
		signal.Stop(term)
	}()
	only = u
	return u, nil
}

// supervise makes this process the main process. It returns if it cannot be.
func supervise(opts Options) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("tableflip: find this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "tableflip-")
	if err != nil {
		return fmt.Errorf("tableflip: %w", err)
	}
	defer os.RemoveAll(dir)
	end, err := supervisor.Run(supervisor.Options{
		Program: program, Name: os.Args[0], Args: os.Args[1:], RuntimeDir: dir,
		StartTimeout: opts.UpgradeTimeout,
		Log:          slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return fmt.Errorf("tableflip: %w", err)
	}
	os.RemoveAll(dir)
	if opts.PIDFile != "" {
		os.Remove(opts.PIDFile)
	}
	end.Become()
	return nil
}

// Ready says that this process serves: from here on the one before it drains. What was
// inherited and not asked for is closed.
func (u *Upgrader) Ready() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ready {
		return nil
	}
	if u.opts.PIDFile != "" {
		if err := writePIDFile(u.opts.PIDFile); err != nil {
			return fmt.Errorf("tableflip: write PID file: %w", err)
		}
	}
	if err := activation.Ready(); err != nil {
		return fmt.Errorf("tableflip: %w", err)
	}
	u.ready = true
	// The supervisor keeps files for the process that serves: for this one since
	// READY=1.
	if err := u.keepAll(); err != nil {
		return fmt.Errorf("tableflip: %w", err)
	}
	return nil
}

// Exit gives a channel that is closed when the process should finish what it has
// begun and exit.
func (u *Upgrader) Exit() <-chan struct{} { return u.exit }

func (u *Upgrader) end() { u.leave.Do(func() { close(u.exit) }) }

// Stop prevents further upgrades by this process and closes the channel of Exit. Called
// before an upgrade, it means that the program ends: paths of unix sockets in Fds that
// this package opened are removed.
func (u *Upgrader) Stop() {
	u.mu.Lock()
	if !u.stopped && !u.upgraded {
		u.removePaths()
	}
	u.stopped = true
	u.mu.Unlock()
	u.end()
}

// drainLimit is how long Serve waits for running requests.
const drainLimit = 30 * time.Second

// drainGrace is how long it leaves a connection between requests open.
const drainGrace = 5 * time.Second

// Serve runs an HTTP server on a listener until Exit, and drains it: clients are told to
// go elsewhere, and no request that was sent is lost. http.Server.Shutdown drops one
// that it has just read (golang/go#75591). It closes the listener.
func (u *Upgrader) Serve(server *http.Server, l net.Listener) error {
	d := drain.New(drain.Options{HTTP: server, Listeners: []net.Listener{l}, Grace: drainGrace, Limit: drainLimit})
	failed := make(chan struct{}, 1)
	go d.Accept(func() { failed <- struct{}{} })
	select {
	case <-u.exit:
	case <-failed: // the drain says why
	}
	return d.Drain()
}

// Upgrade starts a new process and returns nil when that is ready; it is time to exit
// then. An error means that this process goes on.
func (u *Upgrader) Upgrade() error {
	if err := u.begin(); err != nil {
		return err
	}
	// The supervisor answers when the new process is ready, or its time is over.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() { // Stop interrupts
		select {
		case <-u.exit:
			cancel()
		case <-stop:
		}
	}()
	err := activation.Barrier(ctx) // what is kept is kept before it is asked for
	if err == nil {
		_, err = supervisor.RequestOwnHandover(ctx)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.upgrading = false
	select {
	case <-u.exit: // told by the supervisor, which is the upgrade's success, or by Stop
		if err != nil && u.stopped {
			return errors.New("terminating")
		}
		err = nil
	default:
	}
	if err != nil {
		return fmt.Errorf("tableflip: %w", err)
	}
	u.upgraded = true
	u.end()
	return nil
}

func (u *Upgrader) begin() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.stopped:
		return errors.New("terminating")
	case u.upgraded:
		return errors.New("already upgraded")
	case !u.ready:
		return errors.New("process is not ready yet")
	case u.upgrading:
		return errors.New("upgrade in progress")
	}
	select {
	case <-u.exit:
		return errors.New("already upgraded")
	default:
	}
	u.upgrading = true
	return nil
}

// HasParent tells if this process takes over from another that served when it was
// started.
func (u *Upgrader) HasParent() bool { return supervisor.Predecessor() != 0 }

// WaitForParent waits until that other process has exited.
func (u *Upgrader) WaitForParent(ctx context.Context) error {
	pid := supervisor.Predecessor()
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tableflip: wait for process %d: %w", pid, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func writePIDFile(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(os.Getppid())) // the supervisor's, which is the main process
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
