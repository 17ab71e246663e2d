package supervisor

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// quiet is how long nothing has to happen before memory is given back: a
// handover's drain usually ends within it.
const quiet = time.Second

// rest arranges for shrink once nothing has happened for a while.
func (s *Supervisor) rest() {
	if s.resting != nil {
		s.resting.Stop()
	}
	s.resting = s.after(quiet, shrink)
}

// shrink gives back what only start and handover needed. A supervisor waits
// nearly all of its life, one per service, so its size counts: the heap goes
// back, and so do the pages of the program file, which the kernel maps again
// from its cache when they are next run. That is three quarters of the
// process; madvise(2) says MADV_DONTNEED on a file mapping loses nothing.
func shrink() {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		start, length, ok := programPages(line, exe)
		if ok {
			_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, start, length, unix.MADV_DONTNEED)
		}
	}
}

// programPages reads "START-END r-xp OFFSET DEV INODE PATH" and tells if it
// maps the program's own file, unwritable: only such pages have a copy.
func programPages(line, exe string) (start, length uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || f[1][1] == 'w' || strings.Join(f[5:], " ") != exe {
		return 0, 0, false
	}
	from, to, _ := strings.Cut(f[0], "-")
	a, err1 := strconv.ParseUint(from, 16, 64)
	b, err2 := strconv.ParseUint(to, 16, 64)
	return uintptr(a), uintptr(b - a), err1 == nil && err2 == nil && b > a
}
