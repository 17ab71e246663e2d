package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// environment of every command in a machine: nothing of the host's.
var environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
	"HOME=/root",
	"LANG=C.UTF-8",
	"TERM=dumb",
	"SYSTEMD_PAGER=",
	"SYSTEMD_COLORS=0",
}

// Command prepares a command that will run as root inside the machine. It gets
// SIGKILL when ctx ends, and when this process does.
func (m *Machine) Command(ctx context.Context, argv ...string) *exec.Cmd {
	// nsenter passes no signal on; its child follows it because of the
	// parent-death signal.
	args := append([]string{"-t", strconv.Itoa(m.leader), "-a", "--",
		"setpriv", "--pdeathsig", "KILL", "--"}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = environment
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// NetCommand prepares a command of the host that will see the machine's network
// and nothing else of it: for clients of its services.
func (m *Machine) NetCommand(ctx context.Context, argv ...string) *exec.Cmd {
	args := append([]string{"-t", strconv.Itoa(m.leader), "-n", "--"}, argv...)
	return exec.CommandContext(ctx, "nsenter", args...)
}

// Root is the machine's root directory as the host sees it, while the machine
// is on. What is absolute in a symlink below it leads astray.
func (m *Machine) Root() string { return m.outside("") }

// Run runs a command as root inside the machine and gives what it printed to
// stdout. The error holds what it printed to stderr.
func (m *Machine) Run(ctx context.Context, argv ...string) (string, error) {
	return m.RunInput(ctx, nil, argv...)
}

// RunInput is [Machine.Run] with stdin.
func (m *Machine) RunInput(ctx context.Context, stdin io.Reader, argv ...string) (string, error) {
	cmd := m.Command(ctx, argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("run %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// As gives the argument vector that runs argv as this user of the machine.
func As(user string, argv ...string) []string {
	return append([]string{"setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"}, argv...)
}

// Process is a command that runs inside the machine beside the test.
type Process struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
}

// Start starts a command as root inside the machine. The caller ends it by
// ctx or [Process.Signal], and takes it with [Process.Wait].
func (m *Machine) Start(ctx context.Context, argv ...string) (*Process, error) {
	p := &Process{cmd: m.Command(ctx, argv...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", strings.Join(argv, " "), err)
	}
	return p, nil
}

// Signal sends a signal to the process inside the machine.
func (p *Process) Signal(sig syscall.Signal) error {
	for _, child := range children(p.cmd.Process.Pid) {
		if err := syscall.Kill(child, sig); err != nil {
			return fmt.Errorf("signal %d: %w", child, err)
		}
	}
	return nil
}

// Wait waits until the process has ended and gives what it printed to stdout.
func (p *Process) Wait() (string, error) {
	if err := p.cmd.Wait(); err != nil {
		return p.stdout.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(p.stderr.String()))
	}
	return p.stdout.String(), nil
}

// WriteFile puts a file into the machine, with the directories above it. A
// program that is running is replaced, not written over.
func (m *Machine) WriteFile(ctx context.Context, path string, mode os.FileMode, data []byte) error {
	return m.write(ctx, path, mode, bytes.NewReader(data))
}

// Copy copies a file of the host into the machine, as [Machine.WriteFile] does.
func (m *Machine) Copy(ctx context.Context, host, path string) error {
	f, err := os.Open(host)
	if err != nil {
		return fmt.Errorf("copy into the machine: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("copy into the machine: %w", err)
	}
	return m.write(ctx, path, info.Mode(), f)
}

func (m *Machine) write(ctx context.Context, path string, mode os.FileMode, r io.Reader) error {
	// Through a name that no source of releases matches, then one rename, so
	// that whoever watches the directory sees a whole file.
	partial := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".partial")
	if _, err := m.RunInput(ctx, r, "install", "-D", "-m", fmt.Sprintf("%04o", mode.Perm()), "/dev/stdin", partial); err != nil {
		return err
	}
	_, err := m.Run(ctx, "mv", "-T", partial, path)
	return err
}

// ReadFile reads a file of the machine.
func (m *Machine) ReadFile(ctx context.Context, path string) (string, error) {
	return m.Run(ctx, "cat", path)
}

// Journal is what the unit's processes, and systemd about the unit, said so
// far, one line each with a time in microseconds. An empty unit means all.
func (m *Machine) Journal(ctx context.Context, unit string) (string, error) {
	argv := []string{"journalctl", "--no-pager", "--quiet", "--output=short-precise"}
	if unit != "" {
		argv = append(argv, "--unit="+unit)
	}
	return m.Run(ctx, argv...)
}

// JournalEntries are the entries with all of these FIELD=value matches, oldest
// first. A field that is not text, or occurs twice, reads as "".
func (m *Machine) JournalEntries(ctx context.Context, matches ...string) ([]map[string]string, error) {
	// What was said just now may still be on its way.
	if _, err := m.Run(ctx, "journalctl", "--sync"); err != nil {
		return nil, err
	}
	out, err := m.Run(ctx, append([]string{"journalctl", "--no-pager", "--quiet", "--output=json", "--all"}, matches...)...)
	if err != nil {
		return nil, err
	}
	var entries []map[string]string
	for dec := json.NewDecoder(strings.NewReader(out)); ; {
		var fields map[string]any
		if err := dec.Decode(&fields); err == io.EOF {
			return entries, nil
		} else if err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		entry := make(map[string]string, len(fields))
		for name, value := range fields {
			entry[name], _ = value.(string)
		}
		entries = append(entries, entry)
	}
}

// Property reads one property of a unit, as systemctl show prints it.
func (m *Machine) Property(ctx context.Context, unit, name string) (string, error) {
	out, err := m.Run(ctx, "systemctl", "show", "--value", "--property="+name, "--", unit)
	return strings.TrimSpace(out), err
}
