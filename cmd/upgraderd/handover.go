package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader/supervisor"
)

func handoverCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "handover",
		Short: "Ask a unit's supervisor for a new worker, and wait for it",
		Long: `Ask the supervisor for a handover and wait until it is over. Exit status 0: the
new worker serves. Exit status 1: it does not, and the old one never noticed.
Where the supervisor has --reload= and no other release is to run, the worker is
told to read its configuration again, and 1 means that it did not take it.

This is what ExecReload= of a supervised unit runs; an operator says
"systemctl reload UNIT". A stop of the unit meanwhile ends it with status 0 there.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				dir, _, _ = strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
			}
			if dir == "" {
				return withStatus(exitUsage, advise(errors.New("no runtime directory: this runs as ExecReload= of a unit with RuntimeDirectory="), "use systemctl reload UNIT, or name the directory with --runtime-dir"))
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			reply, err := supervisor.RequestHandover(ctx, dir)
			underSystemd := os.Getenv("INVOCATION_ID") != ""
			switch {
			case (reply.Stopping || ctx.Err() != nil) && underSystemd:
				// The unit is being stopped. Were this to fail, the unit would have
				// failed, too. (Of a reload that took too long systemd knows.)
				return nil
			case err != nil && reply.Error != "" && underSystemd:
				return silent(exitFailure) // the supervisor said it, in the same journal
			case err != nil:
				return fmt.Errorf("handover: %w", err)
			case underSystemd:
				return nil
			}
			switch {
			case reply.Told:
				fmt.Printf("%s was told to read its configuration again\n", reply.Release)
			case reply.Already:
				fmt.Printf("%s serves already\n", reply.Release)
			default:
				fmt.Printf("%s serves\n", reply.Release)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "runtime-dir", "", "the supervisor's runtime `directory`\n(default: $RUNTIME_DIRECTORY)")
	return cmd
}
