package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/progress"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

const daemonUnit = "upgraderd.service"

func upgradeCommand() *cobra.Command {
	o := upgrader.Order{Verb: upgrader.OrderUpgrade}
	var (
		noWait bool
		beside string
	)
	cmd := &cobra.Command{
		Use:   "upgrade TARGET [VERSION] [--beside[=TIME]]",
		Short: "Look for a newer release now, or move to one that the source offers",
		Long: `Have the daemon look at the source of TARGET at once, without waiting for its
next poll. With VERSION it moves to that release, and what else the source offers
now does not come by itself; what is newer than all of it does.

Where upgraderd fetch or import left a release, that one is taken, and the source
is not needed; unless VERSION is another.

Nothing older than what was ever accepted is taken, unless --allow-downgrade
says that it is meant.

The release is checked, swapped in, watched, and undone if it turns bad, like any
other. The exit status is 0 if it serves and proved itself, or did before, or if
there is nothing newer.

With --beside the release serves beside the one before it: both accept from the
same sockets until upgraderd confirm keeps the new one, or upgraderd rollback the
old one, which never stopped. The exit status is 0 once both serve. A new one that
ends or fails its probes is rolled back at once. Where nobody decides in TIME, by
default ` + besideDefault + ` and at most a day, the new one stays if it is well. Only
what is moved by a handover has two serve.`,
		Example:           "  upgraderd upgrade app\n  upgraderd upgrade app 1.4.2 --allow-downgrade\n  upgraderd upgrade app --beside=1h",
		ValidArgsFunction: complete(false, targetNames, versionsKnown),
		Args:              usage(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				o.Version = args[1]
			} else if o.AllowDowngrade {
				return withStatus(exitUsage, advise(errors.New("--allow-downgrade needs a VERSION"), "say which one is meant; upgraderd list %s --check shows them", args[0]))
			}
			if cmd.Flags().Changed("beside") {
				d, err := besideTime(beside)
				if err != nil {
					return withStatus(exitUsage, err)
				}
				o.BesideSec = int64(d / time.Second)
			}
			return order(cmd, args[0], o, noWait)
		},
	}
	cmd.Flags().BoolVar(&o.AllowDowngrade, "allow-downgrade", false, "take VERSION although something newer was accepted before")
	cmd.Flags().BoolVar(&o.DespiteHold, "despite-hold", false, "go on although upgrades of TARGET are held; the hold stays")
	cmd.Flags().StringVar(&beside, "beside", "", "have it serve beside the one before for this `time`,\nuntil upgraderd confirm or rollback decides")
	cmd.Flags().Lookup("beside").NoOptDefVal = besideDefault
	noWaitFlag(cmd, &noWait)
	return cmd
}

// besideDefault is upgrader.BesideDefault, as people write it.
const besideDefault = "10min"

func besideTime(span string) (time.Duration, error) {
	d, err := unitfile.TimeSpan(span)
	switch {
	case errors.Is(err, unitfile.ErrInfinity):
		return 0, advise(fmt.Errorf("--beside=%s: it ends after a day at most", span), "give a time from 1s to 1d")
	case err != nil:
		return 0, fmt.Errorf("--beside=%q: %w", span, err)
	case d < upgrader.BesideMin || d > upgrader.BesideMax:
		return 0, advise(fmt.Errorf("--beside=%s is too short or too long", span), "give a time from 1s to 1d")
	}
	return d, nil
}

func confirmCommand() *cobra.Command {
	return ordering(upgrader.Order{Verb: upgrader.OrderConfirm}, &cobra.Command{
		Use:   "confirm TARGET [VERSION]",
		Short: "Keep the release that serves beside the one before it",
		Long: `Have the daemon keep the release of TARGET that serves beside the one before it,
see upgraderd upgrade --beside: the old one drains, and the new one is good. With
VERSION it has to be that one. To keep the old one: upgraderd rollback.

The exit status is 0 if the new release serves alone.`,
		Example:           "  upgraderd upgrade app --beside\n  upgraderd confirm app",
		ValidArgsFunction: complete(false, targetNames, versionsOnDisk),
	})
}

