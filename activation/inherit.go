package activation

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrTaken says that a socket with the wanted name was passed to this process,
// but is no longer free: somebody took it before.
var ErrTaken = errors.New("already taken")

const (
	// firstFD is SD_LISTEN_FDS_START of sd_listen_fds(3).
	firstFD = 3
	// maxFiles bounds LISTEN_FDS. Descriptors are few; a count beyond this is
	// a broken environment, not a large service.
	maxFiles = 1 << 16
	// unnamed is what sd_listen_fds_with_names(3) calls a descriptor when the
	// manager gave no names.
	unnamed = "unknown"
)

// taking makes "is it free?" and "now it is mine" one step. The answer itself
// lives in the descriptor table, not here.
var taking sync.Mutex

// inherited is the part of the environment that speaks of descriptors, read.
type inherited struct {
	first int
	names []string // one for each descriptor, first, first+1, …
}

// environ reads what was passed to this process. A process that was not
// activated, or whose parent was, gets an empty answer and no error.
func environ() (inherited, error) {
	return parseEnviron(os.LookupEnv, os.Getpid(), pidfdID)
}

func parseEnviron(lookup func(string) (string, bool), pid int, pidfdID func() (uint64, bool)) (inherited, error) {
	env := inherited{first: firstFD}
	v, ok := lookup("LISTEN_PID")
	if !ok {
		return env, nil
	}
	want, err := strconv.ParseInt(v, 10, 32)
	if err != nil || want <= 0 {
		return env, fmt.Errorf("read LISTEN_PID: %q is not a process id", v)
	}
	if int(want) != pid {
		return env, nil // meant for our parent
	}
	// A process id may come round again within one boot; the inode of a pidfd
	// does not. systemd sets it where the kernel has such inodes.
	if v, ok := lookup("LISTEN_PIDFDID"); ok {
		want, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return env, fmt.Errorf("read LISTEN_PIDFDID: %q is not a number", v)
		}
		if own, known := pidfdID(); known && own != want {
			return env, nil
		}
	}
	v, ok = lookup("LISTEN_FDS")
	if !ok {
		return env, nil
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return env, fmt.Errorf("read LISTEN_FDS: %q is not a count", v)
	}
	if n > maxFiles {
		return env, fmt.Errorf("read LISTEN_FDS: got %d descriptors, want at most %d", n, maxFiles)
	}
	if n == 0 {
		return env, nil
	}
	v, ok = lookup("LISTEN_FDNAMES")
	if !ok {
		env.names = make([]string, n)
		for i := range env.names {
			env.names[i] = unnamed
		}
		return env, nil
	}
	names := strings.Split(v, ":")
	if uint64(len(names)) != n {
		return env, fmt.Errorf("read LISTEN_FDNAMES: got %d names, want %d as in LISTEN_FDS", len(names), n)
	}
	env.names = names
	return env, nil
}

// pidfdID is the inode of this process's pidfd, where the kernel numbers them
// (pidfs, Linux 6.9).
func pidfdID() (uint64, bool) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.PID_FS_MAGIC {
		return 0, false
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0, false
	}
	return st.Ino, true
}

// free says whether fd is as the manager passed it. Descriptors come through
// execve(2) without close-on-exec, and everything that opens or takes one
// since, Go's runtime above all, sets it: so the flag tells, even where the
// number was closed and given out again.
func free(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// take claims the free descriptors that wanted accepts, in order, if there are
// at most limit of them (0: any number), and else none; n says how many there
// are. The caller owns the files.
func (env inherited) take(limit int, wanted func(fd int, name string) bool) (files []*os.File, n int) {
	taking.Lock()
	defer taking.Unlock()
	var found []int
	for i, name := range env.names {
		if fd := env.first + i; free(fd) && wanted(fd, name) {
			found = append(found, i)
		}
	}
	if limit > 0 && len(found) > limit {
		return nil, len(found)
	}
	for _, i := range found {
		unix.CloseOnExec(env.first + i)
		files = append(files, os.NewFile(uintptr(env.first+i), env.names[i]))
	}
	return files, len(found)
}

// Files takes every inherited descriptor that nobody took yet, in the order of
// LISTEN_FDS, each with its name from LISTEN_FDNAMES ("unknown" where the
// manager gave none). The caller owns the files and closes them. A process
// that was not activated gets none, and no error.
//
// The files are left in the mode they came in, blocking or not: that mode is
// shared with every process that holds the same socket. To read the number of
// a descriptor without changing the mode use [os.File.SyscallConn].
func Files() ([]*os.File, error) {
	env, err := environ()
	if err != nil {
		return nil, err
	}
	files, _ := env.take(0, func(int, string) bool { return true })
	return files, nil
}

// Names lists the names of all inherited descriptors in order, taken or not,
// with repetitions.
func Names() ([]string, error) {
	env, err := environ()
	return env.names, err
}

// UnsetEnv removes LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS and LISTEN_FDNAMES
// from the environment, so that neither children nor later calls see them.
// NOTIFY_SOCKET and WATCHDOG_* stay, since notifications need them for as long
// as the process lives: give children [ChildEnv] instead.
func UnsetEnv() {
	for _, key := range listenKeys {
		_ = os.Unsetenv(key)
	}
}

var listenKeys = [...]string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"}

// ChildEnv is [os.Environ] without what a manager says to this process alone:
// LISTEN_*, NOTIFY_SOCKET and WATCHDOG_*. It is meant for exec.Cmd.Env.
func ChildEnv() []string {
	private := append(listenKeys[:], "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
	var env []string
next:
	for _, kv := range os.Environ() {
		for _, key := range private {
			if strings.HasPrefix(kv, key+"=") {
				continue next
			}
		}
		env = append(env, kv)
	}
	return env
}
