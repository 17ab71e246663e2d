package supervisor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A worker waits on a listener if the listener stands in one of its epoll
// sets (/proc/PID/fdinfo/FD, "tfd:" lines, proc_pid_fdinfo(5)), or if one of
// its threads is blocked in accept, poll or select with it
// (/proc/PID/task/TID/syscall). All of these need the rights of ptrace over
// the worker, which its parent of the same user has.

// socketID names an open socket, whatever its number in a process.
type socketID struct {
	name   string // its LISTEN_FDNAMES name, for messages
	ino    uint64
	family int // AF_INET, AF_INET6, AF_UNIX, …
}

// waitsOnAll returns nil if process pid, or one below it, waits on every one of
// the sockets: a master process such as nginx's leaves that to its children. Else
// it returns an error that names the first one that none waits on.
func waitsOnAll(pid int, sockets []socketID) error {
	seen := map[uint64]bool{}
	for i, pid := range family(pid) {
		numbers, err := socketNumbers(pid)
		if err != nil && i == 0 {
			return err
		}
		epollSets(pid, seen)
		blockedThreads(pid, numbers, seen)
	}
	for _, s := range sockets {
		if !seen[s.ino] {
			return fmt.Errorf("worker %d does not wait on socket %q yet", pid, s.name)
		}
	}
	return nil
}

// family is process pid, first, and those below it (proc_pid_task(5), "children").
func family(pid int) []int {
	const most = 1024 // processes looked at
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		for _, task := range tasks(all[i]) {
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", all[i], task))
			if err != nil {
				continue // over, or a kernel without CONFIG_PROC_CHILDREN
			}
			for _, f := range strings.Fields(string(data)) {
				if child, err := strconv.Atoi(f); err == nil && len(all) < most {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// tasks are the names of a process's threads.
func tasks(pid int) []string {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

// socketNumbers maps the process's descriptor numbers to socket inodes.
func socketNumbers(pid int) (map[int]uint64, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look at worker %d: %w", pid, err)
	}
	numbers := make(map[int]uint64)
	for _, e := range entries {
		link, err := os.Readlink(dir + "/" + e.Name())
		if err != nil {
			continue // closed meanwhile
		}
		ino, ok := strings.CutPrefix(link, "socket:[")
		if !ok {
			continue
		}
		n, err1 := strconv.Atoi(e.Name())
		i, err2 := strconv.ParseUint(strings.TrimSuffix(ino, "]"), 10, 64)
		if err1 == nil && err2 == nil {
			numbers[n] = i
		}
	}
	return numbers, nil
}

// epollSets marks every inode that one of the process's epoll sets watches.
func epollSets(pid int, seen map[uint64]bool) {
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		data, err := os.ReadFile(dir + "/" + e.Name())
		if err != nil || !bytes.Contains(data, []byte("tfd:")) {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if ino, ok := epollInode(line); ok {
				seen[ino] = true
			}
		}
	}
}

// epollInode reads "tfd: 5 events: 2019 data: … pos:0 ino:61af sdev:8".
func epollInode(line string) (uint64, bool) {
	if !strings.HasPrefix(line, "tfd:") {
		return 0, false
	}
	for _, field := range strings.Fields(line) {
		if hex, ok := strings.CutPrefix(field, "ino:"); ok {
			ino, err := strconv.ParseUint(hex, 16, 64)
			return ino, err == nil
		}
	}
	return 0, false
}

// blockedThreads marks every socket that a thread is blocked on in accept,
// poll or select.
func blockedThreads(pid int, numbers map[int]uint64, seen map[uint64]bool) {
	for _, task := range tasks(pid) {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/syscall", pid, task))
		if err != nil {
			continue
		}
		nr, args, ok := parseSyscall(string(data))
		if !ok {
			continue
		}
		for _, fd := range waitedFDs(pid, nr, args) {
			if ino, ok := numbers[fd]; ok {
				seen[ino] = true
			}
		}
	}
}

// parseSyscall reads "NR 0xARG0 … 0xARG5 SP PC"; a running thread says
// "running", one outside a system call "-1 SP PC".
func parseSyscall(line string) (nr int, args [6]uint64, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 9 {
		return 0, args, false
	}
	nr, err := strconv.Atoi(fields[0])
	if err != nil {
		return 0, args, false
	}
	for i := range args {
		args[i], err = strconv.ParseUint(strings.TrimPrefix(fields[1+i], "0x"), 16, 64)
		if err != nil {
			return 0, args, false
		}
	}
	return nr, args, true
}

// waitedFDs tells the descriptors that a blocked system call waits to read.
func waitedFDs(pid, nr int, args [6]uint64) []int {
	const most = 4096 // descriptors looked at in one call
	switch {
	case nr == unix.SYS_ACCEPT || nr == unix.SYS_ACCEPT4:
		return []int{int(args[0])}
	case nr == unix.SYS_PPOLL || nr == sysPoll:
		return pollFDs(readMemory(pid, args[0], 8*min(args[1], most)))
	case nr == unix.SYS_PSELECT6 || nr == sysSelect:
		bits := min(args[0], most)
		return selectFDs(readMemory(pid, args[1], (bits+63)/64*8))
	}
	return nil
}

// pollFDs reads an array of struct pollfd {int fd; short events, revents}.
func pollFDs(b []byte) []int {
	var fds []int
	for ; len(b) >= 8; b = b[8:] {
		if binary.NativeEndian.Uint16(b[4:])&unix.POLLIN != 0 {
			fds = append(fds, int(int32(binary.NativeEndian.Uint32(b))))
		}
	}
	return fds
}

// selectFDs reads an fd_set.
func selectFDs(b []byte) []int {
	var fds []int
	for word := 0; len(b) >= 8; word, b = word+1, b[8:] {
		set := binary.NativeEndian.Uint64(b)
		for bit := range 64 {
			if set&(1<<bit) != 0 {
				fds = append(fds, word*64+bit)
			}
		}
	}
	return fds
}

// readMemory copies n bytes of the worker's memory; nil if it may not.
func readMemory(pid int, addr, n uint64) []byte {
	if addr == 0 || n == 0 {
		return nil
	}
	// Not process_vm_readv(2): it is outside @system-service, and a unit with
	// that SystemCallFilter= would end the supervisor for trying.
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil
	}
	defer mem.Close()
	b := make([]byte, n)
	got, err := mem.ReadAt(b, int64(addr))
	if err != nil {
		return nil
	}
	return b[:got]
}
