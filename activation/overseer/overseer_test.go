package overseer_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/activation/overseer"
	"github.com/upgraderd/upgraderd/activation/overseer/fetcher"
)

// The test binary is the program that is upgraded: what it does stands in the
// environment, and in the bytes at its end, which make one binary of it and the
// next different ones. See release.
func TestMain(m *testing.M) {
	if os.Getenv("PLAY") == "" {
		os.Exit(m.Run())
	}
	play()
}

// marker begins what a release is: at the end of its file.
const marker = "\n#release "

// self reads what this binary is: a version, and words on how it behaves.
func self() (version string, does func(string) bool) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		panic(err)
	}
	defer f.Close()
	end := make([]byte, 200)
	fi, _ := f.Stat()
	if _, err := f.ReadAt(end, fi.Size()-int64(len(end))); err != nil {
		panic(err)
	}
	_, text, _ := strings.Cut(string(end[bytes.LastIndex(end, []byte("\n#"))+1:]), " ")
	words := strings.Fields(text)
	if len(words) == 0 {
		words = []string{"none"}
	}
	return words[0], func(what string) bool {
		for _, w := range words[1:] {
			if w == what {
				return true
			}
		}
		return false
	}
}

// play is the program: a web server that says its version, as overseer's own
// example is.
func play() {
	version, does := self()
	if does("chatty") {
		fmt.Println("loading configuration …")
		fmt.Fprintln(os.Stderr, "hello")
	}
	if does("stranger") { // never calls Run
		os.Exit(0)
	}
	config := overseer.Config{
		Required: true, Debug: os.Getenv("QUIET") == "", Pidfile: os.Getenv("PIDFILE"),
		Addresses:           strings.Fields(os.Getenv("ADDRESSES")),
		NoRestart:           os.Getenv("NO_RESTART") != "",
		NoRestartAfterFetch: os.Getenv("NO_RESTART_AFTER_FETCH") != "",
		MinFetchInterval:    10 * time.Millisecond,
		Program:             func(s overseer.State) { serve(s, version, does) },
	}
	if path := os.Getenv("FETCH"); path != "" {
		config.Fetcher = fetcher.Func(func() (io.Reader, error) { return fetchOnce(path) })
	}
	if v := os.Getenv("TERMINATE"); v != "" {
		config.TerminateTimeout, _ = time.ParseDuration(v)
	}
	if v := os.Getenv("WARM_UP"); v != "" {
		config.WarmUpTime, _ = time.ParseDuration(v)
	}
	if v := os.Getenv("START"); v != "" {
		config.StartTimeout, _ = time.ParseDuration(v)
	}
	if v := os.Getenv("RESTART_SIGNAL"); v == "HUP" {
		config.RestartSignal = syscall.SIGHUP
	}
	if word := os.Getenv("PRE_UPGRADE"); word != "" {
		config.PreUpgrade = func(path string) error {
			if word == "panic" {
				panic("no idea")
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if bytes.HasSuffix(data, []byte(word)) {
				return errors.New("not this one")
			}
			return nil
		}
	}
	overseer.Run(config)
}

// fetchOnce gives the file once for each that is moved there.
func fetchOnce(path string) (io.Reader, error) {
	taken := path + ".taken"
	if err := os.Rename(path, taken); err != nil {
		return nil, nil
	}
	return os.Open(taken)
}

// serve is Program.
func serve(s overseer.State, version string, does func(string) bool) {
	if does("crash") {
		os.Exit(3)
	}
	if does("idle") { // starts, and never accepts
		select {}
	}
	if len(s.Listeners) > 1 && does("crash-later") {
		go http.Serve(s.Listeners[1], nil)
		time.Sleep(100 * time.Millisecond)
		os.Exit(3)
	}
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	go func() {
		for range usr1 {
			fmt.Println("USR1", version)
		}
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		d, _ := time.ParseDuration(r.URL.Query().Get("d"))
		time.Sleep(d)
		if r.URL.Query().Get("hang") != "" {
			select {}
		}
		fmt.Fprintf(w, "%s %d", version, os.Getpid())
	})
	mux.HandleFunc("/state", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%v %s %q %q %s %v", s.Enabled, s.ID, s.Address, s.Addresses, s.BinPath, time.Since(s.StartedAt) > 0)
	})
	mux.HandleFunc("/restart", func(http.ResponseWriter, *http.Request) { overseer.Restart() })
	for _, c := range s.PacketConns {
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				c.WriteTo([]byte(version), from)
			}
		}()
	}
	var all sync.WaitGroup
	for _, l := range s.Listeners {
		all.Go(func() {
			if os.Getenv("HTTP_SERVE") != "" {
				overseer.HttpServe(l, mux)
				return
			}
			http.Serve(l, mux)
		})
	}
	if len(s.Listeners) == 0 {
		fmt.Println("up", version)
		<-s.GracefulShutdown
	}
	all.Wait()
	if does("hang") {
		select {}
	}
	fmt.Println("exiting", version)
}

