package supervisor

import (
	"encoding/binary"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoExit reads what waitid(2) tells: si_code and si_status of SIGCHLD.
func siginfoExit(info *unix.Siginfo) Exit {
	// struct siginfo, the SIGCHLD member: int signo, errno, code; on 64-bit
	// a pad; then pid, uid, status. x/sys names only the first three.
	b := (*[unsafe.Sizeof(unix.Siginfo{})]byte)(unsafe.Pointer(info))
	at := 12
	if unsafe.Sizeof(uintptr(0)) == 8 {
		at = 16
	}
	status := int32(binary.NativeEndian.Uint32(b[at+8:]))
	const cldExited, cldDumped = 1, 3
	switch info.Code {
	case cldExited:
		return Exit{known: true, status: syscall.WaitStatus(status & 0xff << 8)}
	case cldDumped:
		return Exit{known: true, status: syscall.WaitStatus(status | 0x80)}
	default:
		return Exit{known: true, status: syscall.WaitStatus(status)}
	}
}

// exitInfo asks the pidfd of a process that is not our child how it ended:
// ioctl PIDFD_GET_INFO, which knows since Linux 6.15.
func exitInfo(pidfd int) Exit {
	const (
		infoExit = 1 << 3 // PIDFD_INFO_EXIT
		getInfo  = 0xc0000000 | 64<<16 | 0xff<<8 | 11
	)
	// struct pidfd_info, first published version: 64 bytes.
	var info struct {
		mask, cgroup                                     uint64
		pid, tgid, ppid                                  uint32
		ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid uint32
		exitCode                                         int32
	}
	for range 50 { // until its parent has reaped it, there is nothing to tell
		info.mask = infoExit
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), getInfo, uintptr(unsafe.Pointer(&info)))
		if errno != 0 {
			break
		}
		if info.mask&infoExit != 0 {
			return Exit{known: true, status: syscall.WaitStatus(info.exitCode)}
		}
		time.Sleep(time.Millisecond)
	}
	return Exit{}
}

// Become ends this process the way the worker ended, so that systemd's
// Restart= and Result= see the worker's end and not ours. It does not return.
func (e Exit) Become() {
	switch {
	case !e.known:
		os.Exit(1)
	case e.status.Signaled():
		sig := e.status.Signal()
		// The core worth having is the worker's.
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
		signal.Reset(sig)
		defaultAction(sig)
		_ = unix.Kill(os.Getpid(), sig)
		// The kernel may give it to another thread, a moment from now. 128+n,
		// the shell's word for the same end, is for what did not kill.
		time.Sleep(time.Second)
		os.Exit(128 + int(sig))
	default:
		os.Exit(e.status.ExitStatus())
	}
}

// defaultAction sets SIG_DFL in the kernel: Go's runtime keeps handlers of
// its own for SIGSEGV and its like, which would print a trace of ours.
func defaultAction(sig syscall.Signal) {
	var dfl [4]uintptr // struct kernel_sigaction: handler SIG_DFL, flags, restorer, mask
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
}
