//go:build integration

package powercut

import (
	"bufio"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The files that the process of a disk serves.
const (
	diskFile         = "disk"         // the disk, for a loop device to stand on
	acknowledgedFile = "acknowledged" // takes the number of steps acknowledged so far, as text
	refusedFile      = "refused"      // takes "AFTER COUNT": which requests the disk refuses from now on
)

// entry is one thing in the log of a disk.
type entry struct {
	Kind   kind
	Offset int64  // in bytes, of what was written
	Data   []byte // that was written
	Steps  int    // that were acknowledged by then
}

type kind byte

const (
	wrote        kind = iota + 1
	flushed           // everything that was written before is safe
	acknowledged      // by the store, to whoever asked it for these steps
)

// serve is the whole process of a disk: it serves an image as a file and logs what
// reaches it, until that is unmounted. Descriptor 3 is its /dev/fuse, mounted already.
//
// Nobody else may live in this process, and it leaves the test's mounts at once. A
// process that is killed lets go of its mounts before its files: the last one to
// hold a file system would wait for the disk that it serves itself, for ever.
func serve(image, log *os.File) error {
	if err := errors.Join(makeMountsPrivate(), unix.Unmount(home, unix.MNT_DETACH)); err != nil {
		return fmt.Errorf("leave the mounts of the test: %w", err)
	}
	info, err := image.Stat()
	if err != nil {
		return err
	}
	defer image.Close()
	out := bufio.NewWriter(log)
	l := &requests{enc: gob.NewEncoder(out)}
	root := &fs.Inode{}
	server, err := fs.Mount("/dev/fd/3", root, &fs.Options{
		MountOptions: fuse.MountOptions{
			DisableSplice: true,
			MaxWrite:      fuse.MAX_KERNEL_WRITE, // a write of the loop device is one request
		},
		OnAdd: func(ctx context.Context) {
			for name, node := range map[string]fs.InodeEmbedder{
				diskFile:         &diskNode{image: image, size: uint64(info.Size()), log: l},
				acknowledgedFile: &acknowledgedNode{log: l},
				refusedFile:      &refusedNode{log: l},
			} {
				root.AddChild(name, root.NewPersistentInode(ctx, node, fs.StableAttr{Mode: syscall.S_IFREG}), false)
			}
		},
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	server.Wait()
	return errors.Join(l.err, out.Flush())
}

// requests puts what happens to a disk in one order.
type requests struct {
	mu           sync.Mutex
	enc          *gob.Encoder // the log
	err          error        // of image and log
	after, count int          // writes and flushes that still go well, that fail then
}

// add does something to the disk and logs it, nothing else in between.
func (r *requests) add(e entry, do func() error) syscall.Errno {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind != acknowledged && r.refused() {
		return syscall.EIO
	}
	if r.err == nil {
		if err := do(); err != nil {
			r.err = fmt.Errorf("write the image: %w", err)
		} else if err := r.enc.Encode(e); err != nil {
			r.err = fmt.Errorf("write the log: %w", err)
		}
	}
	if r.err != nil {
		return syscall.EIO
	}
	return 0
}

func (r *requests) refused() bool {
	switch {
	case r.after > 0:
		r.after--
		return false
	case r.count > 0:
		r.count--
		return true
	}
	return false
}

// diskNode is the disk as a file. Requests come by direct I/O, so that the page
// cache neither holds them back nor merges them. The loop device makes a write
// of each write, and an fsync of each flush and of each write that has to last
// (FUA). What it would make fallocate(2) of, discarding and zeroing, is not
// offered, and the kernel writes zeros then.
type diskNode struct {
	fs.Inode
	image *os.File
	size  uint64
	log   *requests
}

var _ interface {
	fs.NodeOpener
	fs.NodeGetattrer
	fs.NodeReader
	fs.NodeWriter
	fs.NodeFsyncer
} = (*diskNode)(nil)

func (d *diskNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (d *diskNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o600, d.size
	return 0
}

func (d *diskNode) Read(_ context.Context, _ fs.FileHandle, dest []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	n, err := d.image.ReadAt(dest, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (d *diskNode) Write(_ context.Context, _ fs.FileHandle, data []byte, offset int64) (uint32, syscall.Errno) {
	errno := d.log.add(entry{Kind: wrote, Offset: offset, Data: data}, func() error {
		_, err := d.image.WriteAt(data, offset)
		return err
	})
	return uint32(len(data)), errno
}

func (d *diskNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return d.log.add(entry{Kind: flushed}, func() error { return nil })
}

// acknowledgedNode is how a writer tells what the store acknowledged. It stands
// in the log before the writer goes on.
type acknowledgedNode struct {
	fs.Inode
	log *requests
}

var _ interface {
	fs.NodeOpener
	fs.NodeWriter
} = (*acknowledgedNode)(nil)

func (a *acknowledgedNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (a *acknowledgedNode) Write(_ context.Context, _ fs.FileHandle, data []byte, _ int64) (uint32, syscall.Errno) {
	steps, err := strconv.Atoi(string(data))
	if err != nil {
		return 0, syscall.EINVAL
	}
	return uint32(len(data)), a.log.add(entry{Kind: acknowledged, Steps: steps}, func() error { return nil })
}

// refusedNode is how the test has the disk fail.
type refusedNode struct {
	fs.Inode
	log *requests
}

var _ interface {
	fs.NodeOpener
	fs.NodeWriter
} = (*refusedNode)(nil)

func (f *refusedNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *refusedNode) Write(_ context.Context, _ fs.FileHandle, data []byte, _ int64) (uint32, syscall.Errno) {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	if _, err := fmt.Sscan(string(data), &f.log.after, &f.log.count); err != nil {
		return 0, syscall.EINVAL
	}
	return uint32(len(data)), 0
}
