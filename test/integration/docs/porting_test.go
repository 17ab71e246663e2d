//go:build integration

package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/guide"
	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// docker stands for the real one, which the machines have not: what is in the
// container is in this machine.
const docker = `#!/bin/sh
[ "$1 $2" = "exec CONTAINER" ] && shift 2 && exec "$@"
`

// configured is a program of a release folder: it wants its configuration.
const configured = `#!/bin/sh
[ -r "${1#--config=}" ] && exec /usr/local/bin/hello-%s
`

// TestPorting moves the programs of docs/porting, one after the other, by the files
// and the commands of the pages.
func TestPorting(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		p := begin(t, m)
		for _, version := range []string{"1.0", "2.0"} {
			m.Copy(kit.Hello(t, version, ""), "/usr/local/bin/hello-"+version)
		}
		p.nginx("docs/porting/nginx.md")
		p.releaseFolder("docs/porting/release-folder.md")
		p.endless("docs/porting/endless.md")
		p.container("docs/porting/containers.md")
	})
}

// sections are those of the files that a page shows, in its order.
func (p *player) sections(page string, count int) []string {
	p.t.Helper()
	blocks, err := guide.Read(page)
	if err != nil {
		p.t.Fatal(err)
	}
	var all []string
	for _, b := range blocks {
		if strings.HasPrefix(b.Text, "[") {
			all = append(all, b.Text)
		}
	}
	if len(all) != count {
		p.t.Fatalf("%s: %d sections, want %d", page, len(all), count)
	}
	return all
}

// follows writes what a target follows, with a short window.
func (p *player) follows(target, upgrade string) {
	p.t.Helper()
	p.m.Write("/etc/upgraderd/"+target+".upgrade", upgrade)
	p.m.Write("/etc/upgraderd/"+target+".upgrade.d/soon.conf", "[Confirm]\nWindowSec=2s\n")
}

// over frees the address for the next page.
func (p *player) over(target string, units ...string) {
	p.t.Helper()
	p.m.Run("rm", "-r", "/etc/upgraderd/"+target+".upgrade", "/etc/upgraderd/"+target+".upgrade.d")
	p.m.Run("systemctl", "reload", "upgraderd")
	p.m.Run(append([]string{"systemctl", "disable", "--now"}, units...)...)
}

// serves waits until the address answers as this version does.
func (p *player) serves(version string) {
	p.t.Helper()
	p.m.Eventually(version+" serves", func() bool {
		out, err := p.m.Machine.Run(p.t.Context(), "curl", "127.0.0.1:8080")
		return err == nil && strings.Contains(out, version)
	})
}

func (p *player) nginx(page string) {
	conf, err := os.ReadFile(filepath.Join(guide.Root(), "test/integration/programs/testdata/nginx.conf"))
	if err != nil {
		p.t.Fatal(err)
	}
	configure := func(version string) {
		p.m.Write(home+"/nginx.conf", strings.NewReplacer("@VERSION@", version, "return 200 ok", "return 200 "+version).Replace(string(conf)))
	}
	s := p.sections(page, 7)
	p.follows("nginx", strings.Join(s[:3], "\n"))
	p.m.Write("/etc/systemd/system/nginx.socket", strings.Join(s[3:5], "\n"))
	p.m.Write("/etc/systemd/system/nginx.service.d/upgraderd.conf", strings.Join(s[5:], "\n"))
	p.m.Run("sh", "-ec", "cd "+home+"; mkdir /srv/nginx; upgraderd keygen nginx --no-password; cp nginx.pub /etc/upgraderd/")
	configure("1.0.0")
	for _, line := range p.chapter(page, "The move") {
		p.line(page, line)
	}
	p.confirmed("nginx", "1.0.0")
	p.serves("1.0.0")
	for _, line := range p.chapter(page, "Both at once") {
		if strings.HasPrefix(line, "upgraderd upgrade nginx 2.0.0") {
			configure("2.0.0")
			p.m.Run("sh", "-ec", "cd "+home+"; cp nginx.conf release/; tar -C release -cf nginx-2.0.0.tar .; upgraderd publish /srv/nginx nginx-2.0.0.tar --version=2.0.0 --key=nginx.key")
		}
		p.line(page, line)
	}
	p.confirmed("nginx", "2.0.0")
	p.serves("2.0.0")
	p.over("nginx", "nginx.socket", "nginx.service")
}

func (p *player) releaseFolder(page string) {
	s := p.sections(page, 4)
	p.follows("app", strings.Join(s[:3], "\n"))
	p.m.Write("/etc/systemd/system/live@app.service.d/config.conf", s[3])
	p.m.Write("/etc/systemd/system/live@app.socket.d/address.conf", "[Socket]\nListenStream=127.0.0.1:8080\n")
	p.m.Run("mkdir", "/srv/app")
	for _, n := range []string{"1", "2"} {
		p.m.Write("/srv/app/app."+n+".conf", n)
		p.m.Write("/srv/app/app."+n+".0", fmt.Sprintf(configured, n+".0"))
	}
	name := func(n string) {
		p.m.Write("/srv/app/current.conf", `{"bin.file": "app.`+n+`.0", "cfg.file": "app.`+n+`.conf"}`)
	}
	name("1")
	for _, line := range p.chapter(page, "The move") {
		p.line(page, line)
	}
	p.serves("1.0")
	p.m.Run("upgraderd", "status", "app")
	name("2")
	p.serves("2.0")
	p.over("app", "live@app.socket", "live@app.service")
}

func (p *player) endless(page string) {
	p.m.Run("cp", "/usr/local/bin/hello-1.0", "/srv/app/app")
	for _, line := range p.chapter(page, "") {
		p.line(page, line+` & main=$!
for i in $(seq 600); do ! curl 127.0.0.1:8080 || break; sleep 0.1; done
curl 127.0.0.1:8080
kill $main
wait $main`)
	}
}

func (p *player) container(page string) {
	p.m.Run("sh", "-ec", `mkdir -m 700 /run/app
cd /srv/app; mkdir -p releases/1.0.0 releases/2.0.0; ln -s releases/1.0.0 current
for n in 1 2; do cp /usr/local/bin/hello-$n.0 releases/$n.0.0/app; done
systemd-run --unit=container upgraderd supervise --runtime-dir=/run/app --listen=web=tcp:0.0.0.0:8080 -- /srv/app/current/app`)
	p.serves("1.0")
	for _, line := range p.chapter(page, "") {
		p.line(page, line)
	}
	p.serves("2.0")
	p.m.Run("systemctl", "stop", "container")
}
