package tableflip_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/activation/tableflip"
)

const long = 3 * time.Minute

// The test binary is the program. What it does stands in a file that each process
// reads anew.
func TestMain(m *testing.M) {
	if os.Getenv("PLAY") == "" {
		os.Exit(m.Run())
	}
	if err := play(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func play() error {
	text, err := os.ReadFile(os.Getenv("PLAY"))
	if err != nil {
		return err
	}
	version, does, _ := strings.Cut(string(text), " ")
	upg, err := tableflip.New(tableflip.Options{UpgradeTimeout: 15 * time.Second, PIDFile: os.Getenv("PIDFILE")})
	if err != nil {
		return err
	}
	defer upg.Stop()
	if _, err := tableflip.New(tableflip.Options{}); err == nil {
		return fmt.Errorf("a second Upgrader was made")
	}
	if err := upg.Upgrade(); err == nil {
		return fmt.Errorf("an upgrade before Ready went well")
	}
	switch does {
	case "crash":
		os.Exit(3)
	case "never":
		select {}
	}
	l, err := upg.Listen("tcp", os.Getenv("ADDRESS"))
	if err != nil {
		return err
	}
	var path net.Listener
	if p := os.Getenv("SOCKET"); p != "" && does != "drop" {
		if path, err = upg.Listen("unix", p); err != nil {
			return err
		}
	}
	state, err := upg.File("state: a name")
	if err != nil {
		return err
	}
	had := ""
	if state != nil {
		b, err := io.ReadAll(io.NewSectionReader(state, 0, 100))
		if err != nil {
			return err
		}
		had = string(b)
	}
	mine, err := os.CreateTemp("", "state")
	if err != nil {
		return err
	}
	os.Remove(mine.Name())
	fmt.Fprintf(mine, "%s%s,", had, version)
	if err := upg.AddFile("state: a name", mine); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %d %d %s %v", version, os.Getpid(), os.Getppid(), had, upg.HasParent())
	})
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, upg.Upgrade()) })
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, upg.WaitForParent(r.Context())) })
	if err := upg.Ready(); err != nil {
		return err
	}
	if path != nil {
		go upg.Serve(&http.Server{Handler: mux}, path)
	}
	return upg.Serve(&http.Server{Handler: mux}, l)
}

type program struct {
	t       *testing.T
	behave  string
	address string
	socket  string
	pidfile string
	cmd     *exec.Cmd
}

var addresses atomic.Int32

func start(t *testing.T) *program {
	t.Helper()
	dir := t.TempDir()
	p := &program{t: t, behave: filepath.Join(dir, "behave"), socket: filepath.Join(dir, "app.sock"), pidfile: filepath.Join(dir, "pid"),
		// Nobody else has it: no connection goes out from there.
		address: fmt.Sprintf("127.%d.%d.%d:8081", 1+os.Getpid()>>8%250, os.Getpid()%256, addresses.Add(1))}
	p.is("1")
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Env = append(os.Environ(), "PLAY="+p.behave, "ADDRESS="+p.address, "SOCKET="+p.socket, "PIDFILE="+p.pidfile, "TMPDIR="+dir)
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop() })
	p.eventually("it answers", func() bool { _, err := ask("tcp", p.address, "/"); return err == nil })
	return p
}

func (p *program) stop() {
	if p.cmd.ProcessState != nil {
		return
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(long, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("it ends: %v", err)
	}
}

// is says what the next process is.
func (p *program) is(text string) {
	p.t.Helper()
	if err := os.WriteFile(p.behave, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) eventually(what string, done func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(long); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("still not: %s", what)
		}
	}
}

func ask(network, address, path string) (string, error) {
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

func (p *program) answers(path string) string {
	p.t.Helper()
	got, err := ask("tcp", p.address, path)
	if err != nil {
		p.t.Fatal(err)
	}
	return got
}

// The contract, without upgraderd: one main PID, no harm by what does not come up, and
// files that pass on.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	p := start(t)
	main := strconv.Itoa(p.cmd.Process.Pid)
	fields := func() []string { t.Helper(); return strings.Split(p.answers("/"), " ") }
	first := fields()
	if first[0] != "1" || first[2] != main || first[3] != "" || first[4] != "false" {
		t.Fatalf("got %q, want version 1 below %s, without a state or a parent", first, main)
	}
	for _, bad := range []struct{ does, want string }{
		{"x crash", "exited with status 3"},
		{"x never", "was not ready"},
	} {
		p.is(bad.does)
		if got := p.answers("/upgrade"); !strings.Contains(got, bad.want) {
			t.Errorf("%s: got %q, want %q in it", bad.does, got, bad.want)
		}
		if got := fields(); got[1] != first[1] {
			t.Errorf("%s: process %s serves, want %s as before", bad.does, got[1], first[1])
		}
	}
	p.is("2")
	if got := p.answers("/upgrade"); got != "<nil>" {
		t.Fatalf("got %q, want no error", got)
	}
	// The old one exits; until then it may take a connection.
	p.eventually("version 2 serves", func() bool { return fields()[0] == "2" })
	if got := p.answers("/wait"); got != "<nil>" {
		t.Errorf("WaitForParent: got %q", got)
	}
	pid, _ := strconv.Atoi(first[1])
	p.eventually("the old process is gone", func() bool { return syscall.Kill(pid, 0) != nil }) // its parent has to bury it
	second := fields()
	if second[2] != main || second[3] != "1," || second[4] != "true" {
		t.Errorf("got %q, want it below %s, with state 1, and a parent", second, main)
	}
	// SIGHUP to the main process is an upgrade, too; the newest state counts.
	p.is("3 drop")
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.eventually("version 3 serves", func() bool { return fields()[0] == "3" })
	if got := fields(); got[3] != "1,2," {
		t.Errorf("got state %q, want 1,2,", got[3])
	}
	// It did not ask for the unix socket, which is closed for good.
	p.eventually("nobody listens at the unix socket", func() bool { _, err := ask("unix", p.socket, "/"); return err != nil })
	p.is("4")
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.eventually("version 4 serves", func() bool { return fields()[0] == "4" })
	p.eventually("it serves the unix socket again", func() bool { got, err := ask("unix", p.socket, "/"); return err == nil && got[0] == '4' })
	if got, err := os.ReadFile(p.pidfile); err != nil || string(got) != main {
		t.Errorf("PIDFile: got %q, %v, want %s", got, err, main)
	}
	p.stop()
	if _, err := os.Stat(p.pidfile); err == nil {
		t.Error("the PIDFile is still there")
	}
}

// There is one upgrade at a time.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.is("2 never")
	answers := make(chan string, 2)
	for range 2 {
		go func() {
			got, err := ask("tcp", p.address, "/upgrade")
			answers <- fmt.Sprint(got, err)
		}()
	}
	got := []string{<-answers, <-answers} // the one that is refused comes first
	if got[0] != "upgrade in progress<nil>" || !strings.Contains(got[1], "was not ready") {
		t.Errorf("got %q, want one refused, and one that fails", got)
	}
}
