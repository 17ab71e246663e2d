#include "textflag.h"

#define SYS_clone 220

// func clone(flags, pidfd uintptr) (pid uintptr, errno syscall.Errno)
//
// A leaf without a frame returns by way of R30, which the kernel keeps.
TEXT ·clone(SB), NOSPLIT, $0-32
	MOVD flags+0(FP), R0
	MOVD ZR, R1            // no stack of its own
	MOVD pidfd+8(FP), R2
	MOVD ZR, R3
	MOVD ZR, R4
	MOVD $SYS_clone, R8
	SVC
	CMN  $4095, R0
	BCS  failed
	MOVD R0, pid+16(FP)
	MOVD ZR, errno+24(FP)
	RET
failed:
	NEG  R0, R0
	MOVD $-1, R1
	MOVD R1, pid+16(FP)
	MOVD R0, errno+24(FP)
	RET
