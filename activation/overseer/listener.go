package overseer

import (
	"net"
	"os"
	"sync"
	"time"
)

// keepAlive is how often a silent TCP connection is asked whether it is there.
const keepAlive = 3 * time.Minute

// listener is what Program gets: it tells when it is first used, and at a
// graceful shutdown stops accepting and waits for what it has accepted.
type listener struct {
	net.Listener
	used func() // called by the first Accept

	first    sync.Once
	mu       sync.Mutex
	released bool // no more is accepted
	yielded  bool // somebody else drains it
	closed   chan struct{}
	conns    map[net.Conn]struct{}
	drained  chan struct{} // closed when it is released and nothing is open
}

func newListener(l net.Listener, used func()) *listener {
	return &listener{
		Listener: l, used: used,
		closed: make(chan struct{}), drained: make(chan struct{}), conns: map[net.Conn]struct{}{},
	}
}

// Accept waits for the next connection. Once the listener is released it waits
// until those it gave are closed, or are cut, and gives net.ErrClosed then: a
// server that returns from its loop has nothing left to answer.
func (l *listener) Accept() (net.Conn, error) {
	l.first.Do(l.used)
	c, err := l.Listener.Accept()
	if err != nil {
		l.mu.Lock()
		wait := l.released && !l.yielded
		l.mu.Unlock()
		if wait {
			select {
			case <-l.drained:
			case <-l.closed:
			}
		}
		return nil, err
	}
	var tracked net.Conn
	switch c := c.(type) {
	case *net.TCPConn:
		// Some clients are only noticed to be gone when asked.
		_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive})
		tracked = &tcpConn{TCPConn: c, of: l}
	case *net.UnixConn:
		tracked = &unixConn{UnixConn: c, of: l}
	default:
		return c, nil
	}
	l.mu.Lock()
	l.conns[tracked] = struct{}{}
	l.mu.Unlock()
	return tracked, nil
}

// Close stops accepting, in this process. It waits for nothing.
func (l *listener) Close() error {
	l.mu.Lock()
	select {
	case <-l.closed:
		l.mu.Unlock()
		return nil
	default:
	}
	close(l.closed)
	l.mu.Unlock()
	return l.Listener.Close()
}

// File gives a duplicate of the socket, nil where that fails.
func (l *listener) File() *os.File {
	f, ok := l.Listener.(interface{ File() (*os.File, error) })
	if !ok {
		return nil
	}
	file, err := f.File()
	if err != nil {
		return nil
	}
	return file
}

// yield gives the plain listener to who drains it.
func (l *listener) yield() net.Listener {
	l.first.Do(l.used)
	l.mu.Lock()
	l.yielded = true
	l.mu.Unlock()
	return l.Listener
}

// release stops accepting. Who is in Accept waits for what is open.
func (l *listener) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.yielded || l.released {
		return
	}
	l.released = true
	_ = l.Listener.Close() // it fails where Program has closed it
	l.settle()
}

// settle sees whether the drain is over; l.mu is held.
func (l *listener) settle() {
	if !l.released || len(l.conns) > 0 {
		return
	}
	select {
	case <-l.drained:
	default:
		close(l.drained)
	}
}

// cut closes what is still open.
func (l *listener) cut() {
	l.mu.Lock()
	var open []net.Conn
	for c := range l.conns {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
}

func (l *listener) forget(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	l.settle()
}

// tcpConn and unixConn are what they hold, all its methods included, but for the
// end.
type tcpConn struct {
	*net.TCPConn
	of *listener
}

func (c *tcpConn) Close() error {
	err := c.TCPConn.Close()
	c.of.forget(c)
	return err
}

type unixConn struct {
	*net.UnixConn
	of *listener
}

func (c *unixConn) Close() error {
	err := c.UnixConn.Close()
	c.of.forget(c)
	return err
}
