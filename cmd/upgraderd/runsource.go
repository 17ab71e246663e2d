package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
)

func runSourceCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "run-source",
		Short:  "Run the command of a target whose Path= is exec:",
		Long:   `What upgraderd-source@.service runs in its sandbox: standard input is the daemon's connection, and says which target.`,
		Hidden: true,
		Args:   usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			conn, err := net.FileConn(os.Stdin)
			if err != nil {
				return withStatus(exitUsage, advise(errors.New("standard input is no connection"), "upgraderd-source.socket starts this"))
			}
			defer conn.Close()
			at, err := scopeOf(cmd, "/")
			if err != nil {
				return err
			}
			name := ""
			err = upgrader.ServeSource(ctx, conn, func(target string) (*upgrader.Target, error) {
				name = target
				t, diagnostics := at.files().Peek(target)
				if t == nil {
					return nil, diagnostics.Err()
				}
				return t, nil
			}, os.Stderr)
			if err != nil {
				return fmt.Errorf("source of %s: %w", name, err)
			}
			return nil
		},
	}
}
