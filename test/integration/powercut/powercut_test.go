//go:build integration

// Package powercut cuts the power of a disk, again and again, while the release
// store works on it: on real file systems, whose journal is then recovered by
// the kernel. What had been acknowledged before a cut must be true after it,
// what was under way is done or not done, and the next release still comes.
//
// The disk is a file that a process of the test serves (FUSE), below a loop
// device, and logs what reaches it: each write, each flush, and in between what
// the store acknowledged. So a cut need not be waited for. At each place of the
// log it leaves what was flushed, and of what was written since then everything,
// some of the writes, or some sectors of them.
//
// The shutdown ioctl of ext4 and xfs would be a quicker way to cut power, and is
// not used: it leaves one state for each life of a file system, in which nothing
// that reached the disk is lost or torn; and btrfs has none.
package powercut

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/test/figures"
)

// home is where everything lies: in memory, and mounted in the test's own mount
// namespace alone.
const home = "/dev/shm"

// TestMain gives the test namespaces of its own, whose end takes every process
// and every mount with it, and plays the other processes.
func TestMain(m *testing.M) {
	var err error
	r := role(os.Getenv("POWERCUT"))
	switch r {
	case "":
		err = isolate()
	case isolatedTest:
		err = errors.Join(makeMountsPrivate(), unix.Mount("powercut", home, "tmpfs", 0, ""))
		if err == nil {
			os.Exit(m.Run())
		}
	case diskProcess:
		err = serve(os.NewFile(4, "image"), os.NewFile(5, "log"))
	case writer, hastyWriter:
		if r == hastyWriter {
			err = leaveOutFsync()
		}
		if err == nil {
			err = write(os.Args[1], os.Args[2], os.Args[3], os.Args[4])
		}
	default:
		err = errors.New("there is no such role")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "powercut %s: %v\n", r, err)
		os.Exit(1)
	}
}

// isolate runs this same test in namespaces of its own.
func isolate() error {
	cmd := as(isolatedTest, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
	return cmd.Run()
}

// stateCount is how many crash states of each file system are looked at:
// UPGRADERD_CUTS, or few enough for every run of all tests.
func stateCount(t *testing.T) int {
	text := os.Getenv("UPGRADERD_CUTS")
	if text == "" {
		return 100
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("UPGRADERD_CUTS=%q is not a number of cuts", text)
	}
	return n
}

func TestPowerCuts(t *testing.T) {
	count := stateCount(t)
	lives := make([]life, len(fileSystems))
	t.Run("on", func(t *testing.T) {
		for i, fs := range fileSystems {
			t.Run(fs.name, func(t *testing.T) {
				t.Parallel()
				defer func() { lives[i].failed = t.Failed() }()
				lives[i].live(t, fs, count)
			})
		}
	})
	for i, l := range lives { // in their order
		row := figures.Row{
			Name: "power cuts, " + fileSystems[i].name, Target: "0 violations", Missed: l.failed,
			Figure: fmt.Sprintf("0 violations in %d crash states, %d steps acknowledged", l.states, l.steps),
		}
		if row.Missed {
			row.Figure = fmt.Sprintf("a violation in crash state %d", l.states)
		}
		if err := figures.Note(row); err != nil {
			t.Error(err)
		}
	}
}

// life is what becomes of one file system.
type life struct {
	states int // that were looked at
	steps  int // that were acknowledged
	failed bool
}

// live has rounds: some releases come, the power is cut at many places of that,
// and one of the crash states begins the next round. So the power also fails
// while the kernel and the store recover, and what crashes leave may pile up.
func (l *life) live(t *testing.T, fs fileSystem, count int) {
	steps := 3 * stepsPerRelease // a round: one of three releases turns bad
	random := newRandom(t)
	state, err := fs.make()
	if err != nil {
		t.Fatal(err)
	}
	j := newJudge(t, fs)
	done := 0 // steps that the state holds
	within := 0
	for round := 1; l.states < count; round++ {
		start, begun := state, done
		log := record(t, fs, start, writer, begun, begun+steps)
		l.steps += steps
		// In two rounds at least.
		cuts := shuffledCuts(log, random)
		for _, c := range cuts[:min(len(cuts), count-l.states, (count+1)/2)] {
			l.states++
			state = crashState(start, log, c, fs.sector, random)
			least := stepsBefore(c, log, begun)
			if done, err = j.look(state, least); err != nil {
				t.Fatalf("round %d, the power is cut at %d of %d in the log, which leaves %s: %v", round, c.at, len(log), c.left, err)
			}
			if done > least {
				within++
			}
		}
	}
	t.Logf("%d crash states, %d steps acknowledged and all there; in %d states one more than were acknowledged before", l.states, l.steps, within)
}

// TestFsyncLeftOut shows that TestPowerCuts can fail: in a store whose fsync does
// nothing, what was acknowledged is not there.
func TestFsyncLeftOut(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			random := newRandom(t)
			start, err := fs.make()
			if err != nil {
				t.Fatal(err)
			}
			log := record(t, fs, start, hastyWriter, 0, 3*stepsPerRelease)
			j := newJudge(t, fs)
			cuts := shuffledCuts(log, random)
			for _, c := range cuts {
				_, err := j.look(crashState(start, log, c, fs.sector, random), stepsBefore(c, log, 0))
				if errors.Is(err, errNotMounted) {
					t.Fatal(err)
				}
				if err != nil {
					t.Logf("as it should: %v", err)
					return
				}
			}
			t.Errorf("nothing is lost in %d crash states of a store that does not fsync", len(cuts))
		})
	}
}

func newRandom(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
