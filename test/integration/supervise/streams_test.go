//go:build integration

package supervise

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// What takes as long as its client goes on over handovers, by the worker that it
// began with, while all that is new goes to the new one: an upgraded connection, a
// stream of HTTP/2, and an upload.
func TestStreams(t *testing.T) {
	build := func(t *testing.T, version string) string {
		return kit.Build(t, "./test/integration/stream", "-X main.version="+version)
	}
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Write("/etc/systemd/system/live@hello.socket.d/address.conf", "[Socket]\nListenStream="+address+"\n")
		m.Link("current", m.PutRelease("hello", "1.0.0", build(t, "1.0.0")))
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "enable", "--now", "live@hello.socket", unit)

		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			return m.Dial(ctx, network, address)
		}
		two := &http.Transport{DialContext: dial, Protocols: new(http.Protocols)}
		two.Protocols.SetUnencryptedHTTP2(true)
		defer two.CloseIdleConnections()
		fresh := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
		serves := func() string {
			answer, err := fresh.Get("http://" + address + "/version")
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			text, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		raw := func(request string) (net.Conn, *bufio.Reader) {
			c, err := m.Dial(t.Context(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			fmt.Fprint(c, request)
			return c, bufio.NewReader(c)
		}
		says := func(from *bufio.Reader, want string) {
			t.Helper()
			if got, err := from.ReadString('\n'); strings.TrimSpace(got) != want || err != nil {
				t.Fatalf("got %q, %v, want %q", got, err, want)
			}
		}

		upgraded, lines := raw("GET /upgraded HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
		for _, want := range []string{"HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: lines", ""} {
			says(lines, want)
		}
		body, call := io.Pipe()
		request, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+address+"/stream", body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := two.RoundTrip(request)
		if err != nil || answer.ProtoMajor != 2 {
			t.Fatalf("%+v, %v", answer, err)
		}
		defer answer.Body.Close()
		replies := bufio.NewReader(answer.Body)
		const rounds = 3
		upload, uploaded := raw(fmt.Sprintf("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n", 2*rounds))
		exchange := func(what string) {
			t.Helper()
			fmt.Fprintln(upgraded, what)
			says(lines, "1.0.0: "+what)
			fmt.Fprintln(call, what)
			says(replies, "1.0.0: "+what)
			fmt.Fprint(upload, "x")
		}
		exchange("before")
		for round := range rounds {
			version := fmt.Sprintf("2.%d.0", round)
			next := m.PutRelease("hello", version, build(t, version))
			m.Link("next", next)
			m.Run("systemctl", "reload", unit)
			m.Link("current", next)
			m.Unlink("hello", "next")
			if got := serves(); got != version {
				t.Errorf("what is new goes to %s, want %s", got, version)
			}
			exchange("after " + version)
		}
		if text := m.Property(unit, "StatusText"); !strings.Contains(text, " draining") {
			t.Errorf("nobody drains: %s", text)
		}
		fmt.Fprint(upload, strings.Repeat("y", rounds-1))
		response, err := http.ReadResponse(uploaded, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if text, err := io.ReadAll(response.Body); string(text) != fmt.Sprintf("1.0.0: %d bytes, <nil>", 2*rounds) || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
		call.Close()
		if rest, err := io.ReadAll(replies); len(rest) > 0 || err != nil || answer.Trailer.Get("Status") != "0" {
			t.Errorf("the stream ended with %q, %v, %v", rest, err, answer.Trailer)
		}
		upgraded.Close()
		m.Eventually("the old worker has ended", func() bool { return len(m.Processes(unit)) == 2 })
	})
}
