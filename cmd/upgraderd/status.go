package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

func statusCommand() *cobra.Command {
	var o view
	root := "/"
	cmd := &cobra.Command{
		Use:   "status [TARGET...]",
		Short: "Show targets, what they run, and how the last upgrade ended",
		Long: `Show every target, or those named: the release it runs, what is going on, and
how the last attempt ended. It reads the store, so it works with the daemon
running or not.`,
		ValidArgsFunction: complete(true, targetNames),
		Example:           "  upgraderd status\n  upgraderd status app --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := scopeOf(cmd, root)
			if err != nil {
				return err
			}
			all, err := readStatus(at, args, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.show(cmd, all, func(s *screen) error { return printStatus(s, all, time.Now()) })
		},
	}
	o.flags(cmd, true)
	cmd.Flags().StringVar(&root, "root", root, "look below this `directory`")
	return cmd
}

// readStatus reads the targets that are named, or all. Those whose .upgrade
// file is broken are told on stderr, and the others are shown all the same.
func readStatus(at scope, names []string, stderr io.Writer) ([]upgrader.TargetStatus, error) {
	targets, diagnostics := at.files().PeekAll()
	if len(names) == 0 {
		if err := diagnostics.Errors().Print(stderr); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		if slices.ContainsFunc(targets, func(t *upgrader.Target) bool { return t.Name == name }) {
			continue
		}
		why := diagnostics.Of(name)
		if len(why) == 0 { // not there at all
			_, why = at.files().Peek(name)
		}
		if err := why.Print(stderr); err != nil {
			return nil, err
		}
		return nil, silent(exitFailure)
	}
	if len(names) > 0 {
		targets = slices.DeleteFunc(targets, func(t *upgrader.Target) bool { return !slices.Contains(names, t.Name) })
	}
	return upgrader.ReadStatus(at.state(), targets), nil
}

// printStatus is a table, then what needs more than a cell.
func printStatus(w *screen, all []upgrader.TargetStatus, now time.Time) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "No targets. Put one into /etc/upgraderd/NAME.upgrade; see /usr/share/doc/upgraderd/examples.")
		return err
	}
	t := table{head: []string{"TARGET", "UNIT", "RELEASE", "STATE", "LAST"}, fixed: 1}
	for _, s := range all {
		lastPaint := noPaint
		if s.Last != nil {
			lastPaint = verdictPaint(s.Last.Verdict)
		}
		t.rows = append(t.rows, []cell{
			{text: s.Name}, {text: s.Unit}, {text: orDash(shortRelease(s.Current))}, {state(s), statePaint(s)}, {last(s, now), lastPaint},
		})
	}
	if err := t.print(w); err != nil {
		return err
	}
	for _, s := range all {
		for _, line := range remarks(s, now) {
			fmt.Fprintf(w, "\n%s: %s\n", s.Name, line)
		}
	}
	return nil
}

func statePaint(s upgrader.TargetStatus) paint {
	switch {
	case s.Trouble != "" || s.State == upgrader.RollingBack:
		return red
	case untouched(s):
		return grey
	case s.State != upgrader.Idle || s.Fetched != "":
		return yellow
	}
	return noPaint
}

func verdictPaint(v upgrader.Verdict) paint {
	switch v {
	case upgrader.VerdictGood, upgrader.VerdictInstalled:
		return green
	case upgrader.VerdictInconclusive, upgrader.VerdictCancelled, "":
		return yellow
	}
	return red
}

// state is what is going on, with the version it is about.
func state(s upgrader.TargetStatus) string {
	if untouched(s) {
		return "new"
	}
	if to := shortRelease(s.To); to != "" {
		return string(s.State) + " " + to
	}
	return string(s.State)
}

// untouched tells of a target that no daemon has begun to follow: the first
// thing that one does is to write a record.
func untouched(s upgrader.TargetStatus) bool {
	return s.State == upgrader.Idle && s.Since.IsZero() && s.Current == "" && s.Trouble == ""
}

// last is how the last attempt ended.
func last(s upgrader.TargetStatus, now time.Time) string {
	if s.Last == nil {
		return "-"
	}
	change := s.Last.To
	if s.Last.From != "" {
		change = s.Last.From + " → " + s.Last.To
	}
	return fmt.Sprintf("%s %s, %s", change, verdict(s.Last.Verdict), when(s.Last.When, now))
}

