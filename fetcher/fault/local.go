package fault

import (
	"context"
	"errors"
	"syscall"
)

// Context is the error for a context that ended: Canceled, and temporary.
func Context(ctx context.Context) *Error {
	return Passing(Canceled, context.Cause(ctx), "")
}

// Local says what an error of this host's own file system means. It is
// temporary wherever freeing something lets the next try succeed.
func Local(err error) *Error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return Passing(NoSpace, err, "free some space, or lower InstancesMax=")
	case errors.Is(err, syscall.EDQUOT):
		return Passing(Quota, err, "raise the quota of the daemon's user, or free some space")
	case errors.Is(err, syscall.EROFS):
		return Passing(ReadOnly, err, "mount the file system of the state directory writable")
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return Passing(NoFiles, err, "raise LimitNOFILE= of the daemon")
	}
	return Passing(IO, err, "check the disk under the state directory")
}
