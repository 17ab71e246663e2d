package supervisor

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/advice"
)

// Pass is the dialect in which a worker is told which of its descriptors are
// sockets. The descriptors themselves are the same in all of them: from 3 on, in
// the order of the sockets. NOTIFY_SOCKET is set in all of them, too.
//
// Of the sockets that no .socket unit and no --listen names, because a worker
// stored them, only systemd's dialect can tell more than a number. The others
// are told of sockets with an address alone, and get no descriptor of anything else.
type Pass string

const (
	// PassSystemd is sd_listen_fds(3): LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES.
	PassSystemd Pass = "systemd"
	// PassNginx is what a running nginx tells the one that takes its place: NGINX,
	// a list of numbers that each end in ";" (ngx_add_inherited_sockets in its
	// src/core/nginx.c). nginx asks each for its address, takes those that a listen
	// directive names, closes the others, opens what is missing, and stays in the
	// foreground whatever its configuration says of daemon. SIGQUIT has it finish.
	PassNginx Pass = "nginx"
	// PassServerStarter is what Perl's start_server(1) tells: SERVER_STARTER_PORT, a
	// list of ADDRESS=NUMBER with ";" between, where ADDRESS is HOST:PORT, a path,
	// or HOST:uPORT for UDP; and SERVER_STARTER_GENERATION, counted from 1.
	// A worker says nothing when it is ready. SIGTERM has it finish.
	PassServerStarter Pass = "server-starter"
	// PassEinhorn is what Stripe's einhorn tells: EINHORN_FD_COUNT, EINHORN_FD_0 and
	// so on, EINHORN_FD_FAMILY_0 and so on, EINHORN_MASTER_PID, which has to be the
	// worker's parent, and EINHORN_SOCK_PATH: whoever connects there and sends the
	// command worker:ack is ready. SIGUSR2 has it finish.
	PassEinhorn Pass = "einhorn"
)

// dialects are all that --pass takes.
var dialects = []Pass{PassSystemd, PassNginx, PassServerStarter, PassEinhorn}

// ParsePass reads the value of --pass.
func ParsePass(s string) (Pass, error) {
	for _, p := range dialects {
		if s == string(p) {
			return p, nil
		}
	}
	return "", advice.Give(fmt.Errorf("--pass=%q: not a dialect", s), "give systemd, nginx, server-starter or einhorn")
}

// ready is how a worker that speaks this dialect is seen to be ready, if nothing
// else is asked for: outside systemd's, hardly any says so.
func (p Pass) ready() ReadyKind {
	if p == PassSystemd {
		return ReadyNotify
	}
	return ReadyAccepting
}

// stopSignal is what asks a worker to drain, if nothing else is asked for.
func (p Pass) stopSignal() syscall.Signal {
	switch p {
	case PassNginx:
		return syscall.SIGQUIT
	case PassEinhorn:
		return syscall.SIGUSR2
	default:
		return syscall.SIGTERM
	}
}

// dialectKeys are the variables of all dialects: what a worker is told in one, it
// must not hear from our own parent in another.
func dialectKeys(key string) bool {
	switch key {
	case "NGINX", "SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION":
		return true
	}
	return strings.HasPrefix(key, "EINHORN_")
}

// told is what a worker learns of its sockets.
type told struct {
	files []int    // from 3 on
	env   []string // NAME=value
	pids  []string // names of variables that are to hold the worker's PID
}

// firstFD is the number of the first socket: SD_LISTEN_FDS_START.
const firstFD = 3

// tell puts the sockets into words. ackPath is where einhorn's workers report.
func (p Pass) tell(sockets []socket, generation int, ackPath string) (told, error) {
	if p == PassSystemd {
		return tellSystemd(sockets), nil
	}
	var t told
	var bound []boundSocket
	for _, sock := range sockets {
		b, ok := sock.bound()
		if !ok {
			continue
		}
		b.number = firstFD + len(t.files)
		t.files = append(t.files, sock.fd)
		bound = append(bound, b)
	}
	switch p {
	case PassNginx:
		t.env = tellNginx(bound)
	case PassEinhorn:
		t.env = append(tellEinhorn(bound), "EINHORN_SOCK_PATH="+ackPath)
	case PassServerStarter:
		list, err := tellServerStarter(bound)
		if err != nil {
			return told{}, err
		}
		t.env = append(list, "SERVER_STARTER_GENERATION="+strconv.Itoa(generation))
	}
	return t, nil
}

func tellSystemd(sockets []socket) told {
	var t told
	var names []string
	for _, sock := range sockets {
		t.files = append(t.files, sock.fd)
		names = append(names, sock.name)
	}
	if len(names) > 0 {
		t.pids = []string{"LISTEN_PID"}
		t.env = []string{"LISTEN_FDS=" + strconv.Itoa(len(names)), "LISTEN_FDNAMES=" + strings.Join(names, ":")}
	}
	return t
}

// tellNginx says nothing where there is nothing: an empty list would still have
// nginx believe that it took another's place.
func tellNginx(bound []boundSocket) []string {
	if len(bound) == 0 {
		return nil
	}
	list := "NGINX="
	for _, b := range bound {
		list += strconv.Itoa(b.number) + ";"
	}
	return []string{list}
}

func tellServerStarter(bound []boundSocket) ([]string, error) {
	var list []string
	for _, b := range bound {
		if strings.ContainsAny(b.address, ";=") {
			return nil, fmt.Errorf("tell the worker of socket %q: --pass=server-starter has no way to write the path %q; choose one without \";\" and \"=\"",
				b.name, b.address)
		}
		list = append(list, b.address+"="+strconv.Itoa(b.number))
	}
	return []string{"SERVER_STARTER_PORT=" + strings.Join(list, ";")}, nil
}

func tellEinhorn(bound []boundSocket) []string {
	env := []string{"EINHORN_MASTER_PID=" + strconv.Itoa(os.Getpid()), "EINHORN_FD_COUNT=" + strconv.Itoa(len(bound))}
	for i, b := range bound {
		at := strconv.Itoa(i)
		env = append(env, "EINHORN_FD_"+at+"="+strconv.Itoa(b.number), "EINHORN_FD_FAMILY_"+at+"="+b.family)
	}
	return env
}

// boundSocket is what the other dialects know of a socket.
type boundSocket struct {
	name    string
	number  int
	family  string // as in socket(2)
	address string // as start_server(1) takes it
}

// bound tells where the socket listens, or takes datagrams; false if nowhere.
func (s socket) bound() (boundSocket, bool) {
	addr, err := unix.Getsockname(s.fd)
	if err != nil {
		return boundSocket{}, false
	}
	port := ""
	if typ, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && typ == unix.SOCK_DGRAM {
		port = "u"
	} else if listens, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens != 1 {
		return boundSocket{}, false
	}
	b := boundSocket{name: s.name}
	switch addr := addr.(type) {
	case *unix.SockaddrInet4:
		b.family, b.address = "AF_INET", netip.AddrFrom4(addr.Addr).String()+":"+port+strconv.Itoa(addr.Port)
	case *unix.SockaddrInet6:
		b.family, b.address = "AF_INET6", "["+netip.AddrFrom16(addr.Addr).String()+"]:"+port+strconv.Itoa(addr.Port)
	case *unix.SockaddrUnix:
		b.family, b.address = "AF_UNIX", addr.Name
		if addr.Name == "" { // one end of a pair
			return boundSocket{}, false
		}
	default:
		return boundSocket{}, false
	}
	return b, true
}
