package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

const canary = sourcetest.Canary

// site is a directory that a Client reads.
type site struct {
	*Client
	base *url.URL
}

func (s site) request(name string) Request {
	r := Request{URL: s.base.JoinPath(name), Name: name, Header: http.Header{}}
	if u := s.base.User; u != nil {
		password, _ := u.Password()
		r.Header.Set("Authorization", credential.Basic(u.Username(), credential.Secret(password)))
	}
	plain := *r.URL
	plain.User = nil
	r.URL = &plain
	return r
}

func (s site) Read(ctx context.Context, name string, max int64, since source.Mark) ([]byte, source.Mark, error) {
	return s.Client.Read(ctx, s.request(name), max, since)
}

func (s site) Open(ctx context.Context, name string, from source.Position) (*source.Stream, error) {
	return s.Client.Open(ctx, s.request(name), from)
}

func (s site) String() string { return Redact(s.base) }

func newSite(t *testing.T, address string, o Options) site {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(u.Hostname(), o)
	if err != nil {
		t.Fatal(err)
	}
	return site{c, u}
}

// serveRaw answers each connection with reply, byte for byte, and then hangs up.
func serveRaw(t *testing.T, reply func(c net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	t.Cleanup(func() { listener.Close(); work.Wait() })
	work.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				// The request is read to its end, or closing would reset
				// what was sent.
				buf := make([]byte, 64<<10)
				n := 0
				for n < len(buf) && !bytes.Contains(buf[:n], []byte("\r\n\r\n")) {
					m, err := c.Read(buf[n:])
					if err != nil {
						return
					}
					n += m
				}
				reply(c)
			})
		}
	})
	return "http://" + listener.Addr().String()
}

