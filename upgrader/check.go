package upgrader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/unit"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

const checkTimeoutDefault = 30 * time.Second

// sandboxFailed is the first of the exit codes by which systemd says that it
// could not set up what the unit asks for, see systemd.exec(5).
const sandboxFailed = 200

// CheckUnit is the template instance that checks a target's staged release:
// systemd starts it, the sandbox is its unit file.
func CheckUnit(target string) string {
	return "upgraderd-check@" + unit.UnitNameEscape(target) + ".service"
}

// check is the step of Checking. The release runs here for the first time,
// far from the service, its user and its rights.
func (m *machine) check(ctx context.Context) (Event, error) {
	event, err := m.inSandbox(ctx)
	switch {
	case event != CheckPassed:
		return event, err
	case m.record.Order.stages():
		return m.leaveStaged(ctx), err
	}
	return m.goOn(ctx)
}

func (m *machine) inSandbox(ctx context.Context) (Event, error) {
	if len(m.target.Check) == 0 || m.passed == m.record.Digest {
		return CheckPassed, nil
	}
	name := CheckUnit(m.target.Name)
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, m.checkTimeout()+jobSlack)
	defer cancel()
	result, err := m.systemd.Start(limited, name)
	f, ferr := m.systemd.Facts(ctx, name)
	switch {
	case ctx.Err() != nil:
		return CheckNotRun, ctx.Err()
	case err != nil:
		return m.checkNotRun(ctx, err)
	case result == systemd.ResultDone:
		m.emit(ctx, journal.ReleaseChecked, slog.Duration("took", time.Since(began)))
		m.calm(ctx)
		m.passed = m.record.Digest
		return CheckPassed, nil
	case ferr != nil:
		return m.checkNotRun(ctx, ferr)
	case usable(name, f) != nil:
		return m.checkNotRun(ctx, usable(name, f))
	case f.ExecMainCode == 1 && f.ExecMainStatus == CheckUnable:
		return m.checkNotRun(ctx, fmt.Errorf("%s found nothing to check; see: journalctl -u %s", name, name))
	case f.ExecMainCode == 1 && f.ExecMainStatus >= sandboxFailed:
		return m.checkNotRun(ctx, fmt.Errorf("%s did not get as far as the check (%s); see: journalctl -u %s", name, f.Exit(), name))
	case result != systemd.ResultFailed && result != systemd.ResultTimeout:
		return m.checkNotRun(ctx, fmt.Errorf("%s ended as %q", name, result))
	}
	// Our verdict is on record; a host does not count as degraded for it.
	if err := m.systemd.ResetFailed(ctx, name); err != nil {
		m.log.DebugContext(ctx, "reset the check's unit", "error", err)
	}
	why := "Check= failed"
	if exit := f.Exit(); exit != "" {
		why += " with " + exit
	}
	if f.Result != "" && f.Result != "exit-code" && f.Result != "success" {
		why += " (" + f.Result + ")"
	}
	return m.refuse(ctx, why+"; its output: journalctl -u "+name)
}

func (m *machine) checkTimeout() time.Duration {
	if m.target.CheckTimeout > 0 {
		return m.target.CheckTimeout
	}
	return checkTimeoutDefault
}

// checkNotRun leaves the release staged and unjudged.
func (m *machine) checkNotRun(ctx context.Context, err error) (Event, error) {
	m.trouble(ctx, journal.CheckUnavailable, err)
	m.retryAfter(m.pause.next(0))
	return CheckNotRun, err
}

// Exit codes of [RunCheck] that are not the command's own.
const (
	CheckUnable   = 78  // EX_CONFIG: there was nothing to check; says nothing about the release
	CheckTimedOut = 124 // as timeout(1)
	CheckNotExec  = 126 // as a shell: the command cannot be executed
	CheckSignaled = 128 // plus the signal, as a shell
)

// RunCheck runs the Check= command of t inside its staged release and gives
// the exit code that the sandbox unit shall end with: 0 only if the command
// ended with 0 in time. dir is the target's directory in the store, which is
// only read. It is meant for `upgraderd run-check`, called by the template
// unit, and changes nothing itself.
//
// The command runs in the release's directory; its first word is a program of the
// host if it begins with a slash, a path inside the release if it holds one, and
// is else looked up in PATH. Its
// process group is killed when the time is up. A command's own exit codes 78
// and from 200 on are reported as 1: others have a meaning for them.
func RunCheck(ctx context.Context, t *Target, dir string, stdout, stderr io.Writer) int {
	code, err := runCheck(ctx, t, dir, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "check %s: %s\n", t.Name, journal.Clean(err.Error()))
	}
	return code
}

func runCheck(ctx context.Context, t *Target, dir string, stdout, stderr io.Writer) (int, error) {
	if len(t.Check) == 0 {
		return CheckUnable, errors.New("the target has no Check=")
	}
	s, err := store.View(dir)
	if err != nil {
		return CheckUnable, err
	}
	staged, ok, err := s.Link(store.Staged)
	if err != nil {
		return CheckUnable, err
	}
	if !ok {
		return CheckUnable, errors.New("no release is staged")
	}
	root := s.Dir(staged)
	program := t.Check[0]
	if strings.Contains(program, "/") && !filepath.IsAbs(program) {
		if !filepath.IsLocal(program) {
			return CheckUnable, fmt.Errorf("command %q of Check= is not inside the release; name it from the release's top", program)
		}
		program = filepath.Join(root, program)
	}
	timeout := t.CheckTimeout
	if timeout <= 0 {
		timeout = checkTimeoutDefault
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(limited, program, t.Check[1:]...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "UPGRADERD_RELEASE="+staged.Name, "UPGRADERD_VERSION="+staged.Version)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	inGroup(cmd)
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case limited.Err() != nil:
		return CheckTimedOut, fmt.Errorf("%q did not end within %v", t.Check, timeout)
	case !errors.As(err, &exit) && filepath.IsAbs(t.Check[0]):
		return CheckUnable, err // which is the host's fault
	case !errors.As(err, &exit):
		return CheckNotExec, err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return CheckSignaled + int(ws.Signal()), fmt.Errorf("%q: %w", t.Check, err)
	}
	if code := exit.ExitCode(); code == CheckUnable || code >= sandboxFailed {
		return 1, fmt.Errorf("%q: %w", t.Check, err)
	}
	return exit.ExitCode(), fmt.Errorf("%q: %w", t.Check, err)
}

// inGroup gives a command a process group of its own, which ends with it.
func inGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for a pipe that a daemonised child holds
}
