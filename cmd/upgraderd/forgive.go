package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
)

func forgiveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "forgive TARGET",
		Short: "Let the known bad releases of a target be tried again",
		Long: `Forget which digests of TARGET are known bad. The next look at the source takes
the newest release again; systemctl reload upgraderd makes it look at once.`,
		ValidArgsFunction: complete(false, targetNames),
		Args:              usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := scopeOf(cmd, "/")
			if err != nil {
				return err
			}
			if !at.User && !isRoot() {
				return forgiveOverBus(cmd, args[0])
			}
			target, diagnostics := at.files().Peek(args[0])
			if target == nil {
				return diagnostics.Err()
			}
			forgiven, err := upgrader.Forgive(at.state(), target.Name)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if len(forgiven) == 0 {
				fmt.Fprintf(out, "nothing of %s is known bad\n", target.Name)
				return nil
			}
			for _, bad := range forgiven {
				fmt.Fprintf(out, "forgave %s (%.12s…)\n", cmp.Or(bad.Version, "a release"), bad.Digest)
			}
			fmt.Fprintln(out, "To have the newest release tried now: systemctl reload upgraderd")
			return nil
		},
	}
}
