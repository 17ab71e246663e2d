package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"aead.dev/minisign"
	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/fetcher/publish"
)

func publishCommand() *cobra.Command {
	var (
		o              publish.Options
		keys, commands []string
		lastDay, tuf   string
		password       passwordFlags
	)
	cmd := &cobra.Command{
		Use:   "publish DIR [ARTIFACT...] --version=VERSION",
		Short: "Add a release to a directory that hosts follow",
		Long: `Copy each ARTIFACT into DIR, with VERSION in its name, list it in SHA256SUMS and
sign the list. DIR can then be served by any web server, copied to a bucket, or
followed as a directory. Without an ARTIFACT the list is signed anew.

Hosts see the new release when all of it is there. Nothing is published that a
host with these keys would refuse, the same again changes nothing, and a version
that is there with other bytes is an error. What DIR lists already has to be
signed by one of the keys, or taken over with --adopt.

With --tuf=, DIR holds a repository of The Update Framework instead, metadata/ and
targets/, kept by the keys in that directory. Publish without an ARTIFACT once in a
few days: the timestamp says for seven that there is nothing newer.

With --delta= hosts fetch less: patches are made from the releases before to this
one, by bsdiff(1) or zstd(1), and those that have less than half of its bytes are
listed, too. See docs/deltas.md.

--sign= runs any signer, such as --sign="gpg --batch --detach-sign": it gets
SHA256SUMS as its last argument and leaves a signature beside it. The key that
hosts have for it goes to --trust=.`,
		Example:           "  upgraderd publish /srv/app ./app --version=1.4.2 --key=release.key\n  upgraderd publish /srv/app --key=release.key --best-before=2027-06-30",
		ValidArgsFunction: complete(true, nil),
		Args:              usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			o.Dir, o.Artifacts = args[0], args[1:]
			if len(o.Artifacts) > 0 && o.Version == "" {
				return withStatus(exitUsage, errors.New("--version= is missing: which release are these files?"))
			}
			switch o.Deltas {
			case publish.DeltasNone, publish.DeltasAuto, publish.DeltasBSDiff, publish.DeltasZstd:
			default:
				return withStatus(exitUsage, fmt.Errorf("--delta=%s is no tool, want auto, bsdiff, zstd or none", o.Deltas))
			}
			if o.DeltasFrom < 1 || o.DeltasFrom > publish.DeltasFromMax {
				return withStatus(exitUsage, fmt.Errorf("--delta-from=%d, want 1 to %d", o.DeltasFrom, publish.DeltasFromMax))
			}
			if tuf != "" {
				if o.Deltas != publish.DeltasNone {
					return withStatus(exitUsage, errors.New("--delta= is for SHA256SUMS; hosts that follow a TUF repository fetch whole files"))
				}
				if len(keys)+len(commands) > 0 || lastDay != "" {
					return withStatus(exitUsage, advise(errors.New("--tuf= has its own keys and its own days"), "leave --key=, --sign= and --best-before= out"))
				}
				return publishTUF(ctx, cmd.OutOrStdout(), o, tuf)
			}
			if len(keys)+len(commands) == 0 {
				return withStatus(exitUsage, errors.New("nobody signs: use --key=, made by upgraderd keygen, or --sign="))
			}
			if lastDay != "" {
				day, err := time.Parse(time.DateOnly, lastDay)
				if err != nil {
					return withStatus(exitUsage, fmt.Errorf("--best-before=%s is no day, want e.g. 2027-06-30", lastDay))
				}
				o.BestBefore = day
			}
			for _, name := range keys {
				key, err := password.open(name)
				if err != nil {
					return err
				}
				o.Signers = append(o.Signers, publish.Minisign{Key: key})
				if public, ok := key.Public().(minisign.PublicKey); ok {
					o.Keys = append(o.Keys, public.String())
				}
			}
			for _, line := range commands {
				o.Signers = append(o.Signers, publish.Command(strings.Fields(line)))
			}
			result, err := publish.Add(ctx, o)
			if err != nil {
				return err
			}
			tellPublished(cmd.OutOrStdout(), o, result)
			return nil
		},
	}
	cmd.Flags().StringVar(&o.Version, "version", "", "the `version` of the artifacts")
	cmd.Flags().StringArrayVar(&keys, "key", nil, "sign with the secret key in this `file`; may be given several times")
	cmd.Flags().StringArrayVar(&commands, "sign", nil, "sign with this `command`; may be given several times")
	cmd.Flags().StringArrayVar(&o.Keys, "trust", nil, "a `key` that hosts have, beside those of --key=")
	cmd.Flags().StringVar(&lastDay, "best-before", "", "the last `day` hosts believe this list, e.g. 2027-06-30")
	cmd.Flags().StringVar(&tuf, "tuf", "", "keep a TUF repository with the keys in this `directory`, made by upgraderd keygen --tuf")
	cmd.Flags().StringVar((*string)(&o.Deltas), "delta", string(publish.DeltasNone), "make patches with this `tool`: auto, bsdiff, zstd or none")
	cmd.Flags().IntVar(&o.DeltasFrom, "delta-from", 3, "make patches from this `many` of the releases before")
	cmd.Flags().BoolVar(&o.Adopt, "adopt", false, "sign what DIR lists already, whoever signed that")
	password.add(cmd)
	return cmd
}

