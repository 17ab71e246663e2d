//go:build integration

package powercut

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fileSystem is one that the store is tried on.
type fileSystem struct {
	name, kind, options string
	mkfs                []string
	bytes               int64 // of the disk, as few as mkfs takes
	// sector is what the file system needs to reach the disk whole, in bytes.
	// With a sector of 512 bytes, the kernel does not always recover them: half
	// a superblock of ext4 (1 KiB) or of btrfs (4 KiB) has a wrong checksum, and
	// so has half a block of xfs (4 KiB).
	sector int
}

var fileSystems = []fileSystem{
	{"ext4", "ext4", "", mkfsExt4, 64 << 20, 1024},
	// Without the heuristics that flush a file before a rename over another.
	{"ext4, noauto_da_alloc", "ext4", "noauto_da_alloc", mkfsExt4, 64 << 20, 1024},
	{"ext4, data=writeback", "ext4", "data=writeback,noauto_da_alloc", mkfsExt4, 64 << 20, 1024},
	{"xfs", "xfs", "", []string{"mkfs.xfs", "-q", "-f"}, 300 << 20, 4096},
	{"btrfs", "btrfs", "", []string{"mkfs.btrfs", "-q", "-f"}, 110 << 20, 4096},
}

// Nothing is left for the kernel to initialise later, beside what is tested.
var mkfsExt4 = []string{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"}

// make gives a disk with an empty file system.
func (fs fileSystem) make() (image, error) {
	processes.Lock()
	defer processes.Unlock()
	f, err := os.CreateTemp(home, "empty")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(fs.bytes); err != nil {
		return nil, err
	}
	argv := append(slices.Clone(fs.mkfs), f.Name())
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return readImage(f)
}

func (fs fileSystem) mount(device *os.File, dir string) error {
	if err := unix.Mount(device.Name(), dir, fs.kind, unix.MS_NOATIME, fs.options); err != nil {
		return fmt.Errorf("mount %s: %w", fs.name, err)
	}
	return nil
}

func makeMountsPrivate() error {
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
}

func unmount(dir string) error {
	if err := unix.Unmount(dir, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// attach makes a loop device of a file. It is there until it is closed and not
// mounted any more.
func attach(file string) (device *os.File, err error) {
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody was quicker
			return nil, fmt.Errorf("make a loop device of %s: %w", file, err)
		}
	}
}

// forget has the kernel drop what it remembers of a device that changes behind
// its back: the cached blocks, and how new a btrfs it saw there.
func forget(device *os.File) error {
	if err := unix.IoctlSetInt(int(device.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("flush %s: %w", device.Name(), err)
	}
	control, err := os.OpenFile("/dev/btrfs-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	const forgetDevice = 0x50009405 // BTRFS_IOC_FORGET_DEV
	var args struct {               // btrfs_ioctl_vol_args
		_    int64
		name [4088]byte
	}
	copy(args.name[:], device.Name())
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), forgetDevice, uintptr(unsafe.Pointer(&args)))
	if errno != 0 && errno != unix.ENOENT {
		return fmt.Errorf("have btrfs forget %s: %w", device.Name(), errno)
	}
	return nil
}
