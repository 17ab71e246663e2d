//go:build integration

package upgrade

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/publish"
)

// TestFetchThenUpgrade fetches a release while another serves, and applies it when
// the source is gone, under load.
func TestFetchThenUpgrade(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		const server = "127.0.0.1:8443"
		var looks, asked atomic.Int64 // how often the daemon has asked for the list, and when it asked last
		source, authority := m.HTTPSSource(server, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/SHA256SUMS") {
					looks.Add(1)
				}
				asked.Store(time.Now().UnixNano())
				h.ServeHTTP(w, r)
			})
		})
		m.Write("/etc/upgraderd/ca.pem", string(authority))
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		follow(t, m, source, "https://"+server+"/", "[Source]\nCAFile=/etc/upgraderd/ca.pem\nPollIntervalSec=1y\nBandwidthMax=1M\n")
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		confirmed(t, m, "1.0.0")
		pid := m.Property(unit, "MainPID")

		// The looks that follow a verdict and a reload would take it by themselves.
		m.Eventually("the daemon waits for its poll", func() bool {
			return looks.Load() >= 2 && time.Since(time.Unix(0, asked.Load())) > 3*time.Second
		})
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		// Others can see how far it is, while the command waits.
		fetched := make(chan string, 1)
		go func() {
			out, err := m.Machine.Run(t.Context(), "upgraderd", "fetch", "hello")
			fetched <- fmt.Sprint(out, err)
		}()
		var last map[string]any
		m.Eventually("the transfer is shown", func() bool {
			last = target(t, m)
			p, ok := last["progress"].(map[string]any)
			return ok && p["rate"].(float64) > 1<<19 && p["rate"].(float64) < 3<<19 && strings.HasPrefix(last["to"].(string), "2.0.0-") &&
				strings.Contains(m.Property("upgraderd.service", "StatusText"), "fetching 2.0.0 (")
		})
		if out := <-fetched; !strings.Contains(out, "staged; to apply it: upgraderd upgrade hello") || strings.Contains(out, "\r") {
			t.Errorf("fetch: %q", out)
		}
		for range 3 {
			if st := target(t, m); st["state"] != "idle" || !strings.HasPrefix(current(m), "1.0.0-") || !strings.HasPrefix(fmt.Sprint(st["fetched"]), "2.0.0-") {
				t.Errorf("after the fetch: %v", st)
			}
			m.Run("systemctl", "restart", "upgraderd.service") // it waits through that, too
		}
		if out := m.Run("upgraderd", "status"); !strings.Contains(out, "2.0.0 is staged and waits; to apply it: upgraderd upgrade hello") {
			t.Errorf("status: %s", out)
		}
		source.Unplug()
		m.Run("timeout", "120", "upgraderd", "upgrade", "hello")
		if got := current(m); !strings.HasPrefix(got, "2.0.0-") {
			t.Errorf("current is %s, want 2.0.0", got)
		}
		m.Served(clients, "2.0.0", 100)
		m.NothingLost(clients)
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		// A source that is gone is told, and waited for; nothing is left of the wait.
		if out := m.Fails("timeout", "--signal=INT", "10", "upgraderd", "fetch", "hello"); !strings.Contains(out, "FETCH_CONNECT") || !strings.Contains(out, "the daemon goes on") {
			t.Errorf("with the source gone: %s", out)
		}
		m.Run("systemctl", "stop", "upgraderd.service")
		if out := m.Fails("upgraderd", "fetch", "hello"); !strings.Contains(out, "systemctl start upgraderd.service") {
			t.Errorf("without a daemon: %s", out)
		}
	})
}

