package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/upgraderd/upgraderd/units"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/adopt"
	"github.com/upgraderd/upgraderd/upgrader/config"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

func adoptCommand() *cobra.Command {
	var (
		a    adopter
		undo bool
		swap string
	)
	cmd := &cobra.Command{
		Use:   "adopt UNIT [flags] [-- ARG...]",
		Short: "Make an existing service upgradable",
		Long: `Read UNIT as systemd has loaded it, decide which swap it can have, and write what
that takes: a drop-in for the service, a .socket unit where it listens for itself,
and a .upgrade file. The files are shown first, and nothing that is there is
changed. Where a program of activation/overseer fetches from is read from the one
that runs. The program that is installed becomes the first release, 0-installed, so
that an upgrade which turns bad has something to return to.

With --proxy a service that takes no sockets gets a socket of systemd and
systemd-socket-proxyd before it, so that new connections wait while it is restarted.

The service goes on as it runs. With --now it is moved at once, by a stop and a
start that change its main PID; if it does not start then, everything is put
back. What comes after -- are arguments that its program gets from then on.

--undo removes what was written, and the releases.`,
		Example: "  upgraderd adopt app --dry-run\n  upgraderd adopt app --source=https://example.org/app --key=/etc/upgraderd/app.pub --now\n" +
			"  upgraderd adopt prometheus-node-exporter -- --web.systemd-socket\n  upgraderd adopt app --undo --now",
		ValidArgsFunction: complete(true, services, nil),
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				args = args[:n]
			}
			return usage(cobra.ExactArgs(1))(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			unit, err := adopt.UnitName(args[0])
			if err != nil {
				return withStatus(exitUsage, err)
			}
			a.wishes.Args = args[1:]
			a.in, a.out = cmd.InOrStdin(), cmd.OutOrStdout()
			if a.wishes.Swap, err = parseSwap(swap); err != nil {
				return withStatus(exitUsage, err)
			}
			if err := a.wishes.Check(); err != nil {
				return withStatus(exitUsage, err)
			}
			if a.wishes.Proxy != "" && !a.dry && !a.now && !undo {
				return withStatus(exitUsage, advise(errors.New("--proxy is of use only if the service then listens where it is told to"), "say --now, which moves it, and puts everything back if it does not; or --dry-run"))
			}
			if a.at, err = scopeOf(cmd, "/"); err != nil {
				return err
			}
			program := units.ProgramPath
			if a.at.User {
				if a.wishes.Proxy != "" {
					return withStatus(exitUsage, errors.New("--proxy is for services of the system alone"))
				}
				if program, err = os.Executable(); err != nil {
					return err
				}
			}
			a.disk = adopt.Disk{Root: "/", At: adopt.Of(a.at.Realm, program)}
			if os.Geteuid() != 0 && !a.at.User && !a.dry {
				return advise(errors.New("only root may write units and .upgrade files"), "to see what would be written: upgraderd adopt --dry-run %s", unit)
			}
			a.bus = a.at.bus(nil)
			defer func() { _ = a.bus.Close() }()
			if undo {
				return a.undo(ctx, unit)
			}
			return a.adopt(ctx, unit)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&a.dry, "dry-run", false, "show what would be written, and stop there")
	f.BoolVarP(&a.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&a.now, "now", false, "move the service at once, too: its main PID changes")
	f.BoolVar(&undo, "undo", false, "take everything back")
	f.StringVar(&a.wishes.Source, "source", "", "where releases come from, as Path= (default /srv/NAME)")
	f.StringArrayVar(&a.wishes.Keys, "key", nil, "the `key` of who signs them, or a file of it, as Key= (repeatable;\ndefault /etc/upgraderd/NAME.pub)")
	f.BoolVar(&a.wishes.Unsigned, "unsigned", false, "take releases that nobody signed, as Verify=no")
	f.StringArrayVar(&a.wishes.Patterns, "pattern", nil, "which files are releases, as MatchPattern= (default NAME_@v)")
	f.StringVar(&a.wishes.Target, "name", "", "the `name` of the .upgrade file (default: that of the unit)")
	f.StringVar(&swap, "swap", "auto", "handover or restart, if you know better")
	f.StringArrayVar(&a.wishes.Listen, "listen", nil, "the `address` of the .socket unit, as ListenStream= (repeatable;\ndefault: what the service listens on now)")
	f.StringVar(&a.wishes.Program, "program", "", "the `file` of ExecStart= that releases replace")
	f.StringVar(&a.wishes.Proxy, "proxy", "", "put a proxy where the service listens, and the service itself at\n`IP:PORT`, as --env= or what comes after -- tells it")
	f.StringArrayVar(&a.wishes.Env, "env", nil, "an `assignment` NAME=VALUE for its environment (repeatable)")
	f.StringVar(&a.wishes.Ready, "ready", "", "`WHEN` a worker is ready, as --ready= of upgraderd supervise")
	f.StringVar(&a.wishes.StopSignal, "stop-signal", "", "the `signal` that asks a worker to drain (default KillSignal= of the unit)")
	return cmd
}

