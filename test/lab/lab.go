// Package lab boots throwaway machines with a real systemd as process 1, and
// promises that nothing of them is left behind: no process, no mount, no file,
// also when the test fails, panics, is interrupted or is killed.
//
// A machine is a systemd-nspawn container on an overlay over a cached base
// tree (see the script "tree"), with a network of its own that leads nowhere:
//
//	test binary
//	└─ keeper.sh            process 1 of a PID namespace; own mount namespace, own cgroup
//	   └─ systemd-nspawn
//	      └─ systemd        the machine's init
//
// The keeper waits on a pipe from the test binary. When that ends, whatever
// the reason, the keeper exits and the kernel ends all below it and drops the
// mounts. The cgroup is the one thing that has a name outside; it is removed
// when the machine is closed, or by the next machine that boots.
//
// It needs root, systemd-nspawn and mmdebstrap, on Linux with cgroup v2
// mounted somewhere (a hybrid hierarchy will do).
package lab

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Suites are the Debian releases under test, oldest first: systemd 252, 257
// and 262.
var Suites = []string{"bookworm", "trixie", "forky"}

// SelectedSuites is what the environment variable UPGRADERD_SUITES names,
// separated by blanks, or all of [Suites].
func SelectedSuites() []string {
	if s := strings.Fields(os.Getenv("UPGRADERD_SUITES")); len(s) > 0 {
		return s
	}
	return Suites
}

//go:embed tree
var treeScript []byte

//go:embed keeper.sh
var keeperScript string

// bootTimeout bounds one boot. It takes half a second on an idle machine.
const bootTimeout = 60 * time.Second

// Options of a machine. The zero value is good.
type Options struct {
	// DiskBytes limits what the machine may write. Default 2 GiB, in memory.
	DiskBytes int64
}

// Machine is one throwaway machine. Its methods may be called concurrently,
// except those that boot it or stop it.
type Machine struct {
	// Suite is the Debian release it runs.
	Suite string

	keeper  *exec.Cmd
	control io.WriteCloser
	console *tail
	cgroup  string
	leader  int // PID of the machine's init as seen from here; 0 when off
	nspawn  int
	close   sync.Once
	closing error
}

// Boot makes a machine from scratch and waits until its start-up is complete.
// The caller closes it with [Machine.Close].
func Boot(ctx context.Context, suite string, o Options) (*Machine, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("boot a machine: needs root")
	}
	tree, err := Tree(ctx, suite)
	if err != nil {
		return nil, err
	}
	if o.DiskBytes == 0 {
		o.DiskBytes = 2 << 30
	}
	// Every machine mounts its disk over the same empty directory, each in
	// its own mount namespace: no name is left to clean up.
	mountpoint := filepath.Join(cacheDir(), "machine")
	if err := os.MkdirAll(mountpoint, 0o755); err != nil {
		return nil, fmt.Errorf("boot %s: %w", suite, err)
	}
	m := &Machine{Suite: suite, console: &tail{max: 64 << 10}}
	if m.cgroup, err = newCgroup(); err != nil {
		return nil, fmt.Errorf("boot %s: %w", suite, err)
	}
	if err := m.startKeeper(mountpoint, tree, o.DiskBytes); err != nil {
		return nil, errors.Join(fmt.Errorf("boot %s: %w", suite, err), removeCgroup(m.cgroup))
	}
	if err := m.PowerOn(ctx); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Machine) startKeeper(mountpoint, tree string, diskBytes int64) error {
	dir, err := os.Open(m.cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	m.keeper = exec.Command("bash", "-c", keeperScript, "keeper.sh", mountpoint, tree, strconv.FormatInt(diskBytes, 10))
	m.keeper.Stdout, m.keeper.Stderr = m.console, m.console
	m.keeper.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UseCgroupFD: true,
		CgroupFD:    int(dir.Fd()),
		Setpgid:     true, // a ^C reaches the test alone, which then ends us
	}
	if m.control, err = m.keeper.StdinPipe(); err != nil {
		return err
	}
	return m.keeper.Start()
}

