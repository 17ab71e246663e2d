// Package reason gives every refusal of the store and the unpacker one shape:
// what was being done, a code that never changes its meaning, what went
// wrong, and what a person can do about it.
//
// The codes are for machines (journal fields, tests, alerts), the sentences
// for people. A code stands in brackets in the text, so that a log line is
// enough to look it up.
package reason

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// A Code names a reason. It is stable: alerts and tests match on it.
type Code string

// The file system's reasons, whatever was being done.
const (
	NoSpace     Code = "FS_NOSPACE"        // the file system is full
	NoInodes    Code = "FS_NOINODES"       // it has room, but for no further file
	Quota       Code = "FS_QUOTA"          // the user's share is used up
	ReadOnly    Code = "FS_READONLY"       // mounted, or fallen back to, read-only
	IO          Code = "FS_IO"             // the device did not do as told
	Permission  Code = "FS_PERMISSION"     // the daemon's user may not
	UnsafePerms Code = "FS_UNSAFE_PERMS"   // others may write where only the daemon should
	Unsupported Code = "FS_UNSUPPORTED"    // this kind of file system cannot keep our promises
	StagingFS   Code = "CONFIG_STAGING_FS" // a mount point inside the target's directory
	NoFiles     Code = "PROC_NOFILES"      // out of file descriptors
)

// Error is a refusal with a code. The zero Hint means that nobody can do
// anything but wait.
type Error struct {
	Op   string // what was being done, as "verb noun"
	Code Code
	Err  error  // what went wrong; errors.Is and As see through it
	Hint string // what a person can do, as an imperative
}

// Error prints one line: "op: [CODE] what; hint".
func (e *Error) Error() string {
	// Joined errors stand on a line each.
	text := strings.ReplaceAll(fmt.Sprintf("[%s] %v", e.Code, e.Err), "\n", "; ")
	if e.Op != "" {
		text = e.Op + ": " + text
	}
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Advice is the hint.
func (e *Error) Advice() string { return e.Hint }

// Of tells the code of the outermost Error in err's chain, "" where there is
// none.
func Of(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// errnos explains what the kernel says about a file system.
var errnos = []struct {
	errno syscall.Errno
	code  Code
	hint  string
}{
	{syscall.ENOSPC, NoSpace, "make room on it (df -h and df -i tell how full it is), then it goes on by itself"},
	{syscall.EDQUOT, Quota, "raise the quota of the daemon's user or make room"},
	{syscall.EROFS, ReadOnly, "look for the cause in the kernel's log and remount it read-write"},
	{syscall.EIO, IO, "look for the device in the kernel's log; what was being written is abandoned"},
	{syscall.EUCLEAN, IO, "the file system says it is damaged; check it"},
	{syscall.EACCES, Permission, "give the directory to the daemon's user"},
	{syscall.EPERM, Permission, "give the directory to the daemon's user"},
	{syscall.EXDEV, StagingFS, "a target's directory has to be on one file system; unmount what is mounted inside it"},
	{syscall.EBUSY, StagingFS, "a target's directory has to be on one file system; unmount what is mounted inside it"},
	{syscall.EMFILE, NoFiles, "raise LimitNOFILE= of the daemon"},
	{syscall.ENFILE, NoFiles, "the whole machine is out of file descriptors; see fs.file-max"},
}

// FS explains an error of a file-system call made for op. Errors that carry a
// code already, or that have none, are only wrapped. FS(op, nil) is nil.
func FS(op string, err error) error {
	if err == nil {
		return nil
	}
	var errno syscall.Errno // of several joined errors, the first: what went wrong before the cleaning up did
	if Of(err) == "" && errors.As(err, &errno) {
		for _, row := range errnos {
			if errno == row.errno {
				return &Error{Op: op, Code: row.code, Err: err, Hint: row.hint}
			}
		}
	}
	return fmt.Errorf("%s: %w", op, err)
}

// Full tells whether err means that nothing more can be stored for want of
// room: blocks, inodes or quota.
func Full(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && (errno == syscall.ENOSPC || errno == syscall.EDQUOT)
}
