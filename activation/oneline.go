package activation

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// headerTimeout is how long a client may take to send the header of a request.
const headerTimeout = time.Minute

// ListenAndServe is [http.ListenAndServe] for a program that is replaced while it
// serves: it takes the inherited listeners that are bound to addr, or if none is all
// that nobody took yet, or else listens itself; it serves until SIGTERM or SIGINT, and
// drains as [Serve] does. After a clean drain it returns nil.
//
// It may be called for several addresses, from several goroutines. The manager is told
// that the service is ready by the first of them: where that is not enough, give all to
// [Serve].
func ListenAndServe(addr string, handler http.Handler) error {
	return serveOne(addr, Server{HTTP: &http.Server{Addr: addr, Handler: handler, ReadHeaderTimeout: headerTimeout}})
}

// ListenAndServeTLS is [ListenAndServe] over TLS, as [http.ListenAndServeTLS] is.
func ListenAndServeTLS(addr, certFile, keyFile string, handler http.Handler) error {
	return serveOne(addr, Server{
		HTTP:     &http.Server{Addr: addr, Handler: handler, ReadHeaderTimeout: headerTimeout},
		CertFile: certFile, KeyFile: keyFile,
	})
}

func serveOne(addr string, s Server) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var err error
	if s.Listeners, err = inheritedAt(addr); err != nil {
		return err
	}
	return Serve(ctx, s)
}

// inheritedAt takes the free listeners that are bound to a TCP address.
func inheritedAt(addr string) ([]net.Listener, error) {
	want, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil || want.Port == 0 {
		return nil, nil // whoever listens says what is wrong
	}
	env, err := environ()
	if err != nil {
		return nil, err
	}
	files, _ := env.take(0, func(fd int, _ string) bool { return isListener(fd) && isBoundTo(fd, want.AddrPort()) })
	var all []net.Listener
	for i, f := range files {
		l, err := net.FileListener(f) // duplicates
		f.Close()
		if err != nil {
			closeAll(all)
			for _, f := range files[i+1:] {
				f.Close()
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// isBoundTo tells if a socket has the address; of those for all hosts one is as good as
// another.
func isBoundTo(fd int, want netip.AddrPort) bool {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	var have netip.AddrPort
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		have = netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
	case *unix.SockaddrInet6:
		have = netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), uint16(name.Port))
	default:
		return false
	}
	if have.Port() != want.Port() {
		return false
	}
	if !want.Addr().IsValid() || want.Addr().IsUnspecified() {
		return have.Addr().IsUnspecified()
	}
	return have.Addr() == want.Addr().Unmap()
}
