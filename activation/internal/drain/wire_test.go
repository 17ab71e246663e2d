package drain

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// Bytes that the kernel has and nobody has read yet are seen, under TLS too.
func TestQueued(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "sock")} {
		t.Run(network, func(t *testing.T) {
			l, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			client, err := net.Dial(network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			server, err := wiredListener{l}.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			for name, nc := range map[string]net.Conn{"plain": server, "tls": tls.Server(server, &tls.Config{})} {
				c := &conn{nc: nc, wire: wireOf(nc)}
				if c.wire == nil {
					t.Fatalf("%s: no wire below the connection", name)
				}
				if c.queued() {
					t.Errorf("%s: got queued before anything was sent", name)
				}
				fmt.Fprint(client, "GET")
				for deadline := time.Now().Add(5 * time.Second); !c.queued(); {
					if time.Now().After(deadline) {
						t.Fatalf("%s: what was sent is not seen", name)
					}
				}
				// Read, and therefore counted, it still keeps the connection.
				before := c.wire.reads.Load()
				if _, err := server.Read(make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
				if c.queued() || c.wire.reads.Load() == before {
					t.Errorf("%s: got queued %t and %d reads after reading", name, c.queued(), c.wire.reads.Load())
				}
			}
		})
	}
}

// The sockets stay what they are below the wire.
func TestWiredConnections(t *testing.T) {
	var _ io.ReaderFrom = new(tcpConn) // sendfile(2)
	for _, c := range []any{new(tcpConn), new(unixConn)} {
		if _, ok := c.(interface{ CloseWrite() error }); !ok {
			t.Errorf("%T cannot close its writing half, which net/http needs", c)
		}
	}
	client, server := net.Pipe()
	defer client.Close()
	l := oneListener{tls.Server(server, &tls.Config{})}
	got, err := wiredListener{l}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := got.(*tls.Conn); !ok {
		t.Errorf("got a %T of a TLS listener, want the TLS connection itself", got)
	}
}

type oneListener struct{ nc net.Conn }

func (l oneListener) Accept() (net.Conn, error) { return l.nc, nil }
func (l oneListener) Close() error              { return nil }
func (l oneListener) Addr() net.Addr            { return nil }

// BenchmarkRequest is what the drain's bookkeeping costs a request on a
// connection that stays open.
func BenchmarkRequest(b *testing.B) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	for _, name := range []string{"plain", "serve"} {
		b.Run(name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			s := &http.Server{Handler: handler}
			served := l
			if name == "serve" {
				New(Options{HTTP: s, Listeners: []net.Listener{l}, Grace: time.Second, Limit: time.Second})
				served = wiredListener{l}
			}
			go func() { _ = s.Serve(served) }()
			defer s.Close()
			b.ReportAllocs()
			for b.Loop() {
				resp, err := http.Get("http://" + l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					b.Fatal(err)
				}
				resp.Body.Close()
			}
		})
	}
}
