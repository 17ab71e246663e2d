package supervisor

import "golang.org/x/sys/unix"

// The system calls that only older architectures have.
const (
	sysPoll   = unix.SYS_POLL
	sysSelect = unix.SYS_SELECT
)