// TestImport brings releases to a host whose source is out of reach, and tries what
// may lie on a stick and is no release. The stick can be read by root alone.
func TestImport(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		const stick = "/root/usb"
		m.Run("mkdir", "-m", "0700", stick)
		source := m.DirSource(stick)
		follow(t, m, source, "https://127.0.0.1:1/nowhere/", "")
		m.Eventually("the source does not deliver", func() bool { return strings.Contains(fmt.Sprint(target(t, m)["trouble"]), "FETCH_CONNECT") })
		at := func(name string) string { return stick + "/" + name }
		spools := func() string {
			return m.Run("sh", "-c", "ls -d /var/lib/upgraderd/hello/.import-* 2>/dev/null || true")
		}

		// The first release of all.
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		began := time.Now()
		if out := m.Run("upgraderd", "import", "hello", at("hello-1.0.0")); !strings.Contains(out, "hello: import hello-1.0.0: staged; to apply it: upgraderd upgrade hello") {
			t.Errorf("import: %q", out)
		}
		t.Logf("imported in %v", time.Since(began))
		m.Run("upgraderd", "upgrade", "hello")
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		pid := m.Property(unit, "MainPID")
		if owner := m.Run("sh", "-c", "stat -c %U /var/lib/upgraderd/hello/releases/1.0.0-* | uniq"); owner != "upgraderd" {
			t.Errorf("the release is %s's", owner)
		}

		// Of the whole stick the newest.
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		m.Run("upgraderd", "import", "hello", stick)
		if got := current(m); !strings.HasPrefix(got, "1.0.0-") {
			t.Errorf("an import moved current to %s", got)
		}
		m.Run("upgraderd", "upgrade", "hello")
		m.Served(clients, "2.0.0", 100)

		// Bad input, each with one clear error. The first are seen before anything is
		// copied, the others are for the daemon to judge.
		bad := func(says string, files ...string) {
			t.Helper()
			out := m.Fails(append([]string{"upgraderd", "import", "hello"}, files...)...)
			if !strings.Contains(out, says) || strings.Contains(out, ".import-") {
				t.Errorf("%s: got %q, want %q", strings.Join(files, " "), out, says)
			}
			// The daemon answers first, and tidies then.
			m.Eventually("nothing is left of "+strings.Join(files, " "), func() bool { return spools() == "" })
		}
		copied := func(name string) string { // a stick of its own
			dir := "/root/" + name
			m.Run("cp", "-r", stick, dir)
			return dir
		}
		m.Run("mkfifo", at("hello-3.0.0"))
		bad("is a FIFO, want a regular file", at("hello-3.0.0"))
		bad("is a FIFO, want a regular file", stick) // it is the newest
		m.Run("rm", at("hello-3.0.0"))
		m.Run("ln", "-s", "/etc/shadow", at("hello-3.0.1"))
		bad("is a symbolic link, want a regular file", at("hello-3.0.1"))
		m.Run("rm", at("hello-3.0.1"))
		m.Run("truncate", "-s", "2T", "/root/hello-3.0.2")
		bad("raise SizeMax=", "/root/hello-3.0.2")
		m.Run("mkdir", "/root/empty")
		bad("holds no file that matches", "/root/empty")
		bad("no such file", "/root/nothing")
		bad("does not match", "/dev/zero")
		m.Run("cp", at("hello-2.0.0"), "/root/empty/hello-2.5.0")
		bad("no SHA256SUMS beside hello-2.5.0", "/root/empty")

		source.Publish("hello-4.0.0", kit.Hello(t, "4.0.0", ""))
		unsigned := copied("unsigned")
		m.Run("rm", unsigned+"/"+publish.SignatureName)
		bad("[SIG_MISSING]", unsigned)
		forged := copied("forged")
		other, err := publish.New()
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := os.ReadFile(filepath.Join(m.Root(), stick, publish.ManifestName))
		if err != nil {
			t.Fatal(err)
		}
		m.Write(forged+"/"+publish.SignatureName, string(other.Sign(manifest)))
		bad("[SIG_KEY]", forged)
		changed := copied("changed")
		m.Run("sh", "-c", "printf x >>"+changed+"/hello-4.0.0")
		bad("[ARTIFACT_DIGEST]", changed)
		bad("2.0.0 is installed", at("hello-2.0.0"))
		bad("older than 2.0.0", at("hello-1.0.0"))
		m.Run("cp", at("hello-4.0.0"), "/root/usb/hello-5.0.0")
		bad("does not name hello-5.0.0", at("hello-5.0.0"))
		m.Run("rm", at("hello-5.0.0"))

		// Interrupted, and killed, in the middle of the copy.
		m.Run("sh", "-c", "head -c 200M /dev/zero >/root/usb/hello-6.0.0")
		for _, signal := range []string{"INT", "KILL"} {
			m.Run("sh", "-c", "upgraderd import hello /root/usb/hello-6.0.0 >/dev/null 2>&1 & p=$!; "+
				"until ls -d /var/lib/upgraderd/hello/.import-*/hello-6.0.0 >/dev/null 2>&1; do :; done; kill -s "+signal+" $p; wait $p || true")
			if signal == "INT" && spools() != "" {
				t.Errorf("an interrupted import left %s", spools())
			}
		}
		m.Run("rm", "/root/usb/hello-6.0.0")
		m.Run("systemctl", "reload", "upgraderd.service")
		m.Eventually("what the killed one left is gone", func() bool { return spools() == "" })

		m.Run("systemctl", "stop", "upgraderd.service")
		bad("systemctl start upgraderd.service", at("hello-4.0.0"))
		m.Run("systemctl", "start", "upgraderd.service")
		m.Run("upgraderd", "import", "hello", at("hello-4.0.0"))
		m.Run("upgraderd", "upgrade", "hello", "4.0.0")
		m.Served(clients, "4.0.0", 100)
		m.NothingLost(clients)
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		deploys(t, m, source, stick)
		if left := spools(); left != "" {
			t.Errorf("left %s", left)
		}
	})
}

// TestProgressOnATerminal looks at what a person sees: one line, written over, and
// nothing of it on a pipe.
func TestProgressOnATerminal(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource(dir)
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		follow(t, m, source, dir, "[Source]\nBandwidthMax=4M\n")
		m.Eventually("1.0.0 is there", func() bool {
			return target(t, m)["state"] == "idle" && strings.HasPrefix(fmt.Sprint(target(t, m)["current"]), "1.0.0-")
		})
		m.Write("/etc/upgraderd/hello.upgrade.d/none.conf", "[Upgrade]\nSwap=none\n")
		m.Run("systemctl", "reload", "upgraderd.service")
		data, err := os.ReadFile(kit.Hello(t, "2.0.0", ""))
		if err != nil {
			t.Fatal(err)
		}
		source.PublishBytes("hello-2.0.0", append(data, bytes.Repeat([]byte("padding "), 1<<20)...))
		seen := m.Run("script", "-qec", "TERM=xterm upgraderd fetch hello", "/dev/null")
		lines := strings.Split(seen, "\r")
		shown := 0
		for _, line := range lines {
			if strings.HasPrefix(line, "hello: fetching 2.0.0 [") && strings.Contains(line, " MiB/s, ") && strings.Contains(line, " left\x1b[K") {
				shown++
			}
		}
		if shown < 2 || !strings.Contains(seen, "\r\x1b[K") || !strings.Contains(seen, "hello: fetch now: staged; it waits for you (Swap=none)") {
			t.Errorf("%d lines of progress: %q", shown, seen)
		}
		var st []map[string]any
		if err := json.Unmarshal([]byte(m.Run("upgraderd", "status", "--json", "hello")), &st); err != nil || st[0]["state"] != "held" {
			t.Errorf("got %v, %v", st, err)
		}
	})
}
