package main

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config"
	"github.com/upgraderd/upgraderd/upgrader/progress"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

func deployCommand() *cobra.Command {
	var version string
	cmd := &cobra.Command{
		Use:   "deploy TARGET FILE|DIRECTORY|-",
		Short: "Have a target run a release, whatever it runs now, and tell whether it does",
		Long: `Import a release of TARGET, upgrade to it, and wait for the verdict: one command
for scripts, which may be given as often as they like. A unit that does not run is
started. Where the release is installed and runs already, nothing is done.

FILE is an artifact, with SHA256SUMS and its signatures beside it, which are asked
for as of every release: only Verify=no does without. It may have any name if
--version= says what it is. Of a DIRECTORY the artifact of that version is taken,
or the newest. With - it is a tar archive of such a directory on standard input, so
that a key for ssh can have this right alone; see docs/deploy.md.

The exit status is 0 if the unit runs the release and it proved itself, 1 if it does
not, with the reason, and 2 if the command makes no sense. Nothing is interrupted by
interrupting the command: the daemon goes on.`,
		Example:           "  upgraderd deploy app ./app --version=1.4.2\n  upgraderd deploy app dist/\n  tar -C dist -c . | ssh deploy@host",
		ValidArgsFunction: complete(false, targetNames, nil),
		Args:              usage(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			defer stop()
			signal.Ignore(syscall.SIGPIPE) // who hangs up leaves nothing behind either
			target, diagnostics := config.Peek("/", args[0])
			if target == nil {
				return diagnostics.Err()
			}
			err := deploy(ctx, cmd, target, args[1], version)
			var status statusError
			if errors.Is(err, context.Canceled) && !errors.As(err, &status) {
				return fmt.Errorf("deploy to %s: interrupted, nothing was ordered", target.Name)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&version, "version", "", "the `version` that FILE is")
	return cmd
}

func deploy(ctx context.Context, cmd *cobra.Command, target *upgrader.Target, file, version string) error {
	deploying := func(err error) error { return fmt.Errorf("deploy to %s: %w", target.Name, err) }
	if target.Swap == upgrader.SwapNone {
		return deploying(advise(errors.New("the operator swaps here (Swap=none)"), "set Swap=auto, or use upgraderd import"))
	}
	pid1 := systemd.New(systemd.Options{})
	defer func() { _ = pid1.Close() }()
	if err := daemonRuns(ctx, pid1); err != nil {
		return deploying(err)
	}
	if err := followed(ctx, target); err != nil {
		return deploying(err)
	}
	// Before anything is copied: whoever waits takes up no room.
	release, err := turn(ctx, cmd, target)
	if err != nil {
		return deploying(err)
	}
	defer release()
	if file == "-" {
		dir, err := os.MkdirTemp(cmp.Or(os.Getenv("TMPDIR"), "/var/tmp"), "upgraderd-deploy-")
		if err != nil {
			return deploying(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		most := cmp.Or(target.Source.SizeMax, fetcher.SizeMaxDefault)
		if err := unpackInto(ctx, dir, cmd.InOrStdin(), most); err != nil {
			return deploying(fmt.Errorf("unpack standard input: %w", err))
		}
		file = dir
	}
	parcel, err := upgrader.Pack(ctx, target, file, version)
	if err != nil {
		return deploying(err)
	}
	d := deployment{cmd: cmd, Parcel: parcel, bus: pid1}
	if done, err := d.already(ctx); done || err != nil {
		return err
	}
	return d.run(ctx)
}

// turn waits until nobody else deploys to the target.
func turn(ctx context.Context, cmd *cobra.Command, target *upgrader.Target) (release func(), err error) {
	told := false
	for {
		release, err := upgrader.DeployTurn(stateDirectory(), target.Name)
		var held *store.LockedError
		if !errors.As(err, &held) {
			return release, err
		}
		if !told {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: somebody else deploys to it (%v), waiting for the end of that\n", target.Name, held)
			told = true
		}
		if !rest(ctx, answerInterval) {
			return nil, ctx.Err()
		}
	}
}

type deployment struct {
	cmd *cobra.Command
	upgrader.Parcel
	bus *systemd.Client
}

func (d *deployment) failed(format string, args ...any) error {
	return fmt.Errorf("deploy %s to %s: %w", d.Version, d.Target.Name, fmt.Errorf(format, args...))
}

func (d *deployment) say(text string) {
	fmt.Fprintf(d.cmd.OutOrStdout(), "%s: %s %s\n", d.Target.Name, d.Version, text)
}

// already waits for the verdict of a trial of this very release, if somebody else
// deploys it, and tells whether nothing is left to do.
func (d *deployment) already(ctx context.Context) (done bool, err error) {
	state, last := d.Trial(stateDirectory())
	waited := false
	line := newLine(d.cmd.ErrOrStderr())
	for state != "" {
		line.show(d.Target.Name+": "+string(state)+" "+d.Version, nil)
		waited = true
		if !rest(ctx, answerInterval) {
			line.clear()
			return true, goesOn(d.cmd, d.Target)
		}
		state, last = d.Trial(stateDirectory())
	}
	line.clear()
	if waited && last != nil && last.Verdict != upgrader.VerdictGood && last.Verdict != upgrader.VerdictInstalled {
		return true, d.failed("%s: %s", verdict(last.Verdict), last.Reason)
	}
	release, is, err := d.Installed(stateDirectory())
	if err != nil {
		return true, d.failed("%w", err)
	}
	if !is {
		return false, nil
	}
	f, err := d.bus.Facts(ctx, d.Target.Unit)
	switch {
	case err != nil:
		return true, d.failed("%w", err)
	case f.Running():
		d.say("already runs")
		return true, nil
	}
	if err := d.start(ctx); err != nil {
		return true, err
	}
	d.say("was installed, and " + d.Target.Unit + " is started with it (" + release + ")")
	return true, nil
}

// start starts the unit, and waits until it runs.
func (d *deployment) start(ctx context.Context) error {
	_ = d.bus.ResetFailed(ctx, d.Target.Unit) // whoever deploys wants it to run
	result, err := d.bus.Start(ctx, d.Target.Unit)
	if err != nil {
		return d.failed("start %s: %w", d.Target.Unit, err)
	}
	f, err := d.bus.Facts(ctx, d.Target.Unit)
	if err == nil && !f.Running() {
		err = advise(fmt.Errorf("job is %q, and the unit is %s", result, f.ActiveState), "see journalctl -u %s", d.Target.Unit)
	}
	if err != nil {
		return d.failed("start %s: %w", d.Target.Unit, err)
	}
	return nil
}

// wake starts a unit that does not run, and waits no longer than until it is on its
// way: a supervisor without a release waits for the one that comes. What it runs
// now is what proved itself, or nothing; what it then is moved to has a trial.
func (d *deployment) wake(ctx context.Context) error {
	f, err := d.bus.Facts(ctx, d.Target.Unit)
	if err != nil || f.ActiveState != "inactive" {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the wait for the job, not the job
	started := make(chan error, 1)
	go func() {
		_, err := d.bus.Start(ctx, d.Target.Unit)
		started <- err
	}()
	for f.ActiveState == "inactive" {
		select {
		case err := <-started:
			return err // whether it runs then, the swap finds out
		case <-time.After(answerInterval):
		}
		if f, err = d.bus.Facts(ctx, d.Target.Unit); err != nil {
			return err
		}
	}
	return nil
}

func (d *deployment) run(ctx context.Context) error {
	line := newLine(d.cmd.ErrOrStderr())
	var meter progress.Meter
	id, o, err := d.Import(ctx, stateDirectory(), daemonThere(ctx, systemScope()), func(done, total int64) {
		meter.Note(done)
		p := meter.Progress(total)
		line.show(d.Target.Name+": copying", &p)
	})
	line.clear()
	if err != nil {
		return d.failed("%w", err)
	}
	a, err := answerTo(ctx, d.cmd, systemScope(), d.Target, o, id)
	if err != nil {
		return err
	}
	if a.Verdict != upgrader.VerdictStaged {
		return d.failed("%s", cmp.Or(a.Reason, "the daemon took nothing; see journalctl -u upgraderd"))
	}
	if err := d.wake(ctx); err != nil { // only now that it is verified
		return d.failed("start %s: %w", d.Target.Unit, err)
	}
	o = upgrader.Order{Verb: upgrader.OrderUpgrade, Version: d.Version}
	if id, err = upgrader.Place(stateDirectory(), d.Target.Name, o); err != nil {
		return d.failed("%w", err)
	}
	a, err = answerTo(ctx, d.cmd, systemScope(), d.Target, o, id)
	if err != nil {
		return err
	}
	switch a.Verdict {
	case upgrader.VerdictGood:
		d.say("runs, and is good")
		return nil
	case "": // somebody else was quicker
		d.say("already runs")
		return nil
	case upgrader.VerdictInstalled: // the unit was stopped meanwhile
		if err := d.start(ctx); err != nil {
			return err
		}
		d.say("is installed, and " + d.Target.Unit + " is started with it")
		return nil
	case upgrader.VerdictRefused, upgrader.VerdictRolledBack, upgrader.VerdictStuck, upgrader.VerdictInconclusive:
		return d.failed("%s: %s", verdict(a.Verdict), cmp.Or(a.Reason, "see journalctl -u upgraderd"))
	}
	return d.failed("%s", cmp.Or(a.Reason, "see upgraderd status "+d.Target.Name))
}

// followedPatience is for a daemon that reads a new .upgrade file.
const followedPatience = time.Minute

// followed has the daemon follow the target, if its file is new.
func followed(ctx context.Context, target *upgrader.Target) error {
	there := func() error {
		_, err := os.Stat(filepath.Join(stateDirectory(), target.Name))
		return err
	}
	if err := there(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := wakeDaemon(ctx, systemScope()); err != nil {
		return err
	}
	for began := time.Now(); ; {
		switch err := there(); {
		case !errors.Is(err, fs.ErrNotExist):
			return err
		case time.Since(began) > followedPatience:
			return advise(errors.New("the daemon does not follow it"), "see upgraderd verify %s, and journalctl -u upgraderd", target.Name)
		case !rest(ctx, answerInterval):
			return ctx.Err()
		}
	}
}

func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// archiveFiles bounds what an archive holds: an artifact, its list and signatures,
// or the metadata of a TUF repository.
const archiveFiles = 1024

// archiveSpare is for all but the artifact.
const archiveSpare = 16 << 20

// roomLeft is what stays free for others where an archive is unpacked.
const roomLeft = 64 << 20

// roomIn refuses to fill a disk, of which nobody but this command would be told.
func roomIn(dir string, size int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look for room in %s: %w", dir, err)
	}
	if have := int64(fs.Bavail) * fs.Bsize; size > have-roomLeft {
		return advise(fmt.Errorf("need %d bytes in %s, and have %d, of which %d stay free: %w", size, filepath.Dir(dir), have, roomLeft, syscall.ENOSPC),
			"make room there, or have TMPDIR= name another place")
	}
	return nil
}

// inputStall is how long nothing may come: others wait for their turn.
const inputStall = time.Minute

// unpackInto unpacks a tar archive of plain files, of at most so many bytes and some
// for lists and signatures. A read that never ends is left behind when ctx ends, or
// when nothing comes any more.
func unpackInto(ctx context.Context, dir string, from io.Reader, most int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(inputStall, func() { cancel(fmt.Errorf("nothing came for %v", inputStall)) })
	defer stall.Stop()
	done := make(chan error, 1)
	go func() { done <- unpackTar(ctx, dir, &impatient{from, stall}, most+archiveSpare) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// impatient puts a timer off with each read that gives something.
type impatient struct {
	io.Reader
	stall *time.Timer
}

func (r *impatient) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.stall.Reset(inputStall)
	}
	return n, err
}

func unpackTar(ctx context.Context, dir string, from io.Reader, most int64) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	archive := tar.NewReader(from)
	left := most
	for n := 0; ; n++ {
		h, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF) && n == 0:
			return advise(errors.New("it is empty"), "want a tar archive: tar -C DIRECTORY -c .")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n >= archiveFiles:
			return fmt.Errorf("more than %d entries", archiveFiles)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeDir:
			if err := root.MkdirAll(name, 0o700); err != nil {
				return err
			}
			continue
		case tar.TypeReg:
		default:
			return fmt.Errorf("%q is neither a file nor a directory", h.Name)
		}
		if left -= h.Size; left < 0 {
			return advise(fmt.Errorf("%q is too much: more than %d bytes in all", h.Name, most), "raise SizeMax= if it is meant to be that large")
		}
		if err := roomIn(dir, h.Size); err != nil {
			return err
		}
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, archive); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
}
