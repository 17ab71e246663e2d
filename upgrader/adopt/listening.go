package adopt

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Limits of what is read from /proc.
const (
	maxProcesses = 4096
	maxFiles     = 65536
)

// Address is a socket that a process has bound.
type Address struct {
	// Kind is that of the Listen…= which makes such a socket: Stream, Datagram or
	// SequentialPacket.
	Kind string
	// Address is an IP address and port, or a path; "@" begins an abstract name.
	Address string
}

// ephemeral is where ports begin that the kernel gives to clients
// (net.ipv4.ip_local_port_range): a datagram socket there is no server's.
const ephemeral = 32768

// listening finds what the processes of a control group listen on.
func listening(proc, cgroups, group string) []Address {
	if group == "" {
		return nil
	}
	var found []Address
	seen := map[string]bool{} // network namespaces
	inodes := map[string]bool{}
	pids := processes(filepath.Join(cgroups, group))
	for _, pid := range pids {
		for inode := range sockets(filepath.Join(proc, pid, "fd")) {
			inodes[inode] = true
		}
	}
	for _, pid := range pids {
		ns, err := os.Readlink(filepath.Join(proc, pid, "ns/net"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		net := filepath.Join(proc, pid, "net")
		for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
			found = append(found, internet(filepath.Join(net, table), inodes)...)
		}
		var owner uint32
		if st, ok := stat(filepath.Join(proc, pid)); ok {
			owner = st.Uid
		}
		for _, a := range local(filepath.Join(net, "unix"), inodes) {
			if strings.HasPrefix(a.Address, "@") || isSocketOf(a.Address, owner) {
				found = append(found, a)
			}
		}
	}
	slices.SortFunc(found, func(a, b Address) int {
		if c := strings.Compare(a.Kind, b.Kind) * -1; c != 0 { // Stream first
			return c
		}
		return strings.Compare(a.Address, b.Address)
	})
	return slices.Compact(found)
}

// isSocketOf tells whether path is a socket of this user; root may have any. The
// table of the kernel holds a name as the process gave it, line ends and all, so
// that a service could put lines there that name what is somebody else's.
func isSocketOf(path string, owner uint32) bool {
	st, ok := stat(path)
	return ok && filepath.IsAbs(path) && st.Mode&syscall.S_IFMT == syscall.S_IFSOCK && (st.Uid == owner || owner == 0)
}

func stat(name string) (*syscall.Stat_t, bool) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st, ok
}

// processes are those of a control group and of the groups in it.
func processes(dir string) []string {
	var pids []string
	_ = filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || len(pids) > maxProcesses {
			return filepath.SkipAll
		}
		if d.Name() == "cgroup.procs" {
			text, _ := os.ReadFile(name)
			pids = append(pids, strings.Fields(string(text))...)
		}
		return nil
	})
	return pids
}

// sockets are the inodes of those that a process has open.
func sockets(dir string) map[string]bool {
	inodes := map[string]bool{}
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxFiles)
	for _, name := range names {
		to, err := os.Readlink(filepath.Join(dir, name))
		if inode, ok := strings.CutPrefix(to, "socket:["); ok && err == nil {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return inodes
}

// internet reads /proc/net/tcp and its like, see proc(5).
func internet(table string, inodes map[string]bool) []Address {
	const listens, unconnected = "0A", "07"
	var found []Address
	eachLine(table, func(f []string) {
		if len(f) < 10 || !inodes[f[9]] {
			return
		}
		kind, state := "Stream", listens
		if strings.HasPrefix(filepath.Base(table), "udp") {
			kind, state = "Datagram", unconnected
		}
		at, ok := parseAddress(f[1])
		if !ok || f[3] != state || kind == "Datagram" && at.Port() >= ephemeral {
			return
		}
		found = append(found, Address{kind, at.String()})
	})
	return found
}

// parseAddress reads 0100007F:1F90: words of four bytes in the order of the host,
// and a port.
func parseAddress(text string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b)%4 != 0 || n == 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(b, 4) {
		binary.BigEndian.PutUint32(word, binary.NativeEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(n)), ok
}

// local reads /proc/net/unix.
func local(table string, inodes map[string]bool) []Address {
	const accepts = "00010000" // __SO_ACCEPTCON
	kinds := map[string]string{"0001": "Stream", "0002": "Datagram", "0005": "SequentialPacket"}
	var found []Address
	eachLine(table, func(f []string) {
		if len(f) != 8 || !inodes[f[6]] || strings.HasSuffix(f[7], "@") {
			return
		}
		kind, ok := kinds[f[4]]
		if !ok || kind != "Datagram" && f[3] != accepts {
			return
		}
		found = append(found, Address{kind, f[7]})
	})
	return found
}

func eachLine(name string, f func(fields []string)) {
	file, err := os.Open(name)
	if err != nil {
		return
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		f(strings.Fields(lines.Text()))
	}
}

// listenLines are the lines of a .socket unit that binds what was found. A
// program that has both of 0.0.0.0 and [::] made the second for IPv6 alone.
func listenLines(found []Address) []string {
	var lines []string
	only := false
	for _, a := range found {
		lines = append(lines, fmt.Sprintf("Listen%s=%s", a.Kind, strings.ReplaceAll(a.Address, "%", "%%")))
		port, any6 := strings.CutPrefix(a.Address, "[::]:")
		only = only || any6 && slices.Contains(found, Address{a.Kind, "0.0.0.0:" + port})
	}
	if only {
		lines = append(lines, "BindIPv6Only=ipv6-only")
	}
	return lines
}