// TestLiars is a table of servers that do not keep their word.
func TestLiars(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\n"
	text := func(s string) func(net.Conn) { return func(c net.Conn) { io.WriteString(c, s) } }
	for _, c := range []struct {
		name  string
		reply func(net.Conn)
		code  fault.Code // "" when the body "hello" must arrive
	}{
		{"honest", text(head + "Content-Length: 5\r\n\r\nhello"), ""},
		{"no length, then the end", text(head + "\r\nhello"), ""},
		{"length twice, the same", text(head + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), ""},
		{"more than announced", text(head + "Content-Length: 5\r\n\r\nhello and more"), ""},
		{"less than announced", text(head + "Content-Length: 50\r\n\r\nhello"), fault.Size},
		{"nothing of what was announced", text(head + "Content-Length: 50\r\n\r\n"), fault.Size},
		{"negative length", text(head + "Content-Length: -5\r\n\r\nhello"), fault.Size},
		{"length that is no number", text(head + "Content-Length: many\r\n\r\nhello"), fault.Size},
		{"two lengths", text(head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), fault.Size},
		{"chunks cut short", text(head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhel"), fault.Size},
		{"chunks without an end", text(head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), fault.Size},
		{"chunks of garbage", text(head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n"), fault.Protocol},
		{"chunk of 2^63 bytes", text(head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nhello"), fault.Protocol},
		{"not HTTP", text("SSH-2.0-OpenSSH_9.2\r\n"), fault.Protocol},
		{"nothing", text(""), fault.Broken},
		{"half a header", text(head + "Content-Le"), fault.Protocol},
		{"a header of a megabyte", text(head + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"), fault.Protocol},
		{"ten thousand headers", text(head + strings.Repeat("X-Some-Header: x\r\n", 10_000) + "\r\nhello"), fault.Protocol},
		{"control characters", text("HTTP/1.1 200 \x1b[31mOK\r\nContent-Length: 5\r\nX\x00: y\r\n\r\nhello"), fault.Protocol},
		{"206 not asked for", text("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nhello"), fault.Status},
		{"304 not asked for", text("HTTP/1.1 304 Not Modified\r\n\r\n"), fault.Redirect},
		{"redirect to nowhere", text("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), fault.Redirect},
		{"reset", func(c net.Conn) {
			io.WriteString(c, head+"Content-Length: 50\r\n\r\nhello")
			time.Sleep(50 * time.Millisecond)
			c.(*net.TCPConn).SetLinger(0)
		}, fault.Broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newSite(t, serveRaw(t, c.reply), Options{})
			stream, err := h.Open(context.Background(), "app", source.Position{})
			if err == nil {
				defer stream.Body.Close()
				var got []byte
				got, err = io.ReadAll(stream.Body)
				if c.code == "" && (err != nil || string(got) != "hello") {
					t.Fatalf("got %q, %v; want hello", got, err)
				}
			}
			if c.code != "" {
				sourcetest.WantCode(t, err, c.code, c.code != fault.Redirect && c.code != fault.Status)
			}
			if err != nil && len(err.Error()) > 500 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
		})
	}
}

// TestRangeLiars are servers that take up a transfer at the wrong place.
func TestRangeLiars(t *testing.T) {
	whole := "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 10\r\n\r\n0123456789"
	part := "HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nContent-Length: 6\r\n"
	for _, c := range []struct {
		name, ranged string
		want         string
		offset       int64
		code         fault.Code
	}{
		{name: "honest", ranged: part + "Content-Range: bytes 4-9/10\r\n\r\n456789", want: "456789", offset: 4},
		{name: "size unknown", ranged: part + "Content-Range: bytes 4-9/*\r\n\r\n456789", want: "456789", offset: 4},
		{name: "range ignored", ranged: whole, want: "0123456789"},
		{name: "another place", ranged: part + "Content-Range: bytes 3-8/10\r\n\r\n345678", want: "0123456789"},
		{name: "no place", ranged: part + "\r\n456789", want: "0123456789"},
		{name: "place behind the end", ranged: part + "Content-Range: bytes 4-9/8\r\n\r\n456789", want: "0123456789"},
		{name: "place is no number", ranged: part + "Content-Range: bytes four-9/10\r\n\r\n456789", want: "0123456789"},
		{name: "another unit", ranged: part + "Content-Range: lines 4-9/10\r\n\r\n456789", want: "0123456789"},
		{name: "several parts", ranged: "HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nContent-Type: multipart/byteranges; boundary=x\r\nContent-Length: 3\r\n\r\n--x", want: "0123456789"},
		{name: "another file", ranged: "HTTP/1.1 206 Partial Content\r\nETag: \"b\"\r\nContent-Length: 6\r\nContent-Range: bytes 4-9/10\r\n\r\n456789", want: "0123456789"},
		{name: "not to be had", ranged: "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */3\r\nContent-Length: 0\r\n\r\n", want: "0123456789"},
		{name: "only some of it", ranged: "HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nContent-Length: 2\r\nContent-Range: bytes 4-5/10\r\n\r\n45", want: "45", offset: 4},
		{name: "shorter than its range", ranged: "HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nContent-Length: 2\r\nContent-Range: bytes 4-9/10\r\n\r\n45", code: fault.Size},
		{name: "broken", ranged: "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", code: fault.Server},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := true
			h := newSite(t, serveRaw(t, func(conn net.Conn) {
				reply := whole
				if first {
					reply = c.ranged
				}
				first = false
				io.WriteString(conn, reply)
			}), Options{})
			stream, err := h.Open(context.Background(), "app", source.Position{Offset: 4, Mark: `"a"`})
			var got []byte
			if err == nil {
				defer stream.Body.Close()
				got, err = io.ReadAll(stream.Body)
			}
			if c.code != "" {
				sourcetest.WantCode(t, err, c.code, true)
				return
			}
			if err != nil || string(got) != c.want || stream.Offset != c.offset {
				t.Errorf("got %q from %d, %v; want %q from %d", got, stream.Offset, err, c.want, c.offset)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		status     int
		retryAfter string
		code       fault.Code
		temporary  bool
		wait       time.Duration
	}{
		{404, "", fault.NotFound, true, 0},
		{410, "", fault.NotFound, true, 0},
		{401, "", fault.Denied, false, 0},
		{403, "", fault.Denied, false, 0},
		{451, "", fault.Denied, false, 0},
		{407, "", fault.Proxy, false, 0},
		{429, "0", fault.Throttled, true, 0},
		{429, "120", fault.Throttled, true, 2 * time.Minute},
		{429, "86400", fault.Throttled, true, time.Hour},
		{429, "99999999999999999999", fault.Throttled, true, time.Hour},
		{429, "soon", fault.Throttled, true, 0},
		{429, "-5", fault.Throttled, true, 0},
		{500, "", fault.Server, true, 0},
		{502, "", fault.Server, true, 0},
		{503, "30", fault.Server, true, 30 * time.Second},
		{503, "Thu, 01 Jan 1970 00:00:00 GMT", fault.Server, true, 0},
		{503, "Thu, 01 Jan 2099 00:00:00 GMT", fault.Server, true, time.Hour},
		{504, "", fault.Server, true, 0},
		{408, "", fault.Server, true, 0},
		{204, "", fault.Status, false, 0},
		{418, "", fault.Status, false, 0},
		{300, "", fault.Redirect, false, 0},
	} {
		t.Run(fmt.Sprint(c.status, c.retryAfter), func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.retryAfter != "" {
					w.Header().Set("Retry-After", c.retryAfter)
				}
				w.WriteHeader(c.status)
			}))
			defer server.Close()
			h := newSite(t, server.URL, Options{})
			_, _, err := h.Read(context.Background(), "SHA256SUMS", 10, "")
			sourcetest.WantCode(t, err, c.code, c.temporary)
			var e *fault.Error
			errors.As(err, &e)
			if got := e.RetryAfter; got != c.wait {
				t.Errorf("wait %v, want %v", got, c.wait)
			}
			if !strings.Contains(err.Error(), fmt.Sprint(c.status)) || !strings.Contains(err.Error(), "SHA256SUMS") {
				t.Errorf("%q names neither status nor file", err)
			}
			_, err = h.Open(context.Background(), "app", source.Position{})
			sourcetest.WantCode(t, err, c.code, c.temporary)
		})
	}
}

func TestRetryAfterDate(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"Fri, 20 Nov 2026 12:01:00 GMT":  time.Minute,
		"Fri, 20 Nov 2026 11:59:00 GMT":  0,
		"Friday, 20-Nov-26 12:00:30 GMT": 30 * time.Second,
		"Fri Nov 20 12:00:10 2026":       10 * time.Second,
		"2026-11-20T12:01:00Z":           0,
		"":                               0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", s, got, want)
		}
	}
}

// The date is by the server's clock, and this host's may say anything.
func TestRetryAfterDateByAnotherClock(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 30 * 365 * 24 * time.Hour, "behind": -30 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				now := time.Now().Add(off)
				w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
				w.Header().Set("Retry-After", now.Add(90*time.Second).UTC().Format(http.TimeFormat))
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			defer server.Close()
			_, _, err := newSite(t, server.URL, Options{}).Read(context.Background(), "SHA256SUMS", 100, "")
			var e *fault.Error
			if !errors.As(err, &e) || e.RetryAfter != 90*time.Second {
				t.Errorf("got %v, to be asked again after %v, want 90s", err, e.RetryAfter)
			}
		})
	}
}

func TestAsksForTheFileAsItIs(t *testing.T) {
	var got http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		w.Header().Set("Content-Encoding", "gzip")
		w.Write([]byte("\x1f\x8b raw"))
	}))
	defer server.Close()
	h := newSite(t, server.URL, Options{})
	_, _, err := h.Read(context.Background(), "SHA256SUMS", 100, "")
	sourcetest.WantCode(t, err, fault.Encoding, false)
	if got.Get("Accept-Encoding") != "identity" {
		t.Errorf("asked for the encoding %q", got.Get("Accept-Encoding"))
	}
	// An artifact is taken as it comes: servers declare .gz files so.
	stream := sourcetest.MustOpen(t, h, "app.gz", source.Position{})
	if raw := sourcetest.MustReadAll(t, stream); string(raw) != "\x1f\x8b raw" || !strings.Contains(stream.Note, "gzip") {
		t.Errorf("got %q with the note %q", raw, stream.Note)
	}
}

