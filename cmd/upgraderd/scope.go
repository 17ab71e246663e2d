package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config"
	"github.com/upgraderd/upgraderd/upgrader/realm"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
	"github.com/upgraderd/upgraderd/upgrader/unitlint"
)

// scope is the realm that a command is about, and below which root directory.
type scope struct {
	realm.Realm
	root string
}

// addScope gives every verb the flags that systemctl(1) has.
func addScope(root *cobra.Command) {
	f := root.PersistentFlags()
	f.Bool("user", false, "the upgraderd of your own services, under systemd --user")
	f.Bool("system", false, "that of the system, as without it")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		at, err := scopeOf(cmd, "/")
		if err != nil || !at.User {
			return err
		}
		if cmd.HasParent() && !slices.Contains(slices.Concat(userVerbs(), anywhere()), cmd.Name()) {
			return withStatus(exitUsage, advise(fmt.Errorf("%s has no --user", cmd.CommandPath()), "leave it out: the verb is the same for the system and for users, or for the system alone"))
		}
		cmd.Root().SetOut(inWordsOf(cmd, shown{os.Stdout}))
		return nil
	}
}

// userVerbs are those that are about a realm.
func userVerbs() []string {
	return []string{
		"status", "history", "show", "check", "plan", "verify", "fetch", "import", "upgrade", "confirm", "rollback", "forgive", "install",
		"list", "hold", "unhold", "pin", "skip", "monitor", "cat", "edit", "adopt",
		"launch", "daemon", "guard", "run-check", "run-source",
	}
}

// anywhere are those that tell the same anywhere.
func anywhere() []string {
	return []string{"help", "version", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}
}

// scopeOf is what the flags of a command say.
func scopeOf(cmd *cobra.Command, root string) (scope, error) {
	user, err := cmd.Flags().GetBool("user")
	if err != nil || !user {
		return scope{realm.System(), root}, err
	}
	if system, err := cmd.Flags().GetBool("system"); err != nil || system {
		return scope{}, withStatus(exitUsage, advise(errors.New("--user and --system exclude each other"), "say whose services are meant: yours, or the system's"))
	}
	if filepath.Clean(root) != "/" {
		return scope{}, withStatus(exitUsage, errors.New("--user and --root= do not go together: what is yours is where your session says"))
	}
	r, err := realm.User()
	return scope{r, "/"}, err
}

// state is where releases and records are: as systemd says, see StateDirectory= in
// systemd.exec(5), but for a user, see package realm.
func (w scope) state() string {
	if w.User {
		return w.State
	}
	if filepath.Clean(w.root) != "/" {
		return filepath.Join(w.root, w.State)
	}
	return stateDirectory()
}

// bus is the connection to the service manager of the realm.
func (w scope) bus(log *slog.Logger) *systemd.Client {
	return systemd.New(systemd.Options{Address: w.Bus, Log: log})
}

// files are the .upgrade files of the realm.
func (w scope) files() config.Reader {
	if w.User {
		return config.Of(w.Realm)
	}
	return config.At(w.root)
}

// arguments run a verb of this program for the same realm.
func (w scope) arguments(verb string) []string {
	if w.User {
		return []string{"--user", verb}
	}
	return []string{verb}
}

// words has what is said to a user tell the commands that do for them what those
// in the text do for the system.
func (w scope) words() *strings.Replacer {
	pairs := []string{
		"see: systemctl status dbus", "is it there? See: systemctl --user status dbus.socket; without a session, loginctl enable-linger starts your manager",
		"systemctl --user ", "systemctl --user ", "systemctl ", "systemctl --user ",
		"journalctl --user ", "journalctl --user ", "journalctl -u ", "journalctl --user -u ", "journalctl -fu ", "journalctl --user -fu ",
		"upgraderd --user ", "upgraderd --user ",
		"/etc/upgraderd", w.Config[0],
	}
	for _, verb := range userVerbs() {
		pairs = append(pairs, "upgraderd "+verb, "upgraderd --user "+verb)
	}
	return strings.NewReplacer(pairs...)
}

// said writes text in other words. Each Write is of whole words.
type said struct {
	shown
	words *strings.Replacer
}

func (s said) Write(text []byte) (int, error) {
	if _, err := s.shown.Write([]byte(s.words.Replace(string(text)))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// inWordsOf gives w what a command says, in the words of its realm.
func inWordsOf(cmd *cobra.Command, w shown) io.Writer {
	if at, err := scopeOf(cmd, "/"); err == nil && at.User {
		return said{w, at.words()}
	}
	return w
}

// lintUnits says what is wrong with the units of targets.
func (w scope) lintUnits(targets []*upgrader.Target) config.Diagnostics {
	if w.User {
		return unitlint.Of(w.Realm, targets...)
	}
	return unitlint.Check(w.root, targets...)
}

// systemScope is that of verbs that have no --user.
func systemScope() scope { return scope{realm.System(), "/"} }
