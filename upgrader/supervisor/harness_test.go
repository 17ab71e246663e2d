package supervisor

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/activation"
)

// The test binary plays every part: systemd's child, the supervisor and the
// worker.
// What a worker does stands in the file "behave" of its release.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "with-listen-pid":
			os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
			panic(syscall.Exec(os.Args[2], os.Args[2:], os.Environ()))
		case "play-supervisor":
			playSupervisor(os.Args[2:])
		case "play-worker":
			playWorker()
		case "version": // a supervisor's program that is to take another's place
			os.Exit(0)
		case "play-waiter":
			playWaiter(os.Args[2])
		}
	}
	os.Exit(m.Run())
}

// playSupervisor takes KEY=VALUE arguments.
func playSupervisor(args []string) {
	o := Options{
		Args: []string{"play-worker"}, RuntimeDir: os.Getenv("RUNTIME_DIRECTORY"),
		StartTimeout: 5 * time.Second, DrainTimeout: 5 * time.Second, Proof: []string{"version"},
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, a := range args {
		key, value, _ := strings.Cut(a, "=")
		var err error
		switch key {
		case "root":
			o.Root, o.Program = value, "bin/app"
		case "program":
			o.Program = value
		case "start":
			o.StartTimeout, err = time.ParseDuration(value)
		case "drain":
			o.DrainTimeout, err = time.ParseDuration(value)
		case "ready":
			o.Ready, err = ParseReady(value)
		case "renew":
			o.renewEvery, err = time.ParseDuration(value)
		case "reload":
			o.Reload, err = ParseReload(value)
		case "pass":
			o.Pass, err = ParsePass(value)
		case "max":
			o.MaxDraining, err = strconv.Atoi(value)
		case "listen":
			var l Listen
			l, err = ParseListen(value)
			o.Listen = append(o.Listen, l)
		}
		if err != nil {
			panic(err)
		}
	}
	e, err := Run(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	e.Become()
}

// playWorker serves "RELEASE PID\n" to each connection.
func playWorker() {
	data, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(os.Args[0])), "behave"))
	if err != nil {
		panic(err)
	}
	does := strings.Fields(string(data))
	has := func(s string) bool { return slices.Contains(does, s) }
	value := func(key string) string {
		for _, d := range does {
			if v, ok := strings.CutPrefix(d, key+"="); ok {
				return v
			}
		}
		return ""
	}
	if v := value("exit"); v != "" {
		n, _ := strconv.Atoi(v)
		os.Exit(n)
	}
	if has("segv") {
		signal.Reset()
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
		defaultAction(syscall.SIGSEGV)
		_ = unix.Kill(os.Getpid(), syscall.SIGSEGV)
		select {}
	}
	if has("child") { // a child in the same process group that outlives us
		c := exec.Command("/bin/sleep", "300")
		if err := c.Start(); err != nil {
			panic(err)
		}
		os.WriteFile(value("childfile"), []byte(strconv.Itoa(c.Process.Pid)), 0o600)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGQUIT, syscall.SIGUSR2)
	var listeners []net.Listener
	if !has("deaf") { // even taking the files would put them into Go's poller
		files, err := workerFiles()
		if err != nil {
			panic(err)
		}
		for _, f := range files {
			l, err := net.FileListener(f)
			if err != nil {
				continue
			}
			f.Close() // a leaving worker must not accept through this one
			listeners = append(listeners, l)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					fmt.Fprintf(c, "%s %d %s\n", os.Getenv("UPGRADERD_RELEASE"), os.Getpid(), f.Name())
					c.Close()
				}
			}()
		}
	}
	if v := value("sleep"); v != "" {
		d, _ := time.ParseDuration(v)
		time.Sleep(d)
	}
	if v := value("extend"); v != "" { // longer than the start deadline, in steps
		for range 4 {
			activation.Notify("EXTEND_TIMEOUT_USEC=" + v)
			us, _ := strconv.Atoi(v)
			time.Sleep(time.Duration(us) * time.Microsecond * 3 / 4)
		}
	}
	if v := value("store"); v != "" {
		r, w, _ := os.Pipe()
		fmt.Fprint(w, "kept")
		if err := activation.StoreFile(v, r); err != nil {
			panic(err)
		}
	}
	if has("forge") {
		activation.Notify("MAINPID=1", "STOPPING=1", "STATUS=evil\x01one\x7f")
	}
	switch { // what a program does that is told by SIGHUP to read its configuration
	case has("reloads"):
		config := filepath.Join(filepath.Dir(filepath.Dir(os.Args[0])), "config")
		activation.OnReload(context.Background(), func(context.Context) error {
			text, err := os.ReadFile(config)
			if err == nil && string(text) == "bad" {
				err = errors.New("line 1: bad")
			}
			if err == nil {
				os.WriteFile(config+".read", text, 0o600)
			}
			return err
		}, syscall.SIGHUP)
	case has("mute"):
		signal.Ignore(syscall.SIGHUP)
	}
	if !has("never") {
		activation.Notify("READY=1", "STATUS=at work")
	}
	if has("acks") {
		acknowledge(os.Getenv("EINHORN_SOCK_PATH"))
	}
	if v := value("die"); v != "" {
		d, _ := time.ParseDuration(v)
		time.AfterFunc(d, func() { os.Exit(7) })
	}
	for sig := range term {
		switch {
		case sig == syscall.SIGUSR1:
			activation.Notify("STATUS=reloaded")
			if v := value("again"); v != "" { // as a program may that takes its time
				activation.Notify("EXTEND_TIMEOUT_USEC=" + v)
			}
			playForger(has)
		case has("stubborn"):
			activation.Notify("STATUS=will not go")
		default:
			fmt.Fprintln(os.Stderr, "drains on", unix.SignalName(sig.(syscall.Signal)))
			for _, l := range listeners {
				l.Close()
			}
			if v := value("linger"); v != "" {
				d, _ := time.ParseDuration(v)
				end := time.After(d)
				for lingers := true; lingers; {
					select {
					case <-term:
						fmt.Fprintln(os.Stderr, "asked twice")
					case <-end:
						lingers = false
					}
				}
			}
			os.Exit(0)
		}
	}
}

