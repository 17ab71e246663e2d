package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader/config"

	"github.com/upgraderd/upgraderd/fetcher"
)

func verifyCommand() *cobra.Command {
	root := "/"
	var (
		source fetcher.Options
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:     "verify [TARGET|FILE.upgrade...] | verify URL|DIR [--key=KEY...] [--pattern=PATTERN...]",
		Aliases: []string{"doctor"},
		Short:   "Check .upgrade files and their units, or what a source offers",
		Long: `Read .upgrade files as the daemon would, and the unit of each that is in order,
with its sockets, as systemd would. Print what is wrong with them: in a unit,
what would lose connections or keep a bad release. Each has its file, line and
what to do; docs/unit-checks.md explains the codes of units. Then read the
releases on disk, and tell which are not what was installed.

With a URL or a directory, say what a host that trusts these keys would make of
it: who signed, which release it would take, and whether that arrives whole.

Exit status 1 if any could not be used. What works, but not as well as it could,
is a warning.`,
		ValidArgsFunction: orFiles(complete(true, targetNames)),
		Example:           "  upgraderd verify\n  upgraderd verify ./app.upgrade\n  upgraderd verify --root=/mnt/image\n  upgraderd verify https://example.org/app --key=release.pub --pattern=app_@v",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && isSource(args[0]) {
				if asJSON {
					return withStatus(exitUsage, errors.New("--json is for targets and files, and not for a source"))
				}
				return verifySource(cmd.Context(), cmd.OutOrStdout(), args[0], source)
			}
			at, err := scopeOf(cmd, root)
			if err != nil {
				return err
			}
			targets, ds := at.files().Lint(args...)
			ds = append(ds, at.lintUnits(targets)...)
			ds = append(ds, verifyStores(cmd.Context(), at, targets)...)
			tell := ds.Print
			if asJSON {
				tell = func(w io.Writer) error { return printJSON(w, findings(ds)) }
			}
			if err := tell(cmd.OutOrStdout()); err != nil {
				return err
			}
			if len(ds.Errors()) > 0 {
				return silent(exitFailure)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, of targets and files")
	cmd.Flags().StringVar(&root, "root", root, "read configuration and units below this `directory`")
	cmd.Flags().StringArrayVar(&source.Keys, "key", nil, "a `key` or an absolute file of one that hosts trust, as Key=")
	cmd.Flags().StringArrayVar(&source.Patterns, "pattern", nil, "which files are releases, as MatchPattern=")
	cmd.Flags().StringVar(&source.Root, "tuf-root", "", "the root.json in this `file` is trusted, as Root= with Verify=tuf")
	cmd.Flags().IntVar(&source.Threshold, "threshold", 0, "how many of the keys must have signed, as Threshold=")
	cmd.Flags().StringVar(&source.CAFile, "ca-file", "", "trust the PEM certificates in this absolute `file`, too, as CAFile=")
	cmd.Flags().StringVar(&source.TokenFile, "token-file", "", "the token in this absolute `file` lets us in, as TokenFile=")
	cmd.Flags().StringVar(&source.LoginFile, "login-file", "", "the user:password in this absolute `file` lets us in, as LoginFile=")
	cmd.Flags().StringVar(&source.CertificateFile, "certificate-file", "", "show the PEM certificate in this absolute `file`, as CertificateFile=")
	cmd.Flags().StringVar(&source.PrivateKeyFile, "private-key-file", "", "its key is in this absolute `file`, as PrivateKeyFile=")
	return cmd
}

// finding is a diagnostic as JSON.
type finding struct {
	Target  string      `json:"target,omitempty"`
	File    string      `json:"file"`
	Line    int         `json:"line,omitempty"`
	Code    config.Code `json:"code"`
	Warning bool        `json:"warning,omitempty"`
	Host    bool        `json:"host,omitempty"`
	Message string      `json:"message"`
	Hint    string      `json:"hint,omitempty"`
}

func findings(ds config.Diagnostics) []finding {
	all := make([]finding, 0, len(ds))
	for _, d := range ds {
		all = append(all, finding(d))
	}
	return all
}

// silent is an exit status of which everything has been said.
func silent(code int) error { return statusError{errSaid, code} }

var errSaid = errors.New("said already")
