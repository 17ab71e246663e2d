package activation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoManager says that NOTIFY_SOCKET is unset: nobody is there who could
// keep a descriptor or answer.
var ErrNoManager = errors.New("NOTIFY_SOCKET is not set")

// sendTimeout bounds one notification. The manager reads its socket in its
// main loop; one that does not for this long hangs, and the service should not
// hang with it.
const sendTimeout = 5 * time.Second

// Supervised says whether there is a manager that listens to notifications.
func Supervised() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Notify sends the assignments, such as "READY=1", in one datagram to
// NOTIFY_SOCKET, as sd_notify(3) does. They are sent as they are, one per line.
// Without NOTIFY_SOCKET it does nothing and returns nil, so that a service
// needs no second path for running by hand.
//
// Each call is independent: it may be made from any goroutine, and gives up
// after 5 s when the manager does not read.
func Notify(state ...string) error {
	if !Supervised() || len(state) == 0 {
		return nil
	}
	return send(strings.Join(state, "\n"))
}

// send puts one datagram, with descriptors if any, on NOTIFY_SOCKET in one
// sendmsg(2) on an unconnected socket: the manager reads the sender's
// credentials off the message, so it must come from this very process.
func send(payload string, fds ...int) error {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return ErrNoManager
	}
	// x/sys turns a leading @ into the NUL of an abstract address.
	if addr[0] != '/' && addr[0] != '@' {
		return fmt.Errorf("notify manager: NOTIFY_SOCKET %q is neither a path nor an abstract address", addr)
	}
	if err := sendTo(addr, payload, fds, sendTimeout); err != nil {
		return fmt.Errorf("notify manager at %q: %w", addr, err)
	}
	return nil
}

func sendTo(addr, payload string, fds []int, within time.Duration) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(within))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	deadline := time.Now().Add(within)
	for {
		err := unix.Sendmsg(fd, []byte(payload), rights, &unix.SockaddrUnix{Name: addr}, unix.MSG_NOSIGNAL)
		switch {
		case err == nil:
			return nil
		// With SO_SNDTIMEO no signal restarts the call (signal(7)), and Go's
		// scheduler sends signals.
		case err == unix.EINTR && time.Now().Before(deadline):
			continue
		case err == unix.EAGAIN, err == unix.EINTR:
			return fmt.Errorf("not read within %s", within)
		default:
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// Ready tells the manager that the service answers (READY=1): after start-up,
// and again at the end of a reload that [Reloading] began.
func Ready() error { return Notify("READY=1") }

// Stopping tells the manager that the service is on its way out (STOPPING=1).
// [Serve] sends it by itself.
func Stopping() error { return Notify("STOPPING=1") }

// Reloading tells the manager that the configuration is being read again
// (RELOADING=1 with MONOTONIC_USEC, as Type=notify-reload wants). [Ready] ends
// the reload, whether it went well or not.
func Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return os.NewSyscallError("clock_gettime", err)
	}
	return Notify("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// Status sets the one line that "systemctl status" shows, formatted as by
// [fmt.Sprintf]. Line breaks become spaces: behind one, the rest of a text
// from outside could pass for another assignment.
func Status(format string, args ...any) error {
	return Notify("STATUS=" + strings.Map(oneLine, fmt.Sprintf(format, args...)))
}

func oneLine(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

// ExtendTimeout asks the manager for d more, counted from now, before it gives
// up on the start, stop or reload that is under way (EXTEND_TIMEOUT_USEC).
// Repeat it before d is over for as long as the work goes on.
func ExtendTimeout(d time.Duration) error {
	if d < time.Microsecond {
		return fmt.Errorf("extend timeout by %s: want at least 1µs", d)
	}
	return Notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

// Barrier returns once the manager has read every notification that this
// process sent before: sd_notify_barrier(3). Use it before an exit that must
// not overtake the last message. It ends with ctx's error when ctx ends first,
// and does nothing without NOTIFY_SOCKET.
func Barrier(ctx context.Context) error {
	if !Supervised() {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("wait for notify barrier: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make notify barrier: %w", err)
	}
	defer r.Close()
	err = sendFile("BARRIER=1", w)
	w.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// The manager closes its end unread and writes nothing: end of file is the
	// answer.
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("wait for notify barrier: %w", context.Cause(ctx))
	}
	return nil
}

// sendFile is send with the descriptor of f. It does not go through
// [os.File.Fd], which makes a socket blocking for everybody who shares it.
func sendFile(payload string, f syscall.Conn) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = send(payload, int(fd)) }); err != nil {
		return err
	}
	return sent
}
