package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
)

func runCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "run-check TARGET",
		Short:  "Run Check= of a target in its staged release",
		Long:   `What upgraderd-check@.service runs in its sandbox. It exits as the command does.`,
		Hidden: true,
		Args:   usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			at, err := scopeOf(cmd, "/")
			if err != nil {
				return err
			}
			return runCheck(ctx, at, args[0])
		},
	}
}

func runCheck(ctx context.Context, at scope, name string) error {
	target, diagnostics := at.files().Sandboxed().Peek(name)
	if target == nil {
		return withStatus(exitConfig, diagnostics.Err())
	}
	code := upgrader.RunCheck(ctx, target, filepath.Join(at.state(), name), os.Stdout, os.Stderr)
	if code != 0 {
		return silent(code)
	}
	return nil
}
