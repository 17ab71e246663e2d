package supervisor

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// memory is what a supervisor leaves to the one that systemd starts after it
// was killed: a memfd in the fd store. Both hold the same file, so a change
// needs no word to systemd. It has two slots, written in turn and each with
// a checksum, so that being killed in the middle of a write leaves the other.
type memory struct {
	file *os.File
	last memoir
}

// memoir is what is remembered. Descriptors are in the fd store beside it,
// under names made of the generation.
type memoir struct {
	Seq        uint64       `json:"seq"`
	Generation int          `json:"generation"`
	Workers    []remembered `json:"workers"`
	// Failure is why the last handover came to nothing.
	Failure string `json:"failure,omitempty"`
	// Nonblocking are the inodes of the sockets that the workers put into
	// non-blocking mode; see socketSet.unblock.
	Nonblocking []uint64 `json:"nonblocking,omitempty"`
}

type remembered struct {
	Generation int    `json:"generation"`
	PID        int    `json:"pid"`
	Role       role   `json:"role"`
	Release    string `json:"release,omitempty"`
	Program    string `json:"program"`
	Status     string `json:"status,omitempty"`
	// Deadline of the drain on CLOCK_MONOTONIC, in nanoseconds; 0 for none.
	Deadline int64 `json:"deadline,omitempty"`
}

const (
	memoryName = internal + "state"
	slotSize   = 64 << 10
)

// newMemory makes an empty one and puts it into the fd store.
func newMemory() (*memory, error) {
	fd, err := unix.MemfdCreate(memoryName, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create state: %w", err)
	}
	m := &memory{file: os.NewFile(uintptr(fd), memoryName)}
	if err := m.file.Truncate(2 * slotSize); err != nil {
		m.file.Close()
		return nil, fmt.Errorf("create state: %w", err)
	}
	if err := keep(memoryName, m.file); err != nil {
		m.file.Close()
		return nil, fmt.Errorf("keep state in the fd store: %w", err)
	}
	return m, nil
}

// openMemory reads the newest whole slot of a memory found in the fd store.
// It owns f.
func openMemory(f *os.File) (*memory, error) {
	m := &memory{file: f}
	for slot := range int64(2) {
		b := make([]byte, slotSize)
		if _, err := f.ReadAt(b, slot*slotSize); err != nil {
			return nil, fmt.Errorf("read state: %w", err)
		}
		sum, n := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		if n == 0 || n > slotSize-8 || crc32.ChecksumIEEE(b[8:8+n]) != sum {
			continue
		}
		var v memoir
		if json.Unmarshal(b[8:8+n], &v) == nil && v.Seq > m.last.Seq {
			m.last = v
		}
	}
	return m, nil
}

// save remembers v. It reports an error where v does not fit, which would
// take some hundred workers at once.
func (m *memory) save(v memoir) error {
	if m == nil {
		return nil
	}
	v.Seq = m.last.Seq + 1
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > slotSize-8 {
		return fmt.Errorf("remember %d workers: too many", len(v.Workers))
	}
	b := make([]byte, 8, 8+len(data))
	binary.LittleEndian.PutUint32(b, crc32.ChecksumIEEE(data))
	binary.LittleEndian.PutUint32(b[4:], uint32(len(data)))
	if _, err := m.file.WriteAt(append(b, data...), int64(v.Seq%2)*slotSize); err != nil {
		return fmt.Errorf("remember workers: %w", err)
	}
	m.last = v
	return nil
}

// keepPidfd puts a worker's pidfd into the fd store. Without it, and without
// a memory, a supervisor that was killed could not find the worker again: not
// being able to is worth a warning, but no reason to stop serving.
func (s *Supervisor) keepPidfd(generation, pid int, pidfd *os.File) {
	if err := keep(pidfdName(generation), pidfd); err != nil {
		s.log.Warn("keeping the worker's pidfd in the fd store", "pid", pid, "error", err)
	}
}

// remember puts the workers and what they are into our memory.
func (s *Supervisor) remember() error {
	m := memoir{Generation: s.generation, Failure: clip(s.failure), Nonblocking: s.sockets.nonblocking()}
	now := time.Now()
	for _, w := range s.workers() {
		r := remembered{
			Generation: w.generation, PID: w.pid, Role: w.role,
			Release: w.release.Name, Program: w.release.program, Status: clip(w.status),
		}
		if w.role == roleDraining {
			r.Deadline = monotonic() + int64(w.deadline.Sub(now))
		}
		m.Workers = append(m.Workers, r)
	}
	err := s.memory.save(m)
	if err != nil {
		s.log.Warn("remembering the workers", "error", err)
	}
	return err
}

// clip keeps text from a worker within the room of a slot.
func clip(text string) string {
	const most = 512
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	return strings.ToValidUTF8(text, "?")
}

// pidfdName is the worker's name in the fd store.
func pidfdName(generation int) string { return fmt.Sprintf("%sworker.%d", internal, generation) }

// monotonic is CLOCK_MONOTONIC in nanoseconds, which goes on over a restart
// of the supervisor and does not jump.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}
