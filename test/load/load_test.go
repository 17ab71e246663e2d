package load

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Serve()
	os.Exit(m.Run())
}

// serveRaw answers every connection with f, which gets it after the request.
func serveRaw(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := conn.Read(make([]byte, 1024)); err == nil {
					f(conn)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// Every way to fail is counted as what it is, and as nothing else.
func TestFailures(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	tests := []struct {
		want    Failure
		address string
	}{
		{Refused, nobody.Addr().String()},
		{EOF, serveRaw(t, func(net.Conn) {})},
		{EOF, serveRaw(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") })},
		{Reset, serveRaw(t, func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) })},
		{Status, serveRaw(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n") })},
		{Other, serveRaw(t, func(c net.Conn) { io.WriteString(c, "what?\r\n\r\n") })},
		{Timeout, serveRaw(t, func(net.Conn) { time.Sleep(time.Second) })},
	}
	for _, test := range tests {
		t.Run(string(test.want), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			o := Options{Address: test.address, Rate: 100, Kept: 2}
			if test.want == Timeout {
				o.Timeout = 200 * time.Millisecond
			}
			r := Run(ctx, o, nil)
			if r.Sent < 5 || r.Answered != 0 || r.Failed[test.want] != r.Sent {
				t.Errorf("got %v %v, want all %s", r, r.Errors, test.want)
			}
		})
	}
}

// A server that says "Connection: close" loses a kept client, not a request.
func TestLeaveWhenTold(t *testing.T) {
	var answers atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(VersionHeader, "7")
		if answers.Add(1)%3 == 0 {
			w.Header().Set("Connection", "close")
		}
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	r := Run(ctx, Options{Address: server.Listener.Addr().String(), Kept: 4, Pause: time.Millisecond}, nil)
	if r.Failures() != 0 || int64(r.Versions["7"]) != answers.Load() || r.Sent != r.Versions["7"] || r.Sent < 10 {
		t.Errorf("got %v %v, server answered %d", r, r.Errors, answers.Load())
	}
}

// The rate holds though no answer comes back in time.
func TestRateDoesNotWaitForAnswers(t *testing.T) {
	address := serveRaw(t, func(c net.Conn) {
		time.Sleep(300 * time.Millisecond)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Version: 1\r\nContent-Length: 0\r\n\r\n")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	r := Run(ctx, Options{Address: address, Rate: 400, Samples: true}, nil)
	if r.Sent < 20 || r.Sent > 200 || r.Failures() != 0 { // who waits sends two
		t.Errorf("got %v %v, want some 200 sent", r, r.Errors)
	}
	if len(r.Samples) != r.Sent || r.Median < 300*time.Millisecond || r.Max < r.P99 || r.P99 < r.Median {
		t.Errorf("got %d samples, median %v, p99 %v, max %v", len(r.Samples), r.Median, r.P99, r.Max)
	}
}

func TestProcess(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(VersionHeader, "1.0")
	}))
	defer server.Close()
	p, err := Start(exec.Command(os.Args[0]), Options{Address: server.Listener.Addr().String(), Rate: 200, Kept: 2})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.AwaitVersion(ctx, "1.0", 20); err != nil {
		t.Error(err)
	}
	r, err := p.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if r.Failures() != 0 || r.Versions["1.0"] != r.Sent || r.FirstAnswer["1.0"].IsZero() || r.Median == 0 {
		t.Errorf("got %v %v", r, r.Errors)
	}
	if err := p.Await(ctx, func(Report) bool { return false }); err == nil {
		t.Error("await after the end: got no error")
	}
}