func rollbackCommand() *cobra.Command {
	return ordering(upgrader.Order{Verb: upgrader.OrderRollback}, &cobra.Command{
		Use:   "rollback TARGET [VERSION]",
		Short: "Go back to the release before, or to another that is on disk",
		Long: `Have the daemon move TARGET back to the release before the one it runs, or to
VERSION, if that is still on disk (see InstancesMax=). While a release is on
trial, its trial ends and it is undone; one that serves beside the one before it
drains, and that one goes on.

What was left does not come again by itself: only something newer does, or
upgraderd upgrade TARGET VERSION. The exit status is 0 if the earlier release
serves and proved itself.`,
		Example:           "  upgraderd rollback app\n  upgraderd rollback app 1.4.1",
		ValidArgsFunction: complete(false, targetNames, versionsOnDisk),
	})
}

// ordering has a command that takes TARGET [VERSION] leave o for the daemon.
func ordering(o upgrader.Order, cmd *cobra.Command) *cobra.Command {
	var noWait bool
	cmd.Args = usage(cobra.RangeArgs(1, 2))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 {
			o.Version = args[1]
		}
		return order(cmd, args[0], o, noWait)
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func noWaitFlag(cmd *cobra.Command, noWait *bool) {
	cmd.Flags().BoolVar(noWait, "no-wait", false, "leave the order, and do not wait for its end")
}

// order leaves o for the daemon, wakes it, and waits for the answer.
func order(cmd *cobra.Command, name string, o upgrader.Order, noWait bool) error {
	at, err := scopeOf(cmd, "/")
	if err != nil {
		return err
	}
	if !at.User && !isRoot() {
		return orderOverBus(cmd, name, o, noWait)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	target, diagnostics := at.files().Peek(name)
	if target == nil {
		return diagnostics.Err()
	}
	id, err := upgrader.Place(at.state(), target.Name, o)
	if err != nil {
		return fmt.Errorf("order to %s %s: %w", o.Verb, target.Name, err)
	}
	return obeyed(ctx, cmd, at, target, o, id, noWait)
}

// obeyed wakes the daemon, and waits for its answer to an order that was left.
func obeyed(ctx context.Context, cmd *cobra.Command, at scope, target *upgrader.Target, o upgrader.Order, id string, noWait bool) error {
	if noWait {
		if err := wakeFor(ctx, at, target, o); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: ordered to %s\n", target.Name, o)
		return nil
	}
	a, err := answerTo(ctx, cmd, at, target, o, id)
	if err != nil {
		return err
	}
	return tellAnswer(cmd.OutOrStdout(), target, o, a)
}

func wakeFor(ctx context.Context, at scope, target *upgrader.Target, o upgrader.Order) error {
	if err := wakeDaemon(ctx, at); err != nil {
		return fmt.Errorf("%s was ordered to %s, and does when the daemon looks: %w", target.Name, o, err)
	}
	return nil
}

// answerTo wakes the daemon, and gives its answer.
func answerTo(ctx context.Context, cmd *cobra.Command, at scope, target *upgrader.Target, o upgrader.Order, id string) (upgrader.Answer, error) {
	if err := wakeFor(ctx, at, target, o); err != nil {
		return upgrader.Answer{}, err
	}
	line := newLine(cmd.ErrOrStderr())
	a, err := awaitAnswer(ctx, at.state(), target, o, id, line)
	line.clear()
	if errors.Is(err, context.Canceled) {
		return a, goesOn(cmd, target)
	}
	return a, err
}

// goesOn tells who ends the wait that it is no more than that.
func goesOn(cmd *cobra.Command, target *upgrader.Target) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "the daemon goes on; see upgraderd status %s\n", target.Name)
	return silent(exitFailure)
}

