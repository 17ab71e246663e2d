//go:build integration

package supervise

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// A release that crashes at each start does not take the port along, however
// often somebody connects: systemd has limits for that, which fail the socket.
// Whoever waits meanwhile is answered by the release that mends it.
func TestCrashLoopKeepsThePort(t *testing.T) {
	const waiters = 200
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Link("current", m.PutRelease("hello", "1.0.0", kit.Hello(t, "1.0.0", "crash")))
		m.Write("/etc/systemd/system/live@hello.socket.d/address.conf", "[Socket]\nListenStream="+address+"\n")
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "start", "live@hello.socket")
		answers := make(chan error, waiters)
		for range waiters {
			conn, err := m.Dial(t.Context(), "tcp", address)
			if err != nil {
				t.Fatalf("the port refuses: %v", err)
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(3 * time.Minute))
				fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")
				text, err := io.ReadAll(conn)
				if err == nil && !strings.Contains(string(text), "HTTP/1.1 200 "+http.StatusText(http.StatusOK)) {
					err = fmt.Errorf("got %q, want a good answer", text)
				}
				answers <- err
			}()
			time.Sleep(10 * time.Millisecond)
		}
		m.Eventually("the release crashes in a loop", func() bool { return strings.Count(m.Journal(unit), "starting 1.0.0") > 5 })
		if got := m.Run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "upgraderd*"); got != "" {
			t.Errorf("failed beside it: %s", got)
		}
		if got := m.Property("live@hello.socket", "ActiveState"); got != "active" {
			t.Errorf("the socket is %s, want active", got)
		}
		m.Link("current", m.PutRelease("hello", "1.0.1", kit.Hello(t, "1.0.1", "")))
		for range waiters {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
	})
}

// The control socket obeys root and the service's own user, whatever its mode.
func TestWhoMayAskForAHandover(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		start(t, m)
		const dir = "/run/live@hello"
		m.Run("sh", "-c", "chmod 755 $(readlink -f "+dir+") && chmod 755 $(dirname $(readlink -f "+dir+")) && chmod 666 "+dir+"/control")
		ask := []string{"upgraderd", "handover", "--runtime-dir=" + dir}
		as := func(user string) []string {
			return append([]string{"setpriv", "--reuid=" + user, "--regid=" + user, "--clear-groups"}, ask...)
		}
		m.Run(ask...)
		for _, user := range []string{"nobody", "upgraderd"} {
			group := m.Run("id", "--group", user)
			argv := as(user)
			argv[2] = "--regid=" + group
			if said := m.Fails(argv...); !strings.Contains(said, "may not ask this supervisor") {
				t.Errorf("%s: refused for another reason: %s", user, said)
			}
		}
	})
}
