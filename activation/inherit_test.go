package activation_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/activation"
)

// A socket of every kind goes to a child, which takes each by another function
// and answers on it.
func TestInheritedSockets(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	unixListener := func(network, name string) *net.UnixListener {
		l, err := net.ListenUnix(network, &net.UnixAddr{Name: filepath.Join(dir, name), Net: network})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	http, admin, seq := listenTCP(t), unixListener("unix", "admin"), unixListener("unixpacket", "seq")
	twice1, twice2, rest := listenTCP(t), listenTCP(t), listenTCP(t)
	dns, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	logs, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "logs"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()

	c := start(t, "inventory", []passed{
		{"http", fileOf(t, http)}, {"twice", fileOf(t, twice1)}, {"admin", fileOf(t, admin)},
		{"dns", fileOf(t, dns)}, {"pipe", w}, {"twice", fileOf(t, twice2)},
		{"seq", fileOf(t, seq)}, {"logs", fileOf(t, logs)}, {"rest", fileOf(t, rest)},
	})
	if got := c.line(t); got != "ready" {
		c.finish(t)
		t.Fatalf("child said %q, want ready: %s", got, c.err)
	}
	w.Close()
	if got, _ := io.ReadAll(r); string(got) != "from pipe" {
		t.Errorf("pipe: got %q, want %q", got, "from pipe")
	}
	for _, l := range []net.Listener{http, twice1, twice2, admin, seq, rest} {
		// Only the child accepts; were it not on the same queue, this hangs.
		conn, err := net.DialTimeout(l.Addr().Network(), l.Addr().String(), 5*time.Second)
		if err != nil {
			t.Error(err)
			continue
		}
		buf := make([]byte, 100)
		if n, err := readWithin(conn, buf); err != nil || string(buf[:n]) != "hello" {
			t.Errorf("%s: got %q, %v, want hello", l.Addr(), buf[:n], err)
		}
		conn.Close()
	}
	client, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "client"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.WriteTo([]byte("ping"), logs.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	udp, err := net.DialUDP("udp", nil, dns.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	fmt.Fprint(udp, "ping")
	for _, conn := range []net.Conn{client, udp} {
		buf := make([]byte, 100)
		if n, err := readWithin(conn, buf); err != nil || string(buf[:n]) != "ping" {
			t.Errorf("%s: got %q, %v, want ping", conn.LocalAddr().Network(), buf[:n], err)
		}
	}
	c.finish(t)
	// The child closed its listeners; the paths are the manager's.
	for _, name := range []string{"admin", "seq"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Errorf("the child's close removed the socket's path: %v", err)
		}
	}
}

func readWithin(c net.Conn, buf []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	return c.Read(buf)
}

func childInventory() error {
	// What the test run itself inherited is none of our business.
	other := openForExec(3 + 9)
	names, err := activation.Names()
	if err != nil {
		return err
	}
	if want := strings.Fields("http twice admin dns pipe twice seq logs rest"); !slices.Equal(names, want) {
		return wrong("Names: got %q, want %q", names, want)
	}
	if _, err := activation.Listen("dns", "tcp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "no listening stream socket") {
		return wrong("Listen of a datagram socket: got %v", err)
	}
	if _, err := activation.ListenPacket("http", "udp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "no datagram socket") {
		return wrong("ListenPacket of a stream socket: got %v", err)
	}
	if _, err := activation.Listen("twice", "tcp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "got 2 inherited sockets, want 1") {
		return wrong("Listen of two sockets: got %v", err)
	}
	http, err := activation.Listen("http", "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := activation.Listen("http", "tcp", "127.0.0.1:0"); !errors.Is(err, activation.ErrTaken) {
		return wrong("Listen for the second time: got %v, want ErrTaken", err)
	}
	dns, err := activation.ListenPacket("dns", "udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := activation.ListenPacket("dns", "udp", "127.0.0.1:0"); !errors.Is(err, activation.ErrTaken) {
		return wrong("ListenPacket for the second time: got %v, want ErrTaken", err)
	}
	stored, err := activation.TakeStored("rest")
	if err != nil || len(stored) != 1 {
		return wrong("TakeStored: got %v, %v", stored, err)
	}
	rest, err := net.FileListener(stored[0])
	if err != nil {
		return err
	}
	stored[0].Close()
	listeners, err := activation.Listeners()
	if err != nil || len(listeners["twice"]) != 2 || len(listeners["admin"]) != 1 || len(listeners["seq"]) != 1 || len(listeners) != 3 {
		return wrong("Listeners: got %v, %v", listeners, err)
	}
	packets, err := activation.PacketConns()
	if err != nil || len(packets["logs"]) != 1 || len(packets) != 1 {
		return wrong("PacketConns: got %v, %v", packets, err)
	}
	files, err := activation.Files()
	if err != nil || len(files) != 1 || files[0].Name() != "pipe" {
		return wrong("Files: got %v, %v", files, err)
	}
	if again, err := activation.Files(); err != nil || len(again) != 0 {
		return wrong("Files for the second time: got %v, %v", again, err)
	}
	if open := openForExec(3); !slices.Equal(open, other) {
		return wrong("descriptors %v are passed on to children, want %v", open, other)
	}
	activation.UnsetEnv()
	if left, err := activation.Names(); err != nil || len(left) != 0 {
		return wrong("Names after UnsetEnv: got %v, %v", left, err)
	}
	fmt.Fprint(files[0], "from pipe")
	files[0].Close()

	all := append(listeners["twice"], http, rest, listeners["admin"][0], listeners["seq"][0])
	for _, l := range all {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, "hello")
				c.Close()
			}
		}()
	}
	for _, p := range []net.PacketConn{dns, packets["logs"][0]} {
		go func() {
			buf := make([]byte, 100)
			n, from, err := p.ReadFrom(buf)
			if err == nil {
				_, _ = p.WriteTo(buf[:n], from)
			}
		}()
	}
	fmt.Println("ready")
	untilEOF()
	for _, l := range all {
		l.Close()
	}
	return nil
}

