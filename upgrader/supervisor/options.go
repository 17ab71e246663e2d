package supervisor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Options say what to run and how long to wait. The zero value of every
// optional field means the default named beside it.
type Options struct {
	// Root is the target's directory in the release store. Program is then
	// taken from the release that next or current points to. Empty: Program
	// is a path of its own, and a handover starts it anew.
	Root string
	// Program is the worker's executable, relative to the release where
	// there is a Root, else absolute. Required.
	Program string
	// Args follow the program's name. Where there is a Root, {release} in them is
	// the release's directory.
	Args []string
	// Name is what a worker sees as its own name, argv[0]. Default: the path of
	// its executable.
	Name string
	// Choose names the executable anew for each start, in place of Program, where
	// there is no Root: how it is called in status and logs, and its absolute
	// path. Default: Program, under its own name.
	Choose func() (name, path string)
	// Meaning is what signals to the supervisor mean. Default: SIGTERM and SIGINT
	// are Stop, SIGHUP and SIGUSR2 Handover, SIGUSR1 is Pass.
	Meaning map[syscall.Signal]Meaning
	// PassStop has a stop give the workers the signal that asked for it, and not
	// StopSignal.
	PassStop bool
	// Listen are sockets that no .socket unit holds.
	Listen []Listen
	// Ready tells when a worker is ready. Default: READY=1.
	Ready Ready
	// StartTimeout is how long a worker may take to become ready; the worker
	// moves it with EXTEND_TIMEOUT_USEC=. Default 60 s, less than systemd's
	// own TimeoutStartSec=, so that the reason is ours to tell.
	StartTimeout time.Duration
	// DrainTimeout is how long an old worker may finish what it has before
	// its process group is killed. Default 90 s.
	DrainTimeout time.Duration
	// Pass is how a worker is told of its sockets. Default: as systemd tells it.
	// It comes with defaults of its own for Ready and StopSignal.
	Pass Pass
	// Reload is what a request for a handover means where there is nothing to hand
	// over to: the release that is to run serves already. Signals that mean
	// Handover, and a worker's own request, start a new worker whatever it says.
	Reload Reload
	// StopSignal asks a worker to drain. Default SIGTERM.
	StopSignal syscall.Signal
	// MaxDraining refuses a handover while so many old workers drain.
	// Default 8.
	MaxDraining int
	// RuntimeDir holds the control socket and the workers' notify sockets.
	// It must exist and belong to this user alone. Required.
	RuntimeDir string
	// Proof are the arguments with which another version of this program, put in
	// its place, shows with exit status 0 that it could go on as the supervisor.
	// None: the program that runs is never replaced.
	Proof []string
	// Signals is what [Hear] gave, if it was called before.
	Signals chan os.Signal
	// Log gets one line per thing that happened.
	Log *slog.Logger

	renewEvery time.Duration
}

// Meaning is what a signal asks of a supervisor.
type Meaning string

const (
	Stop     Meaning = "stop"     // end every worker, then leave
	Handover Meaning = "handover" // replace the worker that serves
	Forward  Meaning = "forward"  // tell the worker that serves
)

// usualMeaning holds the signals that people know from other programs: SIGHUP
// (endless) and SIGUSR2 (overseer, grace, nginx) mean a graceful restart,
// SIGUSR1 is the worker's own. Whatever else asks a service to end, stops:
// SIGTERM, SIGINT of a terminal, SIGQUIT as nginx's units and images have it.
func usualMeaning() map[syscall.Signal]Meaning {
	return map[syscall.Signal]Meaning{
		syscall.SIGTERM: Stop, syscall.SIGINT: Stop, syscall.SIGQUIT: Stop,
		syscall.SIGHUP: Handover, syscall.SIGUSR2: Handover,
		syscall.SIGUSR1: Forward,
	}
}

// Defaults, each with the reason beside its field in [Options].
const (
	DefaultStartTimeout = 60 * time.Second
	DefaultDrainTimeout = 90 * time.Second
	DefaultMaxDraining  = 8
)

// complete fills in defaults and refuses what cannot work.
func (o Options) complete() (Options, error) {
	if o.StartTimeout == 0 {
		o.StartTimeout = DefaultStartTimeout
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	if o.Pass == "" {
		o.Pass = PassSystemd
	}
	if o.StopSignal == 0 {
		o.StopSignal = o.Pass.stopSignal()
	}
	if o.MaxDraining == 0 {
		o.MaxDraining = DefaultMaxDraining
	}
	if o.Meaning == nil {
		o.Meaning = usualMeaning()
	}
	if o.renewEvery == 0 {
		o.renewEvery = renewEvery
	}
	if o.Ready.Kind == "" {
		o.Ready.Kind = o.Pass.ready()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Choose != nil && o.Root != "":
		return o, errors.New("a release store and Choose both name the program: give one")
	case o.Choose != nil:
	case o.Program == "":
		return o, errors.New("no program to supervise: name one after --")
	case o.Root != "" && !filepath.IsLocal(o.Program):
		return o, fmt.Errorf("program %q: with --root it is a path inside the release, such as bin/app", o.Program)
	case o.Root == "" && !filepath.IsAbs(o.Program):
		return o, fmt.Errorf("program %q: without --root it must be an absolute path", o.Program)
	case o.Root != "" && !filepath.IsAbs(o.Root):
		return o, fmt.Errorf("release store %q: give an absolute path", o.Root)
	case o.Root == "" && slices.ContainsFunc(o.Args, func(a string) bool { return strings.Contains(a, releaseWord) }):
		return o, fmt.Errorf("an argument has %s, but there is no release: give --root, or the path itself", releaseWord)
	case o.StartTimeout < 0 || o.DrainTimeout < 0 || o.MaxDraining < 0:
		return o, errors.New("time-outs and limits must not be negative")
	case o.RuntimeDir == "":
		return o, errors.New("no runtime directory: set RuntimeDirectory=%N in the unit, or give --runtime-dir")
	}
	seen := map[string]bool{}
	for _, l := range o.Listen {
		if seen[l.Name] {
			return o, fmt.Errorf("two sockets named %q: give each --listen a name of its own", l.Name)
		}
		seen[l.Name] = true
	}
	return o, nil
}

// Check refuses options that cannot work, as [Run] would.
func (o Options) Check() error {
	_, err := o.complete()
	return err
}
