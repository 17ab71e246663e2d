package supervisor

import (
	"encoding/binary"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// As process 1 of a PID namespace, which is what a container starts, the supervisor
// inherits every process whose parent is gone, and has to bury it: nobody else
// will, and each that lies there keeps a number. What it started itself is buried
// where its exit status is awaited.

// orphans tells when a child is over, if this is process 1 and nothing but a
// supervisor: a program that is its own may await children that we know nothing of.
func orphans(o Options) chan os.Signal {
	if os.Getpid() != 1 || o.Choose != nil {
		return nil
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGCHLD)
	return c
}

// buryOrphans buries those that are over and not awaited. One that is awaited
// hides the others from waitid(2) until it is buried; then this is called again.
func (s *Supervisor) buryOrphans() {
	if s.orphaned == nil {
		return
	}
	for s.asking == 0 && !s.renewal.proving { // else a child may be a command's, which awaits it
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
			return // no children at all
		}
		pid := siginfoPID(&info)
		own := slices.ContainsFunc(s.workers(), func(w *worker) bool { return w.pid == pid })
		if pid == 0 || own {
			return
		}
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil {
			return
		}
	}
}

// siginfoPID reads si_pid of SIGCHLD; see siginfoExit.
func siginfoPID(info *unix.Siginfo) int {
	b := (*[unsafe.Sizeof(unix.Siginfo{})]byte)(unsafe.Pointer(info))
	at := 12
	if unsafe.Sizeof(uintptr(0)) == 8 {
		at = 16
	}
	return int(int32(binary.NativeEndian.Uint32(b[at:])))
}