// openForExec lists the descriptors of this process, from first on, that its
// children would inherit.
func openForExec(first int) (fds []int) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first && isOpenForExec(fd) {
			fds = append(fds, fd)
		}
	}
	return fds
}

// Descriptors that were passed, but not to us, are left alone.
func TestForeignEnvironment(t *testing.T) {
	l := listenTCP(t)
	for name, env := range map[string][]string{
		"another process id": {"LISTEN_PID=1"},
		"another pidfd":      {"LISTEN_PIDFDID=1"},
	} {
		t.Run(name, func(t *testing.T) {
			start(t, "stranger", []passed{{"http", fileOf(t, l)}}, env...).finish(t)
		})
	}
}

func childStranger() error {
	if files, err := activation.Files(); err != nil || len(files) != 0 {
		return wrong("Files: got %v, %v, want none", files, err)
	}
	if !isOpenForExec(3) {
		return errors.New("the descriptor was touched")
	}
	return nil
}

func isOpenForExec(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// Without a socket of the name, Listen and ListenPacket open their own.
func TestFallback(t *testing.T) {
	start(t, "fallback", nil).finish(t)
	// A descriptor under another name does not change that.
	start(t, "fallback", []passed{{"other", fileOf(t, listenTCP(t))}}).finish(t)
}

func childFallback() error {
	dir, err := os.MkdirTemp("", "activation")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for network, address := range map[string]string{
		"tcp":        "127.0.0.1:0",
		"unix":       filepath.Join(dir, "stream"),
		"unixpacket": filepath.Join(dir, "seqpacket"),
	} {
		l, err := activation.Listen("http", network, address)
		if err != nil {
			return err
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				c.Close()
			}
		}()
		c, err := net.Dial(network, l.Addr().String())
		if err != nil {
			return err
		}
		c.Close()
		if _, err := activation.Listen("http", network, l.Addr().String()); err == nil || !strings.Contains(err.Error(), `listen as "http": no socket`) {
			return wrong("Listen on a taken address: got %v", err)
		}
		l.Close()
	}
	for network, address := range map[string]string{"udp": "127.0.0.1:0", "unixgram": filepath.Join(dir, "dgram")} {
		c, err := activation.ListenPacket("dns", network, address)
		if err != nil {
			return err
		}
		c.Close()
	}
	return nil
}

func TestChildEnv(t *testing.T) {
	for _, kv := range []string{"LISTEN_PID=1", "LISTEN_PIDFDID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=a", "NOTIFY_SOCKET=@x", "WATCHDOG_PID=1", "WATCHDOG_USEC=1", "LISTEN_ADDRESS=kept"} {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
	var got []string
	for _, kv := range activation.ChildEnv() {
		for _, prefix := range []string{"LISTEN_", "NOTIFY_", "WATCHDOG_"} {
			if strings.HasPrefix(kv, prefix) {
				got = append(got, kv)
			}
		}
	}
	if !slices.Equal(got, []string{"LISTEN_ADDRESS=kept"}) {
		t.Errorf("got %q, want only LISTEN_ADDRESS", got)
	}
	activation.UnsetEnv()
	for _, k := range []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if v, ok := os.LookupEnv(k); ok {
			t.Errorf("UnsetEnv left %s=%s", k, v)
		}
	}
	if os.Getenv("NOTIFY_SOCKET") == "" || os.Getenv("WATCHDOG_USEC") == "" {
		t.Error("UnsetEnv removed what notifications need")
	}
}