// TestDistrustsYoungValidators publishes twice within a second, which a
// date cannot tell and so an ETag made of one cannot either.
func TestDistrustsYoungValidators(t *testing.T) {
	modified := time.Now().Add(-time.Hour)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", modified, strings.NewReader("x"))
	}))
	defer server.Close()
	h := newSite(t, server.URL, Options{})
	_, mark, err := h.Read(context.Background(), "SHA256SUMS", 10, "")
	if err != nil || mark == "" {
		t.Fatalf("old file: mark %q, %v", mark, err)
	}
	if _, _, err := h.Read(context.Background(), "SHA256SUMS", 10, mark); !errors.Is(err, source.ErrUnchanged) {
		t.Fatalf("old file again: %v", err)
	}
	modified = time.Now()
	if _, mark, err = h.Read(context.Background(), "SHA256SUMS", 10, mark); err != nil || mark != "" {
		t.Fatalf("new file: mark %q, %v; want none", mark, err)
	}
}

func TestRedirects(t *testing.T) {
	type seen struct{ host, authorization, referer, cookie string }
	var visits []seen
	content := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visits = append(visits, seen{r.Host, r.Header.Get("Authorization"), r.Referer(), r.Header.Get("Cookie")})
		io.WriteString(w, "hello")
	})
	plain := httptest.NewServer(content)
	defer plain.Close()
	secure := httptest.NewTLSServer(content)
	defer secure.Close()
	var hop func(r *http.Request) string
	redirector := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visits = append(visits, seen{r.Host, r.Header.Get("Authorization"), r.Referer(), r.Header.Get("Cookie")})
		w.Header().Set("Location", hop(r))
		w.Header().Set("Set-Cookie", "session="+canary)
		w.WriteHeader(http.StatusFound)
	})
	from := httptest.NewServer(redirector)
	defer from.Close()
	fromSecure := httptest.NewTLSServer(redirector)
	defer fromSecure.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	count := func(r *http.Request) int { var n int; fmt.Sscan(r.URL.Query().Get("n"), &n); return n }
	for _, c := range []struct {
		name, start string
		hop         func(r *http.Request) string
		why         string // "" when it must arrive
	}{
		{"to another host", from.URL, func(*http.Request) string { return plain.URL + "/x" }, ""},
		{"to another host with a user", from.URL, func(*http.Request) string { return strings.Replace(plain.URL, "//", "//a:b@", 1) }, ""},
		{"http to https", from.URL, func(*http.Request) string { return secure.URL + "/x" }, ""},
		{"https to https", fromSecure.URL, func(*http.Request) string { return secure.URL + "/x" }, ""},
		{"five", from.URL, func(r *http.Request) string {
			if count(r) == 4 {
				return plain.URL
			}
			return fmt.Sprintf("/x?n=%d", count(r)+1)
		}, ""},
		{"six", from.URL, func(r *http.Request) string {
			if count(r) == 5 {
				return plain.URL
			}
			return fmt.Sprintf("/x?n=%d", count(r)+1)
		}, "more than 5"},
		{"loop", from.URL, func(*http.Request) string { return "/loop?secret=" + canary }, "more than 5"},
		{"https to http", fromSecure.URL, func(*http.Request) string { return plain.URL + "/?secret=" + canary }, "from https to http"},
		{"file", from.URL, func(*http.Request) string { return "file:///etc/passwd" }, "not http or https"},
		{"unix socket", from.URL, func(*http.Request) string { return "unix:///run/docker.sock" }, "not http or https"},
		{"data", from.URL, func(*http.Request) string { return "data:text/plain,hello" }, "not http or https"},
		{"IPv6 zone", from.URL, func(*http.Request) string { return "http://[fe80::1%25eth0]/" }, "not a host"},
		{"no host", from.URL, func(*http.Request) string { return "http:///x" }, "not a host"},
		{"not a URL", from.URL, func(*http.Request) string { return "http://[" + canary }, "no URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hop, visits = c.hop, nil
			h := newSite(t, strings.Replace(c.start, "//", "//user:"+canary+"@", 1)+"/dir?token="+canary, Options{CAFile: ca})
			raw, _, err := h.Read(context.Background(), "SHA256SUMS", 10, "")
			switch {
			case c.why != "":
				sourcetest.WantCode(t, err, fault.Redirect, false)
				if !strings.Contains(err.Error(), c.why) {
					t.Errorf("%v, want %q", err, c.why)
				}
			case err != nil || string(raw) != "hello":
				t.Fatalf("%q, %v", raw, err)
			}
			if len(visits) == 0 || visits[0].authorization == "" {
				t.Fatalf("the first host did not get its credential: %v", visits)
			}
			for _, v := range visits {
				if v.host != visits[0].host && v.authorization != "" {
					t.Errorf("%s got %q", v.host, v.authorization)
				}
				if v.referer != "" || v.cookie != "" {
					t.Errorf("%s got the referer %q and the cookie %q", v.host, v.referer, v.cookie)
				}
			}
		})
	}
}

