package adopt

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/advice"
)

// A service that takes no sockets can be put behind one that systemd holds:
//
//	clients ─▶ app-proxy.socket ─▶ app-proxy.service ─▶ app.service
//	           where it listened    systemd-socket-proxyd  where it was told to
//
// While the service is restarted the proxy is stopped, since it depends on it, and
// new connections wait in the socket. The proxy is started again when the service
// listens, for which the service's start waits.

// ProxyProgram forwards connections; see systemd-socket-proxyd(8).
const ProxyProgram = "/usr/lib/systemd/systemd-socket-proxyd"

// Shell is what waits for the service; no other can connect.
const Shell = "/bin/bash"

func proxySocket(unit string) string {
	return strings.TrimSuffix(unit, ".service") + "-proxy.socket"
}

func proxyService(unit string) string {
	return strings.TrimSuffix(unit, ".service") + "-proxy.service"
}

// parseBehind reads where a service is to listen behind its proxy: where nobody but
// this host reaches it.
func parseBehind(text string) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(text)
	switch {
	case err != nil || at.Port() == 0:
		return at, advice.Give(fmt.Errorf("--proxy=%q: no address and port", text), "give one of this host, such as 127.0.0.1:18080")
	case !at.Addr().IsLoopback() || at.Addr().Zone() != "":
		return at, advice.Give(fmt.Errorf("--proxy=%s: others could go round the proxy", text), "give an address such as 127.0.0.1:%d", at.Port())
	}
	return at, nil
}

// behind puts the service behind a proxy, if that can be.
func (a *Adoption) behind(s Service, w Wishes, obstacle string) error {
	at, err := parseBehind(w.Proxy)
	if err != nil {
		return err
	}
	listen := streams(s, w)
	switch {
	case w.Swap == upgrader.SwapHandover:
		return hint("leave one of them out", "--proxy is for a service that is restarted, and --swap=handover is none")
	case len(s.Sockets) > 0:
		return hint("leave --proxy out: connections wait in it already", "%s has the socket %s", s.ID, s.Sockets[0].Unit)
	case w.Given != nil && w.Given.Swap == upgrader.SwapHandover:
		return hint("write Swap=restart into it", "%s says Swap=handover", w.Given.File)
	case obstacle != "" && s.Type == "forking":
		return hint("give the arguments that keep it in the foreground after --", "%s goes to the background, and says nothing of when it listens", s.ID)
	case len(w.Args) == 0 && len(w.Env) == 0:
		return hint("say how it is told to: arguments after --, or --env=NAME=VALUE", "%s is to listen on %s, and nothing tells it so", s.ID, at)
	case len(listen) == 0:
		return hint("start it first, or say with --listen=ADDRESS where clients connect", "%s does not listen on anything now", s.ID)
	}
	for _, l := range s.Listening {
		switch {
		case len(w.Listen) > 0:
		case l.Kind != "Stream":
			return hint("leave --proxy out, or say with --listen= which address it is for", "%s listens on %s (%s), and the proxy forwards streams only", s.ID, l.Address, l.Kind)
		case portOf(l.Address) != portOf(s.Listening[0].Address):
			return hint("say with --listen= which address it is for", "%s listens on %s and %s, and behind the proxy on %s alone", s.ID, s.Listening[0].Address, l.Address, at)
		}
	}
	if slices.ContainsFunc(listen, func(l string) bool { return portOf(l) == portOf(at.String()) }) {
		return hint("choose another port", "--proxy=%s: that is where clients connect", at)
	}
	a.Swap, a.Why = upgrader.SwapRestart, "you want it behind a proxy, where new connections wait meanwhile"
	a.Proxy, a.Socket = at, proxySocket(s.ID)
	a.remark("connections through the proxy are cut when the service is restarted; only new ones wait")
	a.remark("to the service each client comes from this host")
	return nil
}

// streams are the addresses of the clients.
func streams(s Service, w Wishes) []string {
	if len(w.Listen) > 0 {
		return w.Listen
	}
	var all []string
	for _, l := range s.Listening {
		all = append(all, l.Address)
	}
	return all
}

// portOf is the port of HOST:PORT, or all of what is none.
func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// awaits is a command that ends well when somebody listens there, and badly when the
// main process is gone before. It may begin before that process has become its user,
// who alone can see it: so it looks twice.
func awaits(at netip.AddrPort) string {
	return fmt.Sprintf(`%s -c 'here() { [ -z "$MAINPID" ] || kill -0 $MAINPID || [ -e /proc/$MAINPID ]; }; `+
		`until (: >/dev/tcp/%s/%d); do here || { sleep 1; here || exit 1; }; sleep 0.05; done 2>/dev/null'`, Shell, at.Addr(), at.Port())
}

// proxy is the unit of the proxy. It is stopped with the service, and started by its
// socket, when a connection comes, or with the service again. That of systemd 252 does
// not say READY=1, and need not: it has its socket from the start.
func (a *Adoption) proxy() string {
	return a.head() + fmt.Sprintf(`
[Unit]
Description=Proxy before %[1]s
Requires=%[1]s %[2]s
After=%[1]s %[2]s
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=%[3]s %[4]s
DynamicUser=yes
CapabilityBoundingSet=
NoNewPrivileges=yes
PrivateDevices=yes
ProtectHome=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
`, a.Unit, a.Socket, ProxyProgram, a.Proxy)
}
