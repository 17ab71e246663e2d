package activation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/upgraderd/upgraderd/activation/internal/drain"
)

const (
	// defaultGrace is longer than clients of a busy service pause between two
	// requests, and than a lost segment takes to be sent again.
	defaultGrace = 5 * time.Second
	// defaultDrainLimit stays well below systemd's TimeoutStopSec=90s.
	defaultDrainLimit = 30 * time.Second
	// stopMargin is what a process may need between its last connection and
	// its exit.
	stopMargin = 5 * time.Second
)

// Server is an HTTP server, where it answers, and how it ends. Only HTTP is
// required.
type Server struct {
	// HTTP serves: over TLS when its TLSConfig has certificates or CertFile is
	// set. [Serve] wraps its Handler, ConnState and ConnContext; it must not
	// be used elsewhere, before or after.
	HTTP *http.Server

	// Name picks the inherited listeners by their name, all of them; the
	// empty name stands for any. Where none was passed the server listens on
	// HTTP.Addr by itself.
	Name string
	// Network goes with HTTP.Addr: "tcp" (the default), "tcp4", "tcp6" or
	// "unix".
	Network string
	// Listeners, if any, are used instead of Name. Serve owns them. Give it
	// plain ones and the TLSConfig: below a TLS listener it cannot see whether
	// a request is on its way.
	Listeners []net.Listener

	// CertFile and KeyFile are PEM files, as for
	// [http.Server.ListenAndServeTLS].
	CertFile, KeyFile string

	// Grace is how long a connection is left open between requests while the
	// server drains, counted from the last byte that came in: a client that
	// believes in it still gets its answer, and learns to close it. Default
	// 5 s; negative for none.
	Grace time.Duration
	// DrainLimit bounds the whole drain. Connections that are busy beyond it
	// are cut. Default 30 s; negative waits for nothing.
	DrainLimit time.Duration
}

// CutError says that a drain met its limit and closed connections that were
// not done: how many, and after which time.
type CutError = drain.CutError

// Serve runs the servers until ctx ends, then drains them all and returns.
// Cancel ctx on SIGTERM (signal.NotifyContext). It sends READY=1 once all
// of them listen, STOPPING=1 when ctx ends, and asks the manager for the time
// that the drain may take.
//
// The drain fails no request:
//
//  1. The listeners are closed, in this process. Whoever else holds the same
//     sockets, systemd or the successor, goes on accepting from their queue.
//     What this process accepted, it serves.
//  2. Each answer from now on carries "Connection: close" (HTTP/2: GOAWAY), so
//     clients go elsewhere on their own. Connections between requests stay
//     open for Grace, since a request may be on its way, and are closed only
//     when nothing has come in on them.
//  3. When no connection is left that could lose a request, [http.Server.Shutdown]
//     ends the rest: GOAWAY on idle HTTP/2 connections, functions registered
//     with RegisterOnShutdown.
//  4. Running requests and hijacked connections are waited for until
//     DrainLimit, then cut: the error is a [*CutError] then.
//
// What remains is the time a message needs on the wire: a client that sends just
// as a connection is closed after its grace, and one that speaks HTTP/2 and
// cannot send a body again just as GOAWAY comes to meet it.
//
// Shutdown alone closes at once what is idle, and drops a request that it has
// just read (golang/go#75591).
//
// Handlers that never end by themselves (event streams, websockets) should end
// when ctx does. A stream whose header went out before the drain could not be
// told; its connection gets steps 2 and 3 when it ends, and Shutdown waits for
// it for half of DrainLimit.
//
// A server that stops accepting for another reason drains all, and its error
// is returned. Serve returns nil after a clean drain. When it returns, no
// goroutine is left but those of handlers that ignored the cut.
func Serve(ctx context.Context, servers ...Server) error {
	if len(servers) == 0 {
		return errors.New("serve: got no server")
	}
	options := make([]drain.Options, len(servers))
	for i := range servers {
		o, err := servers[i].open()
		if err != nil {
			for _, o := range options[:i] {
				closeAll(o.Listeners)
			}
			for _, s := range servers[i:] {
				closeAll(s.Listeners)
			}
			return fmt.Errorf("serve %q: %w", servers[i].Name, err)
		}
		options[i] = o
	}

	drains := make([]*drain.Server, len(options))
	failed := make(chan struct{}, len(options))
	for i, o := range options {
		drains[i] = drain.New(o)
		go drains[i].Accept(func() { failed <- struct{}{} })
	}
	errs := make([]error, 1+len(drains))
	if errs[0] = Ready(); errs[0] == nil {
		select {
		case <-ctx.Done():
		case <-failed: // its drain says why
		}
	}
	announceStop(options)

	var ends sync.WaitGroup
	for i, d := range drains {
		ends.Go(func() { errs[1+i] = d.Drain() })
	}
	ends.Wait()
	return errors.Join(errs...)
}

// announceStop tells the manager that the service ends, and for how long that
// may take. A manager that is gone changes nothing about what is to be done.
func announceStop(options []drain.Options) {
	var longest time.Duration
	for _, o := range options {
		longest = max(longest, o.Limit)
	}
	_ = Notify("STOPPING=1", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (longest+stopMargin).Microseconds()))
}

// open listens, reads the certificate, and says how s is to be drained.
func (s *Server) open() (drain.Options, error) {
	if s.HTTP == nil {
		return drain.Options{}, errors.New("Server.HTTP is nil")
	}
	if err := s.loadCert(); err != nil {
		return drain.Options{}, err
	}
	listeners, err := s.listeners()
	if err != nil {
		return drain.Options{}, err
	}
	return drain.Options{
		HTTP:      s.HTTP,
		TLS:       s.tls(),
		Listeners: listeners,
		Grace:     orDefault(s.Grace, defaultGrace),
		Limit:     orDefault(s.DrainLimit, defaultDrainLimit),
	}, nil
}

// orDefault reads an option: 0 is the default, negative is none.
func orDefault(v, def time.Duration) time.Duration {
	if v == 0 {
		return def
	}
	return max(v, 0)
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// listeners returns what s answers on.
func (s *Server) listeners() ([]net.Listener, error) {
	if len(s.Listeners) > 0 {
		return s.Listeners, nil
	}
	found, err := inheritedListeners(s.Name, 0)
	if err != nil {
		return nil, err
	}
	if len(found) > 0 {
		var all []net.Listener
		for _, l := range found {
			all = append(all, l.socket)
		}
		return all, nil
	}
	network, address := s.Network, s.HTTP.Addr
	if network == "" {
		network = "tcp"
	}
	if address == "" {
		address = ":http"
		if s.tls() {
			address = ":https"
		}
	}
	l, err := listenItself(s.Name, network, address)
	if err != nil {
		return nil, err
	}
	return []net.Listener{l}, nil
}

// tls says whether the server speaks TLS.
func (s *Server) tls() bool {
	c := s.HTTP.TLSConfig
	return s.CertFile != "" || s.KeyFile != "" ||
		c != nil && (len(c.Certificates) > 0 || c.GetCertificate != nil || c.GetConfigForClient != nil)
}

// loadCert reads the certificate before anybody is told that we are ready.
func (s *Server) loadCert() error {
	if s.CertFile == "" && s.KeyFile == "" {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
	if err != nil {
		return err
	}
	config := s.HTTP.TLSConfig.Clone() // nil gives nil
	if config == nil {
		config = new(tls.Config)
	}
	config.Certificates = []tls.Certificate{cert}
	s.HTTP.TLSConfig = config
	return nil
}
