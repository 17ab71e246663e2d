package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/metrics"
)

// textfileVariable goes through launch to whichever release becomes the daemon.
const textfileVariable = "UPGRADERD_METRICS_TEXTFILE"

func metricsCommand() *cobra.Command {
	var serve bool
	root := "/"
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Print what status says as metrics for Prometheus",
		Long: `Print the state of all targets in the text format of Prometheus. It reads the
store, so it works with the daemon running or not, and says the same. Which
metrics there are, alert rules and a dashboard: docs/metrics.md.

upgraderd-metrics.socket answers each GET /metrics with this. The daemon keeps a
file of it for node_exporter, if --metrics-textfile= or ` + textfileVariable + `
in its environment names one.`,
		Example: "  upgraderd metrics\n  systemctl enable --now upgraderd-metrics.socket\n  curl --unix-socket /run/upgraderd-metrics http://localhost/metrics",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if serve {
				conn, err := net.FileConn(os.Stdin)
				if err != nil {
					return withStatus(exitUsage, fmt.Errorf("--answer wants a connection for its standard input, as upgraderd-metrics.socket gives: %w", err))
				}
				defer conn.Close()
				return metrics.Answer(conn, func() metrics.Host { return measure(root) })
			}
			return metrics.Write(cmd.OutOrStdout(), measure(root))
		},
	}
	cmd.Flags().BoolVar(&serve, "answer", false, "answer one HTTP request on standard input, as upgraderd-metrics@.service does")
	cmd.Flags().StringVar(&root, "root", root, "look below this `directory`")
	return cmd
}

// measure reads what status reads.
func measure(root string) metrics.Host {
	dir := filepath.Join(root, stateDir)
	if filepath.Clean(root) == "/" {
		dir = stateDirectory()
	}
	targets, diagnostics := config.PeekAll(root)
	broken := map[string]bool{}
	for _, d := range diagnostics.Errors() {
		broken[d.Target] = true
	}
	h := metrics.Host{Broken: len(broken), Targets: upgrader.ReadStatus(dir, targets), Version: "(devel)", Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		h.Version = info.Main.Version
	}
	return h
}

// textfile is where the daemon keeps metrics, "" if nowhere.
func textfile(name string) error {
	if name != "" && (!filepath.IsAbs(name) || filepath.Ext(name) != ".prom") {
		return withStatus(exitConfig, fmt.Errorf("metrics textfile %q: want an absolute path that ends in .prom, as the textfile collector of node_exporter does", name))
	}
	return nil
}

// keepMetrics writes the file after each change until ctx ends. What is wrong with
// it is said once, and never stops an upgrade.
func keepMetrics(ctx context.Context, name string, news <-chan struct{}, log *slog.Logger) {
	said := ""
	metrics.Keep(ctx, name, news, func() metrics.Host { return measure("/") }, func(err error) {
		switch {
		case err == nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			hint := "let the user upgraderd write that directory, and name it in ReadWritePaths= of upgraderd.service"
			if errors.Is(err, os.ErrNotExist) {
				hint = "make that directory"
			}
			journal.Emit(ctx, log, journal.MetricsUnwritten, slog.String("error", said), slog.String("hint", hint))
		}
	})
}

// news holds one token: that a status changed since the last look.
type news chan struct{}

func (n news) Changed(upgrader.TargetStatus) { n.tell() }
func (n news) Gone(string)                   { n.tell() }

func (n news) tell() {
	select {
	case n <- struct{}{}:
	default:
	}
}

// observers all hear of each status.
type observers []upgrader.Observer

func (all observers) Changed(st upgrader.TargetStatus) {
	for _, o := range all {
		o.Changed(st)
	}
}

func (all observers) Gone(target string) {
	for _, o := range all {
		o.Gone(target)
	}
}
