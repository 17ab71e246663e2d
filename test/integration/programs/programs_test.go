//go:build integration

// Package programs tests upgrades of programs that know nothing of upgraderd, as
// their packages or their compiler made them: Debian's nginx, gunicorn, uvicorn, Node
// and Perl's Starlet, and servers in C and Rust. Each is a release of its own, on real
// systemd, under load.
package programs

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/load"
)

func TestMain(m *testing.M) { kit.Main(m) }

// TestPrograms boots each systemd once for all of them.
func TestPrograms(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Run("systemctl", "enable", "--now", "upgraderd.service")
		t.Run("nginx", func(t *testing.T) { nginx(t, m.In(t)) })
		t.Run("unmodified", func(t *testing.T) { unmodified(t, m.In(t)) })
	})
}

// program is a target, what it is called everywhere.
type program struct {
	name, unit, address string
	source              *kit.Source
}

// follow has the daemon follow a directory of tar archives.
func (p *program) follow(t *testing.T, m *kit.Machine, probe string) {
	t.Helper()
	dir := "/srv/" + p.name
	p.source = m.DirSource(dir)
	m.Write("/etc/upgraderd/"+p.name+".upgrade", fmt.Sprintf(`[Upgrade]
Unit=%s
[Source]
Path=%s
MatchPattern=%s-@v.tar
Key=%s
[Confirm]
WindowSec=1s
ProbeIntervalSec=100ms
Probe=http://%s%s
`, p.unit, dir, p.name, p.source.Key, p.address, probe))
}

// publish puts a release of these files online.
func (p *program) publish(t *testing.T, version string, files map[string][]byte) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range files {
		mode := int64(0o644)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o755
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	p.source.PublishBytes(p.name+"-"+version+".tar", b.Bytes())
}

// status is what `upgraderd status --json` says of the program.
func (p *program) status(t *testing.T, m *kit.Machine) map[string]any {
	t.Helper()
	var all []map[string]any
	text := m.Run("upgraderd", "status", "--json", p.name)
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 {
		t.Fatalf("status: %v: %s", err, text)
	}
	return all[0]
}

func (p *program) current(m *kit.Machine) string {
	return strings.TrimPrefix(m.Run("sh", "-c", "readlink /var/lib/upgraderd/"+p.name+"/current || true"), "releases/")
}

// serves waits until the version is current, and nothing is left to do.
func (p *program) serves(t *testing.T, m *kit.Machine, version string) {
	t.Helper()
	m.Eventually(p.name+" "+version+" is good", func() bool {
		return strings.HasPrefix(p.current(m), version+"-") && p.status(t, m)["state"] == "idle"
	})
}

// isBad waits until the version is known to be bad, and undone.
func (p *program) isBad(t *testing.T, m *kit.Machine, version, stays string) {
	t.Helper()
	m.Eventually(p.name+" "+version+" is known bad", func() bool {
		now := p.status(t, m)
		return now["state"] == "idle" && strings.Contains(fmt.Sprint(now["known_bad"]), version+" ")
	})
	if got := p.current(m); !strings.HasPrefix(got, stays+"-") {
		t.Errorf("after %s: current is %s, want %s", version, got, stays)
	}
}

// file reads one of the machine or of testdata, and replaces words in it.
func file(t *testing.T, path string, replace ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(replace) == 0 {
		return data
	}
	return []byte(strings.NewReplacer(replace...).Replace(string(data)))
}

// inC compiles testdata/server.c for any of the suites.
func inC(t *testing.T, version string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "server")
	cmd := exec.CommandContext(t.Context(), "gcc", "-static", "-Wall", "-Werror", "-DVERSION=\""+version+"\"", "-o", out, "testdata/server.c")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, said)
	}
	return file(t, out)
}

// inRust compiles testdata/server.rs likewise, with the compiler that Debian has.
func inRust(t *testing.T, version string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "server")
	cmd := exec.CommandContext(t.Context(), "/usr/bin/rustc", "--edition=2021", "-Dwarnings", "-Ctarget-feature=+crt-static", "-Cstrip=symbols", "-o", out, "testdata/server.rs")
	cmd.Env = append(os.Environ(), "VERSION="+version)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, said)
	}
	return file(t, out)
}