func parseSwap(text string) (upgrader.Swap, error) {
	switch s := upgrader.Swap(text); s {
	case upgrader.SwapAuto:
		return "", nil
	case upgrader.SwapHandover, upgrader.SwapRestart:
		return s, nil
	}
	return "", fmt.Errorf("--swap=%q: want auto, handover or restart", text)
}

// adopter is one run of the command.
type adopter struct {
	wishes        adopt.Wishes
	dry, yes, now bool
	in            io.Reader
	out           io.Writer
	bus           *systemd.Client
	at            scope
	disk          adopt.Disk
}

func (a *adopter) say(format string, args ...any) { fmt.Fprintf(a.out, format+"\n", args...) }

// adopt does the whole of it.
func (a *adopter) adopt(ctx context.Context, unit string) error {
	s, err := adopt.Look(ctx, a.bus, unit)
	if err != nil {
		return err
	}
	if s.ID != "" {
		unit = s.ID // of an alias
	}
	switch err := a.disk.Adopted(unit); {
	case errors.Is(err, adopt.ErrAdopted):
		return a.again(ctx, unit)
	case err != nil:
		return err
	}
	if a.wishes.Given, err = a.given(unit); err != nil {
		return err
	}
	plan, err := adopt.Plan(s, a.wishes, a.disk.At)
	if err != nil {
		return err
	}
	if err := a.disk.Fit(&plan); err != nil {
		return err
	}
	if err := a.lintUpgrade(plan); err != nil {
		return err
	}
	a.show(plan)
	if a.dry {
		return nil
	}
	if err := a.installedHere(); err != nil {
		return err
	}
	if err := proxyHere(plan); err != nil {
		return err
	}
	if err := a.agree("Write these files?"); err != nil {
		return err
	}
	if err := a.found(ctx, plan); err != nil {
		return err
	}
	if err := a.disk.Write(plan); err != nil {
		return err
	}
	if err := a.load(ctx, unit); err != nil {
		return errors.Join(err, a.revert(ctx, unit, false))
	}
	running := s.Running()
	if running && a.now {
		if err := a.move(ctx, unit); err != nil {
			return err
		}
		if err := a.proxied(ctx, plan); err != nil {
			return err
		}
	}
	a.findings(plan.Target)
	return a.next(ctx, plan, running)
}

// again is for a unit that is adopted already.
func (a *adopter) again(ctx context.Context, unit string) error {
	set, err := a.bus.Settings(ctx, unit)
	if err != nil {
		return err
	}
	a.say("%s is adopted already; nothing is to be written\nTo change it, edit the files; to begin anew: upgraderd adopt --undo %s", unit, unit)
	if !a.now || a.dry || !set.Running() || adopt.RunsFrom(set.ControlGroup, a.at.state()) {
		return nil
	}
	return a.move(ctx, unit)
}