// program is one that runs, stand-alone.
type program struct {
	t    *testing.T
	dir  string
	path string
	cmd  *exec.Cmd
	done chan struct{}
	out  *output
}

// output is what the program prints, in the end for the log of the test.
type output struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func (o *output) add(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.WriteString(line + "\n")
	close(o.more)
	o.more = make(chan struct{})
}

func (o *output) get() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.more
}

const long = 3 * time.Minute

// release writes a binary of this version that behaves so.
func release(t *testing.T, path, text string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// Beside its place first: what is there may be running.
	if err := os.WriteFile(path+".part", append(data, (marker+text)...), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
}

// start runs a release with these variables.
func start(t *testing.T, text string, env ...string) *program {
	t.Helper()
	dir := t.TempDir()
	p := &program{t: t, dir: dir, path: filepath.Join(dir, "app"), done: make(chan struct{}), out: &output{more: make(chan struct{})}}
	release(t, p.path, text)
	p.run(env...)
	return p
}

func (p *program) run(env ...string) {
	p.t.Helper()
	p.cmd = exec.Command(p.path, "an", "argument")
	p.cmd.Env = append(os.Environ(), "PLAY=1", "TMPDIR="+p.dir, "FETCH="+p.fetchable())
	p.cmd.Env = append(p.cmd.Env, env...)
	r, w, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	w.Close()
	go func() {
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			p.out.add(lines.Text())
		}
	}()
	done := make(chan struct{})
	p.done = done
	cmd := p.cmd
	go func() { cmd.Wait(); close(done) }()
	p.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(long):
			cmd.Process.Kill()
			p.t.Error("it does not end")
		}
		if p.t.Failed() {
			text, _ := p.out.get()
			p.t.Log(text)
		}
	})
}

func (p *program) fetchable() string { return filepath.Join(p.dir, "new") }

// offer lets the fetcher find a release.
func (p *program) offer(text string) { p.t.Helper(); release(p.t, p.fetchable(), text) }

// says waits until the output holds text.
func (p *program) says(text string) {
	p.t.Helper()
	deadline := time.After(long)
	for {
		got, more := p.out.get()
		if strings.Contains(got, text) {
			return
		}
		select {
		case <-more:
		case <-deadline:
			p.t.Fatalf("it does not say %q", text)
		}
	}
}

func (p *program) ends() *os.ProcessState {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(long):
		p.t.Fatal("it does not end")
	}
	return p.cmd.ProcessState
}

var addresses atomic.Int32

// freeAddress is one that nobody else has: no connection goes out from there, as
// it does from a port of 127.0.0.1 that was free a moment ago.
func freeAddress(*testing.T) string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d:8080", 1+pid>>8%250, pid%256, addresses.Add(1))
}

