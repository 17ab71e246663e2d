package activation_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/upgraderd/upgraderd/activation"
)

// pipeListener hands out in-memory connections, so that a drain can be watched
// on a clock that only moves when nothing else does.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{make(chan net.Conn), make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// running is a server under Serve, inside a bubble.
type running struct {
	l    *pipeListener
	stop context.CancelFunc
	done chan error
}

func serve(t *testing.T, s activation.Server) *running {
	ctx, stop := context.WithCancel(t.Context())
	r := &running{newPipeListener(), stop, make(chan error, 1)}
	s.Listeners = []net.Listener{r.l}
	go func() { r.done <- activation.Serve(ctx, s) }()
	synctest.Wait()
	return r
}

// ask sends one request and reads the answer.
func ask(t *testing.T, c net.Conn, br *bufio.Reader, path string) reply {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path); err != nil {
		t.Fatalf("send: %v", err)
	}
	return answer(t, br)
}

// reply is an answer read to its end.
type reply struct {
	body  string
	close bool
}

func answer(t *testing.T, br *bufio.Reader) reply {
	t.Helper()
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("request failed: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("answer cut: %v", err)
	}
	return reply{string(body), resp.Close}
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })

func flush(w http.ResponseWriter) {
	if err := http.NewResponseController(w).Flush(); err != nil {
		panic(err)
	}
}

func wantEOF(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("got %d bytes, %v, want the connection closed", n, err)
	}
}

func TestDrain(t *testing.T) {
	const grace, limit = 5 * time.Second, 30 * time.Second
	plain := activation.Server{HTTP: &http.Server{Handler: hello}}
	for _, tt := range []struct {
		name   string
		server func() activation.Server
		client func(t *testing.T, r *running)
		took   time.Duration // from the end of the context to Serve's return
		slack  time.Duration
		cut    int
	}{{
		name:   "nobody there",
		client: func(*testing.T, *running) {},
	}, {
		name: "an idle connection is left open, then closed",
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			if got := ask(t, c, bufio.NewReader(c), "/"); got.close {
				t.Error("told to close before the drain")
			}
			r.stop()
			wantEOF(t, c)
		},
		took: grace, slack: 20 * time.Millisecond,
	}, {
		name: "a request on an idle connection is answered, and the last",
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			br := bufio.NewReader(c)
			ask(t, c, br, "/")
			r.stop()
			time.Sleep(grace - time.Second)
			if got := ask(t, c, br, "/"); !got.close {
				t.Error("not told to close")
			}
			wantEOF(t, c)
		},
		took: grace - time.Second, slack: 20 * time.Millisecond,
	}, {
		name: "a connection that has said nothing yet is answered",
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			synctest.Wait()
			r.stop()
			time.Sleep(grace - time.Second)
			if got := ask(t, c, bufio.NewReader(c), "/"); !got.close {
				t.Error("not told to close")
			}
		},
		took: grace - time.Second, slack: 20 * time.Millisecond,
	}, {
		name: "a header that arrives in pieces counts from its last byte",
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			r.stop()
			for _, piece := range []string{"GET / HT", "TP/1.1\r\n", "Host: test\r\n", "\r\n"} {
				time.Sleep(grace - time.Second)
				fmt.Fprint(c, piece)
			}
			answer(t, bufio.NewReader(c))
		},
		took: 4 * (grace - time.Second), slack: 20 * time.Millisecond,
	}, {
		name: "an upload that arrives byte by byte is taken to its end",
		server: func() activation.Server {
			return activation.Server{HTTP: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				fmt.Fprint(w, string(body), err)
			})}}
		},
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 20\r\n\r\n")
			synctest.Wait()
			r.stop()
			for range 20 {
				time.Sleep(time.Second)
				fmt.Fprint(c, "x")
			}
			if got := answer(t, bufio.NewReader(c)); got.body != strings.Repeat("x", 20)+"<nil>" || !got.close {
				t.Errorf("got %+v", got)
			}
		},
		took: 20 * time.Second, slack: 20 * time.Millisecond,
	}, {
		name: "a running handler ends in its own time",
		server: func() activation.Server {
			return activation.Server{HTTP: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(20 * time.Second)
				fmt.Fprint(w, "late")
			})}}
		},
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			time.AfterFunc(time.Second, r.stop)
			if got := ask(t, c, bufio.NewReader(c), "/"); !got.close {
				t.Error("not told to close")
			}
		},
		took: 19 * time.Second, slack: 20 * time.Millisecond,
	}, {
		name: "a stream that began before the drain keeps its connection",
		server: func() activation.Server {
			return activation.Server{HTTP: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, "one")
				if r.URL.Path == "/stream" {
					flush(w)
					time.Sleep(10 * time.Second)
				}
			})}}
		},
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			br := bufio.NewReader(c)
			time.AfterFunc(time.Second, r.stop)
			if got := ask(t, c, br, "/stream"); got.close {
				t.Error("told to close in a header that went out before")
			}
			// Nothing told this client to go; it goes on.
			time.Sleep(time.Second)
			if got := ask(t, c, br, "/"); !got.close {
				t.Error("not told to close")
			}
		},
		took: 10 * time.Second, slack: 20 * time.Millisecond,
	}, {
		name: "handlers that end with the limit are cut",
		server: func() activation.Server {
			return activation.Server{HTTP: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
			})}}
		},
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
			synctest.Wait()
			r.stop()
			wantEOF(t, c)
		},
		took: limit, cut: 1,
	}, {
		name: "hijacked connections end by themselves",
		server: func() activation.Server {
			return activation.Server{HTTP: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					panic(err)
				}
				time.AfterFunc(12*time.Second, func() {
					fmt.Fprint(c, "bye")
					c.Close()
				})
			})}}
		},
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
			synctest.Wait()
			r.stop()
			if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
				t.Errorf("got %q, %v, want bye", got, err)
			}
		},
		took: 12 * time.Second, slack: 20 * time.Millisecond,
	}, {
		name: "hijacked connections are cut at the limit",
		server: func() activation.Server {
			return activation.Server{DrainLimit: 7 * time.Second, HTTP: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					panic(err)
				}
				go func() { _, _ = io.Copy(io.Discard, c) }()
			})}}
		},
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
			synctest.Wait()
			r.stop()
			wantEOF(t, c)
		},
		took: 7 * time.Second, slack: 1100 * time.Millisecond, cut: 1,
	}, {
		name: "no grace, no request: closed at once",
		server: func() activation.Server {
			return activation.Server{Grace: -1, HTTP: &http.Server{Handler: hello}}
		},
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			ask(t, c, bufio.NewReader(c), "/")
			r.stop()
			wantEOF(t, c)
		},
		slack: 100 * time.Millisecond,
	}, {
		name: "what is registered with RegisterOnShutdown ends streams",
		server: func() activation.Server {
			over := make(chan struct{})
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				flush(w)
				<-over
				fmt.Fprint(w, "over")
			})}
			s.RegisterOnShutdown(func() { close(over) })
			return activation.Server{HTTP: s, DrainLimit: 16 * time.Second}
		},
		client: func(t *testing.T, r *running) {
			c := r.l.dial()
			time.AfterFunc(time.Second, r.stop)
			ask(t, c, bufio.NewReader(c), "/")
		},
		took: 8 * time.Second, slack: 20 * time.Millisecond,
	}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NOTIFY_SOCKET", "")
			synctest.Test(t, func(t *testing.T) {
				s := plain
				s.HTTP = &http.Server{Handler: hello}
				if tt.server != nil {
					s = tt.server()
				}
				r := serve(t, s)
				var stopped time.Time
				stop := r.stop
				r.stop = func() {
					stopped = time.Now()
					stop()
				}
				tt.client(t, r)
				if stopped.IsZero() {
					r.stop()
				}
				err := <-r.done
				if took := time.Since(stopped); took < tt.took || took > tt.took+tt.slack {
					t.Errorf("drained in %s, want %s", took, tt.took)
				}
				var cut *activation.CutError
				switch {
				case tt.cut == 0 && err != nil:
					t.Error(err)
				case tt.cut > 0 && (!errors.As(err, &cut) || cut.Connections != tt.cut):
					t.Errorf("got %v, want %d connections cut", err, tt.cut)
				}
			})
		})
	}
}

