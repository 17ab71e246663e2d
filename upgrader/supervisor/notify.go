package supervisor

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits on what a worker may say at once. systemd's own are the same order:
// NOTIFY_BUFFER_MAX is 4 KiB, the kernel passes at most 253 descriptors.
const (
	maxNotification    = 8 << 10
	maxNotificationFDs = 253
)

// notification is one datagram of sd_notify(3), the part of it that a
// supervisor obeys.
type notification struct {
	ready, watchdog, watchdogTrigger bool
	barrier                          bool
	status                           *string
	reloading                        time.Duration // MONOTONIC_USEC= of RELOADING=1, 0 without
	errno                            *int
	extend                           time.Duration
	watchdogEvery                    time.Duration
	store, unstore                   bool
	fdName                           string
	// files came with the datagram; whoever handles it closes them.
	files []*os.File
}

func (n *notification) close() {
	for _, f := range n.files {
		f.Close()
	}
	n.files = nil
}

// parseNotification reads newline-separated assignments. What a supervisor
// has no use for (MAINPID=, STOPPING=, BUSERROR= …) is passed over: only the
// supervisor speaks for the unit.
func parseNotification(data []byte) (notification, error) {
	var n notification
	var reloads bool
	var now time.Duration
	for line := range strings.SplitSeq(strings.TrimRight(string(data), "\n"), "\n") {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		switch key {
		case "READY":
			n.ready = value == "1"
		case "WATCHDOG":
			n.watchdog = value == "1"
			n.watchdogTrigger = value == "trigger"
		case "BARRIER":
			n.barrier = value == "1"
		case "RELOADING":
			reloads = value == "1"
		case "MONOTONIC_USEC":
			if us, err := strconv.ParseUint(value, 10, 63); err == nil && us <= math.MaxInt64/1000 {
				now = time.Duration(us) * time.Microsecond
			}
		case "ERRNO":
			if e, ok := parseErrno(value); ok {
				n.errno = &e
			}
		case "STATUS":
			n.status = &value
		case "EXTEND_TIMEOUT_USEC", "WATCHDOG_USEC":
			d, err := microseconds(value)
			if err != nil {
				return n, fmt.Errorf("%s=%q: %w", key, value, err)
			}
			if key == "WATCHDOG_USEC" {
				n.watchdogEvery = d
			} else {
				n.extend = d
			}
		case "FDSTORE":
			n.store = value == "1"
		case "FDSTOREREMOVE":
			n.unstore = value == "1"
		case "FDNAME":
			n.fdName = value
		}
	}
	if reloads {
		n.reloading = now
	}
	return n, nil
}

// parseErrno reads a number or a name, as systemd does, which passes over what is
// neither.
func parseErrno(s string) (errno int, ok bool) {
	const most = 4095 // of the kernel's MAX_ERRNO
	if n, err := strconv.ParseUint(s, 10, 12); err == nil {
		return int(n), true
	}
	for n := 1; n <= most; n++ {
		if name := unix.ErrnoName(syscall.Errno(n)); name != "" && name == s {
			return n, true
		}
	}
	return 0, false
}

// microseconds reads a positive count of µs, at most a day: a worker must
// not be able to put its deadline out of reach.
func microseconds(s string) (time.Duration, error) {
	const most = 24 * time.Hour
	us, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, errors.New("not a number of microseconds")
	}
	if us > uint64(most.Microseconds()) {
		return most, nil
	}
	return time.Duration(us) * time.Microsecond, nil
}

// notifySocket is where one worker, and nobody else, reports to.
type notifySocket struct {
	path string
	conn *net.UnixConn
}

// notifyPath is the same for the same generation, so that a supervisor that
// was restarted listens where the adopted worker speaks.
func (o Options) notifyPath(generation int) string {
	return filepath.Join(o.RuntimeDir, "notify."+strconv.Itoa(generation))
}

// listenNotify opens the socket.
func listenNotify(path string) (*notifySocket, error) {
	_ = os.Remove(path) // of a supervisor that was killed
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		if len(path) > 107 { // sun_path, unix(7)
			err = fmt.Errorf("path is longer than 107 bytes: %w", err)
		}
		return nil, fmt.Errorf("open notify socket: %w", err)
	}
	// Creating is not racing: the directory is ours alone. The mode is for a
	// worker that dropped to another user: it may report, the kernel tells
	// us who it is.
	if err = os.Chmod(path, 0o622); err == nil {
		err = control(conn, func(fd int) { err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open notify socket: %w", err)
	}
	return &notifySocket{path: path, conn: conn}, nil
}

func (n *notifySocket) close() {
	if n != nil {
		n.conn.Close()
		_ = os.Remove(n.path)
	}
}

// receive hands on each notification of process pid or of a process below
// it, until the socket is closed. Others are told to refused and dropped.
func (n *notifySocket) receive(pid int, handle func(notification), refused func(error)) {
	buf := make([]byte, maxNotification)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxNotificationFDs))
	for {
		size, oobSize, flags, _, err := n.conn.ReadMsgUnix(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			refused(err)
			return
		}
		sender, files, err := parseControl(oob[:oobSize])
		m := notification{files: files}
		switch {
		case err != nil:
		case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
			err = fmt.Errorf("a notification of more than %d bytes or %d descriptors", maxNotification, maxNotificationFDs)
		case !descends(sender, pid):
			err = fmt.Errorf("a notification from process %d, which is not worker %d or its child", sender, pid)
		default:
			m, err = parseNotification(buf[:size])
			m.files = files
		}
		if err != nil {
			m.close()
			refused(err)
			continue
		}
		handle(m)
	}
}

// parseControl takes the sender's PID and the descriptors out of a message.
func parseControl(oob []byte) (pid int, files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, nil, err
	}
	for _, m := range messages {
		switch {
		case m.Header.Level != unix.SOL_SOCKET:
		case m.Header.Type == unix.SCM_CREDENTIALS:
			cred, err := unix.ParseUnixCredentials(&m)
			if err != nil {
				return 0, files, err
			}
			pid = int(cred.Pid)
		case m.Header.Type == unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				return pid, files, err
			}
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				files = append(files, os.NewFile(uintptr(fd), "notified"))
			}
		}
	}
	return pid, files, nil
}

// descends tells if process pid is ancestor or a process below it, or in its
// process group.
func descends(pid, ancestor int) bool {
	for range 32 { // a chain of parents is rarely longer than 3
		if pid <= 1 {
			return false
		}
		if pid == ancestor {
			return true
		}
		if pgid, err := unix.Getpgid(pid); err == nil && pgid == ancestor {
			return true
		}
		pid = parent(pid)
	}
	return false
}

// parent reads field 4 of /proc/PID/stat; 0 if the process is gone.
func parent(pid int) int {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything, parentheses too.
	_, rest, ok := strings.Cut(string(data[max(0, strings.LastIndexByte(string(data), ')')):]), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

// control runs f on the descriptor without taking it out of the poller and
// without changing its blocking mode, as File() and Fd() would.
func control(c syscall.Conn, f func(fd int)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}