// given finds the target that has the unit already.
func (a *adopter) given(unit string) (*upgrader.Target, error) {
	targets, _ := a.at.files().PeekAll()
	for _, t := range targets {
		if t.Unit == unit {
			return t, nil
		}
	}
	return nil, nil
}

// lintUpgrade reads the .upgrade file as it would be. Its key may come later.
func (a *adopter) lintUpgrade(plan adopt.Adoption) error {
	for _, f := range plan.Files {
		if filepath.Ext(f.Name) != ".upgrade" {
			continue
		}
		ds := a.at.files().Try(plan.Target, f.Name, []byte(f.Text)).Errors()
		ds = slices.DeleteFunc(ds, func(d config.Diagnostic) bool {
			_, err := os.Stat(plan.DefaultKey())
			return errors.Is(err, fs.ErrNotExist) && strings.Contains(d.Message, plan.DefaultKey())
		})
		if err := ds.Err(); err != nil {
			return fmt.Errorf("the .upgrade file would not be in order, so nothing was written:\n%w", err)
		}
	}
	return nil
}

func (a *adopter) show(plan adopt.Adoption) {
	a.say("%s: %s, since %s", plan.Unit, plan.Swap, plan.Why)
	for _, r := range plan.Remarks {
		a.say("note: %s", r)
	}
	a.say("The program that is installed, %s, becomes the release %s of %s.\n", plan.Installed, adopt.InstalledVersion, plan.Target)
	fmt.Fprint(a.out, plan.Diff())
	a.say("")
}

// agree asks on a terminal; without one, --yes has to have been said.
func (a *adopter) agree(question string) error {
	if a.yes {
		return nil
	}
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return withStatus(exitUsage, advise(errors.New("nobody can be asked here: stdin is no terminal"), "say --yes, or --dry-run to see only"))
	}
	fmt.Fprint(a.out, question+" [y/N] ")
	answer, _ := bufio.NewReader(io.LimitReader(f, 64)).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

// installedHere refuses where the files would name what is not there.
func (a *adopter) installedHere() error {
	if err := a.at.MakeState(); err != nil {
		return err
	}
	for _, name := range []string{a.disk.At.Program, a.at.state(), a.disk.At.Config, a.disk.At.Units} {
		if _, err := os.Stat(name); err != nil {
			return advise(err, "first: upgraderd install, and what it says is next")
		}
	}
	return nil
}

// proxyHere refuses a proxy that could not run, or that would lead to somebody else.
func proxyHere(plan adopt.Adoption) error {
	if !plan.Proxy.IsValid() {
		return nil
	}
	for _, name := range []string{adopt.ProxyProgram, adopt.Shell} {
		if _, err := os.Stat(name); err != nil {
			return fmt.Errorf("--proxy needs it: %w", err)
		}
	}
	l, err := net.Listen("tcp", plan.Proxy.String())
	if err != nil {
		return advise(fmt.Errorf("--proxy=%s: %w", plan.Proxy, err), "choose an address that is free")
	}
	return l.Close()
}

// proxied looks whether clients come to the proxy now, and puts everything back if
// they do not: the service may go on to listen where it did.
func (a *adopter) proxied(ctx context.Context, plan adopt.Adoption) error {
	if !plan.Proxy.IsValid() {
		return nil
	}
	f, err := a.bus.Facts(ctx, plan.Socket)
	if err == nil && f.ActiveState == "active" {
		a.say("%s listens, and forwards to %s", plan.Socket, plan.Proxy)
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%s does not listen: it is %s", plan.Socket, f.ActiveState)
	}
	if back := a.revert(context.WithoutCancel(ctx), plan.Unit, true); back != nil {
		return errors.Join(err, fmt.Errorf("put everything back: %w", back))
	}
	return advise(fmt.Errorf("%w\nEverything was put back, and it runs as before", err), "it may still listen where it did; see: journalctl -u %s", plan.Socket)
}

