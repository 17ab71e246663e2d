package supervisor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/upgraderd/upgraderd/activation"
)

// workerFiles takes the sockets in whichever dialect they are told, the way that
// its own programs read it.
func workerFiles() ([]*os.File, error) {
	var numbers []string
	if list, ok := os.LookupEnv("NGINX"); ok {
		numbers = strings.Split(strings.TrimSuffix(list, ";"), ";")
	} else if list, ok := os.LookupEnv("SERVER_STARTER_PORT"); ok {
		for pair := range strings.SplitSeq(list, ";") {
			_, number, _ := strings.Cut(pair, "=")
			numbers = append(numbers, number)
		}
	} else if count, ok := os.LookupEnv("EINHORN_FD_COUNT"); ok {
		if os.Getenv("EINHORN_MASTER_PID") != strconv.Itoa(os.Getppid()) {
			return nil, fmt.Errorf("EINHORN_MASTER_PID=%s is not the parent %d", os.Getenv("EINHORN_MASTER_PID"), os.Getppid())
		}
		n, err := strconv.Atoi(count)
		if err != nil {
			return nil, err
		}
		for i := range n {
			numbers = append(numbers, os.Getenv("EINHORN_FD_"+strconv.Itoa(i)))
		}
	} else {
		return activation.Files()
	}
	var files []*os.File
	for _, number := range numbers {
		fd, err := strconv.Atoi(number)
		if err != nil {
			return nil, err
		}
		files = append(files, os.NewFile(uintptr(fd), "socket"))
	}
	return files, nil
}

// acknowledge says worker:ack as einhorn's own library does.
func acknowledge(path string) {
	c, err := net.Dial("unix", path)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "---%%0Acommand: worker:ack%%0Apid: %d%%0A\n", os.Getpid())
}

func TestParsePass(t *testing.T) {
	for _, s := range []string{"systemd", "nginx", "server-starter", "einhorn"} {
		if p, err := ParsePass(s); err != nil || string(p) != s {
			t.Errorf("%s: got %q %v", s, p, err)
		}
	}
	for _, s := range []string{"", "NGINX", "uwsgi", "nginx;"} {
		if _, err := ParsePass(s); err == nil || !strings.Contains(err.Error(), "give systemd, nginx, server-starter or einhorn") {
			t.Errorf("%q: got %v, want an error that lists them", s, err)
		}
	}
}

// testSockets are one of each kind, and what is none: a pipe and a connection.
func testSockets(t *testing.T, dir string) (sockets []socket, tcp4, tcp6, udp string) {
	t.Helper()
	add := func(name string, c syscall.Conn) {
		fd, err := dupFD(c)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), name)
		t.Cleanup(func() { f.Close() })
		sockets = append(sockets, socket{name, fd})
	}
	listen := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	four, six := listen("tcp4", "127.0.0.1:0"), listen("tcp6", "[::1]:0")
	path := listen("unix", filepath.Join(dir, "s"))
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close() })
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	client, err := net.Dial("tcp4", four.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	add("web", four.(*net.TCPListener))
	add("stored", r)
	add("web6", six.(*net.TCPListener))
	add("connection", client.(*net.TCPConn))
	add("control", path.(*net.UnixListener))
	add("dns", packets.(*net.UDPConn))
	return sockets, four.Addr().String(), six.Addr().String(), packets.LocalAddr().String()
}

func TestTell(t *testing.T) {
	dir := t.TempDir()
	sockets, tcp4, tcp6, udp := testSockets(t, dir)
	udp = strings.Replace(udp, ":", ":u", 1)
	bound := []int{sockets[0].fd, sockets[2].fd, sockets[4].fd, sockets[5].fd}
	self := strconv.Itoa(os.Getpid())
	tests := map[Pass]told{
		PassSystemd: {
			files: []int{sockets[0].fd, sockets[1].fd, sockets[2].fd, sockets[3].fd, sockets[4].fd, sockets[5].fd},
			env:   []string{"LISTEN_FDS=6", "LISTEN_FDNAMES=web:stored:web6:connection:control:dns"},
			pids:  []string{"LISTEN_PID"},
		},
		PassNginx: {files: bound, env: []string{"NGINX=3;4;5;6;"}},
		PassServerStarter: {files: bound, env: []string{
			"SERVER_STARTER_PORT=" + tcp4 + "=3;" + tcp6 + "=4;" + dir + "/s=5;" + udp + "=6", "SERVER_STARTER_GENERATION=7",
		}},
		PassEinhorn: {files: bound, env: []string{
			"EINHORN_MASTER_PID=" + self, "EINHORN_FD_COUNT=4",
			"EINHORN_FD_0=3", "EINHORN_FD_FAMILY_0=AF_INET", "EINHORN_FD_1=4", "EINHORN_FD_FAMILY_1=AF_INET6",
			"EINHORN_FD_2=5", "EINHORN_FD_FAMILY_2=AF_UNIX", "EINHORN_FD_3=6", "EINHORN_FD_FAMILY_3=AF_INET",
			"EINHORN_SOCK_PATH=/run/x/einhorn.7",
		}},
	}
	for pass, want := range tests {
		got, err := pass.tell(sockets, 7, "/run/x/einhorn.7")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v %+v, want %+v", pass, err, got, want)
		}
	}
	// Of nothing, only the count is told, if there is one.
	for pass, want := range map[Pass][]string{
		PassSystemd: nil, PassNginx: nil,
		PassServerStarter: {"SERVER_STARTER_PORT=", "SERVER_STARTER_GENERATION=1"},
		PassEinhorn:       {"EINHORN_MASTER_PID=" + self, "EINHORN_FD_COUNT=0", "EINHORN_SOCK_PATH=/e"},
	} {
		if got, err := pass.tell(nil, 1, "/e"); err != nil || !slices.Equal(got.env, want) || got.files != nil {
			t.Errorf("%s of nothing: got %v %v %v, want %v", pass, err, got.env, got.files, want)
		}
	}
}

