package main

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// wisher is what the verbs that forbid something have in common.
type wisher struct {
	root, reason string
}

func (w *wisher) flags(cmd *cobra.Command) {
	w.root = "/"
	cmd.Flags().StringVar(&w.root, "root", w.root, "read configuration and store below this `directory`")
}

func (w *wisher) reasonFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.reason, "reason", "", "why, in one `line`, for whoever asks later")
}

// mark signs a wish.
func (w *wisher) mark() wish.Mark {
	return wish.Mark{By: operator(), Reason: w.reason, When: time.Now().UTC().Truncate(time.Second)}
}

// operator is the person behind this command, as far as that is known: who became
// root by sudo, or else this user.
func operator() string {
	if name := os.Getenv("SUDO_USER"); name != "" && os.Geteuid() == 0 {
		return name
	}
	u, err := user.Current()
	if err != nil {
		return fmt.Sprint("user ", os.Getuid())
	}
	return u.Username
}

// change has f change the wishes of a target, tells the daemon, and prints what f
// says of it.
func (w *wisher) change(cmd *cobra.Command, name string, f func(target string, all *wish.Wishes) (said string, err error)) error {
	at, err := scopeOf(cmd, w.root)
	if err != nil {
		return err
	}
	here := filepath.Clean(w.root) == "/"
	if here && !at.User && !isRoot() {
		return wishOverBus(cmd, at, name, f)
	}
	target, diagnostics := at.files().Peek(name)
	if target == nil {
		return diagnostics.Err()
	}
	var said string
	if err := upgrader.ChangeWishes(at.state(), target.Name, func(all *wish.Wishes) (err error) {
		said, err = f(target.Name, all)
		return err
	}); err != nil {
		return fmt.Errorf("%s %s: %w", cmd.Name(), target.Name, err)
	}
	fmt.Fprintln(cmd.OutOrStdout(), said)
	if !here {
		return nil
	}
	// It is on disk, and counts: the daemon reads it before it begins anything.
	if err := wakeDaemon(cmd.Context(), at); err != nil {
		fmt.Fprintf(inWordsOf(cmd, shown{cmd.ErrOrStderr()}), "%s: the daemon sees it when it looks next: %v\n", target.Name, err)
	}
	return nil
}
