// Package spawn starts a process that finds its own PID in its environment, as
// fast as a process can be started.
//
// LISTEN_PID must be the PID of the process that is to take the sockets
// (sd_listen_fds(3)), which nobody knows before it exists: [os.StartProcess]
// cannot say it. A helper program in between could, but that is one more start
// of a Go program on the way of every handover: 3 ms of 9, measured.
//
// So the child writes it itself, between clone(2) and execve(2). It does what
// the child of [syscall.ForkExec] does, with the same means: it makes system
// calls and nothing else, while it borrows its parent's memory and the thread
// that made it waits (CLONE_VM|CLONE_VFORK). A copy of the memory instead costs
// half a millisecond, and another for the pages that both write afterwards.
package spawn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options say what to start.
type Options struct {
	// Program is an absolute path; Args is its argv, argv[0] included.
	Program string
	Args    []string
	// Env is its environment, and PIDs are the names of further variables,
	// whose value is the child's own PID.
	Env, PIDs []string
	// Files are the descriptors it gets from 3 on, after 0, 1 and 2, which are
	// the caller's own. They stay the caller's. Whatever else the caller has
	// open must be close-on-exec.
	Files []int
}

// Process is a child that runs its program and leads a process group of its
// own.
type Process struct {
	PID   int
	PIDFD int // close-on-exec, and the caller's to close
}

// Start returns when the child runs its program. Where it cannot, no child is
// left, and what execve(2) said of the program is an [*os.PathError].
func Start(o Options) (Process, error) {
	c, err := newCall(o)
	if err != nil {
		return Process{}, fmt.Errorf("start program %q: %w", o.Program, err)
	}
	// It is closed by a program that starts, and carries the errno of one that
	// does not.
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return Process{}, fmt.Errorf("make a pipe: %w", err)
	}
	defer unix.Close(pipe[0])
	c.failure = uintptr(pipe[1])

	// While others open descriptors they may not be close-on-exec yet.
	syscall.ForkLock.Lock()
	pid, errno := c.fork()
	afterFork()
	syscall.ForkLock.Unlock()
	unix.Close(pipe[1])
	if errno != 0 {
		return Process{}, fmt.Errorf("clone: %w", errno)
	}
	if why := failure(pipe[0]); why != 0 {
		bury(int(pid), int(c.pidfd))
		return Process{}, &os.PathError{Op: "start program", Path: o.Program, Err: why}
	}
	if c.pidfd < 0 { // before Linux 5.2 the flag is passed over
		_ = unix.Kill(int(pid), unix.SIGKILL)
		bury(int(pid), -1)
		return Process{}, errors.New("this kernel has no pidfds: Linux 5.4 or newer is needed")
	}
	return Process{PID: int(pid), PIDFD: int(c.pidfd)}, nil
}

// failure is what the child wrote before it left, or 0.
func failure(pipe int) syscall.Errno {
	var errno [4]byte
	for {
		n, err := unix.Read(pipe, errno[:])
		switch {
		case err == unix.EINTR:
			continue
		case n != len(errno):
			return 0
		}
		return syscall.Errno(binary.NativeEndian.Uint32(errno[:]))
	}
}

