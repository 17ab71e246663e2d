package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/advice"
)

// Listen is a socket that the supervisor opens itself.
type Listen struct {
	Name    string // its LISTEN_FDNAMES name
	Network string // tcp, udp, unix or unixgram
	Address string
}

// ParseListen reads the value of --listen: [NAME=]NETWORK:ADDRESS, such as
// web=tcp:0.0.0.0:80, udp:[::1]:53 or unix:/run/app/app.sock. Without a name
// the network is the name.
func ParseListen(s string) (Listen, error) {
	name, rest, named := strings.Cut(s, "=")
	if !named {
		rest = s
	}
	network, address, ok := strings.Cut(rest, ":")
	if !named {
		name = network
	}
	l := Listen{Name: name, Network: network, Address: address}
	bad := func(why string) (Listen, error) {
		return Listen{}, advice.Give(fmt.Errorf("--listen=%q: %s", s, why), "give [NAME=]tcp:HOST:PORT, udp:…, unix:/PATH or unixgram:/PATH")
	}
	if !ok || address == "" {
		return bad("no address")
	}
	if err := validName(name); err != nil {
		return bad(err.Error())
	}
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		if _, _, err := net.SplitHostPort(address); err != nil {
			return bad(err.Error())
		}
	case "unix", "unixgram":
		if !filepath.IsAbs(address) && !strings.HasPrefix(address, "@") {
			return bad("the path is not absolute")
		}
	default:
		return bad(fmt.Sprintf("network %q is not known", network))
	}
	return l, nil
}

// internal is the prefix of names in the fd store that are the supervisor's
// own and never reach a worker.
const internal = "upgraderd."

// validName holds to sd_listen_fds_with_names(3): ASCII, no control
// character, no ":", at most 255 long.
func validName(name string) error {
	if name == "" || len(name) > 255 {
		return errors.New("a socket name has 1 to 255 characters")
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return fmt.Errorf("a socket name has no character %q", c)
		}
	}
	if strings.HasPrefix(name, internal) {
		return fmt.Errorf("socket names that begin with %q are the supervisor's own", internal)
	}
	return nil
}

// socket is an open socket (or any other descriptor a worker stored). It is
// kept as a bare number on purpose: an os.File would put a listening socket
// into this process's poller, which then wakes up for every connection that
// is meant for a worker.
type socket struct {
	name string
	fd   int
}

// socketSet is what workers inherit, in order. Its descriptors stay open as
// long as the supervisor lives.
type socketSet struct{ list []socket }

func (s *socketSet) all() []socket { return s.list }

// add takes over the open file f under a name: the set owns what f held.
func (s *socketSet) add(name string, f *os.File) error {
	fd, err := dupFD(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("keep socket %q: %w", name, err)
	}
	s.list = append(s.list, socket{name, fd})
	return nil
}

// remove closes every descriptor of that name.
func (s *socketSet) remove(name string) {
	kept := s.list[:0]
	for _, sock := range s.list {
		if sock.name == name {
			unix.Close(sock.fd)
			continue
		}
		kept = append(kept, sock)
	}
	s.list = kept
}

func (s *socketSet) find(name string) (socket, bool) {
	for _, sock := range s.list {
		if sock.name == name {
			return sock, true
		}
	}
	return socket{}, false
}

// dupFD gives a number of our own for what f has open, close-on-exec.
func dupFD(f syscall.Conn) (fd int, err error) {
	cerr := control(f, func(old int) { fd, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 3) })
	return fd, errors.Join(cerr, err)
}

