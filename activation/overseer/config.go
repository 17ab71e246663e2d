package overseer

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/activation/overseer/fetcher"
)

// Config says what to run, where it listens and where new binaries come from.
// Only Program is required.
type Config struct {
	// Required has Run end the process where it cannot oversee. Default: it warns
	// and runs Program in this very process, with DisabledState.
	Required bool
	// Program is the program's main function.
	Program func(state State)
	// Address is where it listens. Set this or Addresses, or neither. Beside
	// HOST:PORT, which is TCP, there are unix:/PATH, unixgram:/PATH and
	// NETWORK://ADDRESS with the networks of package net, such as udp://:53.
	Address string
	// Addresses are several.
	Addresses []string
	// RestartSignal to the main process asks for a graceful restart. Default
	// SIGUSR2. Under upgraderd it is SIGUSR2 or SIGHUP, whatever stands here.
	RestartSignal os.Signal
	// TerminateTimeout is how long an old worker may take to end before it is
	// killed. Default 30 s.
	TerminateTimeout time.Duration
	// MinFetchInterval is the least time from one Fetch to the next. Default 1 s.
	MinFetchInterval time.Duration
	// PreUpgrade is asked about each binary that was fetched; an error cancels
	// the upgrade. The path is executable, and gone after the attempt.
	PreUpgrade func(tempBinaryPath string) error
	// Debug logs what is done, NoWarn leaves out what went wrong.
	Debug  bool
	NoWarn bool
	// NoRestart never replaces the worker: RestartSignal ends the program
	// gracefully, and a fetched binary waits for the next start.
	NoRestart bool
	// NoRestartAfterFetch has a fetched binary wait for RestartSignal, or
	// Restart.
	NoRestartAfterFetch bool
	// Fetcher brings new binaries. Default: nobody does.
	Fetcher fetcher.Interface

	// WarmUpTime is how long a new worker accepts beside the old one before that
	// is told to end. Default: not at all.
	WarmUpTime time.Duration
	// StartTimeout is how long a worker may take until it accepts. Default 60 s.
	StartTimeout time.Duration
	// Pidfile gets the PID of the main process, and is removed at its end.
	// Default: none is written. Under upgraderd it is not: systemd knows the PID.
	Pidfile string
	// SizeMax bounds a fetched binary, in bytes. Default 1 GiB.
	SizeMax int64

	places []place // of Addresses
}

const (
	defaultTerminateTimeout = 30 * time.Second
	defaultMinFetchInterval = time.Second
	defaultSizeMax          = 1 << 30
)

// complete fills in defaults and refuses what cannot work.
func (c Config) complete() (*Config, error) {
	if c.Program == nil {
		return nil, errors.New("overseer.Config.Program required")
	}
	if c.Address != "" && len(c.Addresses) > 0 {
		return nil, errors.New("overseer.Config.Address and Addresses cannot both be set")
	}
	if c.Address != "" {
		c.Addresses = []string{c.Address}
	} else if len(c.Addresses) > 0 {
		c.Address = c.Addresses[0]
	}
	seen := map[place]bool{}
	for _, a := range c.Addresses {
		p, err := parsePlace(a)
		if err != nil {
			return nil, fmt.Errorf("overseer.Config address %q: %w", a, err)
		}
		if seen[p] {
			return nil, fmt.Errorf("overseer.Config address %q is there twice", a)
		}
		seen[p] = true
		c.places = append(c.places, p)
	}
	if c.RestartSignal == nil {
		c.RestartSignal = syscall.SIGUSR2
	}
	switch sig, ok := c.RestartSignal.(syscall.Signal); {
	case !ok:
		return nil, fmt.Errorf("overseer.Config.RestartSignal %v is no signal of this system", c.RestartSignal)
	case sig == syscall.SIGKILL || sig == syscall.SIGSTOP || sig == syscall.SIGTERM || sig == syscall.SIGCHLD:
		return nil, fmt.Errorf("overseer.Config.RestartSignal cannot be %v: it means something else already", sig)
	}
	if c.TerminateTimeout <= 0 {
		c.TerminateTimeout = defaultTerminateTimeout
	}
	if c.MinFetchInterval <= 0 {
		c.MinFetchInterval = defaultMinFetchInterval
	}
	if c.SizeMax <= 0 {
		c.SizeMax = defaultSizeMax
	}
	if c.WarmUpTime < 0 || c.StartTimeout < 0 {
		return nil, errors.New("overseer.Config.WarmUpTime and StartTimeout must not be negative")
	}
	return &c, nil
}
