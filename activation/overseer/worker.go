package overseer

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/activation"
)

const (
	// settleTime is how long a worker has to live to be ready where no Accept
	// tells it: without listeners, and with more of them than it uses.
	settleTime = time.Second
	// exitMargin is what a worker may need for its end after its connections
	// were cut.
	exitMargin = 2 * time.Second
)

// worker runs Program. Its supervisor is the main process of overseer, or
// upgraderd's.
type worker struct {
	*Config
	state     State
	listeners []*listener
	own       bool     // the supervisor is a main process of this package
	stale     []string // names in the fd store that are of no use any more

	ending context.Context // done when it is time to end
	end    context.CancelFunc

	once    sync.Once // of shutdown
	mu      sync.Mutex
	unused  int         // listeners that nobody has accepted on
	waiting *time.Timer // until the worker is ready
}

func currentWorker() *worker {
	if p := current.Load(); p != nil {
		w, _ := (*p).(*worker)
		return w
	}
	return nil
}

func runWorker(c *Config) error {
	w := &worker{Config: c}
	w.ending, w.end = context.WithCancel(context.Background())
	defer w.end()
	binPath, own := os.LookupEnv(envBinPath)
	w.own = own
	if !own {
		var err error
		if binPath, err = os.Executable(); err != nil {
			return fmt.Errorf("find the binary that runs: %w", err)
		}
		if c.Fetcher != nil || c.PreUpgrade != nil {
			w.debugf("upgraderd fetches for this unit: Fetcher and PreUpgrade are not used")
		}
	}
	id, err := hashFile("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("read the binary that runs: %w", err)
	}
	w.state = State{
		Enabled: true, ID: id, BinPath: binPath, StartedAt: time.Now(),
		Address: c.Address, Addresses: c.Addresses, GracefulShutdown: make(chan bool),
	}
	if err := w.takeSockets(); err != nil {
		return err
	}
	w.watchSignals()
	if err := w.watchParent(); err != nil {
		return err
	}
	var p process = w
	current.Store(&p)
	if w.unused = len(w.listeners); w.unused == 0 {
		w.readyIn(max(settleTime, c.WarmUpTime))
	}
	w.debugf("start program")
	c.Program(w.state)
	return nil
}

// takeSockets finds a socket for each address: among those that were passed the one
// that is bound there, else the next that is bound nowhere in Addresses, else one
// of its own, which goes to the next generation.
func (w *worker) takeSockets() error {
	passed, err := passedSockets()
	if err != nil {
		return err
	}
	found := make([]*socket, len(w.places))
	for i, p := range w.places {
		for _, s := range passed {
			if !s.taken && s.packets() == p.packets() && p.holds(s.conn) {
				found[i], s.taken = s, true
				break
			}
		}
	}
	for i, p := range w.places {
		for _, s := range passed {
			if found[i] == nil && !s.taken && s.packets() == p.packets() && (w.own || !s.ours()) {
				found[i], s.taken = s, true
			}
		}
		if found[i] == nil {
			if found[i], err = p.open(); err != nil {
				return err
			}
		}
	}
	for _, s := range passed {
		if !s.taken && s.ours() && !w.own {
			// The release before listened there, and this one does not: left as it is, it
			// would take connections that nobody accepts.
			w.stale = append(w.stale, s.name)
			s.close()
			continue
		}
		if !s.taken {
			found = append(found, s)
			w.state.Addresses = append(w.state.Addresses[:len(w.state.Addresses):len(w.state.Addresses)], placeOf(s.addr()).String())
		}
	}
	for _, s := range found {
		if s.packet != nil {
			w.state.PacketConns = append(w.state.PacketConns, s.packet)
			continue
		}
		l := newListener(s.listener, w.accepting)
		w.listeners = append(w.listeners, l)
		w.state.Listeners = append(w.state.Listeners, l)
	}
	if len(w.state.Listeners) > 0 {
		w.state.Listener = w.state.Listeners[0]
	}
	if len(w.state.PacketConns) > 0 {
		w.state.PacketConn = w.state.PacketConns[0]
	}
	if w.state.Address == "" && len(w.state.Addresses) > 0 {
		w.state.Address = w.state.Addresses[0]
	}
	return nil
}

// socket is one that was passed or opened: of connections or of packets.
type socket struct {
	name     string
	listener net.Listener
	packet   net.PacketConn
	conn     syscall.Conn
	taken    bool
}

func (s *socket) packets() bool { return s.packet != nil }

// ours tells a socket that open left for the next worker.
func (s *socket) ours() bool { return strings.HasPrefix(s.name, namePrefix) }

func (s *socket) close() {
	if s.packet != nil {
		s.packet.Close()
		return
	}
	s.listener.Close()
}

func (s *socket) addr() net.Addr {
	if s.packet != nil {
		return s.packet.LocalAddr()
	}
	return s.listener.Addr()
}