// ask makes one request on a connection of its own.
func ask(address, path string) (string, error) {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	resp, err := (&http.Client{Transport: tr, Timeout: long}).Get("http://app" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// version is who answers, and its PID.
func version(t *testing.T, address string) (string, int) {
	t.Helper()
	text, err := ask(address, "/")
	if err != nil {
		t.Fatal(err)
	}
	v, pid, _ := strings.Cut(text, " ")
	n, _ := strconv.Atoi(pid)
	return v, n
}

// serves waits until the version answers; until then no request may fail.
func serves(t *testing.T, address, want string) {
	t.Helper()
	for deadline := time.Now().Add(long); ; time.Sleep(5 * time.Millisecond) {
		got, _ := version(t, address)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %s, want %s to answer", got, want)
		}
	}
}

// up waits until a program that was just started answers.
func up(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(long); ; time.Sleep(5 * time.Millisecond) {
		if _, err := ask(address, "/"); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not answer")
		}
	}
}

// hammer asks without a pause until the end of the test, or stop; none may fail.
func hammer(t *testing.T, address string) (stop func()) {
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := ask(address, "/"); err != nil {
				t.Errorf("a request failed: %v", err)
				return
			}
			select {
			case <-ending:
				return
			default:
			}
		}
	}()
	stop = sync.OnceFunc(func() { close(ending); <-ended })
	t.Cleanup(stop)
	return stop
}

func onDisk(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data[bytes.LastIndex(data, []byte(marker))+len(marker):])
}

// A web server is upgraded by its fetcher, under load: main PID and path stay.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	address, pidfile := freeAddress(t), filepath.Join(t.TempDir(), "pid")
	p := start(t, "1", "ADDRESSES="+address, "PIDFILE="+pidfile, "HTTP_SERVE=1")
	up(t, address)
	stop := hammer(t, address)
	p.offer("2")
	serves(t, address, "2")
	p.says("upgraded")
	p.says("exiting 1")
	if got := onDisk(t, p.path); got != "2" {
		t.Errorf("on disk: got %q, want 2", got)
	}
	state, err := ask(address, "/state")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%q [%q] %s true", address, address, p.path); !strings.HasPrefix(state, "true ") || !strings.HasSuffix(state, want) {
		t.Errorf("state: got %s, want … %s", state, want)
	}
	if got, _ := os.ReadFile(pidfile); strings.TrimSpace(string(got)) != strconv.Itoa(p.cmd.Process.Pid) {
		t.Errorf("Pidfile: got %q, want %d", got, p.cmd.Process.Pid)
	}
	p.offer("2") // the same again
	p.says("no news")
	stop()
	p.cmd.Process.Signal(syscall.SIGTERM)
	if s := p.ends(); !s.Success() {
		t.Errorf("got %v, want exit 0", s)
	}
	p.says("exiting 2")
	entries, _ := os.ReadDir(p.dir)
	for _, e := range entries {
		if n := e.Name(); n != "app" && n != "new.taken" {
			t.Errorf("left behind: %s", n)
		}
	}
	if _, err := os.Stat(pidfile); err == nil {
		t.Error("the Pidfile is still there")
	}
}

