package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader/config"
	"github.com/upgraderd/upgraderd/upgrader/unitlint"
)

func verifyCommand() *cobra.Command {
	root := "/"
	cmd := &cobra.Command{
		Use:   "verify [TARGET|FILE.upgrade...]",
		Short: "Check .upgrade files and their units, all or those named",
		Long: `Read .upgrade files as the daemon would, and the unit of each that is in order,
with its sockets, as systemd would. Print what is wrong with them: in a unit,
what would lose connections or keep a bad release. Each has its file, line and
what to do; docs/unit-checks.md explains the codes of units.

Exit status 1 if any could not be used. What works, but not as well as it could,
is a warning.`,
		Example: "  upgraderd verify\n  upgraderd verify ./app.upgrade\n  upgraderd verify --root=/mnt/image",
		RunE: func(cmd *cobra.Command, args []string) error {
			targets, ds := config.Lint(root, args...)
			ds = append(ds, unitlint.Check(root, targets...)...)
			if err := ds.Print(cmd.OutOrStdout()); err != nil {
				return err
			}
			if len(ds.Errors()) > 0 {
				return silent(exitFailure)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", root, "read configuration and units below this `directory`")
	return cmd
}

// silent is an exit status of which everything has been said.
func silent(code int) error { return statusError{errSaid, code} }

var errSaid = errors.New("said already")
