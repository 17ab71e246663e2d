//go:build amd64 || arm64

package spawn

import "syscall"

const cloneFlags = syscall.CLONE_VM | syscall.CLONE_VFORK

// clone is clone(2), in assembly for the sake of one word: the child returns
// from it first, and what it calls then overwrites the place on the stack that
// says where its parent has to return to.
//
//go:noescape
func clone(flags, pidfd uintptr) (pid uintptr, errno syscall.Errno)
