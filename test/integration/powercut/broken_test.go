//go:build integration

package powercut

import (
	"fmt"
	"math"
	"testing"

	"github.com/upgraderd/upgraderd/test/figures"
	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// TestBrokenDisk has a disk refuse one request, or all from some on: file systems
// fall back to read-only of that, or end, or go on. The store says so, the step
// is taken once more by whoever asked for it, and what was acknowledged by then
// is on the disk. Mounted anew, it takes the next release.
func TestBrokenDisk(t *testing.T) {
	tries, codes := 0, map[reason.Code]int{}
	for _, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) {
			if fs.kind == "ext4" {
				fs.options += ",errors=remount-ro" // else it goes on and reads what may not be there
			}
			random := newRandom(t)
			start, err := fs.make()
			if err != nil {
				t.Fatal(err)
			}
			d := startDisk(t, start)
			plan := newPlan()
			d.mount(fs)
			defer d.drop()
			done, failed := 0, 0
			for try := range stateCount(t) / 10 {
				tries++
				count := 1
				if try%2 > 0 {
					count = math.MaxInt
				}
				d.refuse(random.IntN(80), count) // of some hundred that a release takes
				acknowledged := done
				step := func(steps int) error { acknowledged = steps; return nil }
				err := take(d.mounted, done, done+stepsPerRelease, step)
				d.refuse(0, 0)
				if err != nil {
					failed++
					code := reason.Of(err)
					codes[code]++
					if code != reason.IO && code != reason.ReadOnly {
						t.Errorf("the disk refuses %d requests: got reason %q, want %q or %q: %v", count, code, reason.IO, reason.ReadOnly, err)
					}
					_ = take(d.mounted, acknowledged, acknowledged+stepsPerRelease, step) // it may be read-only by now
				}
				d.unmount()
				d.mount(fs)
				if done, err = plan.holds(d.mounted, acknowledged, acknowledged+1); err != nil {
					t.Fatalf("the disk refused %d requests: %v", count, err)
				}
			}
			if failed == 0 {
				t.Error("the store noticed nothing")
			}
			if err := take(d.mounted, done, done+stepsPerRelease, func(int) error { return nil }); err != nil {
				t.Errorf("on a disk that works again: %v", err)
			}
			d.unmount()
		})
	}
	row := figures.Row{Name: "disks that refuse to write", Target: "0 violations", Missed: t.Failed()}
	row.Figure = fmt.Sprintf("0 violations in %d failures of %d disks, which the store reported %d times", tries, len(fileSystems), codes[reason.IO]+codes[reason.ReadOnly])
	if row.Missed {
		row.Figure = "a violation"
	}
	if err := figures.Note(row); err != nil {
		t.Error(err)
	}
	t.Logf("%d failures, reported as %v", tries, codes)
}
