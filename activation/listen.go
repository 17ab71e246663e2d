package activation

import (
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Listen takes the inherited listener with this name, or, where no descriptor
// of that name was passed, listens itself as [net.Listen] does. The empty name
// stands for any name: it suits a program with one socket.
//
// The caller owns the listener. Closing an inherited one closes this process's
// hold on it and no more: connections in its queue wait for whoever else holds
// the socket, and a unix socket's path stays. It is non-blocking from here on,
// in every process that shares it.
//
// Several sockets with the name are an error (use [Listeners]), since to
// leave one of them unserved would be worse. A socket that was taken before
// gives [ErrTaken].
func Listen(name, network, address string) (net.Listener, error) {
	found, err := inheritedListeners(name, 1)
	if err != nil {
		return nil, fmt.Errorf("listen as %q: %w", name, err)
	}
	if len(found) == 1 {
		return found[0].socket, nil
	}
	return listenItself(name, network, address)
}

func listenItself(name, network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("listen as %q: %s: %w", name, notPassed(name), err)
	}
	return l, nil
}

// notPassed explains why a process listens itself, for the case that it
// cannot: most often the manager holds that address under another name.
func notPassed(name string) string {
	names, _ := Names()
	if len(names) == 0 {
		return "no socket was passed"
	}
	return fmt.Sprintf("no socket of that name was passed, only %q", names)
}

// ListenPacket is [Listen] for datagrams: UDP and unixgram, as
// [net.ListenPacket] knows them.
func ListenPacket(name, network, address string) (net.PacketConn, error) {
	found, err := inheritedPacketConns(name, 1)
	if err != nil {
		return nil, fmt.Errorf("listen for packets as %q: %w", name, err)
	}
	if len(found) == 1 {
		return found[0].socket, nil
	}
	c, err := net.ListenPacket(network, address)
	if err != nil {
		return nil, fmt.Errorf("listen for packets as %q: %s: %w", name, notPassed(name), err)
	}
	return c, nil
}

// Listeners takes every inherited listener that nobody took yet, by name: TCP,
// unix stream and unix seqpacket sockets, in the order of LISTEN_FDS. The
// caller owns them; see [Listen] for what closing one means.
func Listeners() (map[string][]net.Listener, error) {
	found, err := inheritedListeners("", 0)
	if err != nil {
		return nil, err
	}
	return byName(found), nil
}

// PacketConns takes every inherited datagram socket that nobody took yet, by
// name: UDP and unixgram, in the order of LISTEN_FDS. The caller owns them.
func PacketConns() (map[string][]net.PacketConn, error) {
	found, err := inheritedPacketConns("", 0)
	if err != nil {
		return nil, err
	}
	return byName(found), nil
}

// named is an inherited socket and the name it came with.
type named[S any] struct {
	name   string
	socket S
}

func byName[S any](all []named[S]) map[string][]S {
	m := make(map[string][]S)
	for _, s := range all {
		m[s.name] = append(m[s.name], s.socket)
	}
	return m
}

func inheritedListeners(name string, limit int) ([]named[net.Listener], error) {
	return sockets(name, limit, isListener, "listening stream socket", func(f *os.File) (net.Listener, error) {
		l, err := net.FileListener(f)
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the path is the manager's
		}
		return l, err
	})
}

func inheritedPacketConns(name string, limit int) ([]named[net.PacketConn], error) {
	return sockets(name, limit, isPacketConn, "datagram socket", net.FilePacketConn)
}

// sockets takes the free descriptors of one kind with the name, or with any
// name where it is empty. That there is none is an error only when one was
// passed under the name: to listen at another place then, beside the socket
// that was meant, would go unnoticed. More than limit (0: any number) are an
// error, and stay free.
func sockets[S interface{ Close() error }](name string, limit int, kind func(fd int) bool, what string, open func(*os.File) (S, error)) ([]named[S], error) {
	env, err := environ()
	if err != nil {
		return nil, err
	}
	otherKind := false
	files, n := env.take(limit, func(fd int, n string) bool {
		if name != "" && n != name {
			return false
		}
		if !kind(fd) {
			otherKind = true
			return false
		}
		return true
	})
	if n > len(files) {
		return nil, fmt.Errorf("got %d inherited sockets, want %d: give each a name of its own with FileDescriptorName=, or have the program ask for all", n, limit)
	}
	if n == 0 && name != "" && slices.Contains(env.names, name) {
		if otherKind {
			return nil, fmt.Errorf("the inherited descriptor %q is no %s", name, what)
		}
		return nil, fmt.Errorf("the inherited %s %q: %w", what, name, ErrTaken)
	}
	var found []named[S]
	for i, f := range files {
		s, err := open(f) // duplicates
		f.Close()
		if err != nil {
			for _, s := range found {
				_ = s.socket.Close()
			}
			for _, f := range files[i+1:] {
				f.Close()
			}
			return nil, fmt.Errorf("use inherited %s %q: %w", what, f.Name(), err)
		}
		found = append(found, named[S]{f.Name(), s})
	}
	return found, nil
}

// isListener and isPacketConn hold what package net can represent; the rest is
// left to [Files].

func isListener(fd int) bool {
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && listening == 1 && isNetFamily(fd)
}

func isPacketConn(fd int) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && kind == unix.SOCK_DGRAM && isNetFamily(fd)
}

func isNetFamily(fd int) bool {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && (family == unix.AF_INET || family == unix.AF_INET6 || family == unix.AF_UNIX)
}
