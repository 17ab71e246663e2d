package supervisor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ackSocket is where a worker of einhorn's says that it is ready: one line, which
// is YAML with its line feeds as %0A, or JSON; einhorn answers nothing, and closes
// the connection. It stays as long as the worker: one that says so twice must not
// find it gone.
type ackSocket struct {
	path     string
	listener *net.UnixListener
}

// ackPath is the same for the same generation, as notifyPath is.
func (o Options) ackPath(generation int) string {
	return filepath.Join(o.RuntimeDir, "einhorn."+strconv.Itoa(generation))
}

// listenAck opens the socket, with the mode of listenNotify for the same reason.
func listenAck(path string) (*ackSocket, error) {
	_ = os.Remove(path) // of a supervisor that was killed
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		if err = os.Chmod(path, 0o622); err == nil {
			return &ackSocket{path: path, listener: l}, nil
		}
		l.Close()
	}
	return nil, fmt.Errorf("open the socket for worker:ack: %w", err)
}

func (a *ackSocket) close() {
	if a != nil {
		a.listener.Close()
	}
}

// receive calls ready whenever process pid, or one below it, says so, until the
// socket is closed. Others are told to refused.
func (a *ackSocket) receive(pid int, ready func(), refused func(error)) {
	for {
		conn, err := a.listener.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of descriptors: wait for one, do not spin
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if err := readAck(conn, pid); err != nil {
			refused(err)
		} else {
			ready()
		}
		conn.Close()
	}
}

// ackCommand finds the command in what einhorn's clients write.
var ackCommand = regexp.MustCompile(`(?m)(?:^|[{,\s])["']?command["']?\s*:\s*["']?worker:ack\b`)

// readAck reads one command.
func readAck(conn *net.UnixConn, pid int) error {
	_ = conn.SetReadDeadline(time.Now().Add(requestTimeout))
	line, err := bufio.NewReader(io.LimitReader(conn, maxRequest)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read a command of einhorn's: %w", err)
	}
	var cred *unix.Ucred
	if cerr := control(conn, func(fd int) { cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("tell who acknowledges: %w", err)
	}
	if !descends(int(cred.Pid), pid) {
		return fmt.Errorf("a command from process %d, which is not worker %d or its child", cred.Pid, pid)
	}
	text := strings.NewReplacer("%0A", "\n", "%25", "%").Replace(line)
	if !ackCommand.MatchString(text) {
		return errors.New("a command of einhorn's that is not worker:ack")
	}
	return nil
}
