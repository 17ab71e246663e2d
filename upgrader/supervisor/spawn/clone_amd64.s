#include "textflag.h"

#define SYS_clone 56

// func clone(flags, pidfd uintptr) (pid uintptr, errno syscall.Errno)
TEXT ·clone(SB), NOSPLIT, $0-32
	MOVQ flags+0(FP), DI
	XORL SI, SI            // no stack of its own
	MOVQ pidfd+8(FP), DX
	XORL R10, R10
	XORL R8, R8
	MOVL $SYS_clone, AX
	POPQ R12               // where to return to; the kernel keeps R12
	SYSCALL
	PUSHQ R12
	CMPQ AX, $-4095
	JCC  failed
	MOVQ AX, pid+16(FP)
	MOVQ $0, errno+24(FP)
	RET
failed:
	NEGQ AX
	MOVQ $-1, pid+16(FP)
	MOVQ AX, errno+24(FP)
	RET
