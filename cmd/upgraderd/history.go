package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
)

func historyCommand() *cobra.Command {
	var (
		asJSON bool
		root   = "/"
	)
	cmd := &cobra.Command{
		Use:   "history TARGET",
		Short: "Show what ran when, and why it changed",
		Long: `Show the attempts to upgrade TARGET or to roll it back, oldest first, each with
its verdict; the one under way comes last. upgraderd show tells more of one. It
reads the store, so it works with the daemon running or not.`,
		Example:           "  upgraderd history app\n  upgraderd history app --json",
		ValidArgsFunction: complete(false, targetNames),
		Args:              usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := scopeOf(cmd, root)
			if err != nil {
				return err
			}
			all, err := readHistory(at, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			return printHistory(cmd.OutOrStdout(), all)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&root, "root", root, "look below this `directory`")
	return cmd
}

func showCommand() *cobra.Command {
	var (
		asJSON bool
		root   = "/"
	)
	cmd := &cobra.Command{
		Use:   "show TARGET [ATTEMPT]",
		Short: "Show one attempt: its phases as a timeline, its verdict, its logs",
		Long: `Show one attempt to upgrade TARGET or to roll it back: the last, or that with
the number ATTEMPT in upgraderd history. Each phase is a bar from when it began
to when it ended, of the time that the whole took.`,
		Example:           "  upgraderd show app\n  upgraderd show app 17",
		ValidArgsFunction: complete(false, targetNames, attempts),
		Args:              usage(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := scopeOf(cmd, root)
			if err != nil {
				return err
			}
			all, err := readHistory(at, args[0])
			if err != nil {
				return err
			}
			a, err := pickAttempt(all, args)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), a)
			}
			return printAttempt(cmd.OutOrStdout(), args[0], unitOf(at, args[0]), a)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&root, "root", root, "look below this `directory`")
	return cmd
}

// readHistory is that of a target by name: one whose .upgrade file is broken or
// gone has a history all the same.
func readHistory(at scope, name string) ([]upgrader.Attempt, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return nil, withStatus(exitUsage, fmt.Errorf("%q is not the name of a target; upgraderd status lists them", name))
	}
	all, err := upgrader.History(at.state(), name)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("nothing was attempted for a target %s yet; upgraderd status lists those that are followed", name)
	}
	return all, nil
}

// pickAttempt is the one that the arguments name.
func pickAttempt(all []upgrader.Attempt, args []string) (upgrader.Attempt, error) {
	if len(args) == 1 {
		return all[len(all)-1], nil
	}
	number, err := strconv.Atoi(args[1])
	if err != nil {
		return upgrader.Attempt{}, withStatus(exitUsage, fmt.Errorf("attempt %q is not a number; upgraderd history %s has them", args[1], args[0]))
	}
	for _, a := range all {
		if a.Number == number {
			return a, nil
		}
	}
	return upgrader.Attempt{}, fmt.Errorf("attempt %d of %s is not remembered; those from %d to %d are", number, args[0], all[0].Number, all[len(all)-1].Number)
}

// unitOf is what the target's .upgrade file names, or would most likely have where
// it cannot be read.
func unitOf(at scope, name string) string {
	all, err := readStatus(at, []string{name}, io.Discard)
	if err != nil || len(all) == 0 {
		return name + ".service"
	}
	return all[0].Unit
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printHistory(w io.Writer, all []upgrader.Attempt) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "ATTEMPT\tBEGAN\tRELEASE\tVERDICT\tTOOK\tWHY")
	for _, a := range all {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", a.Number, a.Began.Local().Format(time.DateTime), change(a),
			attemptVerdict(a), span(duration(a)), cmp.Or(a.Reason, asked(a)))
	}
	return t.Flush()
}

// change is from which version to which.
func change(a upgrader.Attempt) string {
	if a.From == "" {
		return a.To
	}
	return a.From + " → " + a.To
}

func attemptVerdict(a upgrader.Attempt) string {
	if a.Verdict == "" {
		return "under way"
	}
	return verdict(a.Verdict)
}

func asked(a upgrader.Attempt) string {
	if a.Asked == "" {
		return "the source offered it"
	}
	return "the operator: " + a.Asked
}

// duration is how long an attempt took, all its phases together.
func duration(a upgrader.Attempt) time.Duration {
	var d time.Duration
	for _, p := range a.Phases {
		d += p.Took()
	}
	return d
}

// span is a duration with the three digits that matter.
func span(d time.Duration) string {
	digit := time.Duration(1)
	for digit <= d/1000 {
		digit *= 10
	}
	return d.Round(digit).String()
}

// barWidth leaves room for a phase's name and time in 80 columns.
const barWidth = 50

func printAttempt(w io.Writer, target, unit string, a upgrader.Attempt) error {
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		errs = append(errs, err)
	}
	took := duration(a)
	line("%s %s: %s after %s (attempt %d)", target, change(a), attemptVerdict(a), span(took), a.Number)
	if a.Reason != "" {
		line("  why     %s", a.Reason)
	}
	line("  asked   %s", asked(a))
	line("  began   %s", a.Began.Local().Format("2006-01-02 15:04:05 MST"))
	line("  digest  %s", a.Digest)
	if a.Swap != "" {
		line("  swap    %s", a.Swap)
	}
	if a.Invocation != "" {
		line("  unit    %s, invocation %s", unit, a.Invocation)
	}
	line("")
	var before time.Duration
	for _, p := range a.Phases {
		line("  %-12s  %s  %s", p.State, bar(before, p.Took(), took), span(p.Took()))
		before += p.Took()
	}
	from, to := a.Began.Add(-time.Second), a.Ended.Add(time.Second)
	window := fmt.Sprintf("--since '%s'", from.UTC().Format("2006-01-02 15:04:05 UTC"))
	if !a.Ended.IsZero() {
		window += fmt.Sprintf(" --until '%s'", to.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	line("")
	line("What upgraderd said, and %s:", unit)
	line("  journalctl UPGRADERD_TARGET=%s %s", target, window)
	line("  journalctl -u %s %s", unit, window)
	return errors.Join(errs...)
}

// bar draws a phase at its place in the whole. What is too short to be seen has
// one cell all the same.
func bar(before, took, whole time.Duration) string {
	if whole <= 0 {
		whole = 1
	}
	cell := func(d time.Duration) int {
		return int(int64(barWidth) * d.Microseconds() / max(1, whole.Microseconds()))
	}
	begin := min(cell(before), barWidth-1)
	end := min(max(cell(before+took), begin+1), barWidth)
	return strings.Repeat(" ", begin) + strings.Repeat("█", end-begin) + strings.Repeat(" ", barWidth-end)
}
