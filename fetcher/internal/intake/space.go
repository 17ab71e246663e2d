package intake

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// spare is left free whatever comes: state, journal and the releases of others
// are written to the same disk.
const spare = 64 << 20

// Reserve makes room for size bytes in all, -1 when that is not known, before
// the first of them is read. It also asks for as much again, which unpacking
// will need, and for 64 MiB beyond.
func (p *Part) Reserve(size int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(p.file.Fd()), &st); err != nil {
		return fault.Local(err)
	}
	need, have := int64(spare), int64(st.Bavail)*st.Bsize
	if size > 0 {
		need += 2*size - p.size
	}
	if have < need || size > have {
		return fault.Passing(fault.NoSpace, fmt.Errorf("%d MiB are needed, %d MiB are free", need>>20, have>>20), "free some space, or lower InstancesMax=")
	}
	if noneLeft(&st) {
		return noInodes()
	}
	if size <= p.size {
		return nil
	}
	// Blocks in one piece, and nobody can take them meanwhile. The size stays
	// as it is: it tells where to go on.
	err := unix.Fallocate(int(p.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, p.size, size-p.size)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINTR) {
		return fault.Local(err)
	}
	return nil
}

// outOfInodes tells why nothing can be created although there is space.
func outOfInodes(root *os.Root) bool {
	dir, err := root.Open(".")
	if err != nil {
		return false
	}
	defer dir.Close()
	var st unix.Statfs_t
	return unix.Fstatfs(int(dir.Fd()), &st) == nil && noneLeft(&st)
}

// noneLeft knows that some file systems have no fixed number of inodes, and
// say 0 of 0.
func noneLeft(st *unix.Statfs_t) bool { return st.Files > 0 && st.Ffree == 0 }

func noInodes() error {
	return fault.Passing(fault.NoInodes, errors.New("no inode is free"), "see df -i; remove files nobody needs")
}
