package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config"
)

func allowsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "allows UNIT VERB",
		Short: "Tell whether the daemon may do VERB to UNIT",
		Long: `Exit status 0 if some target needs systemd to do VERB (reload, restart,
reset-failed, start, stop) to UNIT, 1 if none does. The polkit rule asks this, so
that root's .upgrade files are the one place that says which units the daemon
may touch.`,
		Args: usage(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			targets, _ := config.PeekAll("/") // a broken target allows nothing
			if !allowed(targets, args[0], args[1]) {
				return withStatus(exitFailure, fmt.Errorf("no target needs %s of %q", args[1], args[0]))
			}
			if args[1] == "start" && !installed(args[0]) {
				return withStatus(exitFailure, advise(fmt.Errorf("%q has no unit file, so that a start could make it whatever the caller says", args[0]), "put the units in place with: upgraderd install"))
			}
			return nil
		},
	}
}

// installed tells if a unit, or the template of an instance, has a file where
// systemd looks for units. Since 257, StartTransientUnit asks for the verb start,
// too, and what keeps it from making a unit of any name, and others along with it,
// is that there is a file of that name.
func installed(unit string) bool {
	names := []string{unit}
	if prefix, rest, instance := strings.Cut(unit, "@"); instance {
		names = append(names, prefix+"@"+path.Ext(rest))
	}
	for _, dir := range []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"} {
		for _, name := range names {
			if info, err := os.Stat(path.Join(dir, name)); err == nil && info.Mode().IsRegular() {
				return true
			}
		}
	}
	return false
}

// allowed is the whole of what the daemon may ask of systemd.
func allowed(targets []*upgrader.Target, unit, verb string) bool {
	// Also of a target that is gone, or nobody could stop its guard.
	if verb == "stop" && strings.HasPrefix(unit, "upgraderd-guard@") && strings.HasSuffix(unit, ".timer") {
		return true
	}
	for _, t := range targets {
		if unit == t.Unit && slices.Contains(swapVerbs(t), verb) {
			return true
		}
		if unit == upgrader.GuardTimer(t.Name) && t.Swap != upgrader.SwapNone && verb == "start" {
			return true
		}
		if slices.Contains(t.Dependents, unit) && t.Swap != upgrader.SwapNone && verb == "start" {
			return true
		}
		if len(t.Check) > 0 && unit == upgrader.CheckUnit(t.Name) && (verb == "start" || verb == "reset-failed") {
			return true
		}
	}
	return false
}

// swapVerbs are the verbs as PID 1 tells them to polkit.
func swapVerbs(t *upgrader.Target) []string {
	if t.Unit == upgrader.OwnUnit && t.Swap != upgrader.SwapNone {
		return []string{"restart"} // itself, and nothing else
	}
	switch t.Swap {
	case upgrader.SwapHandover:
		return []string{"reload"}
	case upgrader.SwapRestart:
		return []string{"restart", "reset-failed"}
	case upgrader.SwapNone:
		return nil
	default:
		return []string{"reload", "restart", "reset-failed"}
	}
}
