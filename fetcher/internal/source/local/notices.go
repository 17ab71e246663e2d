package local

import (
	"bytes"
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// notices is one inotify instance for all directories of this process that are
// watched: a user has 128 instances (fs.inotify.max_user_instances), which other
// programs need, too, and many thousand watches. It is there while anything is
// watched. See inotify(7).
type notices struct {
	mu   sync.Mutex
	file *os.File // nil where nothing is watched
	fd   int
	dirs map[int32]map[*watch]bool // by watch descriptor: one directory has one
}

// shared is that of this process.
var shared = notices{dirs: map[int32]map[*watch]bool{}}

// watch is one wish to hear of a directory.
type watch struct {
	wd     int32
	events chan notice // closed when nothing more will come
	lost   atomic.Bool // an event did not fit, whatever it was
}

// notice is one event, of the file name in the directory.
type notice struct {
	mask uint32
	name string
}

// queued is how many events may wait for one reader. More are told by lost.
const queued = 64

// open begins to watch the directory at path. Whoever opens closes.
func (n *notices) open(path string) (*watch, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, err
		}
		n.file, n.fd = os.NewFile(uintptr(fd), "inotify"), fd
		go n.read(n.file)
	}
	wd, err := unix.InotifyAddWatch(n.fd, path, arrivals)
	if err != nil {
		n.endIfIdle()
		return nil, err
	}
	w := &watch{wd: int32(wd), events: make(chan notice, queued)}
	if n.dirs[w.wd] == nil {
		n.dirs[w.wd] = map[*watch]bool{}
	}
	n.dirs[w.wd][w] = true
	return w, nil
}

// close ends a watch.
func (n *notices) close(w *watch) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.dirs[w.wd][w] {
		return // with all others
	}
	delete(n.dirs[w.wd], w)
	if len(n.dirs[w.wd]) == 0 {
		delete(n.dirs, w.wd)
		// It fails where the directory is gone, and its watch with it.
		_, _ = unix.InotifyRmWatch(n.fd, uint32(w.wd))
	}
	n.endIfIdle()
}

func (n *notices) endIfIdle() {
	if len(n.dirs) == 0 && n.file != nil {
		n.file.Close()
		n.file = nil
	}
}

// read hands events on until file is closed.
func (n *notices) read(file *os.File) {
	buf := make([]byte, 16<<10)
	for {
		size, err := file.Read(buf)
		n.mu.Lock()
		if n.file != file { // of watches that are over
			n.mu.Unlock()
			return
		}
		if err != nil {
			n.giveUp()
			n.mu.Unlock()
			return
		}
		n.hand(buf[:size])
		n.mu.Unlock()
	}
}

// giveUp ends all watches; their readers then look by themselves.
func (n *notices) giveUp() {
	for wd, watches := range n.dirs {
		for w := range watches {
			close(w.events)
		}
		delete(n.dirs, wd)
	}
	n.endIfIdle()
}

// hand gives each event to whom it is for, and waits for nobody.
func (n *notices) hand(buf []byte) {
	for len(buf) >= unix.SizeofInotifyEvent {
		wd, mask := int32(binary.NativeEndian.Uint32(buf)), binary.NativeEndian.Uint32(buf[4:])
		end := min(len(buf), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(buf[12:])))
		name := string(bytes.TrimRight(buf[unix.SizeofInotifyEvent:end], "\x00"))
		buf = buf[end:]
		if mask&unix.IN_Q_OVERFLOW != 0 { // the kernel's queue was full
			for _, watches := range n.dirs {
				for w := range watches {
					w.send(notice{mask: mask})
				}
			}
			continue
		}
		for w := range n.dirs[wd] {
			w.send(notice{mask, name})
		}
	}
}

func (w *watch) send(e notice) {
	select {
	case w.events <- e:
	default:
		w.lost.Store(true)
	}
}