// unmodified upgrades programs, all at once, that take their sockets as
// sd_listen_fds(3), start_server or einhorn have it, without a library of ours, under the
// shipped template.
func unmodified(t *testing.T, m *kit.Machine) {
	const (
		accepting = "--ready=accepting " // they cannot say READY=1
		saysReady = ""
	)
	programs := []struct {
		*program
		flags string
		files func(version string) map[string][]byte
	}{
		{&program{name: "wsgi", address: "127.0.0.1:8081"}, saysReady, func(version string) map[string][]byte {
			return map[string][]byte{
				"bin/wsgi":     file(t, "testdata/wsgi"),
				"app/hello.py": file(t, "testdata/hello.py", "@VERSION@", version),
			}
		}},
		{&program{name: "node", address: "127.0.0.1:8082"}, accepting, func(version string) map[string][]byte {
			return map[string][]byte{"bin/node": file(t, "testdata/server.js", "@VERSION@", version)}
		}},
		{&program{name: "inc", address: "127.0.0.1:8083"}, accepting, func(version string) map[string][]byte {
			return map[string][]byte{"bin/inc": inC(t, version)}
		}},
		{&program{name: "inrust", address: "127.0.0.1:8084"}, accepting, func(version string) map[string][]byte {
			return map[string][]byte{"bin/inrust": inRust(t, version)}
		}},
		{&program{name: "asgi", address: "127.0.0.1:8085"}, accepting, func(version string) map[string][]byte {
			return map[string][]byte{
				"bin/asgi":     file(t, "testdata/asgi.py"),
				"app/hello.py": file(t, "testdata/asgi_app.py", "@VERSION@", version),
			}
		}},
		{&program{name: "starlet", address: "127.0.0.1:8086"}, "--pass=server-starter ", func(version string) map[string][]byte {
			return map[string][]byte{
				"bin/starlet": file(t, "testdata/starlet"),
				"app.psgi":    file(t, "testdata/app.psgi", "@VERSION@", version),
			}
		}},
		{&program{name: "einhorn", address: "127.0.0.1:8087"}, "--pass=einhorn --ready=notify ", func(version string) map[string][]byte {
			return map[string][]byte{"bin/einhorn": file(t, "testdata/einhorn.pl", "@VERSION@", version)}
		}},
	}
	var units []string
	for _, p := range programs {
		p.unit = "live@" + p.name + ".service"
		units = append(units, p.unit, "live@"+p.name+".socket")
		p.follow(t, m, "/")
		p.publish(t, "1.0.0", p.files("1.0.0"))
		m.Write("/etc/systemd/system/live@"+p.name+".socket.d/address.conf", "[Socket]\nListenStream="+p.address+"\n")
		m.Write("/etc/systemd/system/live@"+p.name+".service.d/flags.conf",
			"[Service]\nExecStart=\nExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/%i "+p.flags+"-- bin/%i\n")
	}
	m.Run("systemctl", "daemon-reload")
	m.Run(append([]string{"systemctl", "enable", "--now"}, units...)...)
	m.Run("systemctl", "reload", "upgraderd.service")

	clients, pids := map[string]*load.Process{}, map[string]string{}
	for _, p := range programs {
		p.serves(t, m, "1.0.0")
		pids[p.name] = m.Property(p.unit, "MainPID")
		clients[p.name] = m.Load(load.Options{Address: p.address, Rate: 20}) // seven of them, on three machines
		m.Served(clients[p.name], "1.0.0", 50)
	}
	for _, p := range programs {
		p.publish(t, "2.0.0", p.files("2.0.0"))
	}
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			m := m.In(t)
			m.Served(clients[p.name], "2.0.0", 50)
			p.serves(t, m, "2.0.0")
			m.NothingLost(clients[p.name])
			if got := m.Property(p.unit, "MainPID"); got != pids[p.name] {
				t.Errorf("MainPID: got %s, want %s as before", got, pids[p.name])
			}
			m.Eventually("the old worker is gone", func() bool {
				return !slices.ContainsFunc(slices.Collect(maps.Values(m.Processes(p.unit))), func(called string) bool { return strings.Contains(called, "/1.0.0-") })
			})
		})
	}
}

