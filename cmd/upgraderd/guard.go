package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

func guardCommand() *cobra.Command {
	var (
		patience     time.Duration
		failed, boot bool
	)
	cmd := &cobra.Command{
		Use:   "guard TARGET | guard --boot",
		Short: "Undo an upgrade that nobody watches",
		Long: `Undo the upgrade of TARGET that is under way, if the daemon is gone and does not
come back within --patience=. upgraderd-guard@.timer runs this while a release
is on trial, and with --failed OnFailure= of a service does.

With --boot, before the services start: have each of them start with the release
that proved itself, where another was on trial when the host went down.

Nothing to do is success.`,
		ValidArgsFunction: complete(false, targetNames),
		Args: usage(func(cmd *cobra.Command, args []string) error {
			if boot {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(1)(cmd, args)
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			handler := journal.NewHandler(os.Stderr, journal.Options{})
			defer func() { _ = handler.Close() }()
			at, err := scopeOf(cmd, "/")
			if err != nil {
				return err
			}
			o := upgrader.Options{StateDir: at.state(), Log: slog.New(handler)}
			if boot {
				err = upgrader.RevertUnproven(ctx, o)
			} else {
				err = guard(ctx, at, o, args[0], patience, failed)
			}
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&patience, "patience", 5*time.Second, "how long the daemon may take to come back")
	cmd.Flags().BoolVar(&failed, "failed", false, "the unit has failed: do not wait for the daemon")
	cmd.Flags().BoolVar(&boot, "boot", false, "look at every target, and move links only")
	return cmd
}

func guard(ctx context.Context, at scope, o upgrader.Options, name string, patience time.Duration, failed bool) error {
	if failed {
		// Any service fails for many reasons, and most have no target.
		name = targetOf(o.StateDir, name)
		if pending, err := upgrader.Pending(o.StateDir, name); err != nil || !pending {
			return err
		}
	}
	bus := at.bus(o.Log)
	defer func() { _ = bus.Close() }()
	o.Systemd = bus
	target, diagnostics := at.files().Peek(name)
	if target == nil { // nobody may touch its unit any more; once is enough to say so
		if _, others := at.files().PeekAll(); !others.Doubt(name) { // gone, and not only broken
			switch err := upgrader.Retire(ctx, o, name); {
			case errors.Is(err, store.ErrLocked):
				return nil // a daemon comes to a verdict; should it die, the next run is for that
			case err != nil:
				return err
			}
		}
		_, _ = bus.Stop(ctx, upgrader.GuardTimer(name))
		return withStatus(exitConfig, diagnostics.Err())
	}
	return upgrader.Guard(ctx, o, upgrader.Guarded{Target: target, Patience: patience, Failed: failed})
}

// targetOf is the target that an instance name means: as it is, or escaped.
func targetOf(dir, instance string) string {
	if _, err := os.Stat(filepath.Join(dir, filepath.Base(instance))); err == nil {
		return filepath.Base(instance)
	}
	return unitfile.UnescapeUnit(instance)
}
