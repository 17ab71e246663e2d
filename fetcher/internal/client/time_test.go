package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// pipes is a network of this process, in which time is that of the test.
type pipes struct{ accept chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.accept
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { close(p.accept); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.accept <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inBubble runs test against a server with the handler; both see time that
// passes only while both wait.
func inBubble(t *testing.T, handler http.HandlerFunc, test func(t *testing.T, h site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := pipes{make(chan net.Conn)}
		server := &http.Server{Handler: handler}
		go server.Serve(network)
		c, err := New("example.org", Options{Dial: network.dial})
		if err != nil {
			t.Fatal(err)
		}
		test(t, site{c, &url.URL{Scheme: "http", Host: "example.org"}})
		server.Close()
	})
}

// send writes size bytes in pieces, one each interval, until the client leaves.
func send(w http.ResponseWriter, r *http.Request, piece, size int, interval time.Duration) {
	buf := make([]byte, piece)
	for sent := 0; sent < size; sent += piece {
		if _, err := w.Write(buf); err != nil {
			return
		}
		http.NewResponseController(w).Flush()
		select {
		case <-time.After(interval):
		case <-r.Context().Done():
			return
		}
	}
}

func TestTime(t *testing.T) {
	for _, c := range []struct {
		name     string
		handler  http.HandlerFunc
		code     fault.Code // "" when all must arrive
		min, max time.Duration
	}{
		{"never answers", func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, fault.Stalled, 30 * time.Second, 30 * time.Second},
		{"stops in the middle", func(w http.ResponseWriter, r *http.Request) {
			send(w, r, 1<<20, 1<<20, time.Millisecond)
			<-r.Context().Done()
		}, fault.Stalled, 30 * time.Second, 31 * time.Second},
		{"pauses, but not for long", func(w http.ResponseWriter, r *http.Request) {
			send(w, r, 1<<20, 4<<20, 29*time.Second)
		}, "", 4 * 29 * time.Second, 4 * 30 * time.Second},
		{"a byte a second", func(w http.ResponseWriter, r *http.Request) {
			send(w, r, 1, 1<<20, time.Second)
		}, fault.TooSlow, 60 * time.Second, 61 * time.Second},
		{"slow for a day, but fast enough", func(w http.ResponseWriter, r *http.Request) {
			send(w, r, 2<<10, 2<<10*86_400, time.Second)
		}, "", 24 * time.Hour, 25 * time.Hour},
		{"fast first, then slow", func(w http.ResponseWriter, r *http.Request) {
			send(w, r, 1<<20, 10<<20, time.Millisecond)
			send(w, r, 1, 1<<20, time.Second)
		}, fault.TooSlow, 2 * time.Minute, 2*time.Minute + 2*time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, c.handler, func(t *testing.T, h site) {
				begin := time.Now()
				stream, err := h.Open(context.Background(), "app", source.Position{})
				if err == nil {
					defer stream.Body.Close()
					_, err = io.Copy(io.Discard, stream.Body)
				}
				if c.code != "" {
					sourcetest.WantCode(t, err, c.code, true)
				} else if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took < c.min || took > c.max {
					t.Errorf("took %v, want %v to %v", took, c.min, c.max)
				}
			})
		})
	}
}

// TestStallCountsOnlyWaiting stops reading for an hour: a slow disk is not
// the server's fault.
func TestStallCountsOnlyWaiting(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		send(w, r, 1<<20, 2<<20, time.Millisecond)
	}, func(t *testing.T, h site) {
		stream, err := h.Open(context.Background(), "app", source.Position{})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Body.Close()
		if _, err := io.ReadFull(stream.Body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n, err := io.Copy(io.Discard, stream.Body); err != nil || n != 2<<20-1000 {
			t.Errorf("read %d bytes more, %v", n, err)
		}
	})
}

// TestSmallFileHasADeadline trickles a manifest just above the least rate.
func TestSmallFileHasADeadline(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		send(w, r, 2<<10, 4<<20, time.Second)
	}, func(t *testing.T, h site) {
		begin := time.Now()
		_, _, err := h.Read(context.Background(), "SHA256SUMS", 4<<20, "")
		sourcetest.WantCode(t, err, fault.TooSlow, true)
		if took := time.Since(begin); took != readTimeout {
			t.Errorf("took %v, want %v", took, readTimeout)
		}
	})
}

func TestCallersDeadline(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(t *testing.T, h site) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := h.Open(ctx, "app", source.Position{})
		sourcetest.WantCode(t, err, fault.Canceled, true)
	})
}
