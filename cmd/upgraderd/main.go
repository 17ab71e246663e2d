// Command upgraderd upgrades services while they serve. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Exit statuses. 1 is any failure; those of systemd.exec(5) are used where
// the meaning is the same.
const (
	exitFailure = 1
	exitUsage   = 2
	exitConfig  = 78 // EX_CONFIG: a restart would not help
)

// exitStatus is one of those, as people are told about it.
type exitStatus struct {
	code    int
	meaning string
}

func exitStatuses() []exitStatus {
	return []exitStatus{
		{0, "it was done, or there was nothing to do"},
		{exitFailure, "it was not done, and stderr says why"},
		{exitUsage, "the command line is wrong"},
		{exitNothingNew, "of check: there is no release to take"},
		{exitConfig, "of what units run: the configuration is wrong, and a restart would not help"},
	}
}

func main() {
	root := rootCommand()
	cmd, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return
	}
	if !errors.Is(err, errSaid) {
		tellError(inWordsOf(cmd, shown{os.Stderr}), err)
	}
	var status statusError
	if errors.As(err, &status) {
		os.Exit(status.code)
	}
	os.Exit(exitFailure)
}

// statusError carries the exit status that an error asks for.
type statusError struct {
	error
	code int
}

func (e statusError) Unwrap() error { return e.error }

// withStatus gives err an exit status.
func withStatus(code int, err error) error {
	if err == nil {
		return nil
	}
	return statusError{err, code}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "upgraderd",
		Short:         "Upgrade services while they serve",
		Long:          rootText(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usage(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(shown{os.Stdout})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return withStatus(exitUsage, err) })
	addScope(root)
	root.AddCommand(
		statusCommand(), listCommand(), historyCommand(), showCommand(), checkCommand(), planCommand(), verifyCommand(), monitorCommand(), metricsCommand(), // what people read
		fetchCommand(), importCommand(), deployCommand(), upgradeCommand(), confirmCommand(), rollbackCommand(), installCommand(), // what people do
		holdCommand(), unholdCommand(), pinCommand(), skipCommand(), forgiveCommand(), // what they forbid
		adoptCommand(), catCommand(), editCommand(), // what they write
		launchCommand(), daemonCommand(), superviseCommand(), handoverCommand(), // what units run
		guardCommand(), allowsCommand(), runCheckCommand(), runSourceCommand(),
		keygenCommand(), publishCommand(), // what publishers run
		versionCommand(),
	)
	completing(root)
	return root
}

func rootText() string {
	var b strings.Builder
	b.WriteString("Upgrade services while they serve.\n\nWhat only reads needs no daemon, takes --json, and obeys SYSTEMD_PAGER, PAGER,\nSYSTEMD_COLORS and NO_COLOR as systemctl does.\n\nExit status:\n")
	for _, s := range exitStatuses() {
		fmt.Fprintf(&b, "  %-3d %s\n", s.code, s.meaning)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
