// Package drain ends an HTTP server without failing a request: what was accepted
// is answered, and a connection is closed only when no request can be on its
// way, or when the limit says so.
//
// It does what Shutdown of net/http does not: Shutdown closes idle connections
// at once, and drops a request that it has just read (golang/go#75591). So this
// package follows every connection itself, lets clients leave on their own, and
// calls Shutdown when there is nothing left that it could lose. It knows
// nothing of systemd.
package drain

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sweepEvery is how often a drain looks at its connections.
	sweepEvery = 10 * time.Millisecond
	// settle is the least time that a connection is left quiet before it is
	// closed, even with no grace: a request that the kernel has handed over
	// needs a moment to be seen.
	settle = 50 * time.Millisecond
	// partialWait is the same for one on which bytes have come in, but no
	// whole request yet: half a header, or the end of a TLS handshake.
	partialWait = time.Second
)

// Server is one HTTP server on its way from accepting to done. It knows of
// every connection what Shutdown would need to know and does not: whether a
// request is in a handler, or may be on its way.
type Server struct {
	http         *http.Server
	tls          bool
	raw          []net.Listener
	grace, limit time.Duration

	draining atomic.Bool
	open     sync.Map      // net.Conn, as net/http's hooks name it → *conn
	count    atomic.Int64  // of open
	empty    chan struct{} // has a token when count may have become 0

	accepted chan struct{} // closed when the accept loops have ended
	err      error         // why they ended before their time; read after accepted
	closers  sync.WaitGroup
}

// conn is what a drain knows of one connection. Hooks and handlers write the
// atomics; only the drain's goroutine touches the rest.
type conn struct {
	nc   net.Conn
	wire *wire // nil below a TLS listener that is not ours

	state    atomic.Int32 // http.ConnState
	steps    atomic.Uint64
	readsAt  atomic.Uint64 // wire.reads when the state was entered
	handling atomic.Bool   // an HTTP/1 handler runs: Shutdown lets it end
	told     atomic.Bool   // the running answer carries "Connection: close"
	http2    atomic.Bool

	seen    uint64 // steps and reads at the last look
	quiet   time.Time
	closing bool
}

type connKey struct{}

// Options say what is served, where, and how it ends. There are no defaults.
type Options struct {
	HTTP      *http.Server
	TLS       bool           // HTTP.TLSConfig has the certificates
	Listeners []net.Listener // at least one; the drain closes them
	Grace     time.Duration  // that a connection between requests is left open
	Limit     time.Duration  // of the whole drain
}

// New puts the drain around the server's Handler, ConnState and ConnContext.
func New(o Options) *Server {
	d := &Server{
		http:     o.HTTP,
		tls:      o.TLS,
		raw:      o.Listeners,
		grace:    o.Grace,
		limit:    o.Limit,
		empty:    make(chan struct{}, 1),
		accepted: make(chan struct{}),
	}
	d.hook()
	return d
}

// CutError says that a drain met its limit and closed connections that were
// not done.
type CutError struct {
	Connections int
	Limit       time.Duration
}

func (e *CutError) Error() string {
	return fmt.Sprintf("drain: cut %d connections that were busy after %s: raise the limit, or end long answers when the context ends", e.Connections, e.Limit)
}

