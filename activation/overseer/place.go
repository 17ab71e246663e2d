package overseer

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/upgraderd/upgraderd/upgrader/supervisor"
)

// place is an address, read.
type place struct{ network, address string }

// parsePlace reads HOST:PORT, unix:/PATH, unixgram:/PATH or NETWORK://ADDRESS.
func parsePlace(text string) (place, error) {
	p := place{"tcp", text}
	if network, address, ok := strings.Cut(text, "://"); ok {
		p = place{network, address}
	} else if network, address, ok := strings.Cut(text, ":"); ok && (network == "unix" || network == "unixgram") {
		p = place{network, address}
	}
	switch p.network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		if _, _, err := net.SplitHostPort(p.address); err != nil {
			return p, fmt.Errorf("%w; give HOST:PORT, :PORT, unix:/PATH or udp://HOST:PORT", err)
		}
	case "unix", "unixgram":
		if p.address == "" {
			return p, errors.New("no path of a socket")
		}
		if strings.HasPrefix(p.address, "@") {
			break
		}
		abs, err := filepath.Abs(p.address)
		if err != nil {
			return p, err
		}
		p.address = abs
	default:
		return p, fmt.Errorf("network %q is not known; there are tcp, udp, unix and unixgram", p.network)
	}
	return p, nil
}

// packets tells a place of datagrams from one of connections.
func (p place) packets() bool {
	return strings.HasPrefix(p.network, "udp") || p.network == "unixgram"
}

func (p place) String() string {
	if p.network == "tcp" {
		return p.address
	}
	return p.network + "://" + p.address
}

// placeOf is where a socket that came from outside is bound.
func placeOf(a net.Addr) place { return place{a.Network(), a.String()} }

// listen is the place as the supervisor opens it.
func (p place) listen(i int) supervisor.Listen {
	return supervisor.Listen{Name: nameOf(i), Network: p.network, Address: p.address}
}

// nameOf is what the socket of the i-th address is called in LISTEN_FDNAMES.
func nameOf(i int) string { return fmt.Sprintf("%s%d", namePrefix, i) }

const namePrefix = "address."

// holds tells if an open socket is bound to the place.
func (p place) holds(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	bound := false
	_ = raw.Control(func(fd uintptr) { bound = p.listen(0).IsBoundTo(int(fd)) })
	return bound
}