// wakeDaemon has the daemon look at its orders now. Its reload is what root may
// ask for, and nobody else.
func wakeDaemon(ctx context.Context, at scope) error {
	bus := at.bus(nil)
	defer func() { _ = bus.Close() }()
	if err := daemonRuns(ctx, bus); err != nil {
		return err
	}
	result, err := bus.Reload(ctx, daemonUnit)
	if err == nil && result != systemd.ResultDone && result != systemd.ResultUnknown {
		err = advise(fmt.Errorf("reload %s: job is %q", daemonUnit, result), "see journalctl -u upgraderd")
	}
	return err
}

func daemonRuns(ctx context.Context, bus *systemd.Client) error {
	f, err := bus.Facts(ctx, daemonUnit)
	if err == nil && !f.Running() {
		err = advise(fmt.Errorf("%s does not run", daemonUnit), "start it: systemctl start %s", daemonUnit)
	}
	return err
}

// answerInterval is how often the record is looked at: reading one is cheap, and
// a confirm window has many seconds.
const answerInterval = 200 * time.Millisecond

func awaitAnswer(ctx context.Context, dir string, t *upgrader.Target, o upgrader.Order, id string, line *line) (upgrader.Answer, error) {
	target := t.Name
	told := ""
	began := time.Now()
	tick := time.NewTicker(answerInterval)
	defer tick.Stop()
	for {
		switch a, answered, stands, err := upgrader.Stands(dir, target, id); {
		case err != nil || answered:
			return a, err
		case !stands:
			return upgrader.Answer{}, advise(fmt.Errorf("%s: another order took the place of this one", target), "see upgraderd status %s", target)
		}
		st := upgrader.ReadStatus(dir, []*upgrader.Target{t})[0]
		// What an import is about lies here; of the source it says nothing.
		if patient := time.Since(began) > time.Second; patient && st.Trouble != told && st.Trouble != "" && o.Verb != upgrader.OrderImport {
			line.say(target + ": " + st.Trouble + "; the daemon goes on trying")
			told = st.Trouble
		}
		line.show(doing(st))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return upgrader.Answer{}, ctx.Err()
		}
	}
}

// doing is what the daemon does for a target now, and how far it is with it.
func doing(st upgrader.TargetStatus) (text string, p *progress.Progress) {
	return st.Name + ": " + state(st), st.Progress
}

// decide tells how one of two releases that serve is chosen.
func decide(target string) string {
	return fmt.Sprintf("to keep the new one: upgraderd confirm %s; to keep the old one: upgraderd rollback %s", target, target)
}

// tellAnswer prints how it ended. The order's end is the command's.
func tellAnswer(w io.Writer, t *upgrader.Target, o upgrader.Order, a upgrader.Answer) error {
	target := t.Name
	switch a.Verdict {
	case upgrader.VerdictStaged:
		next := "to apply it: upgraderd upgrade " + target
		if t.Swap == upgrader.SwapNone {
			next = "it waits for you (Swap=none)"
		}
		fmt.Fprintf(w, "%s: %s: %s; %s\n", target, o, a.Verdict, next)
		return nil
	case upgrader.VerdictBeside:
		fmt.Fprintf(w, "%s: %s: both serve; %s\n", target, o, decide(target))
		return nil
	case upgrader.VerdictGood, upgrader.VerdictInstalled, "":
		fmt.Fprintf(w, "%s: %s: %s\n", target, o, cmp.Or(string(a.Verdict), a.Reason, "looking"))
		return nil
	case upgrader.VerdictRolledBack:
		if o.Verb == upgrader.OrderRollback && a.Reason == upgrader.WantedUndone {
			fmt.Fprintf(w, "%s: %s: the release on trial is undone\n", target, o)
			return nil
		}
	}
	if a.Reason == "" {
		return advise(fmt.Errorf("%s: %s: %s", target, o, a.Verdict), "see journalctl -u upgraderd")
	}
	return fmt.Errorf("%s: %s: %s: %s", target, o, a.Verdict, a.Reason)
}