// The server's own hooks go on working under those of the drain.
func TestServeKeepsHooks(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var states atomic.Int32
		r := serve(t, activation.Server{HTTP: &http.Server{
			ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return context.WithValue(ctx, key{}, "mine") },
			ConnState:   func(net.Conn, http.ConnState) { states.Add(1) },
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, r.Context().Value(key{}))
			}),
		}})
		c := r.l.dial()
		if got := ask(t, c, bufio.NewReader(c), "/"); got.body != "mine" {
			t.Errorf("got %q from ConnContext, want mine", got.body)
		}
		r.stop()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
		if n := states.Load(); n != 4 {
			t.Errorf("got %d states, want new, active, idle, closed", n)
		}
	})
}

func TestServeErrors(t *testing.T) {
	noLeaks(t)
	t.Setenv("NOTIFY_SOCKET", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	taken := listenTCP(t)
	free := listenTCP(t)
	for _, tt := range []struct {
		name    string
		servers []activation.Server
		want    string
	}{
		{"none", nil, "no server"},
		{"nil", []activation.Server{{Name: "web"}}, `serve "web": Server.HTTP is nil`},
		{"address in use", []activation.Server{
			{HTTP: &http.Server{}, Listeners: []net.Listener{free}},
			{Name: "web", HTTP: &http.Server{Addr: taken.Addr().String()}},
		}, "address already in use"},
		{"certificate", []activation.Server{{HTTP: &http.Server{}, CertFile: "/nowhere", KeyFile: "/nowhere"}}, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := activation.Serve(ctx, tt.servers...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := free.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a listener was left open after a failed start: %v", err)
	}
}

// One listener that breaks ends the rest in order, and Serve says why.
func TestServeBrokenListener(t *testing.T) {
	noLeaks(t)
	m := newManager(t, false)
	m.use(t)
	broken, whole := listenTCP(t), listenTCP(t)
	done := make(chan error, 1)
	go func() {
		done <- activation.Serve(t.Context(),
			activation.Server{HTTP: &http.Server{Handler: hello}, Listeners: []net.Listener{broken}},
			activation.Server{HTTP: &http.Server{Handler: hello}, Listeners: []net.Listener{whole}, DrainLimit: 40 * time.Second})
	}()
	m.want(t, "READY=1")
	broken.Close()
	m.want(t, "STOPPING=1\nEXTEND_TIMEOUT_USEC=45000000")
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want the listener's error", err)
	}
	if _, err := whole.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the other listener was left open: %v", err)
	}
}
