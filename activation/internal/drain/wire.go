package drain

import (
	"crypto/tls"
	"net"
	"sync/atomic"
)

// wire counts what passes on one accepted connection, below TLS.
type wire struct {
	reads   atomic.Uint64 // that returned bytes
	wrote   atomic.Bool   // since the last handler began
	preface atomic.Bool   // the first bytes were HTTP/2's "PRI", in the clear
	closed  atomic.Pointer[func()]
}

func (w *wire) read(p []byte, n int) {
	if n <= 0 {
		return
	}
	if w.reads.Add(1) == 1 && n >= 3 && string(p[:3]) == "PRI" {
		w.preface.Store(true)
	}
}

func (w *wire) close() {
	if f := w.closed.Swap(nil); f != nil {
		(*f)()
	}
}

func (w *wire) onWire() *wire { return w }

// wireOf finds the wire below nc, which may be a TLS connection on it.
func wireOf(nc net.Conn) *wire {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if c, ok := nc.(interface{ onWire() *wire }); ok {
		return c.onWire()
	}
	return nil
}

// wiredListener puts a wire on every connection it accepts.
type wiredListener struct{ net.Listener }

func (l wiredListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	switch c := nc.(type) {
	case interface{ ConnectionState() tls.ConnectionState }:
		return nc, nil // net/http must see it as it is
	case *net.TCPConn:
		return &tcpConn{TCPConn: c}, nil
	case *net.UnixConn:
		return &unixConn{UnixConn: c}, nil
	}
	return &otherConn{Conn: nc}, nil
}

// The wired connections embed the real ones, so that sendfile(2), CloseWrite
// and the socket's options stay within reach.
type (
	tcpConn struct {
		*net.TCPConn
		wire
	}
	unixConn struct {
		*net.UnixConn
		wire
	}
	otherConn struct {
		net.Conn
		wire
	}
)

func (c *tcpConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.wire.read(p, n)
	return n, err
}

func (c *tcpConn) Write(p []byte) (int, error) {
	c.wire.wrote.Store(true)
	return c.TCPConn.Write(p)
}

func (c *tcpConn) Close() error {
	defer c.wire.close()
	return c.TCPConn.Close()
}

func (c *unixConn) Read(p []byte) (int, error) {
	n, err := c.UnixConn.Read(p)
	c.wire.read(p, n)
	return n, err
}

func (c *unixConn) Write(p []byte) (int, error) {
	c.wire.wrote.Store(true)
	return c.UnixConn.Write(p)
}

func (c *unixConn) Close() error {
	defer c.wire.close()
	return c.UnixConn.Close()
}

func (c *otherConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.read(p, n)
	return n, err
}

func (c *otherConn) Write(p []byte) (int, error) {
	c.wire.wrote.Store(true)
	return c.Conn.Write(p)
}

func (c *otherConn) Close() error {
	defer c.wire.close()
	return c.Conn.Close()
}
