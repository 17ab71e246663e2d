package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
)

func listCommand() *cobra.Command {
	var (
		o    view
		ask  bool
		root = "/"
	)
	cmd := &cobra.Command{
		Use:   "list [TARGET]",
		Short: "List the releases there are, on disk and at the source",
		Long: `List the releases of TARGET, or of every target, newest first: those on disk, and
the newest that its source offered when it was asked last. It reads the store, so
it works with the daemon running or not. --check asks the source of TARGET now,
and changes nothing.`,
		Example:           "  upgraderd list app\n  upgraderd list app --check --json",
		ValidArgsFunction: complete(false, targetNames),
		Args:              usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ask && len(args) == 0 {
				return withStatus(exitUsage, errors.New("--check needs a TARGET: whose source is to be asked?"))
			}
			at, err := scopeOf(cmd, root)
			if err != nil {
				return err
			}
			all, err := readLists(cmd.Context(), at, args, ask, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.show(cmd, all, func(s *screen) error { return printLists(s, all) })
		},
	}
	cmd.Flags().BoolVar(&ask, "check", false, "ask the source of TARGET now")
	o.flags(cmd, false)
	cmd.Flags().StringVar(&root, "root", root, "look below this `directory`")
	return cmd
}

func readLists(ctx context.Context, at scope, names []string, ask bool, stderr io.Writer) ([]upgrader.List, error) {
	dir := at.state()
	if ask {
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		target, diagnostics := at.files().Load(names[0])
		if target == nil {
			return nil, errors.Join(diagnostics.Print(stderr), silent(exitFailure))
		}
		l, err := upgrader.AskList(ctx, upgrader.Options{StateDir: dir, SourceSocket: at.SourceSocket, Systemd: elsewhere{}}, target)
		return []upgrader.List{l}, err
	}
	targets, err := readStatus(at, names, stderr)
	if err != nil {
		return nil, err
	}
	all := make([]upgrader.List, 0, len(targets))
	for _, t := range targets {
		l, err := upgrader.ReadList(dir, t.Name)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", t.Name, err)
		}
		all = append(all, l)
	}
	return all, nil
}

func printLists(w io.Writer, all []upgrader.List) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "TARGET\tRELEASE\tDIGEST\tWHERE\tWHAT")
	for _, l := range all {
		for _, r := range l.Releases {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", l.Target, r.Version, orDash(r.Digest12), orDash(where(r)), orDash(what(r)))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, l := range all {
		var notes []string
		if !l.Asked {
			notes = append(notes, "its source was not asked yet; to ask it: upgraderd list "+l.Target+" --check")
		}
		if l.Hold != nil {
			notes = append(notes, l.Hold.String())
		}
		if l.Pin != nil {
			notes = append(notes, l.Pin.String())
		}
		for _, note := range notes {
			fmt.Fprintf(w, "\n%s: %s\n", l.Target, note)
		}
	}
	return nil
}

// where a release is.
func where(r upgrader.Listed) string {
	var places []string
	if r.OnDisk {
		places = append(places, "disk")
	}
	if r.Offered {
		places = append(places, "source")
	}
	return strings.Join(places, ", ")
}

// what a release is.
func what(r upgrader.Listed) string {
	words := r.Links
	for _, w := range []struct {
		is   bool
		text string
	}{{r.Damaged, "damaged"}, {r.Skipped, "skipped"}, {r.RuledOut, "ruled out by the pin"}, {r.KnownBad != "", "known bad: " + r.KnownBad}} {
		if w.is {
			words = append(words, w.text)
		}
	}
	return strings.Join(words, ", ")
}