// found makes the first release.
func (a *adopter) found(ctx context.Context, plan adopt.Adoption) error {
	f, err := os.Open(plan.Installed)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = store.Found(ctx, filepath.Join(a.at.state(), plan.Target), adopt.InstalledVersion, plan.Inside, f)
	return err
}

// load has systemd read the files, and looks whether it can.
func (a *adopter) load(ctx context.Context, unit string) error {
	if err := a.bus.ReloadFiles(ctx); err != nil {
		return err
	}
	f, err := a.bus.Facts(ctx, unit)
	if err == nil && f.LoadState != "loaded" {
		err = fmt.Errorf("systemd does not take the files: %s is %s: %s", unit, f.LoadState, f.LoadError)
	}
	return err
}

// move has the service run as its files say, or puts everything back.
func (a *adopter) move(ctx context.Context, unit string) error {
	err := adopt.Move(ctx, a.bus, unit)
	if err == nil {
		f, err := a.bus.Facts(ctx, unit)
		if err == nil {
			a.say("%s was moved; its main PID is %d", unit, f.MainPID)
		}
		return err
	}
	// Also where somebody is tired of waiting.
	back := a.revert(context.WithoutCancel(ctx), unit, true)
	if back != nil {
		return errors.Join(err, fmt.Errorf("put everything back: %w", back))
	}
	return advise(fmt.Errorf("%w\nEverything was put back, and it runs as before", err), "see why: journalctl -u %s", unit)
}

// revert takes an adoption back, and the service with it. The daemon forgets the
// target first, so that it does not move a unit that is on its way back.
func (a *adopter) revert(ctx context.Context, unit string, moved bool) error {
	u, err := a.disk.Undo(unit)
	if err != nil {
		return err
	}
	upgrade, rest := u, u
	upgrade.Files, rest.Files = nil, nil
	for _, f := range u.Files {
		if filepath.Ext(f.Name) == ".upgrade" {
			upgrade.Files = append(upgrade.Files, f)
		} else {
			rest.Files = append(rest.Files, f)
		}
	}
	upgrade.Dirs = nil
	if err := a.disk.Remove(upgrade); err != nil {
		return err
	}
	if len(upgrade.Files) > 0 && daemonRuns(ctx, a.bus) == nil {
		if err := wakeDaemon(ctx, a.at); err != nil {
			return err
		}
	}
	if err := a.disk.Remove(rest); err != nil {
		return err
	}
	if err := a.bus.ReloadFiles(ctx); err != nil {
		return err
	}
	if moved {
		if err := a.moveBack(ctx, u); err != nil {
			return err
		}
	}
	return a.forget(ctx, u)
}

// moveBack has the service run as before. It may have failed meanwhile.
func (a *adopter) moveBack(ctx context.Context, u adopt.Undoing) error {
	var sockets []string
	if u.Socket != "" {
		sockets = append(sockets, u.Socket)
	}
	if u.Proxy != "" {
		sockets = append(sockets, u.Proxy)
	}
	f, err := a.bus.Facts(ctx, u.Unit)
	if err != nil {
		return err
	}
	switch f.ActiveState {
	case "failed", "inactive":
	case "activating": // once more, by Restart=
		if _, err := a.bus.Displace(ctx, u.Unit); err != nil {
			return err
		}
	default:
		return adopt.Move(ctx, a.bus, u.Unit, sockets...)
	}
	for _, s := range sockets {
		if _, err := a.bus.Stop(ctx, s); err != nil && !systemd.HasCode(err, systemd.CodeNotFound) {
			return err
		}
	}
	a.bus.KillAll(ctx, u.Unit)
	result, err := a.bus.Start(ctx, u.Unit)
	if err == nil && result != systemd.ResultDone && result != systemd.ResultUnknown {
		err = fmt.Errorf("start %s: job is %q", u.Unit, result)
	}
	return err
}

