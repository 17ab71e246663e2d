package main

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
)

func launchCommand() *cobra.Command {
	var verbose bool
	file := os.Getenv(textfileVariable)
	cmd := &cobra.Command{
		Use:   "launch",
		Short: "Become the daemon: the release of upgraderd in its store, or this program",
		Long: `Go on as upgraderd daemon, in this same process: as the release of upgraderd in
/var/lib/upgraderd/upgraderd where there is an upgraderd.upgrade and such a
release starts, else as this program. This is what upgraderd.service runs.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := textfile(file); err != nil {
				return err
			}
			// By a variable: a release of upgraderd may not know the flag.
			if err := os.Setenv(textfileVariable, file); err != nil {
				return err
			}
			handler, level := daemonLog(verbose)
			defer func() { _ = handler.Close() }()
			log := slog.New(handler)
			at, err := scopeOf(cmd, "/")
			if err != nil {
				return err
			}
			if at.files().Has(upgrader.OwnTarget) {
				// Signals end us as ever: one that was caught would be lost with us.
				upgrader.Launch(cmd.Context(), upgrader.Options{StateDir: at.state(), Log: log}, func(program string) error {
					return becomeDaemon(at, program, verbose)
				})
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return follow(ctx, at, handler, level, file)
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "say what is only of interest when something is wrong")
	textfileFlag(cmd, &file)
	return cmd
}

// becomeDaemon makes this process another program's daemon. It returns only if
// that failed.
func becomeDaemon(at scope, program string, verbose bool) error {
	argv := append([]string{program}, at.arguments("daemon")...)
	if verbose {
		argv = append(argv, "--verbose")
	}
	return os.NewSyscallError("execve", syscall.Exec(program, argv, os.Environ()))
}
