//go:build integration

package powercut

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// role is a part that the test binary plays in a process of its own.
type role string

const (
	isolatedTest role = "isolated"
	diskProcess  role = "disk"
	writer       role = "writer"
	hastyWriter  role = "hasty writer" // whose fsync does nothing
)

// processes is held by who starts any: until it runs its program, a process has
// all files of the test open, also those on a file system to be unmounted.
var processes sync.RWMutex

// as is a process that plays a role, not started yet. It ends with the test.
func as(r role, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "POWERCUT="+string(r))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	return cmd
}

// record has a writer take steps, from number first up to last, on a disk that
// begins as an image, and gives what reached the disk from before it is mounted
// until it is unmounted.
func record(t *testing.T, fs fileSystem, start image, who role, first, last int) []entry {
	t.Helper()
	processes.Lock()
	defer processes.Unlock()
	d := startDisk(t, start)
	d.mount(fs)
	defer d.drop() // where the test fails
	err := as(who, d.mounted, strconv.Itoa(first), strconv.Itoa(last), filepath.Join(d.served, acknowledgedFile)).Run()
	if err != nil {
		t.Fatal(err)
	}
	d.unmount()
	return d.end()
}

// disk is the test's side of the process that a disk lives in. The test may use
// the file system on it, since it does not serve it.
type disk struct {
	t               *testing.T
	process         *exec.Cmd
	log             *os.File
	dir             string
	served, mounted string   // directories in it
	device          *os.File // while it is mounted
}

func startDisk(t *testing.T, content image) *disk {
	t.Helper()
	dir, err := os.MkdirTemp(home, "disk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &disk{t: t, dir: dir, served: filepath.Join(dir, "served"), mounted: filepath.Join(dir, "mounted")}
	file, err := os.Create(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if d.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.log.Close() })
	if err := errors.Join(os.Mkdir(d.served, 0o755), os.Mkdir(d.mounted, 0o755), content.writeTo(file)); err != nil {
		t.Fatal(err)
	}
	connection, err := mountFUSE(d.served)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	d.process = as(diskProcess)
	d.process.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	d.process.ExtraFiles = []*os.File{connection, file, d.log}
	out, err := d.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // where the test failed
		_ = d.process.Process.Kill()
		_ = d.process.Wait()
		_ = unix.Unmount(d.served, unix.MNT_DETACH)
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the disk says %q, want that it is ready (%v)", line, err)
	}
	return d
}

// mountFUSE gives the connection on which a process is to serve what is in dir.
func mountFUSE(dir string) (*os.File, error) {
	// Not by package os, which would make it one that does not block.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	connection := os.NewFile(uintptr(fd), "/dev/fuse")
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,max_read=%d", fd, fuse.MAX_KERNEL_WRITE)
	if err := unix.Mount("powercut", dir, "fuse.powercut", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		connection.Close()
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return connection, nil
}

// mount makes a loop device of the disk and mounts it.
func (d *disk) mount(fs fileSystem) {
	d.t.Helper()
	var err error
	if d.device, err = attach(filepath.Join(d.served, diskFile)); err != nil {
		d.t.Fatal(err)
	}
	if err := fs.mount(d.device, d.mounted); err != nil {
		d.device.Close()
		d.t.Fatal(err)
	}
}

func (d *disk) unmount() {
	d.t.Helper()
	if err := errors.Join(unmount(d.mounted), forget(d.device), d.device.Close()); err != nil {
		d.t.Fatal(err)
	}
}

// drop takes what is mounted out of the way, in whatever state that is.
func (d *disk) drop() {
	_ = unix.Unmount(d.mounted, unix.MNT_DETACH)
	d.device.Close()
}

// refuse has the disk refuse a number of requests, after some more that it does
// as it is told.
func (d *disk) refuse(after, count int) {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.served, refusedFile), os.O_WRONLY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%d %d", after, count); err != nil {
		d.t.Fatal(err)
	}
}

// end takes the disk away, which nobody uses any more, and gives its log.
func (d *disk) end() (log []entry) {
	d.t.Helper()
	// The kernel may hold on to the file of a loop device for a moment yet.
	err := unix.Unmount(d.served, unix.MNT_DETACH)
	if err := errors.Join(err, d.process.Wait()); err != nil {
		d.t.Fatalf("end the disk: %v", err)
	}
	if _, err := d.log.Seek(0, io.SeekStart); err != nil {
		d.t.Fatal(err)
	}
	dec := gob.NewDecoder(bufio.NewReader(d.log))
	for {
		var e entry
		err := dec.Decode(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			d.t.Fatalf("read the log of the disk: %v", err)
		}
		log = append(log, e)
	}
	if err := os.RemoveAll(d.dir); err != nil {
		d.t.Fatal(err)
	}
	return log
}
