package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// What a supervisor costs while nothing happens, and what 200 handovers leave
// in it: memory, descriptors, children, descriptors in systemd's fd store.

const (
	// mostPSS bounds the supervisor's proportional set size, smaps_rollup in
	// proc_pid_smaps(5). No other process runs the same file in the machine,
	// so that none of it is counted as another's.
	mostPSS = 4 << 20
	// mostGrowth is what may differ between two looks at a Go program that did
	// not grow: which pages the collector has touched since.
	mostGrowth = 256 << 10
	// footprintRest is longer than the drain of the last handover and the
	// second after which the supervisor gives memory back.
	footprintRest = 3 * time.Second
)

// print is one look at a supervisor.
type prints struct {
	PSS, RSS int64 // bytes
	FDs      int
	Stored   int // in systemd's fd store
	Children int
	Zombies  int
	Notify   int // sockets of workers in its runtime directory
}

func (s *scene) footprint(ctx context.Context) (prints, error) {
	var p prints
	time.Sleep(footprintRest)
	err := s.order(ctx, "footprint", struct{}{}, &p)
	return p, err
}

func (before prints) judge(t *table, after, later prints) {
	t.hold(after.PSS <= mostPSS, "supervisor at rest, PSS", fmt.Sprintf("≤ %s", mib(mostPSS)), "%s (RSS %s)", mib(after.PSS), mib(after.RSS))
	t.hold(later.PSS-after.PSS <= mostGrowth, fmt.Sprintf("growth of PSS after %d handovers, by %d more", handoverCount, handoverCount/2),
		fmt.Sprintf("≤ %s", mib(mostGrowth)), "%s → %s → %s", mib(before.PSS), mib(after.PSS), mib(later.PSS))
	t.hold(after.FDs <= before.FDs && after.Stored <= before.Stored, "descriptors, and in the fd store", "no more",
		"%d → %d, %d → %d", before.FDs, after.FDs, before.Stored, after.Stored)
	t.hold(after.Children == 1 && after.Zombies == 0 && after.Notify == 1, "children, zombies, notify sockets", "1, 0, 1",
		"%d, %d, %d", after.Children, after.Zombies, after.Notify)
}

func mib(n int64) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }

// footprint looks at the supervisor from inside the machine.
func footprint(ctx context.Context, _ struct{}) (prints, error) {
	var p prints
	bus := systemd.New(systemd.Options{})
	defer bus.Close()
	facts, err := bus.Facts(ctx, unit)
	if err != nil {
		return p, err
	}
	proc := "/proc/" + strconv.Itoa(int(facts.MainPID))
	rollup, err := os.ReadFile(proc + "/smaps_rollup")
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(rollup)) {
		fields := strings.Fields(line) // Pss: 1234 kB
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "Pss:":
			p.PSS = kib << 10
		case "Rss:":
			p.RSS = kib << 10
		}
	}
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return p, err
	}
	p.FDs = len(fds)
	lists, err := filepath.Glob(proc + "/task/*/children")
	if err != nil {
		return p, err
	}
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if err != nil {
			return p, err
		}
		for _, child := range strings.Fields(string(children)) {
			p.Children++
			status, err := os.ReadFile("/proc/" + child + "/status")
			if err != nil || strings.Contains(string(status), "State:\tZ") {
				p.Zombies++
			}
		}
	}
	sockets, err := filepath.Glob("/run/live@hello/notify.*")
	if err != nil {
		return p, err
	}
	p.Notify = len(sockets)
	p.Stored, err = storedFDs(ctx)
	return p, err
}

// storedFDs is how many descriptors systemd keeps for the unit.
func storedFDs(ctx context.Context) (int, error) {
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--value", "--property=NFileDescriptorStore", unit).Output()
	if err != nil {
		return 0, fmt.Errorf("systemctl show %s: %w", unit, err)
	}
	return strconv.Atoi(strings.TrimSpace(string(out)))
}
