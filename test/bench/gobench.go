package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// Figures that need no systemd are Go benchmarks beside the code they are
// about. Here they are run, and held to their targets.

const (
	mostOfPlainLoop = 0.75
	// mostHeapGrowth is for ten times the file: flat, but for what a collector
	// happens to see.
	mostHeapGrowth = 1.25
	// mostWire and mostWireTLS bound a check of list and signature, in bytes of
	// both directions.
	mostWire    = 1 << 10
	mostWireTLS = 8 << 10
)

func measureFetch(ctx context.Context, b *bench) error {
	r, err := goBench(ctx, "./fetcher", "Fetch100MiB|FetchMemory", "5x")
	if err != nil {
		return err
	}
	fetch := r["BenchmarkFetch100MiB"]
	b.table.hold(fetch["ratio"] > 0 && fetch["ratio"] <= mostOfPlainLoop, "fetch, verify, fsync, rename of 100 MiB",
		fmt.Sprintf("≤ %.2f × plain loop", mostOfPlainLoop), "%.0f ms / %.0f ms = %.2f ×", fetch["pipeline-ms"], fetch["control-ms"], fetch["ratio"])
	b.table.show("the same against a loop with 1 MiB buffers", "%.0f ms / %.0f ms = %.2f ×", fetch["pipeline-ms"], fetch["control-1MiB-ms"], fetch["ratio-1MiB"])
	small, large := r["BenchmarkFetchMemory/100MiB"]["peak-heap-MiB"], r["BenchmarkFetchMemory/1024MiB"]["peak-heap-MiB"]
	b.table.hold(small > 0 && large <= small*mostHeapGrowth, "largest heap, file of 100 MiB → 1 GiB", "flat", "%.1f MiB → %.1f MiB", small, large)
	return nil
}

func measureDrain(ctx context.Context, b *bench) error {
	r, err := goBench(ctx, "./activation", "ServeSwap", "1s")
	if err != nil {
		return err
	}
	serve, shutdown := r["BenchmarkServeSwap/serve"], r["BenchmarkServeSwap/shutdown"]
	if len(serve) == 0 || len(shutdown) == 0 {
		return fmt.Errorf("the benchmark of activation.Serve printed no figures: %v", r)
	}
	b.table.hold(serve["failed/swap"] == 0, "failed requests a swap, activation.Serve", "0", "%.1f at %.0f requests a second", serve["failed/swap"], serve["req/s"])
	b.table.hold(shutdown["failed/swap"] > 0, "control: http.Server.Shutdown alone", "> 0", "%.1f at %.0f requests a second", shutdown["failed/swap"], shutdown["req/s"])
	return nil
}

// measureCheck looks at a source in which nothing is new.
func measureCheck(ctx context.Context, b *bench) error {
	r, err := goBench(ctx, "./fetcher", "CheckUnchanged", "1s")
	if err != nil {
		return err
	}
	for _, c := range []struct {
		scheme string
		most   float64
	}{{"http", mostWire}, {"https", mostWireTLS}} {
		m := r["BenchmarkCheckUnchanged/"+c.scheme]
		b.table.hold(m["wire-B"] > 0 && m["wire-B"] <= c.most, "a check of an unchanged source, "+c.scheme, fmt.Sprintf("≤ %.1f KiB on the wire", c.most/1024),
			"%.0f bytes on the wire, %.0f allocations of %.0f KiB", m["wire-B"], m["allocs/op"], m["B/op"]/1024)
	}
	return nil
}

// goBench runs benchmarks of a package and gives their metrics by the
// benchmark's name, without the number of processors behind it.
func goBench(ctx context.Context, pkg, pattern, time string) (map[string]map[string]float64, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchtime", time, pkg)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("benchmarks of %s: %w\n%s", pkg, err, out.String())
	}
	results := map[string]map[string]float64{}
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := f[0]
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i]
		}
		metrics := map[string]float64{}
		for i := 2; i+1 < len(f); i += 2 { // VALUE UNIT pairs after name and count
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				metrics[f[i+1]] = v
			}
		}
		results[name] = metrics
	}
	return results, nil
}
