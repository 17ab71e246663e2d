package overseer

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/supervisor"
)

// parent is the main process where there is no upgraderd: a supervisor, and what
// feeds it.
type parent struct {
	*Config
	binary     *binary
	runtimeDir string

	turn sync.Mutex // held by who has a handover made

	mu     sync.Mutex
	choice choice // what the next worker runs
}

// choice is a binary, and how it is called.
type choice struct{ id, path string }

func runParent(c *Config) error {
	p := &parent{Config: c}
	var err error
	if p.binary, err = openBinary(c.Fetcher != nil); err != nil {
		return err
	}
	p.choose(p.binary.settled())
	if c.Fetcher != nil {
		if err := c.Fetcher.Init(); err != nil {
			p.warnf("the fetcher is of no use, nothing will be fetched: %s", err)
			c.Fetcher = nil
		}
	}
	if c.Fetcher != nil {
		if f := p.tellOrigin(); f != nil {
			defer f.Close()
		}
	}
	p.runtimeDir, err = os.MkdirTemp("", "overseer-")
	if err != nil {
		return fmt.Errorf("make a runtime directory: %w", err)
	}
	clean := func() { os.RemoveAll(p.runtimeDir) }
	defer clean()
	opts, err := p.options()
	if err != nil {
		return err
	}
	if c.Pidfile != "" {
		if err := writePidfile(c.Pidfile); err != nil {
			return err
		}
		defer os.Remove(c.Pidfile)
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var self process = p
	current.Store(&self)
	p.watchRestartSignal(ctx)
	if c.Fetcher != nil {
		go p.fetchLoop(ctx)
	}
	end, err := supervisor.Run(opts)
	current.Store(nil)
	if err != nil {
		return err
	}
	cancel()
	p.turn.Lock() // nothing is half moved; and nothing is begun any more
	clean()
	if c.Fetcher != nil {
		p.binary.tidy()
	}
	if c.Pidfile != "" {
		os.Remove(c.Pidfile)
	}
	end.Become()
	return nil
}

// options are those of the supervisor.
func (p *parent) options() (supervisor.Options, error) {
	for key, value := range map[string]string{envBinPath: p.binary.path, envParent: ""} {
		if err := os.Setenv(key, value); err != nil {
			return supervisor.Options{}, err
		}
	}
	keeps := os.Getenv("NOTIFY_SOCKET") != "" // somebody starts us again, with the fd store
	err := os.Unsetenv(envParent)
	if !keeps {
		err = os.Setenv(envParent, strconv.Itoa(os.Getpid()))
	}
	if err != nil {
		return supervisor.Options{}, err
	}
	opts := supervisor.Options{
		Choose: func() (name, path string) {
			c := p.chosen()
			return c.id, c.path
		},
		Name: os.Args[0], Args: os.Args[1:],
		StartTimeout: p.StartTimeout, DrainTimeout: p.TerminateTimeout + exitMargin,
		StopSignal: p.RestartSignal.(syscall.Signal), PassStop: true,
		Meaning:    p.meaning(),
		RuntimeDir: p.runtimeDir,
		Log:        p.log(),
	}
	held, err := heldSockets()
	if err != nil {
		return opts, err
	}
	for i, place := range p.places {
		l := place.listen(i)
		if !held(l) {
			opts.Listen = append(opts.Listen, l)
		}
	}
	return opts, nil
}

// meaning is what signals mean: all but the few that end the program are Program's
// own. RestartSignal is watched by watchRestartSignal.
func (p *parent) meaning() map[syscall.Signal]supervisor.Meaning {
	m := map[syscall.Signal]supervisor.Meaning{
		syscall.SIGTERM: supervisor.Stop, syscall.SIGINT: supervisor.Stop, syscall.SIGQUIT: supervisor.Forward,
		syscall.SIGHUP: supervisor.Forward, syscall.SIGUSR1: supervisor.Forward, syscall.SIGUSR2: supervisor.Forward,
		syscall.SIGWINCH: supervisor.Forward, syscall.SIGALRM: supervisor.Forward,
	}
	delete(m, p.RestartSignal.(syscall.Signal))
	return m
}

func (p *parent) watchRestartSignal(ctx context.Context) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, p.RestartSignal)
	go func() {
		defer signal.Stop(signals)
		for {
			select {
			case <-signals:
				p.restartNow(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
}

// restart is what Restart means here.
func (p *parent) restart() { go p.restartNow(context.Background()) }

// restartNow replaces the worker by one of the binary that is in place.
func (p *parent) restartNow(ctx context.Context) {
	if p.NoRestart {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			p.warnf("end the program: %s", err)
		}
		return
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	next := p.binary.settled()
	p.choose(next)
	err := p.handOver(ctx)
	if err == nil {
		p.debugf("graceful restart, %s serves", next.id)
		p.binary.proved()
		return
	}
	p.warnf("graceful restart: %s; the old program serves", err)
	var failed *failedError
	if errors.As(err, &failed) {
		if back, err := p.binary.revert(); err != nil {
			p.warnf("put the binary before back: %s", err)
		} else if back {
			p.warnf("%s is what it was before %s was fetched", p.binary.path, next.id)
		}
	}
	p.choose(p.binary.settled())
}

// failedError is a worker that did not become ready.
type failedError struct{ why error }

func (e *failedError) Error() string { return e.why.Error() }

// handOver has the supervisor start a worker of the choice beside the one that
// serves. It waits while the supervisor has no time for it. p.turn is held.
func (p *parent) handOver(ctx context.Context) error {
	const again = 100 * time.Millisecond
	for {
		reply, err := supervisor.RequestHandover(ctx, p.runtimeDir)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case reply.Stopping || reply.Ended:
			return err
		case reply.Error != "" && !reply.Refused:
			return &failedError{err}
		case reply.Error == "" && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED):
			return err
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *parent) choose(c choice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choice = c
}

func (p *parent) chosen() choice {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.choice
}

// heldSockets tells which places are served by sockets that a service manager
// passed, without taking them.
func heldSockets() (func(supervisor.Listen) bool, error) {
	none := func(supervisor.Listen) bool { return false }
	names, err := passedNames()
	if err != nil {
		return none, err
	}
	return func(l supervisor.Listen) bool {
		for i := range names {
			if l.IsBoundTo(3 + i) { // SD_LISTEN_FDS_START
				return true
			}
		}
		return false
	}, nil
}

func writePidfile(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("write Pidfile: %w", err)
	}
	_, err = fmt.Fprintln(f, os.Getpid())
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write Pidfile: %w", err)
	}
	return nil
}

// log is the supervisor's: what goes wrong, or with Debug all it does.
func (p *parent) log() *slog.Logger {
	level := slog.LevelWarn
	switch {
	case p.Debug:
		level = slog.LevelDebug
	case p.NoWarn:
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(log.Writer(), &slog.HandlerOptions{Level: level}))
}

func (p *parent) debugf(format string, args ...any) { p.logf(p.Debug, format, args...) }
func (p *parent) warnf(format string, args ...any)  { p.logf(p.Debug || !p.NoWarn, format, args...) }

func (p *parent) logf(really bool, format string, args ...any) {
	if really {
		log.Printf("[overseer] %s", fmt.Sprintf(format, args...))
	}
}