// TestCredentialStaysWithItsHost goes a, b, b: on the second step from b to
// itself Go once sent what it had held back (CVE-2024-45336).
func TestCredentialStaysWithItsHost(t *testing.T) {
	var leaked []string
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked = append(leaked, r.Header.Get("Authorization")+r.Header.Get("Private-Token"))
		if r.URL.Path != "/end" {
			http.Redirect(w, r, "/end", http.StatusFound)
		}
	}))
	defer b.Close()
	a := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, b.URL, http.StatusFound)
	}))
	defer a.Close()
	h := newSite(t, strings.Replace(a.URL, "//", "//user:"+canary+"@", 1), Options{})
	r := h.request("SHA256SUMS")
	r.Header.Set("Private-Token", canary)
	if _, _, err := h.Client.Read(context.Background(), r, 10, ""); err != nil {
		t.Fatal(err)
	}
	if len(leaked) != 2 || leaked[0] != "" || leaked[1] != "" {
		t.Errorf("the other host got %q", leaked)
	}
}

func TestTLS(t *testing.T) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	start := func(change func(*tls.Config)) *httptest.Server {
		server := httptest.NewUnstartedServer(hello)
		server.TLS = &tls.Config{}
		change(server.TLS)
		server.Config.ErrorLog = nil
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	normal := start(func(*tls.Config) {})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: normal.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	old := start(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 })
	mutual := start(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert; c.MaxVersion = tls.VersionTLS12 })
	mutual13 := start(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
	plain := httptest.NewServer(hello)
	defer plain.Close()
	port := func(s *httptest.Server) string { return s.Listener.Addr().(*net.TCPAddr).AddrPort().String()[10:] }
	for _, c := range []struct {
		name, url, ca string
		why           string // "" when it must work
	}{
		{"trusted by CAFile", normal.URL, ca, ""},
		{"unknown authority", normal.URL, "", `certificate of "O=Acme Co"`},
		{"wrong host", "https://localhost:" + port(normal), ca, "localhost"},
		{"old versions only", old.URL, ca, "protocol version"},
		{"wants a certificate of ours", mutual.URL, ca, "certificate"},
		{"wants a certificate of ours, 1.3", mutual13.URL, ca, "certificate"},
		{"no TLS at all", strings.Replace(plain.URL, "http", "https", 1), ca, "does not speak TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newSite(t, c.url, Options{CAFile: c.ca})
			raw, _, err := h.Read(context.Background(), "SHA256SUMS", 10, "")
			if c.why == "" {
				if err != nil || string(raw) != "hello" {
					t.Fatalf("%q, %v", raw, err)
				}
				return
			}
			sourcetest.WantCode(t, err, fault.TLS, false)
			if !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v, want %q", err, c.why)
			}
		})
	}
}

