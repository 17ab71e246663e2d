package adopt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// Mover is who stops and starts units.
type Mover interface {
	Facts(ctx context.Context, unit string) (systemd.Facts, error)
	Start(ctx context.Context, unit string) (systemd.Result, error)
	Stop(ctx context.Context, unit string) (systemd.Result, error)
	KillAll(ctx context.Context, unit string)
}

var _ Mover = (*systemd.Client)(nil)

// Move has a service that runs run as its files say now, by a stop and a start: a
// restart would keep what is in the fd store, and processes that the main process
// leaves behind. Of its sockets those that are named are stopped with it. What
// depends on it, and was active, is started again.
//
// A service that does not run is left so.
func Move(ctx context.Context, bus Mover, unit string, sockets ...string) error {
	before, err := bus.Facts(ctx, unit)
	if err != nil {
		return err
	}
	var again []string
	for _, d := range before.Dependents {
		if f, err := bus.Facts(ctx, d); err == nil && f.Running() {
			again = append(again, d)
		}
	}
	runs := before.Running() || before.ActiveState == "activating"
	if runs {
		if err := over(bus.Stop(ctx, unit)); err != nil {
			return fmt.Errorf("stop %s: %w", unit, err)
		}
	}
	for _, s := range sockets {
		if err := over(bus.Stop(ctx, s)); err != nil && !systemd.HasCode(err, systemd.CodeNotFound) {
			return fmt.Errorf("stop %s: %w", s, err)
		}
	}
	if !runs {
		return nil
	}
	bus.KillAll(ctx, unit) // KillMode=process may have left something
	if err := over(bus.Start(ctx, unit)); err != nil {
		return fmt.Errorf("start %s: %w", unit, err)
	}
	var errs []error
	for _, d := range again {
		if err := over(bus.Start(ctx, d)); err != nil {
			errs = append(errs, fmt.Errorf("start %s, which depends on %s: %w", d, unit, err))
		}
	}
	return errors.Join(errs...)
}

func over(r systemd.Result, err error) error {
	if err == nil && r != systemd.ResultDone && r != systemd.ResultUnknown {
		err = fmt.Errorf("the job is %q", r)
	}
	return err
}

// RunsFrom tells whether a process of a control group runs what is in a directory:
// as its program, or as an argument of that.
func RunsFrom(group, dir string) bool {
	if group == "" {
		return false
	}
	for _, pid := range processes(filepath.Join("/sys/fs/cgroup", group)) {
		exe, _ := os.Readlink(filepath.Join("/proc", pid, "exe"))
		args, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		for _, word := range append(strings.Split(string(args), "\x00"), exe) {
			if strings.Contains(word, dir+"/") || strings.HasSuffix(word, "="+dir) {
				return true
			}
		}
	}
	return false
}