// manager is as much of systemd as a supervisor can see: it passes sockets,
// listens on a notify socket, and has an fd store that outlives the process.
type manager struct {
	t        *testing.T
	dir      string
	conn     *net.UnixConn
	mu       sync.Mutex
	states   []string // every assignment, in order
	stored   []*os.File
	sockets  []*os.File
	cmd      *exec.Cmd
	gone     chan struct{}
	heard    chan struct{} // closed when listen is over
	log      *strings.Builder
	args     []string
	alone    bool   // no NOTIFY_SOCKET
	program  string // of the supervisor; default: this one
	renewals int
}

func newManager(t *testing.T, args ...string) *manager {
	t.Helper()
	m := &manager{t: t, dir: t.TempDir(), args: args, log: &strings.Builder{}}
	for _, d := range []string{"run", "store/releases"} {
		if err := os.MkdirAll(filepath.Join(m.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(m.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m.heard = make(chan struct{})
	go m.listen()
	t.Cleanup(m.close)
	return m
}

func (m *manager) close() {
	if m.cmd != nil && m.cmd.Process != nil {
		select {
		case <-m.gone:
		default:
			m.cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-m.gone:
			case <-time.After(10 * time.Second):
				m.cmd.Process.Kill()
				m.t.Error("the supervisor did not stop")
			}
		}
	}
	m.conn.Close()
	<-m.heard
	if m.t.Failed() {
		m.t.Log(m.logs())
	}
	for _, f := range append(m.stored, m.sockets...) {
		f.Close()
	}
}

func (m *manager) logs() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log.String()
}

func (m *manager) listen() {
	defer close(m.heard)
	buf, oob := make([]byte, 64<<10), make([]byte, 4096)
	for {
		n, on, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		_, files, _ := parseControl(oob[:on])
		state := string(buf[:n])
		m.mu.Lock()
		m.states = append(m.states, strings.Split(state, "\n")...)
		note, _ := parseNotification(buf[:n])
		switch {
		case note.store:
			for _, f := range files {
				fd, _ := dupFD(f)
				f.Close()
				_ = unix.SetNonblock(fd, false)
				m.stored = append(m.stored, os.NewFile(uintptr(fd), note.fdName))
			}
		case note.unstore:
			m.stored = slices.DeleteFunc(m.stored, func(f *os.File) bool { return f.Name() == note.fdName })
		default:
			for _, f := range files {
				f.Close()
			}
		}
		m.mu.Unlock()
	}
}

// release makes one that behaves as told.
func (m *manager) release(version, behave string) string {
	m.t.Helper()
	name := version + "-" + strings.Repeat("a", 12)
	dir := filepath.Join(m.dir, "store/releases", name)
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink(exe, filepath.Join(dir, "bin/app")); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "behave"), []byte(behave), 0o644); err != nil {
		m.t.Fatal(err)
	}
	return name
}

