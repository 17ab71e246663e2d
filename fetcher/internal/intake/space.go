package intake

import (
	"errors"
	"fmt"

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
	// Some file systems have no fixed number of inodes, and say 0 of 0.
	if st.Files > 0 && st.Ffree == 0 {
		return fault.Passing(fault.NoInodes, errors.New("no inode is free"), "see df -i; remove files nobody needs")
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
