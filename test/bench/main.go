// Command bench measures what upgraderd promises of a live upgrade, on a real
// systemd, and prints one table. It exits with 1 if a row misses its target.
//
//	go run ./test/bench [-soak] [-only ROW,…] [SUITE…]
//
// With -soak it runs what takes long instead, and prints it below what the other
// parts of a long run noted (package figures).
//
// Whatever can be compared is: a figure stands against a control that was
// measured in the same run, on the same machine, in turns with it. Times alone
// say more about the machine than about the program.
//
// The program has three parts, each in a process of its own:
//
//	bench                 builds, boots the machine, gives orders, judges
//	├─ bench (load)       the clients; package load, in the machine's network
//	└─ bench inside …     triggers swaps and watches, as a process of the machine
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/test/figures"
	"github.com/upgraderd/upgraderd/test/load"
)

type measurement struct {
	name    string
	measure func(context.Context, *bench) error
}

// measurements in the order in which they run; each on a freshly booted
// machine where it needs one.
var measurements = []measurement{
	{"handovers", measureHandovers},
	{"trigger", measureTrigger},
	{"latency", measureLatency},
	{"fetch", measureFetch},
	{"drain", measureDrain},
	{"deltas", measureDeltas},
	{"check", measureCheck},
	{"targets", measureTargets},
}

// endurance are those that take long.
var endurance = []measurement{
	{"kills", measureKills},
	{"endurance", measureEndurance},
}

// bench is one run of all on one suite.
type bench struct {
	suite string
	dir   string // for programs and payloads
	table *table
}

// say tells on stderr how far it is: the table comes at the end.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s: %s\n", time.Now().Format(time.TimeOnly), b.suite, fmt.Sprintf(format, args...))
}

func main() {
	load.Serve()
	if len(os.Args) > 1 && os.Args[1] == insideVerb {
		if err := inside(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	only := flag.String("only", "", "comma-separated `names` of measurements; default is all")
	soak := flag.Bool("soak", false, "run what takes long instead")
	flag.Parse()
	all := measurements
	if *soak {
		all = endurance
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	suites := flag.Args()
	if len(suites) == 0 {
		suites = []string{"trixie"}
	}
	good := true
	for _, suite := range suites {
		table, err := run(ctx, suite, all, *only)
		table.print(os.Stdout)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", suite, err)
		}
		good = good && err == nil && table.good()
	}
	if !good {
		os.Exit(1)
	}
}

func run(ctx context.Context, suite string, all []measurement, only string) (*table, error) {
	b := &bench{suite: suite, table: newTable(suite)}
	noted, err := figures.Noted()
	if err != nil {
		return b.table, err
	}
	b.table.rows = noted
	if b.dir, err = os.MkdirTemp("", "upgraderd-bench-*"); err != nil {
		return b.table, err
	}
	defer os.RemoveAll(b.dir)
	for _, m := range all {
		if only != "" && !slices.Contains(strings.Split(only, ","), m.name) {
			continue
		}
		b.say("%s", m.name)
		if err := m.measure(ctx, b); err != nil {
			return b.table, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return b.table, nil
}