// publishTUF adds to a repository, and says what a host needs.
func publishTUF(ctx context.Context, w io.Writer, o publish.Options, keys string) error {
	loaded, err := publish.LoadRoleKeys(keys)
	if err != nil {
		return err
	}
	r, err := publish.AddToRepository(ctx, publish.RepositoryOptions{Dir: o.Dir, Artifacts: o.Artifacts, Version: o.Version, Keys: loaded})
	if err != nil {
		return err
	}
	for _, name := range r.Added {
		fmt.Fprintf(w, "published %s\n", filepath.Join(o.Dir, "targets", name))
	}
	fmt.Fprintf(w, "signed %s anew\n", filepath.Join(o.Dir, "metadata", "timestamp.json"))
	if len(r.Patterns) > 0 {
		fmt.Fprintf(w, "\nA host follows it with a copy of %s\n\n[Source]\nPath=<the URL of this directory, or its absolute name>\nVerify=tuf\nRoot=/etc/upgraderd/root.json\n",
			filepath.Join(o.Dir, "metadata", "1.root.json"))
		tellPatterns(w, r.Patterns)
	}
	return nil
}

func tellPatterns(w io.Writer, patterns []string) {
	patterns = slices.Clone(patterns)
	slices.Sort(patterns)
	for _, p := range slices.Compact(patterns) {
		fmt.Fprintf(w, "MatchPattern=%s\n", p)
	}
}

// tellPublished says what was done, and what a host needs.
func tellPublished(w io.Writer, o publish.Options, r publish.Result) {
	switch {
	case r.Unchanged:
		fmt.Fprintf(w, "nothing to do: %s has it already\n", o.Dir)
	case len(r.Added) == 0:
		fmt.Fprintf(w, "signed %s anew\n", filepath.Join(o.Dir, "SHA256SUMS"))
	}
	for _, name := range r.Added {
		fmt.Fprintf(w, "published %s\n", filepath.Join(o.Dir, name))
	}
	for _, patch := range r.LeftOut {
		fmt.Fprintf(w, "left out %s\n", patch)
	}
	if len(r.Patterns) == 0 {
		return
	}
	fmt.Fprint(w, "\nA host follows it with\n\n[Source]\nPath=<the URL of this directory, or its absolute name>\n")
	tellPatterns(w, r.Patterns)
	for _, k := range o.Keys {
		fmt.Fprintf(w, "Key=%s\n", k)
	}
}