// nginx is Debian's, with Debian's unit and the drop-in that docs/porting/nginx.md
// shows: two good releases, one with a configuration that is none, one whose
// program is none, and one that turns bad; then two that serve beside each other. A
// slow client is served to its end by the nginx that took its connection.
func nginx(t *testing.T, m *kit.Machine) {
	p := &program{name: "nginx", unit: "nginx.service", address: "127.0.0.1:8080"}
	const big = 32 << 20 // more than the kernel buffers for a client that does not read
	m.Run("mkdir", "-p", "/srv/www")
	m.Run("truncate", "-s", fmt.Sprint(big), "/srv/www/big")
	p.follow(t, m, "/healthz")
	m.Write("/etc/systemd/system/nginx.socket", "[Socket]\nListenStream="+p.address+"\nTriggerLimitIntervalSec=0\n[Install]\nWantedBy=sockets.target\n")
	m.Write("/etc/systemd/system/nginx.service.d/upgraderd.conf", string(file(t, "testdata/nginx-upgraderd.conf")))
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "enable", "--now", "nginx.socket", p.unit)

	binary := file(t, m.Root()+"/usr/sbin/nginx")
	release := func(version string, replace ...string) map[string][]byte {
		return map[string][]byte{
			"bin/nginx":  binary,
			"nginx.conf": file(t, "testdata/nginx.conf", append([]string{"@VERSION@", version}, replace...)...),
		}
	}
	p.publish(t, "1.0.0", release("1.0.0"))
	m.Run("systemctl", "reload", "upgraderd.service")
	p.serves(t, m, "1.0.0")
	pid := m.Property(p.unit, "MainPID")
	clients := m.Load(load.Options{Address: p.address, Rate: 200})
	m.Served(clients, "1.0.0", 200)
	slow := ask(t, m, p.address, "/big")

	p.publish(t, "2.0.0", release("2.0.0"))
	m.Served(clients, "2.0.0", 200)
	p.serves(t, m, "2.0.0")
	if got := m.Property(p.unit, "StatusText"); !strings.Contains(got, "1 draining") {
		t.Errorf("StatusText: got %q, want that nginx 1.0.0 drains", got)
	}
	if got, err := io.Copy(io.Discard, slow); got != big || err != nil {
		t.Errorf("the slow client got %d bytes, want %d: %v", got, big, err)
	}
	m.Eventually("nginx 1.0.0 is gone", func() bool { return !strings.Contains(m.Property(p.unit, "StatusText"), "draining") })

	p.publish(t, "3.0.0", release("3.0.0", "worker_processes", "worker_process"))
	p.isBad(t, m, "3.0.0", "2.0.0")
	if text := m.Journal(p.unit); !strings.Contains(text, `unknown directive "worker_process"`) {
		t.Errorf("nginx's own words are not in the journal of its unit:\n%s", text)
	}
	broken := release("3.1.0")
	broken["bin/nginx"] = binary[:len(binary)/2]
	p.publish(t, "3.1.0", broken)
	p.isBad(t, m, "3.1.0", "2.0.0")
	p.publish(t, "3.2.0", release("3.2.0", "return 200 healthy", "return 503 unhealthy"))
	p.isBad(t, m, "3.2.0", "2.0.0")

	// SIGUSR1 goes on to nginx, which then writes a new log.
	const log = "/var/log/nginx/access.log"
	m.Run("mv", log, log+".1")
	m.Signal(pid, "USR1")
	m.Eventually("nginx opened its log again", func() bool { return m.Run("sh", "-c", "[ ! -s "+log+" ] || echo yes") == "yes" })

	p.besides(t, m, clients, release)
	r := m.NothingLost(clients)
	for _, version := range []string{"3.0.0", "3.1.0"} {
		if n := r.Versions[version]; n != 0 {
			t.Errorf("got %d answers from %s, want none", n, version)
		}
	}
	if got := m.Property(p.unit, "MainPID"); got != pid {
		t.Errorf("MainPID: got %s, want %s as before", got, pid)
	}
	m.Run("systemctl", "stop", p.unit)
	if left := m.Processes(p.unit); len(left) != 0 || m.Property(p.unit, "Result") != "success" {
		t.Errorf("after a stop: %v, result %s", left, m.Property(p.unit, "Result"))
	}
	if text := m.Run("upgraderd", "verify", p.name); text != "" {
		t.Logf("verify: %s", text)
	}
}

// besides has two nginx serve from the same sockets, as after USR2: first the new one
// stays, as after WINCH and QUIT, and then the old one, as after HUP.
func (p *program) besides(t *testing.T, m *kit.Machine, clients *load.Process, release func(string, ...string) map[string][]byte) {
	t.Helper()
	m.Run("upgraderd", "hold", p.name) // nothing comes by itself
	for _, c := range []struct{ old, version, verb, stays, goes string }{
		{"2.0.0", "4.0.0", "confirm", "4.0.0", "2.0.0"},
		{"4.0.0", "5.0.0", "rollback", "4.0.0", "5.0.0"},
	} {
		p.publish(t, c.version, release(c.version))
		m.Run("upgraderd", "upgrade", p.name, c.version, "--beside", "--despite-hold")
		m.Served(clients, c.old, 100)
		m.Served(clients, c.version, 100)
		if got := p.current(m); !strings.HasPrefix(got, c.old+"-") || p.status(t, m)["state"] != "beside" {
			t.Errorf("current is %s, want %s while two serve", got, c.old)
		}
		m.Run("upgraderd", c.verb, p.name)
		m.Eventually("nginx "+c.goes+" has drained", func() bool {
			return !slices.ContainsFunc(slices.Collect(maps.Values(m.Processes(p.unit))), func(called string) bool { return strings.Contains(called, "/"+c.goes+"-") })
		})
		m.Served(clients, c.stays, 100)
		p.serves(t, m, c.stays)
	}
}

// ask asks for a path, and reads the answer up to the first byte of its body.
func ask(t *testing.T, m *kit.Machine, address, path string) net.Conn {
	t.Helper()
	conn, err := m.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		if _, err := conn.Read(one); err != nil {
			t.Fatalf("read the answer's head: %v: %q", err, head)
		}
		head = append(head, one...)
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		t.Fatalf("got %q, want 200", head)
	}
	return conn
}
