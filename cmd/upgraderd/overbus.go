package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/bus"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// Whoever is not root may not write orders, and has the daemon do it: polkit decides.

func isRoot() bool { return os.Geteuid() == 0 }

// orderOverBus is order for whoever is not root.
func orderOverBus(cmd *cobra.Command, name string, o upgrader.Order, noWait bool) error {
	return onBus(cmd, func(ctx context.Context, client *bus.Client) error {
		endAgent := passwordAgent(ctx, client)
		job, err := client.Order(ctx, name, o)
		endAgent()
		if err != nil {
			return fmt.Errorf("order %s to %s: %w", name, o, err)
		}
		if noWait {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ordered to %s\n", name, o)
			return nil
		}
		return awaitOverBus(ctx, cmd, client, job, name, o)
	})
}

// awaitOverBus shows how an order goes, and tells the answer to it.
func awaitOverBus(ctx context.Context, cmd *cobra.Command, client *bus.Client, job bus.Job, name string, o upgrader.Order) error {
	line := newLine(cmd.ErrOrStderr())
	told, swap, began := "", upgrader.Swap(""), time.Now()
	a, err := client.Await(ctx, job, func(v bus.View) {
		swap = v.Swap
		if v.Trouble != told && v.Trouble != "" && time.Since(began) > time.Second {
			line.say(name + ": " + v.Trouble + "; the daemon goes on trying")
			told = v.Trouble
		}
		text := v.State
		if to := shortRelease(v.To); to != "" {
			text += " " + to
		}
		line.show(name+": "+text, v.Progress)
	})
	line.clear()
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(cmd.ErrOrStderr(), "the daemon goes on; see upgraderd status %s\n", name)
		return silent(exitFailure)
	}
	if err != nil {
		return err
	}
	return tellAnswer(cmd.OutOrStdout(), &upgrader.Target{Name: name, Swap: swap}, o, a)
}

// forgiveOverBus is forgive for whoever is not root.
func forgiveOverBus(cmd *cobra.Command, name string) error {
	var versions []string
	if err := overBus(cmd, func(ctx context.Context, client *bus.Client) (err error) {
		versions, err = client.Forgive(ctx, name)
		return err
	}); err != nil {
		return fmt.Errorf("forgive releases of %s: %w", name, err)
	}
	if len(versions) == 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "nothing of %s is known bad\n", name)
	}
	for _, v := range versions {
		fmt.Fprintf(cmd.OutOrStdout(), "forgave %s\n", v)
	}
	return nil
}

// wishOverBus is what hold, pin and skip do for whoever is not root. What is wished
// already anybody may read.
func wishOverBus(cmd *cobra.Command, at scope, name string, f func(target string, all *wish.Wishes) (said string, err error)) error {
	var said string
	if err := overBus(cmd, func(ctx context.Context, client *bus.Client) error {
		if err := client.Follows(ctx, name); err != nil {
			return err
		}
		before, err := upgrader.Wished(at.state(), name)
		if err != nil {
			return err
		}
		after := before
		after.Skips = slices.Clone(before.Skips)
		if said, err = f(name, &after); err != nil {
			return err
		}
		return client.Wish(ctx, name, before, after)
	}); err != nil {
		return fmt.Errorf("%s %s: %w", cmd.Name(), name, err)
	}
	fmt.Fprintln(cmd.OutOrStdout(), said)
	return nil
}

// overBus has do ask the daemon, where polkit may ask for a password.
func overBus(cmd *cobra.Command, do func(context.Context, *bus.Client) error) error {
	return onBus(cmd, func(ctx context.Context, client *bus.Client) error {
		defer passwordAgent(ctx, client)()
		return do(ctx, client)
	})
}

// onBus has do talk to the daemon, until it is interrupted.
func onBus(cmd *cobra.Command, do func(context.Context, *bus.Client) error) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	client, err := bus.Dial(ctx, "")
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	return do(ctx, client)
}

// passwordAgent has polkit ask for a password in this terminal, if it is one, until
// end is called. Without pkttyagent(1) polkit asks where it can.
func passwordAgent(ctx context.Context, client *bus.Client) (end func()) {
	const program = "/usr/bin/pkttyagent"
	if !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stderr.Fd())) {
		return func() {}
	}
	client.Interactive = true
	ready, told, err := os.Pipe()
	if err != nil {
		return func() {}
	}
	defer ready.Close()
	agent := exec.CommandContext(ctx, program, "--process", strconv.Itoa(os.Getpid()), "--notify-fd", "3", "--fallback")
	agent.ExtraFiles = []*os.File{told}
	agent.Cancel = func() error { return agent.Process.Signal(syscall.SIGTERM) } // it gives the terminal back
	agent.WaitDelay = 5 * time.Second
	err = agent.Start()
	told.Close()
	if err != nil {
		return func() {}
	}
	// It closes the descriptor when it is registered, or has failed.
	_ = ready.SetReadDeadline(time.Now().Add(agentPatience))
	_, _ = ready.Read(make([]byte, 1))
	return func() {
		_ = agent.Process.Signal(syscall.SIGTERM)
		_ = agent.Wait()
	}
}

// agentPatience is what polkit may need to take note of an agent.
const agentPatience = 10 * time.Second
