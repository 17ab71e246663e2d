package supervisor

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ShimVerb is the hidden first argument with which the supervisor starts
// itself anew, between fork and the worker's own program.
//
// LISTEN_PID must be the PID of the worker (sd_listen_fds(3)), which nobody
// knows before the fork. So the child first runs this program again, which
// learns its own PID, and then replaces itself: same PID, no process more.
// It also holds the gate: it waits until the supervisor has put the worker's
// pidfd into systemd's fd store, and leaves if the supervisor died first.
const ShimVerb = "exec-worker"

// Shim reads the gate, completes the environment and becomes the program.
// args are GATE-FD SOCKETS PROGRAM ARG0…; it returns only if that did not
// work. exec(3) keeps the signal mask that Go's runtime set for the thread,
// which is empty, and Go resets the handlers that execve(2) cannot keep.
func Shim(args []string) error {
	if len(args) < 4 {
		return fmt.Errorf("%s is for the supervisor alone; see upgraderd supervise", ShimVerb)
	}
	gate, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("gate %q: %w", args[0], err)
	}
	sockets, program, argv := args[1], args[2], args[3:]
	unix.CloseOnExec(gate)
	var open [1]byte
	for {
		n, err := unix.Read(gate, open[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait to start %s: %w", program, err)
		}
		if n != 1 {
			return fmt.Errorf("the supervisor was gone before %s was started", program)
		}
		break
	}
	env := workerIdentity(os.Environ(), os.Getpid(), sockets != "0")
	if err := unix.Exec(program, argv, env); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	return nil
}

// workerIdentity puts the PID where the protocols want it.
func workerIdentity(env []string, pid int, sockets bool) []string {
	id := strconv.Itoa(pid)
	if sockets {
		env = append(env, "LISTEN_PID="+id)
	}
	for _, e := range env {
		if strings.HasPrefix(e, "WATCHDOG_USEC=") {
			return append(env, "WATCHDOG_PID="+id)
		}
	}
	return env
}
