package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

func editCommand() *cobra.Command {
	var (
		e      editing
		dropIn string
	)
	cmd := &cobra.Command{
		Use:   "edit TARGET",
		Short: "Edit a drop-in of a target, or its .upgrade file",
		Long: `Open a drop-in of TARGET in an editor, or with --full the .upgrade file, of which
a copy in /etc/upgraderd is made if it stands elsewhere. What was written is checked, with all
else that TARGET is read from, before it takes the place of the file; what is not in
order is not kept. Then the daemon reads it. A drop-in that is left empty is removed.

The editor is that of $SYSTEMD_EDITOR, $EDITOR or $VISUAL, or one of editor, nano, vim
and vi.`,
		Example:           "  upgraderd edit app\n  upgraderd edit app --full\n  printf '[Confirm]\\nWindowSec=5min\\n' | upgraderd edit app --drop-in=window --stdin",
		ValidArgsFunction: complete(false, targetNames),
		Args:              usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if e.full && cmd.Flags().Changed("drop-in") {
				return withStatus(exitUsage, errors.New("--full and --drop-in=: which of them is meant?"))
			}
			e.target = strings.TrimSuffix(args[0], ".upgrade")
			e.in, e.out = cmd.InOrStdin(), cmd.OutOrStdout()
			var err error
			if e.at, err = scopeOf(cmd, "/"); err != nil {
				return err
			}
			files, err := e.at.files().Files(e.target)
			if err != nil {
				return err
			}
			if os.Geteuid() != 0 && !e.at.User {
				return advise(errors.New("only root may write .upgrade files"), "to see them: upgraderd cat %s", e.target)
			}
			if e.full {
				e.file = e.at.files().OwnFile(e.target)
			} else {
				name := strings.TrimSuffix(dropIn, ".conf") + ".conf"
				if filepath.Base(name) != name || strings.HasPrefix(name, ".") {
					return withStatus(exitUsage, fmt.Errorf("--drop-in=%q: want a plain file name", dropIn))
				}
				e.file = filepath.Join(e.at.files().OwnDropIns(e.target), name)
			}
			return e.edit(cmd.Context(), files)
		},
	}
	cmd.Flags().BoolVar(&e.full, "full", false, "edit the .upgrade file itself")
	cmd.Flags().StringVar(&dropIn, "drop-in", "override", "the `name` of the drop-in")
	cmd.Flags().BoolVar(&e.stdin, "stdin", false, "take the new text from stdin, and ask nobody")
	return cmd
}

// editing is one run of the command.
type editing struct {
	at          scope
	target      string
	file        string // what is written
	full, stdin bool
	in          io.Reader
	out         io.Writer
}

const (
	editBegin = "### Write between this line\n\n"
	editEnd   = "\n### and this one; what follows is what the target says now, and is dropped\n"
)

func (e *editing) edit(ctx context.Context, files []string) error {
	before, err := os.ReadFile(e.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	draft := before
	switch {
	case e.stdin:
		text, err := io.ReadAll(io.LimitReader(e.in, unitfile.MaxSize+1))
		if err != nil {
			return err
		}
		if err := e.check(text); err != nil {
			return err
		}
		return e.keep(ctx, before, text)
	case e.full && draft == nil:
		if draft, err = os.ReadFile(files[0]); err != nil {
			return err
		}
	case !e.full:
		draft = withContext(draft, files)
	}
	for {
		text, err := e.inEditor(ctx, draft)
		if err != nil {
			return err
		}
		if !e.full {
			draft, text = text, between(text)
		} else {
			draft = text
		}
		err = e.check(text)
		if err == nil {
			return e.keep(ctx, before, text)
		}
		fmt.Fprintln(e.out, err)
		if !e.again() {
			return errors.New("nothing was changed")
		}
	}
}

// withContext shows below the drop-in what the target says now.
func withContext(draft []byte, files []string) []byte {
	var b bytes.Buffer
	b.WriteString(editBegin)
	b.Write(draft)
	b.WriteString(editEnd)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		fmt.Fprintf(&b, "\n# %s\n", file)
		for line := range strings.Lines(string(text)) {
			b.WriteString("# " + line)
		}
	}
	return b.Bytes()
}

