package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/progress"
)

func fetchCommand() *cobra.Command {
	return ordering(upgrader.Order{Verb: upgrader.OrderFetch}, &cobra.Command{
		Use:   "fetch TARGET [VERSION]",
		Short: "Bring a release here now, to be applied later",
		Long: `Have the daemon fetch the newest release that the source of TARGET offers, or
VERSION, verify and check it, and leave it staged. What runs goes on. Later,
upgraderd upgrade TARGET applies it without the source.

The release that waits does not come by itself; what is newer than it does, as
ever. The exit status is 0 if it is staged, or if there is nothing to fetch.`,
		Example:           "  upgraderd fetch app\n  upgraderd fetch app 1.4.2 && upgraderd upgrade app",
		ValidArgsFunction: complete(false, targetNames, versionsKnown),
	})
}

func importCommand() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "import TARGET FILE...",
		Short: "Bring a release here from files, such as those of a USB stick",
		Long: `Have the daemon take a release of TARGET from files instead of from its source,
which is not asked: an artifact, with SHA256SUMS and its signatures beside it or
named, too; or a directory of these, of which the newest that MatchPattern= finds
is taken. With Verify=tuf it is the directory that holds metadata/ and targets/.

The files are copied for the daemon, which verifies and checks them as if they
had come from the source, with the same keys and limits, and leaves the release
staged. upgraderd upgrade TARGET applies it. The exit status is 0 if it is staged.`,
		Example:           "  upgraderd import app /media/usb/app_1.4.2.zst\n  upgraderd import app /media/usb && upgraderd upgrade app",
		ValidArgsFunction: complete(true, targetNames, nil),
		Args:              usage(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return importFiles(ctx, cmd, args[0], args[1:], noWait)
		},
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func importFiles(ctx context.Context, cmd *cobra.Command, name string, files []string, noWait bool) error {
	at, err := scopeOf(cmd, "/")
	if err != nil {
		return err
	}
	target, diagnostics := at.files().Peek(name)
	if target == nil {
		return diagnostics.Err()
	}
	line := newLine(cmd.ErrOrStderr())
	var meter progress.Meter
	id, o, err := upgrader.Import(ctx, at.state(), target, files, daemonThere(ctx, at), func(done, total int64) {
		meter.Note(done)
		p := meter.Progress(total)
		line.show(target.Name+": copying", &p)
	})
	line.clear()
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("import to %s: interrupted, nothing is left behind", target.Name)
	}
	if err != nil {
		return fmt.Errorf("import to %s: %w", target.Name, err)
	}
	return obeyed(ctx, cmd, at, target, o, id, noWait)
}

// daemonThere tells whether somebody is there to read what is copied: gigabytes do not
// wait for a daemon that may never come.
func daemonThere(ctx context.Context, at scope) func() error {
	return func() error {
		bus := at.bus(nil)
		defer func() { _ = bus.Close() }()
		return daemonRuns(ctx, bus)
	}
}
