package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A machine needs a cgroup of its own: with --keep-unit nspawn puts the
// machine right below the cgroup it was started in, and two machines there
// would take each other's services for their own, and end them.
//
// A cgroup is named by where it lies below cgroup v2. On a host with a hybrid
// hierarchy nspawn makes a twin below the named v1 hierarchy "systemd".
const cgroupPrefix = "upgraderd-lab-"

// newCgroup makes a cgroup named after this process, and removes those that
// belong to processes which are gone.
func newCgroup() (string, error) {
	roots, err := cgroupRoots()
	if err != nil {
		return "", err
	}
	for _, root := range roots {
		sweepCgroups(root)
	}
	return os.MkdirTemp(roots[0], fmt.Sprintf("%s%d-", cgroupPrefix, os.Getpid()))
}

// cgroupRoots is where cgroup v2 is mounted, and after it the named hierarchy
// where there is one; see proc_pid_mountinfo(5).
func cgroupRoots() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var unified, named []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		switch {
		case !ok || len(fields) < 5:
		case strings.HasPrefix(after, "cgroup2 "):
			unified = append(unified, fields[4])
		case strings.HasPrefix(after, "cgroup ") && strings.Contains(after, "name=systemd"):
			named = append(named, fields[4])
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(unified) == 0 {
		return nil, errors.New("find cgroup v2: it is mounted nowhere; mount -t cgroup2 none DIR")
	}
	return append(unified[:1], named...), nil
}

func sweepCgroups(root string) {
	dirs, _ := filepath.Glob(filepath.Join(root, cgroupPrefix+"*"))
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = removeTree(dir) // what still lives in there keeps it, and the next sweep comes
		}
	}
}

// removeCgroup removes a machine's cgroup and its twin.
func removeCgroup(dir string) error {
	roots, err := cgroupRoots()
	for _, root := range roots {
		err = errors.Join(err, removeTree(filepath.Join(root, filepath.Base(dir))))
	}
	return err
}

// removeTree removes a cgroup and those below it. The kernel says EBUSY for a
// moment after the last process has gone.
func removeTree(dir string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := removeTreeOnce(dir)
		if err == nil || !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func removeTreeOnce(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) { // children before parents
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
