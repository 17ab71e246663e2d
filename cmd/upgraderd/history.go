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
	"time"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
)

func historyCommand() *cobra.Command {
	var o view
	root := "/"
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
			return o.show(cmd, all, func(s *screen) error { return printHistory(s, all) })
		},
	}
	o.flags(cmd, true)
	cmd.Flags().StringVar(&root, "root", root, "look below this `directory`")
	return cmd
}

func showCommand() *cobra.Command {
	var o view
	root := "/"
	cmd := &cobra.Command{
		Use:   "show TARGET [ATTEMPT]",
		Short: "Show one attempt: its phases as a timeline, its verdict, its logs",
		Long: `Show one attempt to upgrade TARGET or to roll it back: the last, or that with
the number ATTEMPT in upgraderd history. Each phase is a bar from when it began
to when it ended, of the time that the whole took. Of a handover the two workers
are bars as well, on a scale of their own, and below them stands when each was
started, ready, drained and confirmed.`,
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
			return o.show(cmd, a, func(s *screen) error { return printAttempt(s, args[0], unitOf(at, args[0]), a) })
		},
	}
	o.flags(cmd, false)
	cmd.Flags().StringVar(&root, "root", root, "look below this `directory`")
	return cmd
}

// readHistory is that of a target by name: one whose .upgrade file is broken or
// gone has a history all the same.
func readHistory(at scope, name string) ([]upgrader.Attempt, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return nil, withStatus(exitUsage, advise(fmt.Errorf("%q is not the name of a target", name), "upgraderd status lists them"))
	}
	all, err := upgrader.History(at.state(), name)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, advise(fmt.Errorf("nothing was attempted for a target %s yet", name), "upgraderd status lists those that are followed")
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
		return upgrader.Attempt{}, withStatus(exitUsage, advise(fmt.Errorf("attempt %q is not a number", args[1]), "upgraderd history %s has them", args[0]))
	}
	for _, a := range all {
		if a.Number == number {
			return a, nil
		}
	}
	return upgrader.Attempt{}, advise(fmt.Errorf("attempt %d of %s is not remembered", number, args[0]), "those from %d to %d are", all[0].Number, all[len(all)-1].Number)
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

func printHistory(s *screen, all []upgrader.Attempt) error {
	t := table{head: []string{"ATTEMPT", "BEGAN", "RELEASE", "VERDICT", "TOOK", "WHY"}, fixed: 2}
	for _, a := range all {
		t.rows = append(t.rows, []cell{
			{text: strconv.Itoa(a.Number)}, {text: a.Began.Local().Format(time.DateTime)}, {text: change(a)},
			{attemptVerdict(a), verdictPaint(a.Verdict)}, {text: span(duration(a))}, {text: cmp.Or(a.Reason, asked(a))},
		})
	}
	return t.print(s)
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

func printAttempt(w *screen, target, unit string, a upgrader.Attempt) error {
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		errs = append(errs, err)
	}
	took := duration(a)
	_, err := fmt.Fprintf(w, "%s %s: ", target, change(a))
	errs = append(errs, err, w.painted(verdictPaint(a.Verdict), attemptVerdict(a)))
	line(" after %s (attempt %d)", span(took), a.Number)
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
	x := axis{0, took, barWidth}
	var before time.Duration
	for _, p := range a.Phases {
		line("  %-12s  %s  %s", p.State, x.bar(stretch{before, before + p.Took(), serving}), span(p.Took()))
		before += p.Took()
	}
	errs = append(errs, printHandover(w, a))
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