// bury leaves nothing of a child that is over.
func bury(pid, pidfd int) {
	if pidfd >= 0 {
		unix.Close(pidfd)
	}
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// RestoreFileLimit undoes what Go's runtime does at its start: it raises the
// soft limit of open files, of which a program that uses select(2) wants
// nothing. [os.StartProcess] hands the old limit to its children. [Start]
// cannot learn it, so the process that calls it has to live with it itself. An
// execve that cannot work is the one call that puts it back.
func RestoreFileLimit() { _ = syscall.Exec("", nil, nil) }

// call is all that the child needs, made before the clone.
type call struct {
	program    *byte
	argv, envp []*byte
	pids       [][]byte  // NAME= and room for a PID, which envp points to as well
	files      []uintptr // sources, overwritten by the child
	failure    uintptr   // where the child says why it did not start
	pidfd      int32
	errno      uint32
}

// pidRoom is for any 32-bit number and a NUL.
const pidRoom = 11

func newCall(o Options) (*call, error) {
	c := &call{pidfd: -1, files: make([]uintptr, len(o.Files))}
	for i, fd := range o.Files {
		c.files[i] = uintptr(fd)
	}
	var err error
	if c.program, err = unix.BytePtrFromString(o.Program); err != nil {
		return nil, err
	}
	if c.argv, err = syscall.SlicePtrFromStrings(o.Args); err != nil {
		return nil, err
	}
	if c.envp, err = syscall.SlicePtrFromStrings(o.Env); err != nil {
		return nil, err
	}
	c.envp = c.envp[:len(o.Env)] // the nil at the end comes later
	for _, name := range o.PIDs {
		variable := append([]byte(name+"="), make([]byte, pidRoom)...)
		c.pids = append(c.pids, variable)
		c.envp = append(c.envp, &variable[0])
	}
	c.envp = append(c.envp, nil)
	return c, nil
}

// What the runtime does around a fork: signals are blocked before, and the
// child gets back the default handlers and the mask. Package syscall has these
// for itself, but others that fork have been let in for good
// (go.dev/issue/67401).

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// fork is where one process becomes two. The child has the parent's memory and
// no runtime: it allocates nothing, grows no stack, calls only what is as
// careful, and does not return from this frame. The parent sleeps meanwhile,
// and returns from it at once, so that neither sees what the other left there;
// it owes the runtime an afterFork.
//
//go:noinline
//go:norace
//go:nocheckptr
func (c *call) fork() (pid uintptr, errno syscall.Errno) {
	beforeFork()
	pid, errno = clone(uintptr(syscall.SIGCHLD)|unix.CLONE_PIDFD|cloneFlags, uintptr(unsafe.Pointer(&c.pidfd)))
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	afterForkInChild()
	c.live()
	const exitExec = 203 // EXIT_EXEC of systemd.exec(5)
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, exitExec, 0, 0)
	}
}

// live is what the child does. It returns if it did not become its program.
//
//go:norace
//go:nosplit
//go:nocheckptr
func (c *call) live() {
	_, _, _ = syscall.RawSyscall(syscall.SYS_SETPGID, 0, 0, 0)
	pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
	for i := range c.pids {
		putPID(c.pids[i], pid)
	}
	errno := c.placeFiles()
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(c.program)),
			uintptr(unsafe.Pointer(&c.argv[0])), uintptr(unsafe.Pointer(&c.envp[0])))
	}
	c.errno = uint32(errno)
	_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, c.failure, uintptr(unsafe.Pointer(&c.errno)), 4)
}

// placeFiles gives the files the numbers the program expects. First all of
// them go out of the way, as the place of one may be taken by another.
//
//go:norace
//go:nosplit
func (c *call) placeFiles() syscall.Errno {
	const first = 3 // SD_LISTEN_FDS_START
	above := uintptr(first + len(c.files))
	failure, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, c.failure, syscall.F_DUPFD_CLOEXEC, above)
	if errno != 0 {
		return errno
	}
	c.failure = failure
	for i := range c.files {
		fd, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, c.files[i], syscall.F_DUPFD_CLOEXEC, above)
		if errno != 0 {
			return errno
		}
		c.files[i] = fd
	}
	for i := range c.files {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_DUP3, c.files[i], uintptr(first+i), 0); errno != 0 {
			return errno
		}
	}
	return 0
}

// putPID writes the number into the room at the end of a variable.
//
//go:norace
//go:nosplit
func putPID(variable []byte, pid uintptr) {
	digits := 1
	for n := pid; n >= 10; n /= 10 {
		digits++
	}
	for at := len(variable) - pidRoom + digits - 1; digits > 0; digits-- {
		variable[at] = byte('0' + pid%10)
		pid /= 10
		at--
	}
}
