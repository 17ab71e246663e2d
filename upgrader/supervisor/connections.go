package supervisor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

// How many clients a worker has is not asked of it: the kernel's tables tell which
// sockets are connected at the address of a listener, and /proc/PID/fd which of them
// the worker holds (proc_net(5), proc_pid_fd(5)).

// tableMax bounds what is read of a table: beyond that nobody counts.
const tableMax = 16 << 20

// countTime is how long a count may take to be one of the moment that it began in: a
// worker that drains has fewer soon.
const countTime = 50 * time.Millisecond

// countConnections counts those of a worker that is about to be told to drain, beside
// what the supervisor does: it does not wait for what is only told.
func (s *Supervisor) countConnections(w *worker) {
	pid, at, began := w.pid, s.sockets.listening(), time.Now()
	go func() {
		n := count(pid, at, fewSockets)
		if time.Since(began) > countTime {
			return
		}
		s.post(func() {
			if w == s.left && !w.over {
				s.last.Connections = n
				s.status("")
			}
		})
	}()
}

// fewSockets is up to how many TCP sockets a network namespace may have, those that
// wait for their time to pass among them, for its tables to be read: they cost a
// microsecond a line, and a moment in which clients wait for the new worker is the
// wrong one for that.
const fewSockets = 1000

// few tells that the tables have at most so many rows, by what the kernel counts
// anyway.
func few(pid, most int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/sockstat", pid))
	if err != nil {
		return false
	}
	total := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(fields); i += 2 {
			if n, err := strconv.Atoi(fields[i+1]); err == nil && (fields[i] == "inuse" || fields[i] == "tw") {
				total += n
			}
		}
	}
	return total <= most
}

// count counts the connections that came to these sockets and that a process holds,
// statusline.Unknown if that cannot be told, or there are more than so many sockets.
func count(pid int, at []socketID, most int) int {
	if !few(pid, most) {
		return statusline.Unknown
	}
	numbers, err := socketNumbers(pid)
	if err != nil {
		return statusline.Unknown
	}
	held := make(map[uint64]bool, len(numbers))
	for _, ino := range numbers {
		held[ino] = true
	}
	listens, read := map[uint64]bool{}, map[string]bool{}
	for _, s := range at {
		listens[s.ino] = true
	}
	n, found := 0, false
	for _, s := range at {
		t, ok := tables[s.family]
		if !ok || read[t.name] {
			continue
		}
		read[t.name] = true
		ours, came := map[string]bool{}, map[string]int{}
		err := t.each(pid, func(place string, listening bool, ino uint64) {
			switch {
			case !listening && held[ino]:
				came[place]++
			case listening && listens[ino]:
				ours[place], found = true, true
			}
		})
		if err != nil {
			return statusline.Unknown
		}
		for place := range ours {
			n += came[place]
		}
	}
	if !found { // datagrams have no connections
		return statusline.Unknown
	}
	return n
}

// table is one of /proc/net, with the value of its fourth column that a listener
// has, and where address and inode stand.
type table struct {
	name, listens string
	address, ino  int
}

const acceptsConnections = "00010000" // __SO_ACCEPTCON

// tables has them by the family of a listener. A connection is in its listener's
// table, IPv4 to a listener of both in that of IPv6, and no other is read: the
// kernel goes through all places that it has for connections of any kind, taken
// or not, a millisecond for each reading.
var tables = map[int]table{
	unix.AF_INET:  {"tcp", "0A", 1, 9},
	unix.AF_INET6: {"tcp6", "0A", 1, 9},
	unix.AF_UNIX:  {"unix", acceptsConnections, 7, 6},
}

// each gives the rows. A table that this kernel does not have is empty.
func (t table) each(pid int, row func(place string, listening bool, ino uint64)) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, t.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	limited := &io.LimitedReader{R: f, N: tableMax}
	lines := bufio.NewScanner(limited)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) <= max(t.address, t.ino) {
			continue
		}
		ino, err := strconv.ParseUint(fields[t.ino], 10, 64)
		if err != nil {
			continue // the head
		}
		place := fields[t.address]
		if _, port, ok := strings.Cut(place, ":"); ok && t.name != "unix" {
			place = port // who listens on all addresses has connections at any
		}
		row(place, fields[3] == t.listens, ino)
	}
	if limited.N <= 0 {
		return fmt.Errorf("%s is too large", f.Name())
	}
	return lines.Err()
}
