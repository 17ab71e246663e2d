package supervisor

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// killGroup ends a worker's process group. ESRCH, nobody left, is the usual
// answer.
func killGroup(pgid int) { _ = unix.Kill(-pgid, syscall.SIGKILL) }

// killMembers does the same where the number may have passed to strangers:
// only processes of this unit are meant.
func killMembers(pgid int) {
	for _, pid := range unitProcesses() {
		if g, err := unix.Getpgid(pid); err == nil && g == pgid {
			_ = unix.Kill(pid, syscall.SIGKILL)
		}
	}
}

// isUnit tells if systemd started this very process: a program that somebody runs
// by hand, or from another unit, has that one's INVOCATION_ID and control group.
func isUnit() bool {
	return os.Getenv("INVOCATION_ID") != "" && os.Getenv("SYSTEMD_EXEC_PID") == strconv.Itoa(os.Getpid())
}

// unitProcesses lists the processes of this unit's control group other than
// this one. Empty where the unit has no group of its own: outside systemd
// the group is shared with strangers.
func unitProcesses() []int {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || !isUnit() {
		return nil
	}
	group, ok := serviceGroup(string(data))
	if !ok {
		return nil
	}
	var pids []int
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		data, err := os.ReadFile(filepath.Join(mount, group, "cgroup.procs"))
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
		break
	}
	return pids
}

// serviceGroup finds the group that systemd made for this service: on the
// unified hierarchy, or on systemd's own named one.
func serviceGroup(procCgroup string) (string, bool) {
	for line := range strings.Lines(procCgroup) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || (parts[1] != "" && parts[1] != "name=systemd") {
			continue
		}
		if strings.HasSuffix(parts[2], ".service") {
			return parts[2], true
		}
	}
	return "", false
}

// sweep kills what is left in the unit's control group: processes that left
// their worker's process group. `upgraderd handover`, started by systemd in
// the same group, is our own program and is left alone.
func sweep() (killed int) {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return 0
	}
	for range 20 { // a process may fork while we look
		var left []int
		for _, pid := range unitProcesses() {
			exe, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
			if err != nil || os.SameFile(self, exe) {
				continue
			}
			left = append(left, pid)
		}
		if len(left) == 0 {
			return killed
		}
		for _, pid := range left {
			if unix.Kill(pid, syscall.SIGKILL) == nil {
				killed++
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return killed
}

// findReporting finds the worker among processes that reports to this notify
// socket: what it was started with tells it from all others. The caller owns
// the pidfd, which is nil where there is none.
func findReporting(pids []int, notifyPath string) (pid int, pidfd *os.File) {
	variable := []byte("NOTIFY_SOCKET=" + notifyPath)
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// What is read now is of the process that the pidfd means, or that
		// process is over. Its children have the same environment, but do not
		// lead a process group.
		group, groupErr := unix.Getpgid(pid)
		environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		is := func(e []byte) bool { return bytes.Equal(e, variable) }
		if err == nil && groupErr == nil && group == pid && slices.ContainsFunc(bytes.Split(environ, []byte{0}), is) {
			return pid, os.NewFile(uintptr(fd), "pidfd")
		}
		unix.Close(fd)
	}
	return 0, nil
}
