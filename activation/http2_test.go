package activation_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/activation"
)

// What is spoken decides how a client is told; none of them loses the answer
// it waits for, and all leave by themselves, long before the limit.
func TestDrainProtocols(t *testing.T) {
	cert, key := selfSigned(t)
	var http1, http2, clear http.Protocols
	http1.SetHTTP1(true)
	http2.SetHTTP2(true)
	clear.SetUnencryptedHTTP2(true)
	both := clear
	both.SetHTTP1(true)
	for _, tt := range []struct {
		name   string
		tls    bool
		server *http.Protocols
		client *http.Protocols
		proto  int
	}{
		{"http1", false, nil, &http1, 1},
		{"http1 over tls", true, nil, &http1, 1},
		{"http2 over tls", true, nil, &http2, 2},
		{"http2 in the clear", false, &both, &clear, 2},
	} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(tt.name+" on "+network, func(t *testing.T) {
				noLeaks(t)
				m := newManager(t, false)
				m.use(t)
				begun := make(chan struct{}, 10)
				s := activation.Server{
					Network: network,
					Grace:   200 * time.Millisecond,
					HTTP: &http.Server{Protocols: tt.server, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						begun <- struct{}{}
						if r.URL.Path == "/slow" {
							time.Sleep(300 * time.Millisecond)
						}
						fmt.Fprint(w, r.Proto)
					})},
				}
				address := "127.0.0.1:0"
				if network == "unix" {
					address = filepath.Join(t.TempDir(), "sock")
				}
				l, err := net.Listen(network, address)
				if err != nil {
					t.Fatal(err)
				}
				s.Listeners = []net.Listener{l}
				scheme := "http"
				if tt.tls {
					s.CertFile, s.KeyFile, scheme = cert, key, "https"
				}
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				done := make(chan error, 1)
				go func() { done <- activation.Serve(ctx, s) }()
				m.want(t, "READY=1")

				tr := &http.Transport{TLSClientConfig: insecure(), Protocols: tt.client,
					DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
					}}
				defer tr.CloseIdleConnections()
				client := &http.Client{Transport: tr, Timeout: 10 * time.Second}
				ask := func(path string) error {
					resp, err := client.Get(scheme + "://test" + path)
					if err != nil {
						return err
					}
					defer resp.Body.Close()
					if resp.ProtoMajor != tt.proto {
						t.Errorf("got %s, want major version %d", resp.Proto, tt.proto)
					}
					_, err = io.ReadAll(resp.Body)
					return err
				}
				if err := ask("/"); err != nil {
					t.Fatal(err)
				}
				<-begun
				slow := make(chan error, 1)
				go func() { slow <- ask("/slow") }()
				<-begun
				stop()
				m.want(t, "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000")
				stopped := time.Now()
				if err := <-slow; err != nil {
					t.Errorf("a request that was being answered: %v", err)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
				if took := time.Since(stopped); took > 5*time.Second {
					t.Errorf("drained in %s", took)
				}
				if err := ask("/"); err == nil {
					t.Error("it still answers after Serve returned")
				}
			})
		}
	}
}
