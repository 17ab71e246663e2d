package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader/wish"
)

func pinCommand() *cobra.Command {
	var (
		w    wisher
		none bool
	)
	cmd := &cobra.Command{
		Use:   "pin TARGET VERSION|PATTERN | pin TARGET --none",
		Short: "Let only one version, or some, come into question",
		Long: `Pin TARGET to VERSION, or to the versions that match PATTERN, in which * stands
for anything and ? for one character. Of these the newest that the source offers
is taken, also where a newer version that the pin rules out is installed: then it
is gone back, whatever was accepted before. What is known bad, skipped or older
than MinVersion= stays out of question.

--none takes the pin back: what is newer comes by itself again.`,
		Example:           "  upgraderd pin app '1.4.*' --reason='2.0 drops our old clients'\n  upgraderd pin app --none",
		ValidArgsFunction: complete(false, targetNames, versionsKnown),
		Args:              usage(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if none == (len(args) == 2) {
				return withStatus(exitUsage, errors.New("name a VERSION, or a PATTERN such as '1.4.*', or say --none"))
			}
			m := w.mark()
			return w.change(cmd, args[0], func(target string, all *wish.Wishes) (string, error) {
				if !none {
					all.Pin = &wish.Pin{Version: args[1], Mark: m}
					return fmt.Sprintf("%s: %s; what that does: upgraderd plan %s", target, all.Pin, target), nil
				}
				if all.Pin == nil {
					return target + " is not pinned", nil
				}
				was := all.Pin
				all.Pin = nil
				return fmt.Sprintf("%s: no more %s", target, was), nil
			})
		},
	}
	cmd.Flags().BoolVar(&none, "none", false, "take the pin back")
	w.reasonFlag(cmd)
	w.flags(cmd)
	return cmd
}

func skipCommand() *cobra.Command {
	var (
		w    wisher
		none bool
	)
	cmd := &cobra.Command{
		Use:   "skip TARGET VERSION... | skip TARGET --none",
		Short: "Never take these versions",
		Long: `Skip versions of TARGET: they are never taken, also not by upgraderd upgrade or
rollback. Others are, as ever. One that runs goes on; see upgraderd rollback.

--none takes back all that is skipped. What is known bad is another matter: see
upgraderd forgive.`,
		Example:           "  upgraderd skip app 1.5.0 --reason='slow on our disks'\n  upgraderd skip app --none",
		ValidArgsFunction: complete(true, targetNames, versionsKnown),
		Args:              usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if none == (len(args) > 1) {
				return withStatus(exitUsage, errors.New("name the VERSIONs, or say --none"))
			}
			m := w.mark()
			return w.change(cmd, args[0], func(target string, all *wish.Wishes) (string, error) {
				if !none {
					for _, version := range args[1:] {
						if err := all.Skip(version, m); err != nil {
							return "", err
						}
					}
					return fmt.Sprintf("%s: skips %s", target, strings.Join(versions(all.Skips), ", ")), nil
				}
				if len(all.Skips) == 0 {
					return "nothing of " + target + " is skipped", nil
				}
				was := strings.Join(versions(all.Skips), ", ")
				all.Skips = nil
				return fmt.Sprintf("%s: does not skip %s any more", target, was), nil
			})
		},
	}
	cmd.Flags().BoolVar(&none, "none", false, "take back all that is skipped")
	w.reasonFlag(cmd)
	w.flags(cmd)
	return cmd
}

func versions(skips []wish.Skip) []string {
	var all []string
	for _, s := range skips {
		all = append(all, s.Version)
	}
	return all
}
