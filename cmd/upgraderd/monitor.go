package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader/bus"
)

func monitorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "monitor [TARGET...]",
		ValidArgsFunction: complete(true, targetNames),
		Short:             "Follow what happens to targets, one line for each event",
		Long: `Print what happens to every target, or to those named: states, transfers,
verdicts, orders and how they end, as the daemon tells it over D-Bus; first, what
is. Nobody needs rights for that. It goes on through restarts of the daemon, and
ends by Ctrl-C, with status 0.

With --json each line is an object; upgraderd status shows what is now.`,
		Example: "  upgraderd monitor\n  upgraderd monitor app --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			at, err := scopeOf(cmd, "/")
			if err != nil {
				return err
			}
			client, err := bus.Dial(ctx, at.Bus)
			if err != nil {
				return err
			}
			defer func() { _ = client.Close() }()
			out := cmd.OutOrStdout()
			tell := func(e bus.Event) error {
				_, err := fmt.Fprintf(out, "%s %s\n", e.When.Format(time.TimeOnly), e)
				return err
			}
			if asJSON {
				enc := json.NewEncoder(out)
				tell = func(e bus.Event) error { return enc.Encode(e) }
			}
			if err := client.Monitor(ctx, args, tell); !errors.Is(err, context.Canceled) || ctx.Err() == nil {
				return err
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, an object on each line")
	return cmd
}
