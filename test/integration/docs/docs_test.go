//go:build integration

// Package docs plays the commands of pages that no story of its own has: each line, as
// it stands in the page, on a host where what the page speaks of is there.
package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/guide"
	"github.com/upgraderd/upgraderd/test/integration/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

const home = "/root/pages"

// curl stands for the real one, which the machines have not.
const curl = `#!/usr/bin/python3
import socket, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[-1] if "://" in sys.argv[-1] else "http://" + sys.argv[-1])
if sys.argv[1] == "--unix-socket":
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[2])
else:
    s = socket.create_connection(("127.0.0.1" if url.hostname == "localhost" else url.hostname, url.port))
s.sendall(f"GET {url.path or '/'} HTTP/1.0\r\nHost: {url.hostname}\r\n\r\n".encode())
print(s.makefile().read().partition("\n\n")[2], end="")
`

// TestPages goes through the pages in an order in which one has what it needs of
// those before.
func TestPages(t *testing.T) {
	t.Run("on the publisher's", publisher)
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		p := begin(t, m)
		m.Write("/etc/systemd/system/app.service", "[Service]\nExecStart=/usr/bin/sleep 1h\n")
		m.Run("systemctl", "daemon-reload")

		p.first("README.md", "Sixty seconds to the first upgrade")
		p.page("docs/metrics.md", "By a socket")
		p.page("docs/deploy.md", "Deploying from a script")
		p.page("docs/deploy.md", "What is deployed")
		p.page("docs/what-happens-when.md", "What happens when …")

		p.page("docs/porting/overseer.md", "Under upgraderd")
		m.Run("systemctl", "start", "prometheus-node-exporter")
		m.Eventually("the exporter listens", func() bool { return strings.Contains(m.Run("ss", "-Htln"), ":9100 ") })
		p.page("docs/adopt.md", "Behind a proxy")

		// A target app, for the others.
		m.Run("sh", "-ec", `cd `+home+`
mkdir -p /etc/systemd/system/live@app.socket.d /srv/app /media/usb
printf '[Socket]\nListenStream=8081\n' >/etc/systemd/system/live@app.socket.d/address.conf
sed 's/hello/app/g; s/8080/8081/; s/WindowSec=.*/WindowSec=5s/; s|/etc/upgraderd/app.pub|/etc/upgraderd/hello.pub|; s/app_@v/&.zst/' /etc/upgraderd/hello.upgrade >/etc/upgraderd/app.upgrade
systemctl daemon-reload
systemctl enable --now live@app.socket live@app.service`)
		p.publish("/srv/app", "app", "1.4.1")
		m.Run("systemctl", "reload", "upgraderd")
		p.confirmed("app", "1.4.1")
		p.page("docs/dbus.md", "Over D-Bus")
		p.page("docs/holds.md", "")
		p.page("docs/offline.md", "")
		p.page("docs/beside.md", "")
	})
}

// player plays pages in a machine.
type player struct {
	t *testing.T
	m *kit.Machine
}

// begin has what the pages take for granted.
func begin(t *testing.T, m *kit.Machine) *player {
	t.Helper()
	for name, script := range map[string]string{"curl": curl, "docker": docker} {
		m.Write("/usr/local/bin/"+name, script)
		m.Run("chmod", "+x", "/usr/local/bin/"+name)
	}
	m.Run("mkdir", home)
	m.Run("systemctl", "enable", "--now", "upgraderd.service") // what "upgraderd install" says is next
	return &player{t: t, m: m}
}

// publish publishes a release of the example service into a directory, of app packed.
func (p *player) publish(dir, target, version string) {
	p.t.Helper()
	program, file := kit.Hello(p.t, version, ""), target
	if target == "app" {
		packed := filepath.Join(p.t.TempDir(), "app.zst")
		if out, err := exec.CommandContext(p.t.Context(), "zstd", "-q", "-o", packed, program).CombinedOutput(); err != nil {
			p.t.Fatalf("%v: %s", err, out)
		}
		program, file = packed, "app.zst"
	}
	p.m.Copy(program, home+"/"+file)
	p.m.Run("sh", "-ec", "cd "+home+"; mkdir -p "+dir+"; upgraderd publish "+dir+" ./"+file+" --version="+version+" --key=hello.key")
}

func (p *player) confirmed(target, version string) {
	p.t.Helper()
	p.m.Eventually(version+" of "+target+" is good", func() bool {
		out, err := p.m.Machine.Run(p.t.Context(), "upgraderd", "status", target)
		return err == nil && regexp.MustCompile(target+` .* `+version+` +idle`).MatchString(out)
	})
}

// goesOn is true of commands that do so until they are interrupted.
var goesOn = regexp.MustCompile(`^(upgraderd monitor|journalctl -f\w*)\b`)

// line runs one, as somebody types it.
func (p *player) line(page, line string) {
	p.t.Helper()
	line = strings.ReplaceAll(line, "2026-12-01", time.Now().AddDate(0, 0, 2).Format(time.DateOnly))
	line = strings.NewReplacer("MESSAGE_ID=ID", "MESSAGE_ID=8d45620c1a4348dbb17410da57c60c66").Replace(line)
	if goesOn.MatchString(line) {
		line = "timeout --preserve-status --signal=INT 2 " + line + " || test $? = 130"
	}
	if out, err := p.m.Machine.Run(p.t.Context(), "sh", "-ec", "exec 2>&1; cd "+home+"\n"+line+"\n"); err != nil {
		p.t.Errorf("%s: %s: %v: %s", page, line, err, out)
	}
}

