package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/supervisor"
)

func superviseCommand() *cobra.Command {
	var (
		opts       supervisor.Options
		listen     []string
		ready      string
		stopSignal string
		pass       string
		reload     string
		proof      bool
	)
	// Before anything that takes time: this may be a supervisor that goes on as a
	// new program. Without supervising, the signals end us as ever.
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		opts.Signals = supervisor.Hear()
	}
	cmd := &cobra.Command{
		Use:   "supervise [flags] -- PROGRAM [ARG...]",
		Short: "Be the steady main process of a unit",
		Long: `Run PROGRAM as a worker that can be replaced while it serves: the sockets and
this process's PID stay, the worker changes.

Under systemd this is ExecStart= of a Type=notify service, with
ExecReload=upgraderd handover. SIGHUP and SIGUSR2 ask for a new worker, too,
SIGUSR1 goes to the worker, SIGTERM stops.`,
		Example: `  ExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/app -- bin/app -v
  ExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/web --pass=nginx -- bin/nginx -p {release} -c nginx.conf
  upgraderd supervise --listen=web=tcp:127.0.0.1:8080 -- /srv/app/bin/app`,
		ValidArgsFunction: complete(true, nil),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return withStatus(exitUsage, advise(errors.New("no program to supervise"), "name it after --, as in: upgraderd supervise -- /srv/app/bin/app"))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			opts.Program, opts.Args = args[0], args[1:]
			for _, l := range listen {
				parsed, err := supervisor.ParseListen(l)
				if err != nil {
					return withStatus(exitUsage, err)
				}
				opts.Listen = append(opts.Listen, parsed)
			}
			var err error
			if opts.Pass, err = supervisor.ParsePass(pass); err != nil {
				return withStatus(exitUsage, err)
			}
			if ready != "" {
				if opts.Ready, err = supervisor.ParseReady(ready); err != nil {
					return withStatus(exitUsage, err)
				}
			}
			if opts.Reload, err = supervisor.ParseReload(reload); err != nil {
				return withStatus(exitUsage, err)
			}
			if stopSignal != "" {
				if opts.StopSignal, err = parseSignal(stopSignal); err != nil {
					return withStatus(exitUsage, err)
				}
			}
			if proof {
				opts.RuntimeDir = cmp.Or(opts.RuntimeDir, "/")
				return opts.Check()
			}
			if os.Getenv("INVOCATION_ID") != "" { // else nobody keeps what we would leave
				opts.Proof = proofArgs(os.Args[1:])
			}
			clean := func() {}
			if opts.RuntimeDir == "" {
				dir, remove, err := runtimeDir()
				if err != nil {
					return err
				}
				opts.RuntimeDir, clean = dir, remove
			}
			opts.Log = slog.New(journal.NewHandler(os.Stderr, journal.Options{})).With("target", targetName(opts))
			stayingSmall()
			end, err := supervisor.Run(opts)
			clean()
			if err != nil {
				return err
			}
			end.Become()
			return nil
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&opts.Root, "root", "", "the target's `directory` in the release store;\nPROGRAM is a path inside a release, {release} in\nits arguments is that release's directory")
	f.StringArrayVar(&listen, "listen", nil, "open a `SOCKET` that no .socket unit holds,\n[NAME=]NETWORK:ADDRESS (repeatable)")
	f.StringVar(&pass, "pass", "systemd", "the `DIALECT` in which a worker is told of its\nsockets: systemd, nginx, server-starter or einhorn\n")
	f.StringVar(&ready, "ready", "", "a worker is ready `WHEN` it says so (notify), it\nwaits on its sockets (accepting), a time is over\n(after=TIME), or a command succeeds\n(default notify; accepting with another --pass)")
	f.StringVar(&reload, "reload", "handover", "the `WAY` in which a reload of the release that serves\nalready goes: a new worker (handover), a signal to the\nworker (SIGNAL), or that and to wait for what it says\n(notify=SIGNAL)\n")
	f.DurationVar(&opts.StartTimeout, "start-timeout", supervisor.DefaultStartTimeout, "`time` a worker may take to become ready\n")
	f.DurationVar(&opts.DrainTimeout, "drain-timeout", supervisor.DefaultDrainTimeout, "`time` an old worker has to finish its work\n")
	f.StringVar(&stopSignal, "stop-signal", "", "the `signal` that asks a worker to drain\n(default SIGTERM; SIGQUIT for nginx, SIGUSR2 for\neinhorn)")
	f.IntVar(&opts.MaxDraining, "max-draining", supervisor.DefaultMaxDraining, "refuse a handover while this `number` of old\nworkers drain")
	f.BoolVar(&proof, proofFlag, false, "exit with 0 if this program could go on as a supervisor\nwith these arguments")
	_ = f.MarkHidden(proofFlag)
	f.StringVar(&opts.RuntimeDir, "runtime-dir", "", "`directory` for the control and notify sockets\n(default: $RUNTIME_DIRECTORY)")
	return cmd
}

// proofFlag stands for what a supervisor leaves to the program that goes on in its
// process, in this version of it. A program that does not know it cannot adopt.
const proofFlag = "adopts-1"

// proofArgs are a supervisor's arguments with the flag among them.
func proofArgs(args []string) []string {
	return append([]string{args[0], "--" + proofFlag}, args[1:]...)
}

// runtimeDir is what RuntimeDirectory= gave, or a directory of our own where
// there is no systemd.
func runtimeDir() (dir string, remove func(), err error) {
	if dir, _, _ = strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":"); dir != "" {
		return dir, func() {}, nil
	}
	if os.Getenv("INVOCATION_ID") != "" {
		return "", nil, advise(errors.New("no runtime directory"), "add RuntimeDirectory=%%N to the unit's [Service] section")
	}
	dir, err = os.MkdirTemp("", "upgraderd-")
	if err != nil {
		return "", nil, fmt.Errorf("make a runtime directory: %w", err)
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}

// parseSignal reads "SIGQUIT" or "QUIT".
func parseSignal(name string) (syscall.Signal, error) {
	sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	if sig == 0 {
		return 0, advise(fmt.Errorf("--stop-signal=%q: not a signal", name), "give a name such as SIGQUIT")
	}
	return sig, nil
}

// stayingSmall tunes the runtime for a process that waits: one runs beside
// every service. A cache for each processor, and a heap that may grow to 4 MiB
// before it is first collected, are for programs with more to do, and a profile
// of the heap is for nobody here.
func stayingSmall() {
	runtime.MemProfileRate = 0
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(30)
}

// targetName is how the daemon calls what runs here: the name of its
// directory in the store.
func targetName(o supervisor.Options) string {
	if o.Root != "" {
		return filepath.Base(o.Root)
	}
	return filepath.Base(o.Program)
}
