package sourcetest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// serverPatience is for what never takes long, on however slow a machine.
const serverPatience = time.Minute

// Nginx is a real nginx that serves a directory until the test ends.
type Nginx struct {
	// Addr is host:port on loopback.
	Addr string
	// Log is the file with one line for each request that was answered:
	// METHOD PATH STATUS BYTES "RANGE" "IF-RANGE".
	Log string
}

// StartNginx serves dir. server holds more directives of the server, which speaks
// TLS where ssl_certificate is among them, and more those of its location.
func StartNginx(t *testing.T, dir, server, more string) Nginx {
	t.Helper()
	home := t.TempDir()
	n := Nginx{Log: filepath.Join(home, "access.log")}
	ssl := ""
	if strings.Contains(server, "ssl_certificate") {
		ssl = " ssl"
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx" // which is not in the path of everybody
	}
	StartServer(t, func(addr string) *exec.Cmd {
		n.Addr = addr
		conf := fmt.Sprintf(`daemon off; master_process off; %s pid %[2]s/pid; error_log stderr;
events { worker_connections 64; }
http {
	log_format asked '$request_method $request_uri $status $body_bytes_sent "$http_range" "$http_if_range"';
	access_log %[2]s/access.log asked;
	client_body_temp_path %[2]s/1; proxy_temp_path %[2]s/2; fastcgi_temp_path %[2]s/3; uwsgi_temp_path %[2]s/4; scgi_temp_path %[2]s/5;
	server {
		listen %[3]s%[4]s;
		%[5]s
		location / {
			root %[6]s;
			%[7]s
		}
	}
}
`, user, home, addr, ssl, server, dir, more)
		file := filepath.Join(home, "nginx.conf")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command(program, "-p", home, "-e", "stderr", "-c", file)
	})
	return n
}

// Asked gives the lines of the log once it has count of them: nginx writes each
// after the client has its answer.
func (n Nginx) Asked(t *testing.T, count int) []string {
	t.Helper()
	var lines []string
	for begin := time.Now(); time.Since(begin) < serverPatience; time.Sleep(10 * time.Millisecond) {
		raw, err := os.ReadFile(n.Log)
		if err != nil {
			t.Fatal(err)
		}
		if lines = strings.Split(strings.TrimSpace(string(raw)), "\n"); len(lines) >= count {
			break
		}
	}
	return lines
}

// StartServer starts a program that listens on addr of loopback, waits until it
// does, and ends it with the test. Another may take the port before the program
// does; then there is another port.
func StartServer(t *testing.T, command func(addr string) *exec.Cmd) {
	t.Helper()
	for range 5 {
		hole, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := hole.Addr().String()
		hole.Close()
		if startOn(t, addr, command(addr)) {
			return
		}
	}
	t.Fatal("no server could be started")
}

// startOn is false where the program ends at once.
func startOn(t *testing.T, addr string, cmd *exec.Cmd) bool {
	t.Helper()
	var said lockedBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; the package is in the Makefile's list", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	for begin := time.Now(); time.Since(begin) < serverPatience; time.Sleep(10 * time.Millisecond) {
		select {
		case <-ended:
			t.Logf("%s: %s", cmd.Path, said.String())
			return false
		default:
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			continue
		}
		c.Close()
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			<-ended
			if t.Failed() {
				t.Logf("%s said: %s", cmd.Path, said.String())
			}
		})
		return true
	}
	_ = cmd.Process.Kill()
	<-ended
	t.Fatalf("%s does not listen: %s", cmd.Path, said.String())
	return false
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*lockedBuffer)(nil)

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Shelf is a Publisher into a directory that a web server serves. Files are a day
// old, each a minute younger than the one before: servers tell states apart by whole
// seconds, and what is younger than two is not taken for settled.
type Shelf struct {
	T   *testing.T
	Dir string

	mu sync.Mutex
	n  int
}

// Publish puts a file there, by rename.
func (s *Shelf) Publish(name string, content []byte) {
	s.T.Helper()
	s.mu.Lock()
	s.n++
	modified := time.Now().Add(-24*time.Hour + time.Duration(s.n)*time.Minute)
	s.mu.Unlock()
	temp := filepath.Join(s.T.TempDir(), "new")
	if err := os.WriteFile(temp, content, 0o644); err != nil {
		s.T.Fatal(err)
	}
	if err := os.Chtimes(temp, modified, modified); err != nil {
		s.T.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(s.Dir, name)); err != nil {
		s.T.Fatal(err)
	}
}

// Remove takes it away.
func (s *Shelf) Remove(name string) {
	s.T.Helper()
	if err := os.Remove(filepath.Join(s.Dir, name)); err != nil {
		s.T.Fatal(err)
	}
}
