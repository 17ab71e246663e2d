//go:build integration

// Package powercut cuts the power of a disk, again and again, while the release
// store works on it: on real file systems, whose journal is then recovered by
// the kernel. What had been acknowledged before a cut must be true after it, and
// what was under way is done or not done.
//
// The cut is the shutdown ioctl of ext4 and xfs, without flushing the log: what
// had not reached the disk by then never does. (btrfs has no such ioctl.)
package powercut

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/test/figures"
)

// TestMain gives the test a mount namespace of its own, which takes every mount
// with it, and plays the process that writes.
func TestMain(m *testing.M) {
	switch os.Getenv("POWERCUT") {
	case "":
		os.Exit(isolated())
	case "writer":
		write(os.Args[1], os.Args[2], os.NewFile(3, "acknowledged"))
	default:
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, "make mounts private:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
}

// isolated runs this same test in a mount namespace of its own.
func isolated() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "POWERCUT=isolated")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// cuts is how often the power of each file system is cut: UPGRADERD_CUTS, or few
// enough for every run of all tests.
func cuts(t *testing.T) int {
	text := os.Getenv("UPGRADERD_CUTS")
	if text == "" {
		return 60
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("UPGRADERD_CUTS=%q is not a number of cuts", text)
	}
	return n
}

func TestPowerCuts(t *testing.T) {
	const longest = 30 * time.Millisecond // some ten steps
	for _, fs := range []struct {
		name, options string
		mkfs          []string
		bytes         int64
	}{
		{"ext4", "", []string{"mkfs.ext4", "-q", "-F"}, 64 << 20},
		// Without the heuristics that flush a file before a rename over another.
		{"ext4, noauto_da_alloc", "noauto_da_alloc", []string{"mkfs.ext4", "-q", "-F"}, 64 << 20},
		{"ext4, data=writeback", "data=writeback,noauto_da_alloc", []string{"mkfs.ext4", "-q", "-F"}, 64 << 20},
		{"xfs", "", []string{"mkfs.xfs", "-q", "-f"}, 320 << 20},
	} {
		t.Run(fs.name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			d := newDisk(t, fs.mkfs, fs.options, fs.bytes)
			done := 0 // steps that the disk holds
			within, count, made := 0, cuts(t), 0
			defer func() {
				row := figures.Row{Name: "power cuts, " + fs.name, Target: "0 violations", Missed: t.Failed()}
				row.Figure = fmt.Sprintf("0 violations in %d crash states, %d steps acknowledged", made, done)
				if row.Missed {
					row.Figure = fmt.Sprintf("a violation in crash state %d", made)
				}
				if err := figures.Note(row); err != nil {
					t.Error(err)
				}
			}()
			for range count {
				made++
				d.mount()
				least, most := d.workUntilCut(done, time.Duration(random.Int64N(int64(longest))))
				d.unmount()
				d.mount()
				done = d.holds(least, most+1) // one may have been under way
				d.unmount()
				if t.Failed() {
					t.Fatalf("after %d steps", done)
				}
				if done > least {
					within++
				}
			}
			t.Logf("%d cuts, %d steps acknowledged and all there; in %d cuts one more than were acknowledged before it", count, done, within)
			if done < count {
				t.Errorf("only %d steps in %d cuts: this shows little", done, count)
			}
		})
	}
}

// disk is a file system in a file.
type disk struct {
	t                *testing.T
	image, dir, opts string
	plan             *plan
}

func newDisk(t *testing.T, mkfs []string, options string, bytes int64) *disk {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "powercut")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &disk{t: t, plan: newPlan(), image: filepath.Join(dir, "image"), dir: filepath.Join(dir, "disk"), opts: "loop"}
	if options != "" {
		d.opts += "," + options
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Truncate(d.image, bytes), os.Mkdir(d.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	d.run(append(mkfs, d.image)...)
	t.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_DETACH) })
	return d
}

func (d *disk) run(argv ...string) {
	d.t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}

func (d *disk) mount() {
	d.t.Helper()
	d.run("mount", "-o", d.opts, d.image, d.dir)
}

func (d *disk) unmount() {
	d.t.Helper()
	d.run("umount", d.dir)
}

// workUntilCut has a writer take steps from number first on, and cuts the power
// after a while. It tells how many steps were acknowledged before the cut, and
// how many in all: a kernel that shuts a file system down goes on running, and
// an fsync that ends just then may say that it went well (that of a directory on
// xfs does), which nobody would hear of in a real cut.
func (d *disk) workUntilCut(first int, after time.Duration) (least, most int) {
	d.t.Helper()
	fd, err := unix.MemfdCreate("acknowledged", unix.MFD_CLOEXEC)
	if err != nil {
		d.t.Fatal(err)
	}
	count := os.NewFile(uintptr(fd), "acknowledged")
	defer count.Close()
	acknowledged := func() int {
		var b [8]byte
		if n, err := count.ReadAt(b[:], 0); err != nil || n < len(b) {
			return first
		}
		return int(binary.NativeEndian.Uint64(b[:]))
	}
	cmd := exec.Command("/proc/self/exe", d.dir, strconv.Itoa(first))
	cmd.Env = append(os.Environ(), "POWERCUT=writer")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{count}
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		d.t.Fatalf("the writer says %q, want that it is ready (%v)", line, err)
	}
	time.Sleep(after)
	least, err = d.cutPower(acknowledged)
	if err != nil {
		_ = cmd.Process.Kill()
		d.t.Errorf("cut the power: %v", err)
	}
	_ = cmd.Wait() // it ends when the disk is gone
	return least, acknowledged()
}

// cutPower shuts the file system down without flushing its log
// (EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN), and tells what was acknowledged until
// then.
func (d *disk) cutPower(acknowledged func() int) (least int, err error) {
	const shutdown, noLogFlush = 0x8004587D, 2
	fd, err := unix.Open(d.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	least = acknowledged()
	return least, unix.IoctlSetPointerInt(fd, shutdown, noLogFlush)
}
