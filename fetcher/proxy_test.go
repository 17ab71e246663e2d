package fetcher

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// name has names mean what the errand says, in mounts and a network of its own.
func (e errand) name() error {
	put := func(name, text string) error {
		f, err := os.CreateTemp("", "errand-*")
		if err != nil {
			return err
		}
		defer os.Remove(f.Name()) // the mount keeps it
		defer f.Close()
		if err := f.Chmod(0o644); err != nil {
			return err
		}
		if _, err := f.WriteString(text); err != nil {
			return err
		}
		if err := unix.Mount(f.Name(), name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount on %s: %w", name, err)
		}
		return nil
	}
	if e.Hosts != "" {
		if err := put("/etc/hosts", e.Hosts); err != nil {
			return err
		}
	}
	if e.DNS == nil {
		return nil
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	server, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		return err
	}
	go func() { // until the errand's process ends
		query := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(query)
			if err != nil {
				return
			}
			if *e.DNS < 0 || n < 12 {
				continue
			}
			query[2] |= 0x80 // an answer, RFC 1035, 4.1.1
			query[3] = byte(*e.DNS)
			_, _ = server.WriteTo(query[:n], from)
		}
	}()
	return put("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// TestResolver asks a real resolver of this process's own that knows no such name,
// fails, refuses, or never answers.
func TestResolver(t *testing.T) {
	s := newShop(t)
	o := s.options()
	o.Path = "http://releases.example.org/"
	for name, code := range map[string]int{"no such name": 3, "fails": 2, "refuses": 5, "never answers": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := errand{Options: o, DNS: &code}.run(t, "GODEBUG=netdns=go", "HTTP_PROXY=", "http_proxy=")
			if got.Code != fault.DNS || !strings.Contains(got.Error, "releases.example.org") || !strings.Contains(got.Error, "resolver") {
				t.Errorf("%s: %s; want %s", got.Code, got.Error, fault.DNS)
			}
		})
	}
}

// TestTinyproxy goes through a real proxy to a real server, by GET and by CONNECT.
func TestTinyproxy(t *testing.T) {
	const password = "s3cr3t-canary"
	s := newShop(t)
	s.release("app_1.bin", noise(t, 3<<20))
	s.shelve()
	dir := t.TempDir()
	certificate, key, err := sourcetest.NewCertificate("releases.example.org")
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: certificate}, "key": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plain := sourcetest.StartNginx(t, s.dir, "", "")
	tls := sourcetest.StartNginx(t, s.dir, fmt.Sprintf("ssl_certificate %[1]s/cert; ssl_certificate_key %[1]s/key;", dir), "")
	const hosts = "127.0.0.1 releases.example.org localhost\n"
	names := filepath.Join(dir, "hosts")
	if err := os.WriteFile(names, []byte(hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	var proxy string
	log := filepath.Join(dir, "proxy.log")
	sourcetest.StartServer(t, func(addr string) *exec.Cmd {
		proxy = addr
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		conf := filepath.Join(dir, "tinyproxy.conf")
		text := fmt.Sprintf("Port %s\nListen %s\nAllow 127.0.0.1\nTimeout 60\nMaxClients 20\nBasicAuth user %s\nLogFile \"%s\"\nLogLevel Connect\n", port, host, password, log)
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		// The proxy resolves the name, so it is the one that must know it.
		return exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" /etc/hosts && exec tinyproxy -d -c "$2"`, "sh", names, conf)
	})
	there := func(n sourcetest.Nginx, scheme string) string {
		_, port, err := net.SplitHostPort(n.Addr)
		if err != nil {
			t.Fatal(err)
		}
		return scheme + "://releases.example.org:" + port
	}
	with := "http://user:" + password + "@" + proxy
	for _, c := range []struct {
		name, path string
		env        []string
		code       fault.Code
		line       string // in the proxy's log, or "" where it is not asked
	}{
		{"http", there(plain, "http"), []string{"HTTP_PROXY=" + with, "HTTPS_PROXY="}, "", "GET http://releases"},
		{"https", there(tls, "https"), []string{"HTTPS_PROXY=" + with, "HTTP_PROXY="}, "", "CONNECT releases"},
		{"in small letters", there(tls, "https"), []string{"https_proxy=" + with, "HTTPS_PROXY="}, "", "CONNECT releases"},
		{"not for this name", there(plain, "http"), []string{"HTTP_PROXY=" + with, "NO_PROXY=.example.org"}, "", ""},
		{"http, no password", there(plain, "http"), []string{"HTTP_PROXY=http://" + proxy}, fault.Proxy, "GET http://releases"},
		// To a wrong one tinyproxy says 401, as if the server had.
		{"http, wrong password", there(plain, "http"), []string{"HTTP_PROXY=http://user:x" + password + "@" + proxy}, fault.Denied, "GET http://releases"},
		{"https, wrong password", there(tls, "https"), []string{"HTTPS_PROXY=http://user:x" + password + "@" + proxy}, fault.Proxy, "CONNECT releases"},
		{"https, no password", there(tls, "https"), []string{"HTTPS_PROXY=http://" + proxy}, fault.Proxy, "CONNECT releases"},
		{"nobody listens behind it", "https://releases.example.org:1", []string{"HTTPS_PROXY=" + with}, fault.Proxy, "CONNECT releases"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(log, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			o := s.options()
			o.Path, o.CAFile = c.path, filepath.Join(dir, "cert")
			env := append([]string{"NO_PROXY=", "no_proxy=", "https_proxy=", "http_proxy=", "GODEBUG=netdns=go"}, c.env...)
			e := errand{Options: o, Hosts: hosts}
			if c.code == "" {
				e.Into = t.TempDir()
			}
			got := e.run(t, env...)
			if got.Code != c.code || strings.Contains(got.Error, password) {
				t.Errorf("%s: %s; want %s", got.Code, got.Error, c.code)
			}
			if c.code == "" && (len(got.Left) != 1 || got.Left[0] != "app_1.bin") {
				t.Errorf("left %q", got.Left)
			}
			said, err := os.ReadFile(log)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if strings.Contains(string(said), "Request") != (c.line != "") || !strings.Contains(string(said), c.line) {
				t.Errorf("the proxy said %q, want %q", said, c.line)
			}
		})
	}
}

// TestNetrcIsNotRead gives curl's and git's file a password for the server.
func TestNetrcIsNotRead(t *testing.T) {
	var authorized atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			authorized.Store(true)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="releases"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	home := t.TempDir()
	netrc := filepath.Join(home, ".netrc")
	if err := os.WriteFile(netrc, []byte("machine 127.0.0.1 login user password s3cr3t-canary\ndefault login user password s3cr3t-canary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := newShop(t).options()
	o.Path = server.URL
	got := errand{Options: o}.run(t, "HOME="+home, "NETRC="+netrc)
	if got.Code != fault.Denied || authorized.Load() {
		t.Errorf("%s: %s; want %s, and no password sent", got.Code, got.Error, fault.Denied)
	}
}
