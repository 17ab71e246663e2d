package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// exitNothingNew is that of check where no release would be taken.
const exitNothingNew = 3

func planCommand() *cobra.Command {
	var o view
	root := "/"
	cmd := &cobra.Command{
		Use:   "plan TARGET",
		Short: "Say what an upgrade would do, and do nothing",
		Long: `Ask the source of TARGET, and systemd, what the daemon would do if it looked
now: which release it would take and how many bytes that is, how it would swap
the unit and why so, for how long it would watch the release, and what the last
swap was like; or why it would take nothing. No daemon is needed, and nothing is
changed.`,
		Example:           "  upgraderd plan app\n  upgraderd plan app --json",
		ValidArgsFunction: complete(false, targetNames),
		Args:              usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := scopeOf(cmd, root)
			if err != nil {
				return err
			}
			p, err := foresee(cmd.Context(), at, args[0], cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.show(cmd, p, func(s *screen) error { return printPlan(s, p) })
		},
	}
	o.flags(cmd, false)
	cmd.Flags().StringVar(&root, "root", root, "read configuration and store below this `directory`")
	return cmd
}

func checkCommand() *cobra.Command {
	var (
		quiet, asJSON bool
		root          = "/"
	)
	cmd := &cobra.Command{
		Use:   "check TARGET",
		Short: "Tell whether there is a release that would be taken",
		Long: `Ask the source of TARGET whether it has a release that the daemon would take,
and print its version. No daemon is needed, and nothing is changed; upgraderd
plan says more. What is held would not be taken.

The exit status is 0 if there is one, 3 if there is none, and 1 if that cannot
be told.`,
		Example:           "  upgraderd check app && systemctl reload upgraderd",
		ValidArgsFunction: complete(false, targetNames),
		Args:              usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := scopeOf(cmd, root)
			if err != nil {
				return err
			}
			p, err := foresee(cmd.Context(), at, args[0], cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON && !quiet {
				if err := printJSON(cmd.OutOrStdout(), p); err != nil {
					return err
				}
			}
			if p.To == "" {
				return silent(exitNothingNew)
			}
			if len(p.InTheWay) > 0 {
				if !quiet {
					fmt.Fprintf(shown{cmd.ErrOrStderr()}, "%s: %s is there, and not taken now: %s\n", p.Target, p.To, p.InTheWay[0])
				}
				return silent(exitNothingNew)
			}
			if !quiet && !asJSON {
				fmt.Fprintln(cmd.OutOrStdout(), p.To)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the plan, as JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing, only exit with the status")
	cmd.Flags().StringVar(&root, "root", root, "read configuration and store below this `directory`")
	return cmd
}

func foresee(ctx context.Context, at scope, name string, stderr io.Writer) (upgrader.Plan, error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	target, diagnostics := at.files().Load(name)
	if target == nil {
		if err := diagnostics.Print(stderr); err != nil {
			return upgrader.Plan{}, err
		}
		return upgrader.Plan{}, silent(exitFailure)
	}
	o := upgrader.Options{StateDir: at.state(), SourceSocket: at.SourceSocket, Systemd: elsewhere{}}
	if filepath.Clean(at.root) == "/" {
		bus := at.bus(nil)
		defer func() { _ = bus.Close() }()
		o.Systemd = bus
	}
	return upgrader.Foresee(ctx, o, target)
}

// elsewhere is the systemd of another root, of which nothing can be asked.
type elsewhere struct{ upgrader.Systemd }

func (elsewhere) Facts(context.Context, string) (systemd.Facts, error) {
	return systemd.Facts{}, errors.New("what is below --root= has no systemd to ask")
}

func printPlan(w io.Writer, p upgrader.Plan) error {
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		errs = append(errs, err)
	}
	installed := p.From
	if installed == "" {
		installed = "nothing"
	}
	switch {
	case p.To == "" && p.From == "":
		line("%s: the source offers no release that would be taken, and nothing is installed", p.Target)
	case p.To == "":
		line("%s: nothing to do, %s is installed", p.Target, installed)
	default:
		line("%s: %s → %s", p.Target, installed, p.To)
	}
	for _, remark := range p.Remarks {
		line("  note     %s", remark)
	}
	for _, why := range p.InTheWay {
		line("  not now  %s", why)
	}
	if p.Beside {
		line("  first    %s serves beside %s; %s", p.UnderWay, installed, decide(p.Target))
	} else if p.UnderWay != "" {
		line("  first    %s is under way, and comes to its verdict", p.UnderWay)
	}
	if p.To != "" {
		line("  fetch    %s", fetching(p))
	}
	switch {
	case p.Obstacle != "":
		line("  swap     not possible: %s", p.Obstacle)
	case p.To != "":
		line("  swap     %s", swapping(p))
	}
	if p.To != "" && len(p.Dependents) > 0 {
		line("  with it  %s, which depend on it", strings.Join(p.Dependents, ", "))
	}
	if p.To != "" && p.Running && p.Swap != upgrader.SwapNone {
		line("  confirm  for %s, then it is good; it is undone if it turns bad before", p.Window())
	}
	if a := p.Before; a != nil {
		line("  before   %s: %s, %s%s (upgraderd show %s %d)", change(*a), attemptVerdict(*a), a.Swap, swapTime(*a), p.Target, a.Number)
	}
	return errors.Join(errs...)
}

func fetching(p upgrader.Plan) string {
	switch {
	case p.Patched:
		return fmt.Sprintf("%s by patches of %d bytes; whole on any doubt", p.File, p.Bytes)
	case p.Bytes == 0:
		return "nothing, it is on disk"
	case p.Bytes < 0:
		return p.File + ", of a size that the source does not tell"
	}
	return fmt.Sprintf("%s, %d bytes", p.File, p.Bytes)
}

// swapping is what happens to the unit.
func swapping(p upgrader.Plan) string {
	switch {
	case p.Swap == upgrader.SwapNone:
		return fmt.Sprintf("by the operator (%s); the release waits, staged", p.Why)
	case !p.Running:
		return fmt.Sprintf("none: %s does not run, its next start is of the new release", p.Unit)
	case p.Swap == upgrader.SwapReload:
		return fmt.Sprintf("systemctl reload %s: it reads its configuration again (%s)", p.Unit, p.Why)
	case p.Swap == upgrader.SwapHandover:
		return fmt.Sprintf("systemctl reload %s: a handover (%s)", p.Unit, p.Why)
	}
	return fmt.Sprintf("systemctl restart %s (%s)", p.Unit, p.Why)
}

// swapTime is how long the swap took, with what it began with.
func swapTime(a upgrader.Attempt) string {
	for _, phase := range a.Phases {
		if phase.State == upgrader.Swapping {
			return " in " + span(phase.Took().Round(time.Microsecond))
		}
	}
	return ""
}