// hook puts the drain around the server's handler and connection hooks.
func (d *Server) hook() {
	s := d.http
	handler := s.Handler
	if handler == nil {
		handler = http.DefaultServeMux
	}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connKey{}).(*conn)
		if c == nil || r.ProtoMajor > 1 {
			d.tell(w, r)
			handler.ServeHTTP(w, r)
			return
		}
		if c.wire != nil {
			c.wire.wrote.Store(false)
		}
		c.told.Store(false)
		c.handling.Store(true)
		defer func() {
			c.steps.Add(1)
			c.handling.Store(false)
		}()
		if d.tell(w, r) {
			c.told.Store(true)
		}
		handler.ServeHTTP(w, r)
	})

	connContext := s.ConnContext
	s.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		// This comes before StateNew, and both before Serve can return: once
		// the accept loops have ended, no connection is missing.
		c := &conn{nc: nc, wire: wireOf(nc)}
		d.open.Store(nc, c)
		d.count.Add(1)
		if connContext != nil {
			ctx = connContext(ctx, nc)
		}
		if ctx == nil {
			return nil // net/http panics, and says why
		}
		return context.WithValue(ctx, connKey{}, c)
	}

	connState := s.ConnState
	s.ConnState = func(nc net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			defer d.enter(nc, state) // with the last one Serve returns
		} else {
			d.enter(nc, state)
		}
		if connState != nil {
			connState(nc, state)
		}
	}
}

// tell marks the answer as the connection's last, if the server drains.
func (d *Server) tell(w http.ResponseWriter, r *http.Request) bool {
	// An upgrade has a Connection header of its own, and a client that asked
	// for one and does not get it is told next time.
	if !d.draining.Load() || r.Header.Get("Upgrade") != "" {
		return false
	}
	// net/http closes the connection after this answer, or, for HTTP/2, sends
	// GOAWAY and lets the other streams end.
	w.Header().Set("Connection", "close")
	return true
}

// enter follows a connection through net/http's states.
func (d *Server) enter(nc net.Conn, state http.ConnState) {
	v, ok := d.open.Load(nc)
	if !ok {
		return
	}
	c := v.(*conn)
	if c.wire != nil {
		c.readsAt.Store(c.wire.reads.Load())
	}
	c.steps.Add(1)
	previous := http.ConnState(c.state.Swap(int32(state)))
	switch state {
	case http.StateActive:
		if previous == http.StateNew && speaksHTTP2(c) {
			c.http2.Store(true)
		}
	case http.StateHijacked:
		if c.wire == nil {
			d.forget(c) // nobody would tell us when it ends
			return
		}
		// From here on it is the handler's, which closes it.
		forget := func() { d.forget(c) }
		c.wire.closed.Store(&forget)
	case http.StateClosed:
		d.forget(c)
	}
}

func (d *Server) forget(c *conn) {
	if _, was := d.open.LoadAndDelete(c.nc); was && d.count.Add(-1) == 0 {
		select {
		case d.empty <- struct{}{}:
		default:
		}
	}
}

// speaksHTTP2 is asked after the first bytes were read.
func speaksHTTP2(c *conn) bool {
	if t, ok := c.nc.(*tls.Conn); ok {
		return t.ConnectionState().NegotiatedProtocol == "h2"
	}
	return c.wire != nil && c.wire.preface.Load()
}

// Accept runs the server on its listeners and returns when all of them have
// ended. It calls ended when the first one has: [Server.Drain] is due then, if
// it was not the reason.
func (d *Server) Accept(ended func()) {
	defer close(d.accepted)
	errs := make(chan error, len(d.raw))
	for _, l := range d.raw {
		go func() {
			if d.tls {
				errs <- d.http.ServeTLS(wiredListener{l}, "", "")
				return
			}
			errs <- d.http.Serve(wiredListener{l})
		}()
	}
	for i := range d.raw {
		err := <-errs
		if i > 0 {
			continue
		}
		if !d.draining.Load() {
			d.err = fmt.Errorf("serve %s: %w", d.raw[0].Addr(), err)
		}
		ended()
	}
}

func (d *Server) closeListeners() {
	for _, l := range d.raw {
		l.Close()
	}
}