// verdict is one as people say it.
func verdict(v upgrader.Verdict) string {
	switch v {
	case upgrader.VerdictRolledBack:
		return "rolled back"
	case upgrader.VerdictStuck:
		return "not rolled back"
	case upgrader.VerdictInconclusive:
		return "left without a verdict"
	}
	return string(v)
}

// remarks are what a person should read twice.
func remarks(s upgrader.TargetStatus, now time.Time) []string {
	var lines []string
	if s.Trouble != "" {
		lines = append(lines, s.Trouble)
	}
	if untouched(s) {
		lines = append(lines, "not followed yet; check it with upgraderd verify, then run: systemctl reload-or-restart upgraderd")
	}
	if s.Progress != nil {
		lines = append(lines, fmt.Sprintf("fetching %s: %s", shortRelease(s.To), s.Progress))
	}
	if s.Hold != nil {
		lines = append(lines, held(*s.Hold, now)+"; to end that: upgraderd unhold "+s.Name)
	}
	if s.Pin != nil {
		lines = append(lines, s.Pin.String()+"; to take that back: upgraderd pin "+s.Name+" --none")
	}
	for _, skip := range s.Skips {
		lines = append(lines, skip.String()+"; to take that back: upgraderd skip "+s.Name+" --none")
	}
	if s.Waits != "" {
		lines = append(lines, shortRelease(s.Staged)+" is staged and waits: "+s.Waits+"; to apply it now: upgraderd upgrade "+s.Name)
	}
	if s.Fetched != "" {
		lines = append(lines, shortRelease(s.Fetched)+" is staged and waits; to apply it: upgraderd upgrade "+s.Name)
	}
	if b := s.Beside; b != nil {
		lines = append(lines, fmt.Sprintf("%s serves beside %s, for %s at most; %s",
			shortRelease(b.Release), shortRelease(s.Current), time.Duration(b.LeftSec)*time.Second, decide(s.Name)))
	}
	if s.State == upgrader.Held {
		lines = append(lines, shortRelease(s.To)+" waits for you (Swap=none); to let upgraderd swap, set Swap=auto and run: systemctl reload upgraderd")
	}
	if s.Last != nil && s.Last.Reason != "" {
		lines = append(lines, fmt.Sprintf("%s was %s: %s", s.Last.To, verdict(s.Last.Verdict), s.Last.Reason))
	}
	for _, bad := range s.KnownBad {
		if s.Last != nil && s.Last.Digest == bad.Digest {
			continue // told above
		}
		lines = append(lines, fmt.Sprintf("known bad: %s (%.12s…), %s: %s", bad.Version, bad.Digest, when(bad.When, now), bad.Reason))
	}
	if s.Unsigned {
		lines = append(lines, "unsigned source (Verify=no): whoever controls it decides what runs here")
	}
	return lines
}

// held is a hold in words. Where the date of its end has passed by this clock, the
// clock was set, or upgraderd did not run: what is left then is counted.
func held(h upgrader.Hold, now time.Time) string {
	if h.ForSec > 0 && h.Until.Before(now) {
		return fmt.Sprintf("%s, and for %s more that upgraderd has to run", h, time.Duration(h.LeftSec)*time.Second)
	}
	return h.String()
}

// shortRelease is the version in a release's name.
func shortRelease(name string) string {
	if r, err := store.ParseRelease(name); err == nil {
		return r.Version
	}
	return name
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// when is a date as people say it, in one unit. One to come is from a clock that
// was wrong, or this one is, so it is shown as it is.
func when(date, now time.Time) string {
	d := now.Sub(date)
	if d < -time.Minute {
		return date.UTC().Format("2006-01-02 15:04 UTC") + ", to come by this clock"
	}
	for _, unit := range []struct {
		name string
		span time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"min", time.Minute}} {
		if d >= 2*unit.span {
			return fmt.Sprintf("%d%s ago", d/unit.span, unit.name)
		}
	}
	return fmt.Sprintf("%ds ago", max(0, d/time.Second))
}

// usage gives mistakes in the arguments their exit status.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			what := err.Error()
			if strings.HasPrefix(what, "accepts ") || strings.HasPrefix(what, "requires ") { // cobra's own words are for programmers
				what = fmt.Sprintf("wrong number of arguments: %d", len(args))
			}
			return withStatus(exitUsage, fmt.Errorf("%s\nUsage: %s", what, strings.TrimSpace(cmd.UseLine())))
		}
		return nil
	}
}
