package main

import (
	"fmt"
	"slices"

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
			return nil
		},
	}
}

// allowed is the whole of what the daemon may ask of systemd.
func allowed(targets []*upgrader.Target, unit, verb string) bool {
	for _, t := range targets {
		if unit == t.Unit && slices.Contains(swapVerbs(t.Swap), verb) {
			return true
		}
		if unit == upgrader.GuardTimer(t.Name) && t.Swap != upgrader.SwapNone && (verb == "start" || verb == "stop") {
			return true
		}
		if len(t.Check) > 0 && unit == upgrader.CheckUnit(t.Name) && (verb == "start" || verb == "reset-failed") {
			return true
		}
	}
	return false
}

// swapVerbs are the verbs as PID 1 tells them to polkit.
func swapVerbs(s upgrader.Swap) []string {
	switch s {
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
