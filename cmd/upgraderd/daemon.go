package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/activation"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/bus"
	"github.com/upgraderd/upgraderd/upgrader/config"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/realm"
)

// stateDir is where releases and records are, unless StateDirectory= says
// otherwise.
const stateDir = realm.SystemState

func daemonCommand() *cobra.Command {
	var verbose bool
	file := os.Getenv(textfileVariable)
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Follow the targets and upgrade their units",
		Long: `Follow every target in /etc/upgraderd/*.upgrade: fetch and verify new releases,
hand them to the units, watch them, and undo what turns bad. SIGHUP reads the
targets again. This is what upgraderd.service runs, by way of upgraderd launch.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := textfile(file); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			handler, level := daemonLog(verbose)
			defer func() { _ = handler.Close() }()
			at, err := scopeOf(cmd, "/")
			if err != nil {
				return err
			}
			return follow(ctx, at, handler, level, file)
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "say what is only of interest when something is wrong")
	textfileFlag(cmd, &file)
	return cmd
}

func textfileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "metrics-textfile", *file, "keep metrics in this `file`, for node_exporter")
}

// daemonLog is the daemon's, with what its level is set by.
func daemonLog(verbose bool) (*journal.Handler, *slog.LevelVar) {
	level := new(slog.LevelVar)
	if verbose {
		level.Set(slog.LevelDebug)
	}
	return journal.NewHandler(os.Stderr, journal.Options{Level: level}), level
}

// follow runs the daemon until ctx ends, and keeps metrics in file, unless that is
// empty.
func follow(ctx context.Context, at scope, handler *journal.Handler, level *slog.LevelVar, file string) error {
	if at.User && file != "" {
		return withStatus(exitUsage, errors.New("--metrics-textfile= is of the system's upgraderd alone"))
	}
	log := slog.New(handler)
	// What a library prints by package log is for who debugs, and no line of ours.
	slog.SetLogLoggerLevel(slog.LevelDebug)
	slog.SetDefault(log)
	if err := at.MakeState(); err != nil {
		return err
	}
	pid1 := at.bus(log)
	defer func() { _ = pid1.Close() }()
	interval, err := activation.WatchdogInterval()
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	targets, diagnostics := at.files().LoadAll()
	tellDiagnostics(log, diagnostics)
	var daemon *upgrader.Daemon
	var told sync.Map // what could not be read
	reload := func(ctx context.Context) error { return readAgain(ctx, at, log, daemon, &told) }
	news := make(news, 1)
	watching := observers{news}
	options := upgrader.Options{
		StateDir: at.state(), SourceSocket: at.SourceSocket, Targets: targets, Broken: diagnostics.Doubt, Systemd: pid1, Log: log,
		Notify: activation.Notify, WatchdogInterval: interval, Program: program,
	}
	face := bus.New(bus.Options{
		Address: at.Bus, Own: at.User,
		StateDir: at.state(), Version: readBuild(debug.ReadBuildInfo()).Version, Reload: reload, Log: log,
		Logs: bus.Logs{Level: level, Target: handler.Target(), Identifier: "upgraderd"},
	})
	options.Observer = append(watching, face)
	if daemon, err = upgrader.New(options); err != nil {
		return err
	}
	if file != "" {
		var keeping sync.WaitGroup
		defer keeping.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		keeping.Go(func() { keepMetrics(ctx, file, news, log) })
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	go func() {
		var again <-chan time.Time // nil while nothing was left unread
		if len(diagnostics.Unread()) > 0 {
			again = time.After(unreadInterval)
		}
		for {
			select {
			case <-hangups:
			case <-again:
			case <-ctx.Done():
				return
			}
			again = nil
			switch err := reload(ctx); {
			case ctx.Err() != nil:
			case errors.Is(err, errUnread): // and told
				again = time.After(unreadInterval)
			case err != nil:
				log.Error("reading the targets again", "error", err)
			}
		}
	}()
	served, stopServing := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer stopServing()
	serving.Go(func() { face.Run(served, daemon) })
	if err := daemon.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// stateDirectory is where systemd says, see StateDirectory= in systemd.exec(5).
func stateDirectory() string {
	given, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return cmp.Or(given, stateDir)
}

// unreadInterval is how soon files are tried again that the host could not read.
const unreadInterval = 30 * time.Second

var errUnread = errors.New("the .upgrade files cannot be read for now, and those read before stay in force; see journalctl -u upgraderd")

// readAgain has the daemon follow what the files say now. Where this host cannot read
// some of them, nobody knows which targets there are, so it follows what it did; it
// looks for orders all the same. What is told already is not told again.
func readAgain(ctx context.Context, at scope, log *slog.Logger, daemon *upgrader.Daemon, told *sync.Map) error {
	targets, diagnostics := at.files().LoadAll()
	if unread := diagnostics.Unread(); len(unread) > 0 {
		text := unread[0].String()
		if _, known := told.LoadOrStore(text, true); !known {
			journal.Emit(ctx, log, journal.ConfigUnread, slog.String("error", text),
				slog.String("hint", "free what the host lacks, or raise LimitNOFILE= of upgraderd.service"))
		}
		for _, st := range daemon.Status() {
			daemon.Look(st.Name)
		}
		return errUnread
	}
	told.Clear()
	tellDiagnostics(log, diagnostics)
	return daemon.Reload(ctx, targets)
}

// tellDiagnostics has what is wrong with the configuration go to the journal, one line
// each. It never stops the targets that are whole.
func tellDiagnostics(log *slog.Logger, diagnostics config.Diagnostics) {
	for _, d := range diagnostics {
		event := journal.ConfigRejected
		if d.Warning {
			event = journal.ConfigDoubtful
		}
		journal.Emit(context.Background(), log, event,
			slog.String("target", d.Target), slog.String("error", d.String()), slog.String("hint", cmp.Or(d.Hint, "see upgraderd verify")))
	}
}
