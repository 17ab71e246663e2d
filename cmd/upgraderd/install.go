package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/units"
)

func installCommand() *cobra.Command {
	root := "/"
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Put the program, its units and its polkit rule in place",
		Long: `Install this program as /usr/bin/upgraderd, with its units, polkit rule, user,
directories, catalog, man pages, completions and examples. A file that somebody edited is kept, and
ours is put beside it. Doing it again changes nothing.

With --user, install it as ~/.local/bin/upgraderd, with the units of your own
service manager, for your own services: nothing of that needs a right of root's.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			at, err := scopeOf(cmd, root)
			if err != nil {
				return err
			}
			if at.User {
				result, err := units.InstallUser(units.UserOptions{Home: at.Home, ConfigHome: at.ConfigHome, StateHome: at.StateHome, Program: self})
				if err != nil {
					return err
				}
				printInstalled(cmd.OutOrStdout(), result)
				return nil
			}
			result, err := units.Install(root, units.Options{Program: self})
			if err != nil {
				return err
			}
			printInstalled(cmd.OutOrStdout(), result)
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", root, "install below this `directory`")
	return cmd
}

func printInstalled(w io.Writer, r units.Result) {
	for _, name := range r.Written {
		fmt.Fprintf(w, "installed %s\n", name)
	}
	for _, name := range r.Kept {
		fmt.Fprintf(w, "kept      %s, which was edited; ours is %s.upgraderd-new\n", name, name)
	}
	if len(r.Written) == 0 && len(r.Kept) == 0 {
		fmt.Fprintln(w, "everything is in place already")
	}
	if len(r.Next) > 0 {
		fmt.Fprintln(w, "\nNext:")
	}
	for _, step := range r.Next {
		fmt.Fprintf(w, "  %s\n", step)
	}
}
