// Package fork starts a process that waits at a gate before it runs its
// program, and finds its own PID in its environment then.
//
// A worker needs both, and [os.StartProcess] has neither: LISTEN_PID must be
// the worker's own PID (sd_listen_fds(3)), which nobody knows before the fork,
// and the worker must not run before it can be found again. A helper program
// between the fork and the worker's could do it, but that is one more start of
// a Go program on the way of every handover: 3 ms of 9, measured.
//
// So the child does it itself, between fork and execve, and there it makes
// system calls and nothing else, as the child of [syscall.ForkExec]. That one
// borrows its parent's memory, and a thread of its parent waits until it gives
// it back. This one may have to wait long, so it has a copy.
package fork

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
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

// exitStatus is of a child that did not become its program: EXIT_EXEC of
// systemd.exec(5).
const exitStatus = 203

// Child is a process that was started: at its gate, or running its program.
// It leads a process group of its own.
type Child struct {
	PID     int
	PIDFD   int // close-on-exec, and the caller's to close
	program string
	gate    *os.File
}

// Start forks a child that waits at its gate. The caller opens the gate, and
// closes it in any case.
func Start(o Options) (*Child, error) {
	child, err := start(o)
	if err != nil {
		return nil, fmt.Errorf("fork %s: %w", o.Program, err)
	}
	return child, nil
}

func start(o Options) (*Child, error) {
	c, err := newCall(o)
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a gate: %w", err)
	}
	defer unix.Close(pair[1])
	gate := os.NewFile(uintptr(pair[0]), "gate")
	c.outside, c.gate = uintptr(pair[0]), uintptr(pair[1])

	// While others open descriptors they may not be close-on-exec yet.
	syscall.ForkLock.Lock()
	pid, errno := c.fork()
	syscall.ForkLock.Unlock()
	if errno != 0 {
		gate.Close()
		return nil, errno
	}
	// The child does the same. Whoever comes first, from here on it is done.
	_ = unix.Setpgid(int(pid), int(pid))
	if c.pidfd < 0 { // before Linux 5.2 the flag is passed over
		gate.Close()
		_, _ = unix.Wait4(int(pid), nil, 0, nil)
		return nil, errors.New("this kernel has no pidfds: Linux 5.4 or newer is needed")
	}
	return &Child{PID: int(pid), PIDFD: int(c.pidfd), program: o.Program, gate: gate}, nil
}

// Open lets the child become its program.
func (c *Child) Open() error {
	_, err := c.gate.Write([]byte{1})
	return err
}

// Failed tells of a child that has ended why it did not become its program. It
// is nil for one that did, or that was killed before. To ask about a child
// that is still at its gate would wait for it.
func (c *Child) Failed() error {
	var errno [4]byte
	if n, err := c.gate.Read(errno[:]); n != len(errno) || err != nil {
		return nil
	}
	return fmt.Errorf("never ran %s: %w", c.program, syscall.Errno(binary.NativeEndian.Uint32(errno[:])))
}

// Close gives the gate up: a child that waits there leaves. Closing twice does
// no harm.
func (c *Child) Close() { c.gate.Close() }

// RestoreFileLimit undoes what Go's runtime does at its start: it raises the
// soft limit of open files, of which a program that uses select(2) wants
// nothing. [os.StartProcess] hands the old limit to its children. [Start]
// cannot learn it, so the process that calls it has to live with it itself. An
// execve that cannot work is the one call that puts it back.
func RestoreFileLimit() { _ = syscall.Exec("", nil, nil) }

// call is all that the child needs, made before the fork.
type call struct {
	program    *byte
	argv, envp []*byte
	pids       [][]byte  // NAME= and room for a PID, which envp points to as well
	files      []uintptr // sources, overwritten in the child
	gate       uintptr   // the child's end
	outside    uintptr   // the caller's end
	pidfd      int32
	word       [4]byte // from and to the gate
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

// fork is where one process becomes two. The child is one thread with a copy
// of everything and without a runtime: no allocation, no stack that grows, no
// call but to what is as careful. It does not return from here.
//
//go:noinline
//go:norace
//go:nocheckptr
func (c *call) fork() (pid uintptr, errno syscall.Errno) {
	flags := uintptr(syscall.SIGCHLD) | unix.CLONE_PIDFD
	pidfd := uintptr(unsafe.Pointer(&c.pidfd))
	beforeFork()
	if runtime.GOARCH == "s390x" { // clone(2): the first two change places there
		pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, 0, flags, pidfd, 0, 0, 0)
	} else {
		pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, pidfd, 0, 0, 0)
	}
	if pid != 0 || errno != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()
	c.live()
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, exitStatus, 0, 0)
	}
}

// live is what the child does. It returns if it did not become its program.
//
//go:norace
//go:nosplit
//go:nocheckptr
func (c *call) live() {
	_, _, _ = syscall.RawSyscall(syscall.SYS_SETPGID, 0, 0, 0)
	// While a copy of the caller's end is open, nobody sees the caller die.
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, c.outside, 0, 0)
	pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
	for i := range c.pids {
		putPID(c.pids[i], pid)
	}
	word := uintptr(unsafe.Pointer(&c.word))
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, c.gate, word, 1)
		if errno == syscall.EINTR {
			continue
		}
		if n != 1 || errno != 0 {
			return // nobody waits for us any more
		}
		break
	}
	errno := c.placeFiles()
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(c.program)),
			uintptr(unsafe.Pointer(&c.argv[0])), uintptr(unsafe.Pointer(&c.envp[0])))
	}
	*(*uint32)(unsafe.Pointer(&c.word)) = uint32(errno)
	_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, c.gate, word, 4)
}

// placeFiles gives the files the numbers the program expects. First all of
// them go out of the way, as the place of one may be taken by another.
//
//go:norace
//go:nosplit
func (c *call) placeFiles() syscall.Errno {
	const first = 3 // SD_LISTEN_FDS_START
	above := uintptr(first + len(c.files))
	gate, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, c.gate, syscall.F_DUPFD_CLOEXEC, above)
	if errno != 0 {
		return errno
	}
	c.gate = gate
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