// chapter gives what is typed in one, or with "" in all of a page, by line.
func (p *player) chapter(page, chapter string) (lines []string) {
	p.t.Helper()
	blocks, err := guide.Read(page)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, b := range blocks {
		if b.Commands() && (chapter == "" || b.Chapter == chapter) {
			lines = append(lines, strings.Split(strings.TrimSuffix(b.Text, "\n"), "\n")...)
		}
	}
	if len(lines) == 0 {
		p.t.Fatalf("%s, %q: no commands", page, chapter)
	}
	return lines
}

// page plays one that finds its target there.
func (p *player) page(page, chapter string) {
	p.t.Helper()
	for _, line := range p.chapter(page, chapter) {
		switch {
		case strings.HasPrefix(line, "upgraderd deploy hello ./hello"):
			p.publish(".", "hello", "1.5.0") // its list lies beside it
		case page == "docs/offline.md" && strings.HasPrefix(line, "upgraderd fetch app  "):
			p.publish("/srv/app", "app", "1.4.2")
			p.m.Run("upgraderd", "hold", "app") // or it comes by itself
		case page == "docs/offline.md" && strings.HasPrefix(line, "upgraderd upgrade app"):
			p.m.Run("upgraderd", "unhold", "app")
		case strings.HasPrefix(line, "upgraderd upgrade app --beside"):
			// At another hour than now, so that it does not come by itself.
			hour := time.Now().UTC().Add(6 * time.Hour).Format("15")
			p.m.Run("sh", "-ec", "printf '[Upgrade]\\nWindow="+hour+":00-"+hour+":30\\n' | TZ=UTC upgraderd edit app --drop-in=hours --stdin")
			p.publish("/srv/app", "app", "1.6.0")
		case strings.HasPrefix(line, "upgraderd import app /media/usb/"):
			p.m.Run("upgraderd", "rollback", "app") // from 1.4.2, which came without a stick
			p.m.Run("sh", "-c", "cp /srv/app/* /media/usb")
		}
		p.line(page, line)
	}
}

// first is the page that a new user begins with.
func (p *player) first(page, chapter string) {
	p.t.Helper()
	blocks, err := guide.Read(page)
	if err != nil {
		p.t.Fatal(err)
	}
	var upgrade string
	for _, b := range blocks {
		if b.Chapter == chapter && regexp.MustCompile(`^\[(Upgrade|Source|Confirm)\]`).MatchString(b.Text) {
			upgrade += b.Text + "\n"
		}
	}
	p.m.Write("/etc/upgraderd/hello.upgrade", upgrade)
	build := regexp.MustCompile(`^CGO_ENABLED=0 go build -ldflags '-X main.version=(\S+)' \./examples/hello$`)
	for _, line := range p.chapter(page, chapter) {
		switch v := build.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "apt-get install"), strings.HasPrefix(line, "bin/upgraderd install"):
			continue // test/integration/packages and every other machine begin by them
		case v != nil: // there is no compiler
			p.m.Copy(kit.Hello(p.t, v[1], ""), home+"/hello")
			continue
		case strings.HasPrefix(line, "curl "):
			p.confirmed("hello", "1.0")
		case strings.HasPrefix(line, "upgraderd rollback hello"):
			p.publish("/srv/hello", "hello", "1.1")
			p.confirmed("hello", "1.1")
		case strings.HasPrefix(line, "upgraderd upgrade hello 1.4.2"):
			p.publish("/srv/hello", "hello", "1.4.2")
		case strings.HasPrefix(line, "upgraderd deploy hello ./dist"):
			p.publish("dist", "hello", "1.4.3")
		case strings.HasPrefix(line, "upgraderd fetch hello"):
			p.publish("/srv/hello", "hello", "1.4.4") // the list in dist is newer than the one there
		}
		p.line(page, line)
	}
	p.m.Run("upgraderd", "unhold", "hello")
}

// publisher plays on this host what a publisher types, with /srv elsewhere.
func publisher(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(kit.Build(t, "./cmd/upgraderd"), filepath.Join(bin, "upgraderd")); err != nil {
		t.Fatal(err)
	}
	do := func(script string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-ec", strings.ReplaceAll(script, "/srv/", dir+"/srv/"))
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", script, err, out)
		}
	}
	do(`mkdir -p srv/app srv/repository
upgraderd keygen release --no-password
head -c 200000 /dev/urandom >app_1.4.2
for v in 1.4.1 1.4.2; do cp app_1.4.2 app; echo $v >>app; zstd -qf app; upgraderd publish /srv/app ./app.zst --version=$v --key=release.key; done
echo 1.5.0 >>app; cp app app_1.5.0; zstd -qf app`)
	p := &player{t: t}
	for _, at := range []struct{ page, chapter string }{{"docs/deltas.md", "Publish"}, {"docs/deltas.md", "The convention"}, {"docs/trust.md", ""}} {
		// All of it at once: what is assigned in one line is used in the next.
		do(strings.Join(p.chapter(at.page, at.chapter), "\n"))
	}
}
