//go:build integration

package powercut

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// judge looks at crash states of one file system, one after the other.
type judge struct {
	t       *testing.T
	fs      fileSystem
	plan    *plan
	file    *os.File // holds the state
	device  *os.File // stands on it
	mounted string
}

func newJudge(t *testing.T, fs fileSystem) *judge {
	t.Helper()
	dir, err := os.MkdirTemp(home, "judge")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	j := &judge{t: t, fs: fs, plan: newPlan(), mounted: filepath.Join(dir, "mounted")}
	if j.file, err = os.Create(filepath.Join(dir, "image")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.file.Close() })
	if err := errors.Join(j.file.Truncate(fs.bytes), os.Mkdir(j.mounted, 0o755)); err != nil {
		t.Fatal(err)
	}
	if j.device, err = attach(j.file.Name()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.device.Close() })
	return j
}

// errNotMounted is the file system's own failure.
var errNotMounted = errors.New("the kernel does not recover it")

// look mounts a crash state, which has the kernel recover it, and tells how many
// steps there are of at least so many. Then it takes the steps of one more
// release, as a daemon does that starts. The error says what does not hold.
func (j *judge) look(state image, least int) (done int, err error) {
	j.t.Helper()
	processes.RLock()
	defer processes.RUnlock()
	if err := errors.Join(state.writeTo(j.file), forget(j.device)); err != nil {
		j.t.Fatal(err)
	}
	if err := j.fs.mount(j.device, j.mounted); err != nil {
		return 0, fmt.Errorf("%w: %w", errNotMounted, err)
	}
	defer func() {
		if err := unmount(j.mounted); err != nil {
			_ = unix.Unmount(j.mounted, unix.MNT_DETACH)
			j.t.Fatal(err)
		}
	}()
	done, err = j.plan.holds(j.mounted, least, least+1) // one may have been under way
	if err != nil {
		return 0, err
	}
	more := done + stepsPerRelease
	if err := take(j.mounted, done, more, func(int) error { return nil }); err != nil {
		return 0, fmt.Errorf("go on: %w", err)
	}
	if _, err := j.plan.holds(j.mounted, more, more); err != nil {
		return 0, fmt.Errorf("after the next release: %w", err)
	}
	return done, nil
}