func TestNewRefusesABrokenCAFile(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("not PEM"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{garbage, filepath.Join(dir, "none"), dir, "/dev/zero"} {
		_, err := New("localhost", Options{CAFile: file})
		sourcetest.WantCode(t, err, fault.ConfigSource, false)
	}
}

func TestConnect(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	listener.Close()
	for _, c := range []struct {
		name, url string
		code      fault.Code
	}{
		{"refused", "http://" + closed, fault.Connect},
		{"no such name", "http://no-such-host.invalid", fault.DNS},
	} {
		h := newSite(t, c.url, Options{})
		_, _, err := h.Read(context.Background(), "SHA256SUMS", 10, "")
		sourcetest.WantCode(t, err, c.code, true)
	}
}

// TestNames asks a resolver that fails, and one that never answers.
func TestNames(t *testing.T) {
	answer := func(reply func(query []byte) []byte) {
		server, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		go func() {
			query := make([]byte, 1500)
			for {
				n, from, err := server.ReadFrom(query)
				if err != nil {
					return
				}
				if answer := reply(query[:n]); answer != nil {
					_, _ = server.WriteTo(answer, from)
				}
			}
		}()
		was := net.DefaultResolver
		t.Cleanup(func() { net.DefaultResolver = was })
		net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
		}}
	}
	read := func() error {
		h := newSite(t, "http://releases.example.com", Options{connect: 300 * time.Millisecond})
		_, _, err := h.Read(t.Context(), "SHA256SUMS", 10, "")
		return err
	}
	var asked atomic.Int32
	answer(func(query []byte) []byte {
		asked.Add(1)
		const response, servfail = 0x80, 2
		query[2] |= response
		query[3] = query[3]&0xf0 | servfail
		return query
	})
	sourcetest.WantCode(t, read(), fault.DNS, true)
	answer(func([]byte) []byte {
		asked.Add(1)
		return nil
	})
	before := asked.Load()
	sourcetest.WantCode(t, read(), fault.DNS, true)
	if before == 0 || asked.Load() == before {
		t.Errorf("the resolver was asked %d times, then %d", before, asked.Load())
	}
}

