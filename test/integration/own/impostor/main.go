// Command impostor takes the place of a release of upgraderd that is no good, in
// the way that its fault names. It is signed and passes its check.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/upgraderd/upgraderd/activation"
)

// fault is set by the linker.
var fault string

func main() {
	if len(os.Args) < 2 || os.Args[1] != "daemon" {
		return // a check
	}
	if err := play(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func play() error {
	switch fault {
	case "exits":
		return fmt.Errorf("no library of that name")
	case "never ready":
		select {}
	}
	if err := activation.Notify("READY=1"); err != nil {
		return err
	}
	switch fault {
	case "crashes":
		time.Sleep(500 * time.Millisecond)
		panic("in the window")
	case "hangs":
		select {}
	case "idles": // alive for ever, and does nothing
		for {
			if err := activation.Notify("WATCHDOG=1"); err != nil {
				return err
			}
			time.Sleep(500 * time.Millisecond)
		}
	}
	return fmt.Errorf("unknown fault %q", fault)
}
