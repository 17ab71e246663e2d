package client

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// inner keeps a source in the world from leading this host into networks that
// the world cannot reach: itself, the local net, the provider's metadata service.
// A redirect goes to a private address only where the source has one itself. The
// address is looked at when it is connected to, so a name that means one thing
// when asked and another when used is of no use.
type inner struct {
	home      string // the host in Path=
	isPrivate func(netip.Addr) bool
	connect   time.Duration // until a connection is there, with its name
	private   atomic.Bool   // the home itself was reached at a private address
	proxies   sync.Map      // hosts that the environment names; root chose them
}

// dialer connects to where it may.
func (n *inner) dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		d := net.Dialer{Timeout: n.connect, ControlContext: func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
			return n.enter(host, resolved)
		}}
		return d.DialContext(ctx, network, address)
	}
}

// enter is asked before a connection to an address of host is made.
func (n *inner) enter(host, resolved string) error {
	to, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return err
	}
	addr := to.Addr().Unmap().WithZone("")
	if _, proxy := n.proxies.Load(host); proxy {
		return nil
	}
	if host == n.home {
		n.private.Store(n.isPrivate(addr))
		return nil
	}
	return n.allow(host, addr)
}

func (n *inner) allow(host string, addr netip.Addr) error {
	if n.private.Load() || !n.isPrivate(addr) {
		return nil
	}
	return fault.New(fault.Redirect, fmt.Errorf("redirect to %s leads to %s, a private address, and %s has none", host, addr, n.home),
		"if that is meant, name the final place in Path=")
}

// follow is asked before a redirect is followed, for what a proxy would connect
// to in our place.
func (n *inner) follow(to *url.URL) error {
	addr, err := netip.ParseAddr(to.Hostname())
	if err != nil || to.Hostname() == n.home {
		return nil
	}
	return n.allow(to.Hostname(), addr.Unmap())
}

// carrierNAT is RFC 6598, where providers keep services of their own.
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

// isPrivate tells addresses that mean something else on each host or network.
func isPrivate(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() ||
		a.IsInterfaceLocalMulticast() || carrierNAT.Contains(a)
}
