package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/test/lab"
	"github.com/upgraderd/upgraderd/test/publish"
	"github.com/upgraderd/upgraderd/units"
)

// Many targets on one host: what the daemon takes while nothing happens, and
// whether ten times as many targets take more than ten times as much.

const (
	fewTargets, manyTargets = 100, 1000
	// targetsRest is longer than what a burst of work leaves the collector to do,
	// and targetsWatch long enough that clock ticks of 10 ms add up.
	targetsRest  = 20 * time.Second
	targetsWatch = 30 * time.Second

	mostIdle  = 0.02 // of one processor, with manyTargets
	mostOfTen = 12   // times as much, for ten times the targets
)

// idle is what a daemon takes.
type idle struct {
	share float64 // of one processor
	pss   int64   // bytes
	fds   int
}

// measureTargets follows directories, which are watched, and a web server, which
// is asked.
func measureTargets(ctx context.Context, b *bench) error {
	for _, kind := range []string{"directory", "https"} {
		if err := b.measureTargets(ctx, kind); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return nil
}

func (b *bench) measureTargets(ctx context.Context, kind string) error {
	h, err := newHost(ctx, b, kind)
	if err != nil {
		return err
	}
	defer h.Close()
	none, err := h.rest(ctx)
	if err != nil {
		return err
	}
	taken := map[int]idle{}
	for _, n := range []int{fewTargets, manyTargets} {
		if err := h.grow(ctx, n); err != nil {
			return err
		}
		if taken[n], err = h.rest(ctx); err != nil {
			return err
		}
		b.say("%d targets by %s: %+v", n, kind, taken[n])
	}
	few, many := taken[fewTargets], taken[manyTargets]
	name := func(what string) string {
		return fmt.Sprintf("%s, targets by %s: %d → %d", what, kind, fewTargets, manyTargets)
	}
	percent := func(share float64) string { return fmt.Sprintf("%.2f %%", 100*share) }
	b.table.hold(many.share <= mostIdle, name("idle daemon, of one processor"), "≤ "+percent(mostIdle), "%s → %s", percent(few.share), percent(many.share))
	perTarget := func(i idle, n int) int64 { return (i.pss - none.pss) / int64(n) }
	b.table.hold(perTarget(many, manyTargets) <= perTarget(few, fewTargets), name("memory a target"), "no growth",
		"%.1f KiB → %.1f KiB (PSS %s → %s → %s)", float64(perTarget(few, fewTargets))/1024, float64(perTarget(many, manyTargets))/1024, mib(none.pss), mib(few.pss), mib(many.pss))
	b.table.hold(many.fds <= mostOfTen*few.fds, name("descriptors"), fmt.Sprintf("≤ %d ×", mostOfTen), "%d → %d", few.fds, many.fds)
	return nil
}

// host is a machine whose daemon follows as many targets as there are.
type host struct {
	*lab.Machine
	kind    string
	server  *http.Server // nil: none
	targets int
}

func newHost(ctx context.Context, b *bench, kind string) (_ *host, err error) {
	upgraderd, err := b.build(ctx, "./cmd/upgraderd", "")
	if err != nil {
		return nil, err
	}
	m, err := lab.Boot(ctx, b.suite, lab.Options{})
	if err != nil {
		return nil, err
	}
	h := &host{Machine: m, kind: kind}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	if _, err := units.Install(m.Root(), units.Options{Program: upgraderd}); err != nil {
		return nil, err
	}
	if err := h.put("/etc/systemd/system/many@.service", "[Service]\nExecStart=/bin/true\n"); err != nil {
		return nil, err
	}
	for _, command := range []string{"systemd-sysusers upgraderd.conf", "systemd-tmpfiles --create upgraderd.conf", "systemctl daemon-reload", "systemctl start upgraderd.service"} {
		if _, err := m.Run(ctx, strings.Fields(command)...); err != nil {
			return nil, err
		}
	}
	if kind == "https" {
		return h, h.serve()
	}
	return h, nil
}

const manyAddress = "127.0.0.1:8443"

// serve publishes /srv of the machine by https, inside it.
func (h *host) serve() error {
	ip, _, err := net.SplitHostPort(manyAddress)
	if err != nil {
		return err
	}
	config, authority, err := publish.TLS(ip)
	if err != nil {
		return err
	}
	l, err := h.Listen("tcp", manyAddress)
	if err != nil {
		return err
	}
	h.server = &http.Server{Handler: http.FileServer(http.Dir(h.Root() + "/srv")), TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = h.server.ServeTLS(l, "", "") }()
	return h.put("/etc/upgraderd/ca.pem", string(authority))
}

// Close ends the machine, and what it was served.
func (h *host) Close() error {
	if h.server != nil {
		h.server.Close()
	}
	return h.Machine.Close()
}

// put writes a file into the machine from outside: a thousand commands in it would
// take minutes.
func (h *host) put(name, text string) error {
	file := filepath.Join(h.Root(), name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// grow has the daemon follow n targets, each with a release of its own, and waits
// until all are installed.
func (h *host) grow(ctx context.Context, n int) error {
	for ; h.targets < n; h.targets++ {
		name := "many-" + strconv.Itoa(h.targets)
		program := fmt.Sprintf("#!/bin/sh\n# %s\n", name)
		dir := "/srv/" + name
		path := dir
		if h.kind != "directory" {
			path = "https://" + manyAddress + "/" + name + "/\nCAFile=/etc/upgraderd/ca.pem"
		}
		files := map[string]string{
			dir + "/app_1.0":    program,
			dir + "/SHA256SUMS": fmt.Sprintf("%x  app_1.0\n", sha256.Sum256([]byte(program))),
			"/etc/upgraderd/" + name + ".upgrade": "[Upgrade]\nUnit=many@" + strconv.Itoa(h.targets) + ".service\n" +
				"[Source]\nPath=" + path + "\nMatchPattern=app_@v\nVerify=no\n",
		}
		for file, text := range files {
			if err := h.put(file, text); err != nil {
				return err
			}
		}
	}
	if _, err := h.Run(ctx, "systemctl", "reload", "upgraderd.service"); err != nil {
		return err
	}
	began := time.Now()
	for {
		installed, err := fs.Glob(os.DirFS(h.Root()), "var/lib/upgraderd/*/current")
		if err != nil {
			return err
		}
		if len(installed) == n {
			return nil
		}
		if time.Since(began) > 10*time.Minute {
			return fmt.Errorf("%d of %d targets have a release after %v", len(installed), n, time.Since(began))
		}
		time.Sleep(time.Second)
	}
}

// rest lets the daemon come to rest, and watches it.
func (h *host) rest(ctx context.Context) (idle, error) {
	pid, err := h.Property(ctx, "upgraderd.service", "MainPID")
	if err != nil {
		return idle{}, err
	}
	time.Sleep(targetsRest)
	before, err := h.cpu(ctx, pid)
	if err != nil {
		return idle{}, err
	}
	began := time.Now()
	time.Sleep(targetsWatch)
	after, err := h.cpu(ctx, pid)
	if err != nil {
		return idle{}, err
	}
	i := idle{share: (after - before).Seconds() / time.Since(began).Seconds()}
	rollup, err := h.ReadFile(ctx, "/proc/"+pid+"/smaps_rollup")
	if err != nil {
		return idle{}, err
	}
	for line := range strings.Lines(rollup) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return idle{}, err
			}
			i.pss = kib << 10
		}
	}
	out, err := h.Run(ctx, "sh", "-c", "ls /proc/"+pid+"/fd | wc -l")
	if err != nil {
		return idle{}, err
	}
	i.fds, err = strconv.Atoi(strings.TrimSpace(out))
	return i, err
}

// cpu is the processor time that a process took so far: the nanoseconds that
// schedstat tells of each of its threads, see proc_pid_schedstat(5); those of
// threads that ended are in none.
func (h *host) cpu(ctx context.Context, pid string) (time.Duration, error) {
	out, err := h.Run(ctx, "sh", "-c", "cat /proc/"+pid+"/task/*/schedstat")
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for line := range strings.Lines(out) {
		ns, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ns)
	}
	return total, nil
}
