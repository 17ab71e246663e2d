package upgrader_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// A daemon for one target. The command upgraderd does the same with targets
// that it reads from .upgrade files.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	bus := systemd.New(systemd.Options{})
	defer bus.Close()
	daemon, err := upgrader.New(upgrader.Options{
		StateDir: "/var/lib/upgraderd",
		Systemd:  bus,
		Log:      slog.New(journal.NewHandler(os.Stderr, journal.Options{})),
		Targets: []*upgrader.Target{{
			Name:    "app",
			Unit:    "app.service",
			Program: "bin/app",
			Source: fetcher.Options{
				Target:   "app",
				Path:     "https://example.org/app",
				Patterns: []string{"app_@v.tar.zst"},
				Keys:     []string{"/etc/upgraderd/app.pub"},
			},
			Confirm: upgrader.Confirm{
				Window: time.Minute,
				Probes: []upgrader.Probe{{Kind: upgrader.ProbeHTTP, Address: "http://localhost:8080/health"}},
			},
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := daemon.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Println(err)
	}
}

// The status stands on disk, so it can be read while no daemon runs.
func ExampleReadStatus() {
	target := &upgrader.Target{Name: "app", Unit: "app.service"}
	for _, st := range upgrader.ReadStatus("/nonexistent", []*upgrader.Target{target}) {
		fmt.Println(st.Name, st.State, st.Current == "")
	}
	// Output: app idle true
}