// between takes what was written, and not what was shown.
func between(text []byte) []byte {
	if _, rest, ok := bytes.Cut(text, []byte(strings.TrimSpace(editBegin)+"\n")); ok {
		text = rest
	}
	text, _, _ = bytes.Cut(text, []byte(strings.TrimLeft(editEnd, "\n")))
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return nil
	}
	return append(text, '\n')
}

// inEditor has a person change a text. Meanwhile what the terminal sends by Ctrl-C is
// the editor's business: many have a meaning of their own for it.
func (e *editing) inEditor(ctx context.Context, draft []byte) ([]byte, error) {
	argv, err := editor()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp("", "upgraderd-edit-*-"+filepath.Base(e.file))
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(draft)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGINT, syscall.SIGQUIT) // a signal that is ignored would be so by the editor
	defer signal.Stop(heard)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], f.Name())...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it gives the terminal back
	cmd.WaitDelay = 5 * time.Second
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.in, terminal(e.out), os.Stderr // an editor wants the terminal itself
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run the editor %s: %w\nNothing was changed", argv[0], err)
	}
	// The editor may have put another file in its place.
	text, err := os.Open(f.Name())
	if err != nil {
		return nil, err
	}
	defer text.Close()
	return io.ReadAll(io.LimitReader(text, unitfile.MaxSize+1))
}

// editor is found as systemctl edit finds it.
func editor() ([]string, error) {
	said := cmp.Or(os.Getenv("SYSTEMD_EDITOR"), os.Getenv("EDITOR"), os.Getenv("VISUAL"))
	if argv := strings.Fields(said); len(argv) > 0 {
		return argv, nil
	}
	for _, name := range []string{"editor", "nano", "vim", "vi"} {
		if path, err := exec.LookPath(name); err == nil {
			return []string{path}, nil
		}
	}
	return nil, advise(errors.New("there is no editor"), "name one in $EDITOR, or give the text with --stdin")
}

// check reads the target with the new text in it.
func (e *editing) check(text []byte) error {
	if e.full && len(bytes.TrimSpace(text)) == 0 {
		return advise(errors.New("an empty .upgrade file would mask the target"), "to be rid of it, remove %s", e.file)
	}
	if err := e.at.files().Try(e.target, e.file, text).Err(); err != nil {
		return fmt.Errorf("%w\nThat is not in order, so %s is left as it was", err, e.file)
	}
	return nil
}

// again asks whether to go on.
func (e *editing) again() bool {
	f, ok := e.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false
	}
	fmt.Fprint(e.out, "Edit it again? [Y/n] ")
	buf := make([]byte, 64)
	n, _ := f.Read(buf)
	answer := strings.ToLower(strings.TrimSpace(string(buf[:n])))
	return n > 0 && !strings.HasPrefix(answer, "n")
}

// keep puts the text in place, and has the daemon read it.
func (e *editing) keep(ctx context.Context, before, text []byte) error {
	if bytes.Equal(before, text) && (before != nil || len(text) == 0) {
		fmt.Fprintf(e.out, "%s: nothing was changed\n", e.target)
		return nil
	}
	if !e.full && len(bytes.TrimSpace(text)) == 0 {
		if err := os.Remove(e.file); err != nil {
			return err
		}
		_ = os.Remove(filepath.Dir(e.file)) // fails where something is in it
		fmt.Fprintf(e.out, "removed %s\n", e.file)
	} else {
		if err := replaceFile(e.file, text); err != nil {
			return err
		}
		fmt.Fprintf(e.out, "wrote %s\n", e.file)
	}
	bus := e.at.bus(nil)
	defer func() { _ = bus.Close() }()
	if daemonRuns(ctx, bus) != nil {
		return nil
	}
	return wakeDaemon(ctx, e.at)
}

// replaceFile writes a file whole, by one rename, and on disk.
func replaceFile(name string, text []byte) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".upgraderd-edit-")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