// listening are the sockets a ready worker waits on: those that accept
// connections, or the others where there are none.
func (s *socketSet) listening() []socketID {
	var accept, other []socketID
	for _, sock := range s.list {
		ino, ok := sock.inode()
		if !ok {
			continue
		}
		family, err := unix.GetsockoptInt(sock.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			continue
		}
		id := socketID{sock.name, ino, family}
		if v, err := unix.GetsockoptInt(sock.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && v == 1 {
			accept = append(accept, id)
		} else {
			other = append(other, id)
		}
	}
	if len(accept) > 0 {
		return accept
	}
	return other
}

// nonblocking are the inodes of the sockets that are in non-blocking mode now.
func (s *socketSet) nonblocking() []uint64 {
	var inodes []uint64
	for _, sock := range s.list {
		flags, err := unix.FcntlInt(uintptr(sock.fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK == 0 {
			continue
		}
		if ino, ok := sock.inode(); ok {
			inodes = append(inodes, ino)
		}
	}
	return inodes
}

// unblock puts the sockets with these inodes back into non-blocking mode. The
// mode belongs to the open socket, not to a descriptor, and systemd sets it to
// what NonBlocking= says (systemd.service(5): blocking unless told) whenever it starts the
// unit. A worker that has outlived its supervisor would not notice: its event
// loop hangs in accept(2) from the next connection on, and cannot drain.
func (s *socketSet) unblock(inodes []uint64) {
	for _, sock := range s.list {
		if ino, ok := sock.inode(); ok && slices.Contains(inodes, ino) {
			_ = unix.SetNonblock(sock.fd, true) // fails for no open descriptor
		}
	}
}

// inode tells which socket it is; false if it is none.
func (s socket) inode() (uint64, bool) {
	var st unix.Stat_t
	if unix.Fstat(s.fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return 0, false
	}
	return st.Ino, true
}

// open makes sure that the set has a socket for l. One of that name is taken
// as it is where its address is right, so that a restarted supervisor goes
// on with the socket from the fd store; where the operator changed the
// address, the old one is closed and forgotten.
func (s *socketSet) open(ctx context.Context, l Listen) error {
	if have, ok := s.find(l.Name); ok {
		if l.IsBoundTo(have.fd) {
			return nil
		}
		s.remove(l.Name)
		if err := unkeep(l.Name); err != nil {
			return err
		}
	}
	f, err := l.listen(ctx)
	if err != nil {
		return fmt.Errorf("listen on %s:%s: %w", l.Network, l.Address, err)
	}
	if err := keep(l.Name, f); err != nil {
		f.Close()
		return fmt.Errorf("keep socket %q in the fd store: %w", l.Name, err)
	}
	return s.add(l.Name, f)
}

// listen binds. The caller owns the file.
func (l Listen) listen(ctx context.Context) (*os.File, error) {
	var lc net.ListenConfig
	switch l.Network {
	case "unix", "unixgram":
		if err := l.removeStale(); err != nil {
			return nil, err
		}
	}
	var c any
	var err error
	switch l.Network {
	case "tcp", "tcp4", "tcp6", "unix":
		c, err = lc.Listen(ctx, l.Network, l.Address)
	default:
		c, err = lc.ListenPacket(ctx, l.Network, l.Address)
	}
	if err != nil {
		return nil, err
	}
	if u, ok := c.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path belongs to the socket, not to this descriptor
	}
	fd, err := dupFD(c.(syscall.Conn))
	c.(io.Closer).Close()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), l.Name), nil
}

// removeStale removes a socket file that nobody listens on.
func (l Listen) removeStale() error {
	fi, err := os.Lstat(l.Address)
	if err != nil || fi.Mode()&os.ModeSocket == 0 {
		return nil // bind tells what is wrong, if anything
	}
	c, err := net.Dial(l.Network, l.Address)
	if err == nil {
		c.Close()
		return fmt.Errorf("somebody serves there already: %w", syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(l.Address)
}

// IsBoundTo tells if the open socket is the one that l describes.
func (l Listen) IsBoundTo(fd int) bool {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return false
	}
	stream := strings.HasPrefix(l.Network, "tcp") || l.Network == "unix"
	if stream != (typ == unix.SOCK_STREAM) {
		return false
	}
	switch sa := sa.(type) {
	case *unix.SockaddrUnix:
		return sa.Name == l.Address
	case *unix.SockaddrInet4:
		return l.sameAddress(netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)))
	case *unix.SockaddrInet6:
		return l.sameAddress(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)))
	}
	return false
}

// sameAddress compares with a host that may be a name, or empty for all.
func (l Listen) sameAddress(have netip.AddrPort) bool {
	addr, err := net.ResolveTCPAddr(strings.Replace(l.Network, "udp", "tcp", 1), l.Address)
	if err != nil {
		return false
	}
	want := addr.AddrPort()
	if want.Port() != 0 && want.Port() != have.Port() {
		return false
	}
	if !want.Addr().IsValid() || want.Addr().IsUnspecified() {
		return have.Addr().IsUnspecified()
	}
	return want.Addr().Unmap() == have.Addr()
}