// Drain ends the server, which is in [Server.Accept] in another goroutine. It
// returns nil, a [*CutError], or why the server ended before its time.
//
//  1. Close the listeners and wait for the accept loops: from here on the set
//     of connections only shrinks.
//  2. Tell every client that asks, and close what stays quiet for the grace.
//  3. When no request can be lost any more: Shutdown, for what only it can do.
//  4. Wait for the rest until the limit, then cut.
func (d *Server) Drain() error {
	// The caller's context has ended; that is why we are here.
	ctx, cancel := context.WithTimeout(context.Background(), d.limit)
	defer cancel()
	d.draining.Store(true)
	d.closeListeners()
	<-d.accepted

	d.awaitSafe(ctx)
	cut := d.shutdown(ctx)
	d.closers.Wait()
	if cut > 0 {
		return errors.Join(d.err, &CutError{Connections: cut, Limit: d.limit})
	}
	return d.err
}

// awaitSafe returns when Shutdown can no longer lose a request.
func (d *Server) awaitSafe(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	begun := time.Now()
	for {
		now := time.Now()
		if d.sweep(now, now.Sub(begun) < d.limit/2) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-d.empty:
		case <-tick.C:
		}
	}
}

// sweep closes the connections that have been quiet for long enough and counts
// those on which Shutdown could lose a request; with streams, also running
// answers that went out without "Connection: close".
func (d *Server) sweep(now time.Time, streams bool) (atRisk int) {
	d.open.Range(func(_, v any) bool {
		c := v.(*conn)
		if !c.atRisk(streams) {
			return true
		}
		atRisk++
		if d.done(c, now) && !c.closing {
			c.closing = true
			// TLS says goodbye first, to a client that may not listen.
			d.closers.Go(func() { c.nc.Close() })
		}
		return true
	})
	return atRisk
}

func (c *conn) atRisk(streams bool) bool {
	switch {
	case c.http2.Load(), http.ConnState(c.state.Load()) == http.StateHijacked:
		// GOAWAY names the last stream that is answered, and clients send the
		// others again. Hijacked: Shutdown leaves it alone.
		return false
	case c.handling.Load():
		// Shutdown lets the handler end. It also adds "Connection: close",
		// except where the header has gone out.
		return streams && !c.told.Load() && c.wire != nil && c.wire.wrote.Load()
	}
	return true
}

// done says whether c is between requests and nothing has come in on it for as
// long as the grace.
func (d *Server) done(c *conn, now time.Time) bool {
	var reads uint64
	if c.wire != nil {
		reads = c.wire.reads.Load()
	}
	// Both only grow: the sum changes when one of them does.
	if sum := c.steps.Load() + reads; sum != c.seen {
		c.seen, c.quiet = sum, now
	}
	if state := http.ConnState(c.state.Load()); state == http.StateActive || c.handling.Load() {
		return false // a request was read, or its answer is being flushed
	}
	wait := max(d.grace, settle)
	if reads != c.readsAt.Load() {
		wait = max(wait, partialWait)
	}
	return now.Sub(c.quiet) >= wait && !c.queued()
}

// queued says whether the kernel holds bytes that nobody has read.
func (c *conn) queued() bool {
	nc := c.nc
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	s, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return err == nil && n > 0
}

// shutdown ends what is left and returns how many connections it had to cut.
func (d *Server) shutdown(ctx context.Context) (cut int) {
	polling, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = d.http.Shutdown(polling) // our own count is exact, and sooner
	}()
	defer func() {
		stop()
		<-ended
	}()
	if d.awaitEmpty(ctx) {
		return 0
	}
	cut = int(d.count.Load())
	_ = d.http.Close()
	d.open.Range(func(_, v any) bool {
		if c := v.(*conn); http.ConnState(c.state.Load()) == http.StateHijacked {
			c.nc.Close()
		}
		return true
	})
	// Handlers see the cut as an error, or as the end of their context.
	last, cancel := context.WithTimeout(context.Background(), partialWait)
	defer cancel()
	d.awaitEmpty(last)
	return cut
}

// awaitEmpty returns true when no connection is left, false when ctx ends.
func (d *Server) awaitEmpty(ctx context.Context) bool {
	for d.count.Load() > 0 {
		select {
		case <-ctx.Done():
			return d.count.Load() == 0
		case <-d.empty:
		}
	}
	return true
}