func TestTellServerStarterPath(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "a=b"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := dupFD(l.(*net.UnixListener))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if _, err := PassServerStarter.tell([]socket{{"web", fd}}, 1, ""); err == nil || !strings.Contains(err.Error(), "choose one without") {
		t.Errorf("got %v, want an error that says what to do", err)
	}
}

// What our own parent says in a dialect is not for the worker.
func TestWorkerEnvIsOurs(t *testing.T) {
	env := []string{"NGINX=9;", "SERVER_STARTER_PORT=80=9", "SERVER_STARTER_GENERATION=4", "EINHORN_FD_0=9", "EINHORN_SOCK_FD=8", "LISTEN_FDS=1", "HOME=/"}
	about := told{env: []string{"NGINX=3;"}}
	got, _ := workerEnv(env, release{program: "/bin/x"}, about, "", 0)
	if want := []string{"HOME=/", "NGINX=3;", "UPGRADERD_RELEASE=/bin/x"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestArguments(t *testing.T) {
	o := Options{Root: "/srv", Program: "./bin//app", Args: []string{"-p", "{release}", "-c={release}/etc", "{}", "release"}}
	got := o.arguments(release{program: "/srv/releases/1-a/bin/app"})
	if want := []string{"-p", "/srv/releases/1-a", "-c=/srv/releases/1-a/etc", "{}", "release"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Each dialect, with a worker that reads nothing else: a handover, and the signal
// that the old one drains on.
func TestDialects(t *testing.T) {
	for pass, want := range map[string]struct{ behave, signal string }{
		"nginx":          {"never", "SIGQUIT"},
		"server-starter": {"never", "SIGTERM"},
		"einhorn":        {"never", "SIGUSR2"},
	} {
		t.Run(pass, func(t *testing.T) {
			m := newManager(t, "pass="+pass)
			addr := m.socket("web")
			m.link("current", m.release("1.0", want.behave))
			m.startReady()
			two := m.release("2.0", want.behave)
			m.link("next", two)
			if _, err := m.handover(); err != nil {
				t.Fatal(err)
			}
			m.eventually("2.0 serves", func() bool { got, _, err := get(addr); return err == nil && got == two })
			m.eventually("the old one drains", func() bool { return strings.Contains(m.logs(), "drains on "+want.signal) })
		})
	}
}

// With --ready=notify, a worker of einhorn's has to acknowledge, also to a
// supervisor that adopted it, and nobody else can for it.
func TestEinhornAcknowledges(t *testing.T) {
	m := newManager(t, "pass=einhorn", "ready=notify", "start=10s")
	m.socket("web")
	one := m.release("1.0", "never acks")
	m.link("current", one)
	m.startReady()
	two := m.release("2.0", "never acks")
	m.link("next", two)
	if r, err := m.handover(); err != nil || r.Release != two {
		t.Fatalf("handover: %+v %v", r, err)
	}
	m.link("current", two)
	m.link("next", "")

	m.cmd.Process.Kill()
	m.exited()
	m.startReady()
	path := filepath.Join(m.dir, "run", "einhorn.2")
	acknowledge(path) // by a stranger: refused, and told to the log
	m.eventually("the stranger is refused", func() bool { return strings.Contains(m.logs(), "acknowledgement refused") })
}

func TestAckLines(t *testing.T) {
	good := []string{
		"---%0Acommand: worker:ack%0Apid: 12%0A\n", `{"command": "worker:ack", "pid": 12}` + "\n", `{"pid": 12, "command":"worker:ack"}` + "\n",
		"--- %0A'command': 'worker:ack'%0A\n",
	}
	bad := []string{
		"\n", "worker:ack\n", "---%0Acommand: worker:ping%0A\n", `{"command": "worker:acknowledge"}` + "\n", `{"subcommand": "worker:ack"}` + "\n",
		"command: worker:ack", strings.Repeat("x", maxRequest+1) + "\n",
	}
	say := func(line string) error {
		l, err := listenAck(filepath.Join(t.TempDir(), "ack"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		c, err := net.Dial("unix", l.path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			fmt.Fprint(c, line)
			c.Close()
		}()
		conn, err := l.listener.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return readAck(conn, os.Getpid())
	}
	for _, line := range good {
		if err := say(line); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
	for _, line := range bad {
		if err := say(line); err == nil {
			t.Errorf("%q acknowledges", cmp.Or(line[:min(40, len(line))], "nothing"))
		}
	}
	if data, err := json.Marshal(map[string]any{"command": "worker:ack", "pid": 1}); err != nil || say(string(data)+"\n") != nil {
		t.Errorf("%s does not acknowledge", data)
	}
}
