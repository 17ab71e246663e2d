// Command demo shows upgraderd at work on a throwaway machine with a real
// systemd, and promises that the table at its end is what happened: every cell
// is read from the machine or counted by its clients, and one that is not as it
// must be makes the exit status 1.
//
// A service is installed the way an operator does it, seven releases of it
// appear one after the other, and all the while clients ask it for answers:
//
//	1.0.0  the first, from a directory
//	2.0.0  from the directory
//	3.0.0  over HTTPS
//	4.0.0  crashes at start
//	4.1.0  never becomes ready
//	4.2.0  stands in a manifest that nobody signed
//	5.0.0  turns bad while it is watched
//
// Nothing of it is left behind, whatever ends it: see package lab.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/upgraderd/upgraderd/test/lab"
	"github.com/upgraderd/upgraderd/test/load"
)

func main() {
	load.Serve() // this program is its own load process, too
	suite := flag.String("suite", "trixie", "boot this Debian `release`: "+strings.Join(lab.Suites, ", "))
	flag.Usage = func() {
		fmt.Fprint(os.Stderr, "Usage: go run ./test/demo [-suite RELEASE]\n\n"+
			"Upgrade a service on a throwaway machine, under load. Needs root, and what\n"+
			"\"make packages\" installs. Exit status 0 if everything went as it must.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if !slices.Contains(lab.Suites, *suite) {
		fmt.Fprintf(os.Stderr, "demo: no release %q\n\n", *suite)
		flag.Usage()
		os.Exit(2)
	}
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, newScreen(os.Stdout), *suite)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
		return
	case interrupted:
		fmt.Fprintln(os.Stderr, "\ndemo: interrupted; the machine is gone")
		os.Exit(130)
	case !errors.Is(err, errWrong):
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
	}
	os.Exit(1)
}
