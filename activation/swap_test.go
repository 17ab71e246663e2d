package activation_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/activation"
)

// childSwap is one generation of a service. DRAIN=shutdown makes it the
// control: the same service, ended by Shutdown alone.
func childSwap() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			fmt.Fprint(w, os.Getenv("GENERATION"))
		}
	})
	if os.Getenv("DRAIN") == "shutdown" {
		return shutdownOnly(ctx, handler)
	}
	const grace = 2 * time.Second // a client may have no processor for a while
	return activation.Serve(ctx,
		activation.Server{Name: "http", HTTP: &http.Server{Handler: handler}, Grace: grace},
		activation.Server{Name: "https", HTTP: &http.Server{Handler: handler}, Grace: grace,
			CertFile: os.Getenv("CERT"), KeyFile: os.Getenv("KEY")})
}

func shutdownOnly(ctx context.Context, handler http.Handler) error {
	l, err := activation.Listen("http", "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	if err := activation.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(limit); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// service is what a supervisor does to one: it holds the sockets and replaces
// the process.
type service struct {
	t          testing.TB
	m          *manager
	pass       []passed
	env        []string
	http       string
	https      string
	current    *child
	generation int
	ending     []*child
}

func newService(t testing.TB, drain string) *service {
	t.Helper()
	plain, secure := listenTCP(t), listenTCP(t)
	cert, key := selfSigned(t)
	s := &service{t: t, m: newManager(t, true), http: plain.Addr().String(), https: secure.Addr().String()}
	s.pass = []passed{{"http", fileOf(t, plain)}, {"https", fileOf(t, secure)}}
	s.env = []string{"DRAIN=" + drain, "CERT=" + cert, "KEY=" + key, "NOTIFY_SOCKET=" + s.m.addr}
	return s
}

// swap starts the next generation, waits until it is ready and tells the one
// before to end.
func (s *service) swap() {
	s.t.Helper()
	s.generation++
	next := start(s.t, "swap", s.pass, append(s.env, fmt.Sprintf("GENERATION=%d", s.generation))...)
	deadline := time.Now().Add(20 * time.Second)
	for {
		d, err := s.m.next(time.Until(deadline))
		if err != nil {
			s.t.Fatalf("generation %d is not ready: %v: %s", s.generation, err, next.err)
		}
		if d.pid == next.Process.Pid && d.has("READY=1") {
			break
		}
	}
	s.retire()
	s.current = next
}

func (s *service) retire() {
	if s.current == nil {
		return
	}
	s.current.Process.Signal(syscall.SIGTERM)
	s.ending = append(s.ending, s.current)
	s.current = nil
}

// end waits for every generation.
func (s *service) end() {
	s.t.Helper()
	s.retire()
	for _, c := range s.ending {
		c.finish(s.t)
	}
}

func selfSigned(t testing.TB) (cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// load asks a service without pause and forgives nothing: what a client with
// retries would hide is a failed request here.
type load struct {
	sent, failed atomic.Int64
	mu           sync.Mutex
	errs         map[string]int // one of each kind, counted
	generations  sync.Map
	stop         context.CancelFunc
	ctx          context.Context
	clients      sync.WaitGroup
}

func newLoad() *load {
	l := &load{errs: make(map[string]int)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

func (l *load) end() {
	l.stop()
	l.clients.Wait()
}

func (l *load) count(who, body string, err error) {
	l.sent.Add(1)
	if err == nil {
		l.generations.Store(body, true)
		return
	}
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs[fmt.Sprintf("%s: %v", who, errors.Unwrap(err))]++
}

func exchange(c net.Conn, br *bufio.Reader, request string) (body string, closed bool, err error) {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", true, fmt.Errorf("set deadline: %w", err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		return "", true, fmt.Errorf("send: %w", err)
	}
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return "", true, fmt.Errorf("read answer: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", true, fmt.Errorf("read body: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", true, fmt.Errorf("status: %w", errors.New(resp.Status))
	}
	return string(b), resp.Close, nil
}

// newConnections makes rate requests a second, each on a connection of its own.
func (l *load) newConnections(addr string, rate int) {
	l.clients.Go(func() {
		const every = 5 * time.Millisecond
		room := make(chan struct{}, 512)
		tick := time.NewTicker(every)
		defer tick.Stop()
		begun, asked := time.Now(), 0
		for {
			select {
			case <-l.ctx.Done():
				return
			case <-tick.C:
			}
			for ; asked < int(time.Since(begun).Seconds()*float64(rate)); asked++ {
				select {
				case room <- struct{}{}:
				default:
					continue // the machine cannot keep up; not the service's fault
				}
				l.clients.Go(func() {
					defer func() { <-room }()
					c, err := net.Dial("tcp", addr)
					if err != nil {
						l.count("new", "", fmt.Errorf("dial: %w", err))
						return
					}
					defer c.Close()
					body, _, err := exchange(c, bufio.NewReader(c), "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
					l.count("new", body, err)
				})
			}
		}
	})
}

// keepAlive asks on one connection, with POST (which no client may repeat by
// itself), until it is told to close it.
func (l *load) keepAlive(who string, dial func() (net.Conn, error), pause time.Duration) {
	l.clients.Go(func() {
		for l.ctx.Err() == nil {
			c, err := dial()
			if err != nil {
				l.count(who, "", fmt.Errorf("dial: %w", err))
				continue
			}
			br := bufio.NewReader(c)
			for l.ctx.Err() == nil {
				body, closed, err := exchange(c, br, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody")
				l.count(who, body, err)
				if closed {
					break
				}
				time.Sleep(pause)
			}
			c.Close()
		}
	})
}

// http2 asks through Go's client, several streams at a time. It follows
// GOAWAY, and may send again what the server says it did not see.
func (l *load) http2(addr string) {
	tr := &http.Transport{TLSClientConfig: insecure(), ForceAttemptHTTP2: true}
	client := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	var streams sync.WaitGroup
	for range 4 {
		streams.Go(func() {
			for l.ctx.Err() == nil {
				resp, err := client.Get("https://" + addr)
				if err != nil {
					l.count("http2", "", err)
					continue
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.ProtoMajor != 2 {
					err = fmt.Errorf("protocol: %w", errors.New(resp.Proto))
				}
				l.count("http2", string(b), err)
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	l.clients.Go(func() {
		streams.Wait()
		tr.CloseIdleConnections()
	})
}

func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// Real processes share real sockets and replace one another under load, and
// nobody sees a failed request.
func TestServeSwapLosesNothing(t *testing.T) {
	noLeaks(t)
	s := newService(t, "serve")
	s.swap()
	l := newLoad()
	l.newConnections(s.http, 1000)
	for range 8 {
		l.keepAlive("keep-alive", func() (net.Conn, error) { return net.Dial("tcp", s.http) }, time.Millisecond)
	}
	l.keepAlive("slow keep-alive", func() (net.Conn, error) { return net.Dial("tcp", s.http) }, 150*time.Millisecond)
	for range 4 {
		l.keepAlive("tls keep-alive", func() (net.Conn, error) { return tls.Dial("tcp", s.https, insecure()) }, 2*time.Millisecond)
	}
	l.http2(s.https)
	const swaps = 8
	for range swaps {
		time.Sleep(150 * time.Millisecond)
		s.swap()
	}
	time.Sleep(150 * time.Millisecond)
	l.end()
	s.end()

	t.Logf("%d requests over %d swaps", l.sent.Load(), swaps)
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed: %v", n, l.sent.Load(), l.errs)
	}
	for g := range swaps + 1 {
		if _, ok := l.generations.Load(fmt.Sprint(g + 1)); !ok {
			t.Errorf("generation %d never answered", g+1)
		}
	}
}

// BenchmarkServeSwap replaces a service under 2,000 new connections a second
// and 16 keep-alive clients, once with Serve and once, as the control, with
// Shutdown alone. An operation is one swap; what counts is failed/swap.
func BenchmarkServeSwap(b *testing.B) {
	for _, drain := range []string{"serve", "shutdown"} {
		b.Run(drain, func(b *testing.B) {
			s := newService(b, drain)
			s.swap()
			l := newLoad()
			l.newConnections(s.http, 2000)
			for range 16 {
				l.keepAlive("keep-alive", func() (net.Conn, error) { return net.Dial("tcp", s.http) }, time.Millisecond)
			}
			time.Sleep(100 * time.Millisecond)
			begun, sent := time.Now(), l.sent.Load()
			for b.Loop() {
				s.swap()
				time.Sleep(100 * time.Millisecond)
			}
			rate := float64(l.sent.Load()-sent) / time.Since(begun).Seconds()
			l.end()
			s.end()
			b.ReportMetric(float64(l.failed.Load())/float64(b.N), "failed/swap")
			b.ReportMetric(float64(l.failed.Load())/float64(l.sent.Load())*1e6, "failed/Mreq")
			b.ReportMetric(rate, "req/s")
			b.ReportMetric(0, "ns/op")
			if drain == "serve" && l.failed.Load() > 0 {
				b.Errorf("%d requests failed: %v", l.failed.Load(), l.errs)
			}
		})
	}
}