// PowerOn boots a machine that is off: after [Machine.Kill] or
// [Machine.Poweroff]. Its disk is as it was.
func (m *Machine) PowerOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	if _, err := io.WriteString(m.control, "boot\n"); err != nil {
		return m.bootError(err)
	}
	err := poll(ctx, func() bool {
		m.nspawn = childNamed(m.keeper.Process.Pid, "systemd-nspawn")
		m.leader = childNamed(m.nspawn, "systemd")
		if m.leader == 0 {
			return false
		}
		_, err := os.Stat(m.outside("/run/systemd/private"))
		return err == nil
	})
	if err != nil {
		return m.bootError(err)
	}
	// A state of "starting" is waited out; anything but "running" then means
	// that a unit failed.
	state, err := m.Run(ctx, "systemctl", "is-system-running", "--wait")
	if err != nil {
		failed, _ := m.Run(ctx, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
		return m.bootError(fmt.Errorf("the machine is %s, want running: %s", strings.TrimSpace(state), failed))
	}
	return nil
}

func (m *Machine) bootError(err error) error {
	return fmt.Errorf("boot %s: %w\nconsole:\n%s", m.Suite, err, m.console.String())
}

// Kill ends the machine's init with SIGKILL, and so everything in it at once,
// as a crash of the machine would. Its disk stays.
func (m *Machine) Kill() error {
	if err := syscall.Kill(m.leader, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill machine: %w", err)
	}
	return m.waitOff(context.Background())
}

// Poweroff shuts the machine down in order.
func (m *Machine) Poweroff(ctx context.Context) error {
	if out, err := m.Run(ctx, "systemctl", "poweroff"); err != nil && m.running() {
		return fmt.Errorf("power off: %w: %s", err, out)
	}
	return m.waitOff(ctx)
}

// Reboot shuts the machine down in order and boots it again.
func (m *Machine) Reboot(ctx context.Context) error {
	if err := m.Poweroff(ctx); err != nil {
		return err
	}
	return m.PowerOn(ctx)
}

func (m *Machine) running() bool {
	return syscall.Kill(m.leader, 0) == nil
}

func (m *Machine) waitOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	err := poll(ctx, func() bool { return childNamed(m.keeper.Process.Pid, "systemd-nspawn") == 0 })
	if err != nil {
		return fmt.Errorf("wait until the machine is off: %w\nconsole:\n%s", err, m.console.String())
	}
	m.leader, m.nspawn = 0, 0
	return nil
}

// Close ends the machine and drops its disk. Closing twice does no harm.
func (m *Machine) Close() error {
	m.close.Do(func() {
		_ = m.control.Close()
		// The keeper was killed by nobody and has nothing to say with its
		// exit status; that it is gone is what counts.
		_ = m.keeper.Wait()
		m.leader, m.nspawn = 0, 0
		m.closing = removeCgroup(m.cgroup)
	})
	return m.closing
}

// Leader is the PID of the machine's init as seen from outside.
func (m *Machine) Leader() int { return m.leader }

// Console is what the machine printed lately.
func (m *Machine) Console() string { return m.console.String() }

// BusAddress is the address of the machine's system bus for a client outside.
// A client authenticates as uid 0 (EXTERNAL).
func (m *Machine) BusAddress() string {
	return "unix:path=" + m.outside("/run/dbus/system_bus_socket")
}

// outside is where the host finds path of the machine. Good only for paths
// without symlinks.
func (m *Machine) outside(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", m.leader, path)
}

// Tree is the directory of the suite's base tree. Where there is none yet it
// is built, which takes about half a minute and needs a Debian mirror.
func Tree(ctx context.Context, suite string) (string, error) {
	script, err := os.CreateTemp("", "upgraderd-lab-tree-*")
	if err != nil {
		return "", fmt.Errorf("tree %s: %w", suite, err)
	}
	defer os.Remove(script.Name())
	defer script.Close()
	if _, err := script.Write(treeScript); err != nil {
		return "", fmt.Errorf("tree %s: %w", suite, err)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "bash", script.Name(), suite)
	cmd.Stderr = io.MultiWriter(os.Stderr, &stderr)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("tree %s: %w: %s", suite, err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func cacheDir() string {
	if dir := os.Getenv("UPGRADERD_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/upgraderd-lab"
}

// poll asks every few milliseconds until done says yes or ctx ends.
func poll(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// childNamed is the PID of pid's child that runs under this name, or 0.
func childNamed(pid int, name string) int {
	if pid == 0 {
		return 0
	}
	for _, child := range children(pid) {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child))
		// A zombie still has a name, but no executable.
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", child))
		if err == nil && exe != "" && strings.TrimSpace(string(comm)) == name {
			return child
		}
	}
	return 0
}

func children(pid int) []int {
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range strings.Fields(string(list)) {
		if n, err := strconv.Atoi(f); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// tail keeps the last max bytes written to it.
type tail struct {
	mu  sync.Mutex
	max int
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
