package activation_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// children are what the test binary runs as when a test starts it again. Each
// gets its descriptors and environment as a manager would give them.
var children = map[string]func() error{
	"inventory": childInventory,
	"fallback":  childFallback,
	"stranger":  childStranger,
	"state":     childState,
	"stored":    childStored,
	"swap":      childSwap,
	"oneline":   childOneline,
}

const childKey = "ACTIVATION_TEST_CHILD"

func TestMain(m *testing.M) {
	run, ok := children[os.Getenv(childKey)]
	if !ok {
		os.Exit(m.Run())
	}
	// Only this process knows its id.
	if os.Getenv("LISTEN_PID") == "self" {
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is a process of ours with inherited descriptors.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err *strings.Builder
}

// passed is a descriptor and the name it is passed under.
type passed struct {
	name string
	file *os.File
}

// start runs a child with the descriptors, named, and more environment. Files
// stay the caller's. The child is killed at the end of the test if it lives.
func start(t testing.TB, name string, pass []passed, env ...string) *child {
	t.Helper()
	var names []string
	cmd := exec.Command(os.Args[0])
	for _, p := range pass {
		names = append(names, p.name)
		cmd.ExtraFiles = append(cmd.ExtraFiles, p.file)
	}
	cmd.Env = append(os.Environ(), childKey+"="+name)
	if len(pass) > 0 {
		cmd.Env = append(cmd.Env, "LISTEN_PID=self", fmt.Sprintf("LISTEN_FDS=%d", len(pass)),
			"LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	cmd.Env = append(cmd.Env, env...)
	c := &child{Cmd: cmd, err: new(strings.Builder)}
	cmd.Stderr = c.err
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.out = in, bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.ProcessState == nil {
			c.Process.Kill()
			c.Wait()
		}
	})
	return c
}

// line reads one line that the child prints.
func (c *child) line(t testing.TB) string {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		s, _ := c.out.ReadString('\n')
		got <- strings.TrimSpace(s)
	}()
	select {
	case s := <-got:
		return s
	case <-time.After(20 * time.Second):
		c.Process.Kill()
		t.Fatalf("child printed nothing; stderr: %s", c.err)
		return ""
	}
}

// finish closes the child's input and waits for a clean exit.
func (c *child) finish(t testing.TB) {
	t.Helper()
	c.in.Close()
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("child: %v: %s", err, c.err)
		}
	case <-time.After(time.Minute):
		c.Process.Kill()
		t.Errorf("child does not end; stderr: %s", c.err)
	}
}

// manager is the other end of NOTIFY_SOCKET: a real socket that learns the
// sender from the kernel and receives descriptors.
type manager struct {
	addr string
	conn *net.UnixConn
}

// datagram is one notification. Whoever reads it owns the files.
type datagram struct {
	text  string
	pid   int
	files []*os.File
}

func (d datagram) has(line string) bool {
	for l := range strings.SplitSeq(d.text, "\n") {
		if l == line {
			return true
		}
	}
	return false
}

func (d datagram) value(key string) string {
	for l := range strings.SplitSeq(d.text, "\n") {
		if v, ok := strings.CutPrefix(l, key+"="); ok {
			return v
		}
	}
	return ""
}

func (d datagram) close() {
	for _, f := range d.files {
		f.Close()
	}
}

// newManager listens in a directory of the test, or on an abstract address.
func newManager(t testing.TB, abstract bool) *manager {
	t.Helper()
	addr := filepath.Join(t.TempDir(), "notify")
	if abstract {
		addr = fmt.Sprintf("@activation-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err != nil {
		t.Fatal(err)
	}
	return &manager{addr, conn}
}

func (m *manager) use(t *testing.T) { t.Setenv("NOTIFY_SOCKET", m.addr) }

var errNothing = errors.New("no datagram")

// next reads one datagram, waiting for at most the time.
func (m *manager) next(wait time.Duration) (datagram, error) {
	if err := m.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return datagram{}, err
	}
	buf, oob := make([]byte, 64<<10), make([]byte, 4<<10)
	n, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return datagram{}, errNothing
	}
	if err != nil {
		return datagram{}, err
	}
	d := datagram{text: string(buf[:n])}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return d, err
	}
	for _, msg := range msgs {
		if msg.Header.Type == unix.SCM_CREDENTIALS {
			cred, err := unix.ParseUnixCredentials(&msg)
			if err != nil {
				return d, err
			}
			d.pid = int(cred.Pid)
			continue
		}
		fds, err := unix.ParseUnixRights(&msg)
		if err != nil {
			return d, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			d.files = append(d.files, os.NewFile(uintptr(fd), d.value("FDNAME")))
		}
	}
	return d, nil
}

// want reads one datagram and compares its text.
func (m *manager) want(t *testing.T, text string) datagram {
	t.Helper()
	d, err := m.next(5 * time.Second)
	if err != nil {
		t.Fatalf("waiting for %q: %v", text, err)
	}
	if d.text != text {
		t.Fatalf("got datagram %q, want %q", d.text, text)
	}
	if d.pid != os.Getpid() {
		t.Fatalf("got datagram from process %d, want %d", d.pid, os.Getpid())
	}
	return d
}

// noLeaks fails the test when it ends with more descriptors or goroutines than
// it began with.
func noLeaks(t testing.TB) {
	t.Helper()
	settleDown := func() (fds, goroutines int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries), runtime.NumGoroutine()
	}
	// The poller's own descriptors come with the first socket.
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
	}
	// So does the goroutine of os/signal, with the first signal that is waited for.
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	signal.Stop(asked)
	fds, goroutines := settleDown()
	t.Cleanup(func() {
		var f, g int
		for range 200 {
			if f, g = settleDown(); f <= fds && g <= goroutines {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		buf := make([]byte, 64<<10)
		t.Errorf("left %d descriptors and %d goroutines, had %d and %d:\n%s",
			f, g, fds, goroutines, buf[:runtime.Stack(buf, true)])
	})
}

// untilEOF ends when the parent closes our input, or dies.
func untilEOF() { _, _ = io.Copy(io.Discard, os.Stdin) }

// wrong says what a child got. The error in it, if any, is the fact told, not
// the cause.
func wrong(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	return errors.New(text)
}

func fileOf(t testing.TB, c interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func listenTCP(t testing.TB) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}