// forget removes the releases of a target that is gone, once nothing runs from
// them.
func (a *adopter) forget(ctx context.Context, u adopt.Undoing) error {
	if u.Target == "" {
		return nil
	}
	dir := filepath.Join(a.at.state(), u.Target)
	set, err := a.bus.Settings(ctx, u.Unit)
	if err != nil {
		return err
	}
	if adopt.RunsFrom(set.ControlGroup, dir) {
		a.say("\n%s still runs from %s. To have it run as before, which changes its main PID:", u.Unit, dir)
		if u.Socket != "" {
			a.say("  systemctl stop %s", strings.TrimSpace(u.Socket+" "+u.Proxy))
		}
		a.say("  systemctl restart %s\n  rm -r %s", u.Unit, dir)
		return nil
	}
	return store.Erase(ctx, dir)
}

// undo takes everything back.
func (a *adopter) undo(ctx context.Context, unit string) error {
	if f, err := a.bus.Facts(ctx, unit); err == nil && f.ID != "" {
		unit = f.ID
	}
	u, err := a.disk.Undo(unit)
	if errors.Is(err, adopt.ErrNotAdopted) {
		return fmt.Errorf("%w: there is nothing to undo", err)
	}
	if err != nil {
		return err
	}
	for _, name := range u.Kept {
		a.say("note: %s is kept: it is not what adopt wrote any more", name)
	}
	fmt.Fprint(a.out, u.Diff())
	if u.Target != "" {
		a.say("\nThe releases in %s go, too.", filepath.Join(a.at.state(), u.Target))
	}
	if u.Target != "" {
		if pending, err := upgrader.Pending(a.at.state(), u.Target); err != nil || pending {
			return errors.Join(err, advise(fmt.Errorf("an upgrade of %s is under way", u.Target), "wait for its verdict: upgraderd status %s", u.Target))
		}
	}
	if a.dry {
		return nil
	}
	if err := a.agree("Remove these files?"); err != nil {
		return err
	}
	f, err := a.bus.Facts(ctx, unit)
	if err != nil {
		return err
	}
	return a.revert(ctx, unit, a.now && f.Running())
}

// findings says what is not as it could be, and can only be told now.
func (a *adopter) findings(target string) {
	targets, ds := a.at.files().Lint(target)
	ds = append(ds, a.at.lintUnits(targets)...)
	_ = ds.Print(a.out)
}

// next says what is left to do, and has the daemon follow the target.
func (a *adopter) next(ctx context.Context, plan adopt.Adoption, running bool) error {
	t, _ := a.at.files().Load(plan.Target)
	follows := false
	if t != nil && daemonRuns(ctx, a.bus) == nil {
		if err := wakeDaemon(ctx, a.at); err != nil {
			return err
		}
		follows = true
	}
	a.say("Next:")
	if running && !a.now && plan.Swap == upgrader.SwapHandover {
		a.say("  upgraderd adopt %s --now   # moves it: its main PID changes, this once%s", plan.Unit, refused(plan))
	}
	if t == nil {
		a.say("  # the key of who signs releases into %s, or a new one: upgraderd keygen %s", plan.DefaultKey(), plan.Target)
	}
	if !follows {
		a.say("  systemctl enable --now upgraderd; systemctl reload upgraderd")
	}
	if filepath.IsAbs(plan.Source) {
		a.say("  upgraderd publish %s PROGRAM --version=1.0 --key=%s.key", plan.Source, plan.Target)
	}
	a.say("  upgraderd plan %s", plan.Target)
	return nil
}

func refused(plan adopt.Adoption) string {
	if plan.Socket == "" {
		return ""
	}
	return ",\n  #   and connections are refused from its stop until " + plan.Socket + " listens"
}
