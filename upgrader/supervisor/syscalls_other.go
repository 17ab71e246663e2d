//go:build !amd64

package supervisor

// Newer architectures have ppoll and pselect6 only.
const (
	sysPoll   = -1
	sysSelect = -1
)