// What comes up badly never takes the old one's place, and is not tried again.
func TestBadReleases(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	p := start(t, "1", "ADDRESSES="+address, "PRE_UPGRADE=unwanted", "START=15s")
	up(t, address)
	_, pid := version(t, address)
	stop := hammer(t, address)
	for _, test := range []struct{ release, why string }{
		{"2 crash", "exited with status 3"},
		{"3 idle", "was not ready after 15"},
		{"4 stranger", "it ended before overseer.Run"},
		{"5 unwanted", "cancelled by PreUpgrade: not this one"},
	} {
		p.offer(test.release)
		p.says(test.why)
		if got, now := version(t, address); got != "1" || now != pid {
			t.Errorf("%s: version %s of process %d serves, want 1 of %d", test.release, got, now, pid)
		}
		if got := onDisk(t, p.path); got != "1" {
			t.Errorf("%s: on disk is %q, want 1", test.release, got)
		}
	}
	if err := os.WriteFile(p.fetchable(), []byte("no program"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.says("exec format error")
	if err := os.WriteFile(p.fetchable(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p.says("an empty file")
	// The last that failed is known by its hash.
	p.offer("6 crash")
	p.says("upgrade: ")
	p.offer("6 crash")
	p.says("no news")
	p.offer("7 chatty")
	serves(t, address, "7")
	stop()
}

// A plain http.Serve of overseer's example program: its connections are waited
// for, and the old worker is told only when the new one accepts.
func TestRestart(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	p := start(t, "1", "ADDRESSES="+address, "WARM_UP=100ms")
	up(t, address)
	_, pid := version(t, address)
	stop := hammer(t, address)
	slow := make(chan string, 1)
	go func() {
		text, err := ask(address, "/?d=2s")
		slow <- fmt.Sprint(text, err)
	}()
	for i, restart := range []func(){
		func() { p.cmd.Process.Signal(syscall.SIGUSR2) },
		func() { ask(address, "/restart") },
	} {
		restart()
		before := pid
		for deadline := time.Now().Add(long); pid == before; time.Sleep(5 * time.Millisecond) {
			if _, pid = version(t, address); time.Now().After(deadline) {
				t.Fatalf("restart %d: the same process serves", i)
			}
		}
	}
	if got := <-slow; !strings.HasPrefix(got, "1 ") || !strings.HasSuffix(got, "<nil>") {
		t.Errorf("a request that was being answered: got %s", got)
	}
	stop()
	p.cmd.Process.Signal(syscall.SIGUSR1)
	p.says("USR1 1")
}

// With NoRestart a fetched binary waits, and the service goes on; the signal ends
// it gracefully.
func TestNoRestart(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	p := start(t, "1", "ADDRESSES="+address, "NO_RESTART=1")
	up(t, address)
	_, pid := version(t, address)
	p.offer("2")
	p.says("in place for the next start")
	if got, now := version(t, address); got != "1" || now != pid {
		t.Errorf("version %s of process %d serves, want 1 of %d", got, now, pid)
	}
	if got := onDisk(t, p.path); got != "2" {
		t.Errorf("on disk is %q, want 2", got)
	}
	p.cmd.Process.Signal(syscall.SIGUSR2)
	if s := p.ends(); !s.Success() {
		t.Errorf("got %v, want exit 0", s)
	}
	p.says("exiting 1")
	p.run("ADDRESSES=" + address)
	up(t, address)
	serves(t, address, "2")
}

// With NoRestartAfterFetch it waits for the signal; one that fails then makes way
// for what was there before.
func TestNoRestartAfterFetch(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	p := start(t, "1", "ADDRESSES="+address, "NO_RESTART_AFTER_FETCH=1", "RESTART_SIGNAL=HUP")
	up(t, address)
	p.offer("2")
	p.says("in place for the next start")
	if got, _ := version(t, address); got != "1" {
		t.Errorf("version %s serves, want 1", got)
	}
	p.cmd.Process.Signal(syscall.SIGHUP)
	serves(t, address, "2")
	p.says("graceful restart, ")
	p.offer("3 crash")
	for deadline := time.Now().Add(long); onDisk(t, p.path) != "3 crash"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not put in place")
		}
	}
	p.says("in place")
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.says("is what it was before")
	if got := onDisk(t, p.path); got != "2" {
		t.Errorf("on disk is %q, want 2", got)
	}
	serves(t, address, "2")
	entries, _ := filepath.Glob(filepath.Join(p.dir, ".app*"))
	if len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// A worker that does not end is killed, and with it what is in its process group.
func TestHangingWorkerIsReaped(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	p := start(t, "1 hang", "ADDRESSES="+address, "TERMINATE=200ms")
	up(t, address)
	_, pid := version(t, address)
	go ask(address, "/?hang=1")
	p.offer("2")
	serves(t, address, "2")
	gone(t, pid)

	p.offer("3 hang")
	serves(t, address, "3")
	_, pid = version(t, address)
	syscall.Kill(pid, syscall.SIGSTOP) // nothing in it can end it now
	p.offer("4")
	p.says("upgraded, ")
	gone(t, pid)
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.ends()
}

// gone waits until a process is.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(long); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// Several addresses of all kinds keep their order.
func TestAddresses(t *testing.T) {
	t.Parallel()
	one, two := freeAddress(t), freeAddress(t)
	socket := filepath.Join(t.TempDir(), "app.sock")
	udpAddress := freeAddress(t)
	p := start(t, "1", fmt.Sprintf("ADDRESSES=%s unix:%s udp://%s %s", one, socket, udpAddress, two))
	up(t, one)
	datagram := func(want string) (got string) {
		c, err := net.Dial("udp", udpAddress)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		buf := make([]byte, 100)
		for range 100 { // the old worker may take one, and answer or be gone
			fmt.Fprint(c, "who?")
			c.SetReadDeadline(time.Now().Add(time.Second))
			if n, err := c.Read(buf); err == nil {
				got = string(buf[:n])
			}
			if got == want {
				break
			}
		}
		return got
	}
	for _, want := range []string{"1", "2"} {
		if want == "2" {
			p.offer("2")
			p.says("exiting 1")
		}
		for _, address := range []string{one, socket, two} {
			serves(t, address, want)
		}
		if got := datagram(want); got != want {
			t.Errorf("udp: version %s answers, want %s", got, want)
		}
	}
	// One that crashes when it has begun to accept on one of them is not ready.
	p.offer("3 crash-later")
	p.says("exited with status 3")
	serves(t, two, "2")
}

// A program without addresses is ready when it has lived on for a moment.
func TestNoAddress(t *testing.T) {
	t.Parallel()
	p := start(t, "1")
	p.says("up 1")
	p.offer("2 crash")
	p.says("exited with status 3")
	p.offer("3")
	p.says("up 3")
	p.says("exiting 1")
}

// When the main process is killed its worker ends, and not before what it has begun.
func TestMainProcessKilled(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	p := start(t, "1", "ADDRESSES="+address)
	up(t, address)
	_, pid := version(t, address)
	p.cmd.Process.Kill()
	p.ends()
	gone(t, pid)
	p.says("exiting 1")
}

// A crash of the worker is the program's own end, as without overseer.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	p := start(t, "1 crash", "ADDRESSES="+freeAddress(t))
	if got := p.ends().ExitCode(); got != 3 {
		t.Errorf("got exit status %d, want 3 as the worker's", got)
	}
}

// What a program's own function panics about is no reason for the service to end.
func TestPreUpgradePanics(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	p := start(t, "1", "ADDRESSES="+address, "PRE_UPGRADE=panic")
	up(t, address)
	p.offer("2")
	p.says("PreUpgrade panicked: no idea")
	serves(t, address, "1")
}

func TestBadConfig(t *testing.T) {
	program := func(overseer.State) {}
	tests := map[string]overseer.Config{
		"Program required":              {},
		"cannot both be set":            {Program: program, Address: ":1", Addresses: []string{":2"}},
		"missing port":                  {Program: program, Address: "localhost"},
		"network \"sctp\" is not known": {Program: program, Address: "sctp://:1"},
		"no path of a socket":           {Program: program, Address: "unix:"},
		"is there twice":                {Program: program, Addresses: []string{":1", "tcp://:1"}},
		"it means something else":       {Program: program, RestartSignal: syscall.SIGKILL},
		"must not be negative":          {Program: program, WarmUpTime: -1},
	}
	for want, c := range tests {
		if err := overseer.RunErr(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// Where it cannot oversee, Program runs all the same.
func TestDisabled(t *testing.T) {
	var got []overseer.State
	overseer.Run(overseer.Config{NoWarn: true, Address: "localhost", Program: func(s overseer.State) { got = append(got, s) }})
	if len(got) != 1 || got[0].Enabled || got[0].GracefulShutdown != nil {
		t.Errorf("got %v, want DisabledState, once", got)
	}
	if !overseer.IsSupported() {
		t.Error("this system is not supported")
	}
	if err := overseer.HttpServe(got[0].Listener, nil); err == nil || !strings.Contains(err.Error(), "no listener") {
		t.Errorf("HttpServe without a listener: got %v", err)
	}
	overseer.Restart() // nothing to restart
}