// passedSockets takes what the supervisor passed, in its order.
func passedSockets() ([]*socket, error) {
	names, err := activation.Names()
	if err != nil {
		return nil, err
	}
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, err
	}
	packets, err := activation.PacketConns()
	if err != nil {
		return nil, err
	}
	var all []*socket
	for _, name := range names {
		if of := listeners[name]; len(of) > 0 {
			listeners[name] = of[1:]
			all = append(all, &socket{name: name, listener: of[0], conn: of[0].(syscall.Conn)})
		} else if of := packets[name]; len(of) > 0 {
			packets[name] = of[1:]
			all = append(all, &socket{name: name, packet: of[0], conn: of[0].(syscall.Conn)})
		}
	}
	return all, nil
}

// open listens, and leaves the socket with the supervisor for the next worker.
func (p place) open() (*socket, error) {
	name := namePrefix + url.QueryEscape(p.String()) // tells it from that of another release
	if p.packets() {
		c, err := net.ListenPacket(p.network, p.address)
		if err != nil {
			return nil, fmt.Errorf("no socket for %s was passed: %w", p, err)
		}
		return &socket{packet: c, conn: c.(syscall.Conn)}, activation.StorePacketConn(name, c)
	}
	l, err := net.Listen(p.network, p.address)
	if err != nil {
		return nil, fmt.Errorf("no socket for %s was passed: %w", p, err)
	}
	return &socket{listener: l, conn: l.(syscall.Conn)}, activation.StoreListener(name, l)
}

// accepting is told when a listener is first used. The worker is ready when all
// are; one that uses only some of them, when it has lived on for a moment.
func (w *worker) accepting() {
	w.mu.Lock()
	w.unused--
	left := w.unused
	w.mu.Unlock()
	if left == 0 {
		w.readyIn(w.WarmUpTime)
		return
	}
	w.readyIn(max(settleTime, w.WarmUpTime))
}

// readyIn says that this worker may take over when the time is over. Said again,
// the later word counts.
func (w *worker) readyIn(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting != nil && !w.waiting.Stop() {
		return // it is ready
	}
	w.waiting = time.AfterFunc(d, func() {
		err := activation.Ready()
		for _, name := range w.stale { // obeyed from here on
			err = errors.Join(err, activation.RemoveStored(name))
		}
		if err != nil {
			w.warnf("say that the program is ready: %s", err)
		}
	})
}

// watchSignals begins the graceful shutdown when the supervisor asks for it.
func (w *worker) watchSignals() {
	signals := make(chan os.Signal, 1)
	asked := []os.Signal{syscall.SIGTERM}
	if w.own {
		asked = append(asked, w.RestartSignal)
	}
	signal.Notify(signals, asked...)
	go func() {
		select {
		case <-signals:
			signal.Stop(signals)
			w.once.Do(w.shutdown)
		case <-w.ending.Done():
		}
	}()
}

// shutdown ends the process at TerminateTimeout, if Program did not before.
func (w *worker) shutdown() {
	w.debugf("graceful shutdown requested")
	_ = activation.Notify("STOPPING=1", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (w.TerminateTimeout+2*exitMargin).Microseconds()))
	w.end()
	close(w.state.GracefulShutdown)
	for _, l := range w.listeners {
		l.release()
	}
	time.AfterFunc(w.TerminateTimeout, func() {
		w.debugf("timeout, closing what is open")
		for _, l := range w.listeners {
			l.cut()
		}
		time.AfterFunc(exitMargin/2, func() { os.Exit(1) })
	})
}

// watchParent ends the worker of a main process that is gone where nobody would
// start that again and adopt the worker.
func (w *worker) watchParent() error {
	text, ok := os.LookupEnv(envParent)
	if !ok || !w.own {
		return nil
	}
	pid, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("read %s: %q is no process id", envParent, text)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil && os.Getppid() != pid { // the number may be another's by now
		unix.Close(fd)
		err = unix.ESRCH
	}
	if err != nil {
		return fmt.Errorf("the main process %d is gone: %w", pid, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "main process")
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	go func() {
		defer f.Close()
		err := raw.Read(func(fd uintptr) bool {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(fds, 0)
			return err == nil && n > 0
		})
		if err == nil && w.ending.Err() == nil {
			w.warnf("the main process is gone: this worker ends")
			w.once.Do(w.shutdown)
		}
	}()
	return nil
}

// restart asks the supervisor.
func (w *worker) restart() {
	sig := syscall.SIGUSR2
	if w.own {
		sig = w.RestartSignal.(syscall.Signal)
	}
	if err := syscall.Kill(os.Getppid(), sig); err != nil {
		w.warnf("ask the main process for a restart: %s", err)
	}
}

func (w *worker) debugf(format string, args ...any) { w.logf(w.Debug, format, args...) }
func (w *worker) warnf(format string, args ...any)  { w.logf(w.Debug || !w.NoWarn, format, args...) }

func (w *worker) logf(really bool, format string, args ...any) {
	if really {
		log.Printf("[overseer worker %d] %s", os.Getpid(), fmt.Sprintf(format, args...))
	}
}

// hashFile is the SHA-1 of a file, in hex: what overseer calls a binary by.
func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha1.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