func (m *manager) link(which, release string) {
	m.t.Helper()
	path := filepath.Join(m.dir, "store", which)
	os.Remove(path)
	if release == "" {
		return
	}
	if err := os.Symlink("releases/"+release, path); err != nil {
		m.t.Fatal(err)
	}
}

// socket gives the unit a TCP socket as a .socket unit would, and its address.
func (m *manager) socket(name string) string {
	m.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	fd, err := dupFD(l.(*net.TCPListener))
	if err != nil {
		m.t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	m.sockets = append(m.sockets, os.NewFile(uintptr(fd), name))
	return addr
}

// start starts the supervisor with its own PID in LISTEN_PID.
func (m *manager) start() {
	m.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	m.mu.Lock()
	files := append(slices.Clone(m.sockets), m.stored...)
	m.mu.Unlock()
	for _, f := range m.sockets { // systemd does, unless NonBlocking=yes
		if err := control(f, func(fd int) { _ = unix.SetNonblock(fd, false) }); err != nil {
			m.t.Fatal(err)
		}
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	args := append([]string{"with-listen-pid", cmp.Or(m.program, exe), "play-supervisor", "root=" + filepath.Join(m.dir, "store")}, m.args...)
	cmd := exec.Command(exe, args...)
	cmd.ExtraFiles = files
	// The race detector's exit waits a second by default.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "NOTIFY_SOCKET="+filepath.Join(m.dir, "notify"), "RUNTIME_DIRECTORY="+filepath.Join(m.dir, "run"))
	if m.alone {
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET=")
	}
	if len(names) > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = pw, pw
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	pw.Close()
	go func() {
		sc := bufio.NewScanner(pr)
		for sc.Scan() {
			m.mu.Lock()
			m.log.WriteString(sc.Text() + "\n")
			m.mu.Unlock()
		}
		pr.Close()
	}()
	gone := make(chan struct{})
	m.cmd, m.gone = cmd, gone
	go func() { cmd.Wait(); close(gone) }()
}

// startReady starts it and waits for READY=1.
func (m *manager) startReady() {
	m.t.Helper()
	before := m.count("READY=1")
	m.start()
	m.eventually("READY=1", func() bool { return m.count("READY=1") > before })
}

func (m *manager) count(state string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, s := range m.states {
		if s == state {
			n++
		}
	}
	return n
}

// children are the PIDs of the main process's children, of whichever of its
// threads, zombies too.
func (m *manager) children() (pids []string) {
	m.t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", m.cmd.Process.Pid))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, list := range lists {
		data, _ := os.ReadFile(list) // of a thread that is gone
		pids = append(pids, strings.Fields(string(data))...)
	}
	return pids
}

// status is the last STATUS=.
func (m *manager) status() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range slices.Backward(m.states) {
		if v, ok := strings.CutPrefix(s, "STATUS="); ok {
			return v
		}
	}
	return ""
}

func (m *manager) storedNames() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, f := range m.stored {
		names = append(names, f.Name())
	}
	slices.Sort(names)
	return names
}

func (m *manager) eventually(what string, cond func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("waited in vain for %s; status %q, log:\n%s", what, m.status(), m.logs())
		}
	}
}

func (m *manager) handover() (Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return RequestHandover(ctx, filepath.Join(m.dir, "run"))
}

// exited waits for the supervisor's end.
func (m *manager) exited() *os.ProcessState {
	m.t.Helper()
	select {
	case <-m.gone:
		return m.cmd.ProcessState
	case <-time.After(15 * time.Second):
		m.t.Fatalf("the supervisor did not end; log:\n%s", m.logs())
		return nil
	}
}

// get asks the service who serves.
func get(addr string) (release string, pid int, err error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	data, err := io.ReadAll(c)
	if err != nil {
		return "", 0, err
	}
	f := strings.Fields(string(data))
	if len(f) != 3 {
		return "", 0, fmt.Errorf("answer %q", data)
	}
	pid, err = strconv.Atoi(f[1])
	return f[0], pid, err
}

func processGone(pid int) bool {
	if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return true
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ") // nobody reaps orphans here
}
