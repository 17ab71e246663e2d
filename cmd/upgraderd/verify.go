package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader/config"
)

func verifyCommand() *cobra.Command {
	root := "/"
	cmd := &cobra.Command{
		Use:   "verify [TARGET|FILE.upgrade...]",
		Short: "Check .upgrade files, all of them or those named",
		Long: `Read .upgrade files as the daemon would and print what is wrong with them, each
with file, line and what to do. Exit status 1 if any could not be used.`,
		Example: "  upgraderd verify\n  upgraderd verify ./app.upgrade",
		RunE: func(cmd *cobra.Command, args []string) error {
			ok, err := config.Lint(cmd.OutOrStdout(), root, args...)
			if err == nil && !ok {
				return silent(exitFailure)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&root, "root", root, "read configuration below this `directory`")
	return cmd
}

// silent is an exit status of which everything has been said.
func silent(code int) error { return statusError{errSaid, code} }

var errSaid = errors.New("said already")
