package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/fetcher/publish"
)

// A program of some size, at two versions that follow each other: the linter that
// the Makefile installs anyway, so that most of it is compiled already.
const (
	deltaProgram = "github.com/golangci/golangci-lint/v2/cmd/golangci-lint"
	deltaFrom    = "v2.14.0"
	deltaTo      = "v2.15.0"
	deltaLeast   = 50 << 20 // bytes of the program
	deltaRuns    = 3
	// deltaBuild bounds one build on a machine that has nothing compiled.
	deltaBuild = 20 * time.Minute
	// mostOfWhole is what a patch may have of the compressed file. A minor version
	// of it was 0.19 by bsdiff and 0.33 by zstd; publish leaves out what has half.
	mostOfWhole = 0.40
)

// measureDeltas fetches the next version of a program over HTTP, whole and by a
// patch from the one before, and counts bytes on the wire. Time is that of the
// processor: the network is the loopback.
func measureDeltas(ctx context.Context, b *bench) error {
	var old string
	var size int64
	artifacts := make([]string, 0, 2) // each version, compressed
	for _, version := range []string{deltaFrom, deltaTo} {
		program, err := buildProgram(ctx, version)
		if err != nil {
			return err
		}
		st, err := os.Stat(program)
		if err != nil {
			return err
		}
		if size = st.Size(); old == "" {
			old = program
		}
		artifact := filepath.Join(b.dir, version, "app.zst")
		if err := os.Mkdir(filepath.Dir(artifact), 0o755); err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, "zstd", "-q", "-19", "-T0", program, "-o", artifact).CombinedOutput(); err != nil {
			return fmt.Errorf("zstd: %w: %s", err, out)
		}
		artifacts = append(artifacts, artifact)
	}
	whole, err := deltaWay(ctx, b, old, artifacts, publish.DeltasNone)
	if err != nil {
		return err
	}
	row := func(how string) string {
		return fmt.Sprintf("fetch of a program of %d MB, %s", size/1e6, how)
	}
	b.table.hold(size >= deltaLeast, row("whole, .zst"), "≥ 50 MiB of program", "%.1f MB in %s", float64(whole.wire)/1e6, ms(whole.took))
	for _, tool := range []publish.Deltas{publish.DeltasBSDiff, publish.DeltasZstd} {
		patched, err := deltaWay(ctx, b, old, artifacts, tool)
		if err != nil {
			return err
		}
		part := float64(patched.wire) / float64(whole.wire)
		b.table.hold(part <= mostOfWhole, row("by a patch of "+string(tool)), fmt.Sprintf("≤ %.2f × the bytes", mostOfWhole),
			"%.2f MB = %.3f × in %s; made in %s", float64(patched.wire)/1e6, part, ms(patched.took), patched.made.Round(time.Second))
	}
	return nil
}

// buildProgram installs a version where the next run finds it.
func buildProgram(ctx context.Context, version string) (string, error) {
	cache := os.Getenv("UPGRADERD_CACHE")
	if cache == "" {
		cache = "/var/cache/upgraderd-lab"
	}
	dir := filepath.Join(cache, "bench", filepath.Base(deltaProgram)+"-"+version)
	program := filepath.Join(dir, filepath.Base(deltaProgram))
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	ctx, cancel := context.WithTimeout(ctx, deltaBuild)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", "-ldflags=-s -w", deltaProgram+"@"+version)
	cmd.Env = append(cmd.Environ(), "GOBIN="+dir, "CGO_ENABLED=1") // as the Makefile installs it
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("install %s %s: %w", deltaProgram, version, err)
	}
	return program, nil
}

type deltaCost struct {
	wire       int64
	took, made time.Duration
}

// deltaWay publishes both versions, and has a host with the program old fetch the
// second.
func deltaWay(ctx context.Context, b *bench, old string, artifacts []string, tool publish.Deltas) (cost deltaCost, err error) {
	dir, err := os.MkdirTemp(b.dir, "deltas-")
	if err != nil {
		return cost, err
	}
	defer os.RemoveAll(dir)
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		return cost, err
	}
	shop := filepath.Join(dir, "shop")
	if err := os.Mkdir(shop, 0o755); err != nil {
		return cost, err
	}
	o := publish.Options{Dir: shop, Deltas: tool, Signers: []publish.Signer{publish.Minisign{Key: private}}, Keys: []string{public.String()}}
	for i, artifact := range artifacts {
		began := time.Now()
		o.Artifacts, o.Version = []string{artifact}, fmt.Sprint(i+1)
		if _, err := publish.Add(ctx, o); err != nil {
			return cost, err
		}
		cost.made = time.Since(began)
	}
	base, err := sumOf(old)
	if err != nil {
		return cost, err
	}
	wire := &atomic.Int64{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return cost, err
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(shop))}
	go func() { _ = server.Serve(counting{l, wire}) }()
	defer server.Close()
	took := make([]time.Duration, 0, deltaRuns)
	for i := range deltaRuns {
		f, err := fetcher.New(fetcher.Options{
			Target: "app", Path: "http://" + l.Addr().String(), Patterns: []string{"app_@v.zst"}, Keys: o.Keys,
			Bases: func(context.Context, [][32]byte) (map[[32]byte]string, error) {
				return map[[32]byte]string{base: old}, nil
			},
		}, nil)
		if err != nil {
			return cost, err
		}
		listing, err := f.Check(ctx)
		if err != nil {
			f.Close()
			return cost, err
		}
		into := filepath.Join(dir, fmt.Sprint("into-", i))
		if err := os.Mkdir(into, 0o700); err != nil {
			f.Close()
			return cost, err
		}
		before, began := wire.Load(), time.Now()
		v, err := f.Fetch(ctx, listing.Candidates[0], into, nil)
		took = append(took, time.Since(began))
		cost.wire = wire.Load() - before
		f.Close()
		if err != nil {
			return cost, err
		}
		if patched := v.Patches() > 0; patched != (tool != publish.DeltasNone) {
			err = fmt.Errorf("%s: by %d patches", tool, v.Patches())
		}
		if err := errors.Join(err, v.Close()); err != nil {
			return cost, err
		}
	}
	cost.took = median(took)
	return cost, nil
}

func sumOf(name string) (sum [32]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	h.Sum(sum[:0])
	return sum, err
}

// counting counts what is sent by the connections of a listener, headers and all.
type counting struct {
	net.Listener
	sent *atomic.Int64
}

func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	return countingConn{conn, c.sent}, err
}

type countingConn struct {
	net.Conn
	sent *atomic.Int64
}

func (c countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	return n, err
}