// TestBlackHole connects to a host that drops what comes: the kernel does, where
// nobody accepts and the queue is full.
func TestBlackHole(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	for full := false; !full; {
		c, err := net.DialTimeout("tcp", address, 500*time.Millisecond)
		if full = err != nil; !full {
			defer c.Close()
		}
	}
	h := newSite(t, "http://"+address, Options{connect: 300 * time.Millisecond})
	_, _, err = h.Read(t.Context(), "SHA256SUMS", 10, "")
	sourcetest.WantCode(t, err, fault.Connect, true)
}

// TestStaysOutside has a source in the world lead this host inside. Which
// addresses count as the world's is the test's: all servers are on loopback.
func TestStaysOutside(t *testing.T) {
	var visits atomic.Int32
	secret := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visits.Add(1)
		io.WriteString(w, "secret")
	}))
	defer secret.Close()
	_, port, _ := net.SplitHostPort(secret.Listener.Addr().String())
	outside := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+r.URL.Query().Get("to"), http.StatusFound)
	}))
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	outside.Listener.Close()
	outside.Listener = l
	outside.Start()
	defer outside.Close()
	for _, c := range []struct {
		name, to string
		private  func(netip.Addr) bool
		want     int32 // visits inside
	}{
		{"by address", "127.0.0.1:" + port, func(a netip.Addr) bool { return a != netip.MustParseAddr("127.0.0.2") }, 0},
		{"by name", "localhost:" + port, func(a netip.Addr) bool { return a != netip.MustParseAddr("127.0.0.2") }, 0},
		{"mapped", "[::ffff:127.0.0.1]:" + port, func(a netip.Addr) bool { return a != netip.MustParseAddr("127.0.0.2") }, 0},
		{"the source is inside too", "127.0.0.1:" + port, isPrivate, 1},
		{"to another outside", "127.0.0.1:" + port, func(netip.Addr) bool { return false }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			visits.Store(0)
			h := newSite(t, outside.URL+"/?to="+url.QueryEscape(c.to), Options{isPrivate: c.private})
			_, _, err := h.Read(context.Background(), "SHA256SUMS", 10, "")
			if got := visits.Load(); got != c.want {
				t.Errorf("%d visits inside, want %d (%v)", got, c.want, err)
			}
			if c.want == 0 && (fault.CodeOf(err) != fault.Redirect || !strings.Contains(err.Error(), "private address")) {
				t.Errorf("got %v", err)
			}
			if c.want == 1 && err != nil {
				t.Error(err)
			}
		})
	}
	for text, want := range map[string]bool{
		"127.0.0.1": true, "10.1.2.3": true, "172.16.0.1": true, "192.168.1.1": true, "169.254.169.254": true, "100.64.0.1": true,
		"0.0.0.0": true, "::1": true, "::": true, "fe80::1": true, "fd00:ec2::254": true, "224.0.0.1": true, "ff02::1": true,
		"8.8.8.8": false, "172.32.0.1": false, "100.128.0.1": false, "2001:4860:4860::8888": false,
	} {
		if got := isPrivate(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is private: %v, want %v", text, got, want)
		}
	}
}
