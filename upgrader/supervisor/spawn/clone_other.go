//go:build !amd64 && !arm64

package spawn

import (
	"runtime"
	"syscall"
)

// cloneFlags ask for a copy of the memory: to share it takes some assembly.
const cloneFlags = 0

// clone is clone(2).
//
//go:norace
//go:nosplit
func clone(flags, pidfd uintptr) (pid uintptr, errno syscall.Errno) {
	if runtime.GOARCH == "s390x" { // the first two change places there
		pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, 0, flags, pidfd, 0, 0, 0)
		return pid, errno
	}
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, pidfd, 0, 0, 0)
	return pid, errno
}
