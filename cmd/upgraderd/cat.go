package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func catCommand() *cobra.Command {
	root := "/"
	cmd := &cobra.Command{
		Use:               "cat TARGET...",
		Short:             "Show the files of targets",
		Long:              `Print the .upgrade file of each TARGET, and its drop-ins in the order in which they apply, each below its name.`,
		Example:           "  upgraderd cat app",
		ValidArgsFunction: complete(true, targetNames),
		Args:              usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := scopeOf(cmd, root)
			if err != nil {
				return err
			}
			first := true
			for _, name := range args {
				files, err := at.files().Files(strings.TrimSuffix(name, ".upgrade"))
				if err != nil {
					return err
				}
				for _, file := range files {
					text, err := os.ReadFile(file)
					if err != nil {
						return err
					}
					if !first {
						fmt.Fprintln(cmd.OutOrStdout())
					}
					first = false
					fmt.Fprintf(cmd.OutOrStdout(), "# %s\n%s", file, text)
					if len(text) > 0 && text[len(text)-1] != '\n' {
						fmt.Fprintln(cmd.OutOrStdout())
					}
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", root, "look below this `directory`")
	return cmd
}
