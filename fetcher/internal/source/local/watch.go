package local

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

const (
	// settle is how long a directory must be quiet before a change counts:
	// publishing is several steps (artifact, manifest, signature), and what
	// lies between two of them would only give an error.
	settle = 100 * time.Millisecond
	// settleMax bounds that for a directory that is never quiet.
	settleMax = 2 * time.Second
	// pollEvery is the pace where inotify cannot work. A look is one listing.
	pollEvery = 2 * time.Second
	// recently is how far back a file's last write may lie for it to be asked
	// whether somebody still writes it.
	recently = time.Hour
	// stateMax is how many entries a state covers.
	stateMax = 100_000
)

// arrivals are the events after which a directory holds something else. A new
// file counts when it is complete (closed, renamed, or linked: IN_CREATE is
// needed for that one), not when it is begun. IN_ATTRIB tells of a file that
// becomes readable.
const arrivals = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_CREATE | unix.IN_ATTRIB |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// State sums up names and states of all entries.
func (d *Dir) State() source.Mark {
	var st unix.Stat_t
	if err := unix.Stat(d.path, &st); err != nil {
		return ""
	}
	recent := time.Now().Add(-recently).Unix()
	var sum uint64
	err := d.each(stateMax, func(name string, st *unix.Stat_t) {
		entry := name + "/" + string(markOf(st))
		// Closing a file changes nothing that stat shows, yet the file is
		// complete only then.
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mtim.Sec > recent && d.beingWritten(name) {
			entry += "+"
		}
		sum += maphash.String(d.seed, entry) // does not depend on the order
	})
	if err != nil {
		return ""
	}
	return source.Mark(fmt.Sprintf("%d:%d:%016x", st.Dev, st.Ino, sum))
}

// Watch waits by inotify, and by looking every two seconds where inotify
// cannot work: before the directory exists, on a network file system, or when
// the user's watches are used up.
func (d *Dir) Watch(ctx context.Context, since source.Mark) error {
	events, err := d.inotify()
	if err != nil {
		return d.poll(ctx, since)
	}
	defer shared.close(events)
	// No event tells that a link on the way now leads to another directory.
	var idle time.Duration
	if real, err := filepath.EvalSymlinks(d.path); err != nil || real != d.path {
		idle = pollEvery
	}
	var arrival time.Time // of the first complete file
	// Armed first, looked at second: no change falls between.
	last := d.State()
	for {
		patience := settle
		if last == since && arrival.IsZero() {
			patience = idle
		}
		got, err := d.await(ctx, events, patience)
		if ctx.Err() != nil {
			return fault.Context(ctx)
		}
		if err != nil {
			return d.poll(ctx, since)
		}
		if got && arrival.IsZero() {
			arrival = time.Now()
		}
		now := d.State()
		quiet := !got && now == last
		if quiet && (now != since || !arrival.IsZero()) {
			return nil
		}
		if !arrival.IsZero() && time.Since(arrival) > settleMax {
			return nil
		}
		last = now
	}
}

// poll looks again and again, and returns when two looks in a row see the same
// new state.
func (d *Dir) poll(ctx context.Context, since source.Mark) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := since
	for {
		now := d.State()
		if now != since && now == last {
			return nil
		}
		last = now
		select {
		case <-ctx.Done():
			return fault.Context(ctx)
		case <-tick.C:
		}
	}
}

// inotify watches the directory, where that is of use. The caller closes.
func (d *Dir) inotify() (*watch, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(d.path, &fs); err != nil {
		return nil, err
	}
	if remote(int64(fs.Type)) {
		return nil, unix.EREMOTE
	}
	return shared.open(d.path)
}

// remote tells file systems that others change without this kernel knowing.
// Numbers from statfs(2) and linux/magic.h.
func remote(magic int64) bool {
	switch magic {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC,
		unix.AFS_SUPER_MAGIC, unix.CODA_SUPER_MAGIC, unix.V9FS_MAGIC, unix.FUSE_SUPER_MAGIC,
		unix.OCFS2_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC,
		0x01161970, // gfs2
		0x0bd00bd0, // lustre
		0x786f4256: // vboxsf
		return true
	}
	return false
}

// await reads events until one tells of an arrival, which is more than the begin
// of a file; patience 0 is for ever. It gives false when none came in that time.
func (d *Dir) await(ctx context.Context, events *watch, patience time.Duration) (bool, error) {
	var late <-chan time.Time
	if patience > 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		late = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-late:
			return false, nil
		case e, ok := <-events.events:
			if !ok {
				return false, errors.New("no more events")
			}
			if events.lost.Swap(false) || e.mask&unix.IN_CREATE == 0 || d.linked(e.name) {
				return true, nil
			}
		}
	}
}

// linked tells a file that was born complete, with ln(1) or ln -s.
func (d *Dir) linked(name string) bool {
	var st unix.Stat_t
	return unix.Lstat(filepath.Join(d.path, name), &st) == nil && (st.Nlink > 1 || st.Mode&unix.S_IFMT == unix.S_IFLNK)
}
