package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// serveEnv holds the options of a load process, in JSON.
const serveEnv = "UPGRADERD_LOAD"

// Serve makes this process the load process that [Start] asked for, and never
// returns; in any other process it does nothing. Call it first in main or
// TestMain.
func Serve() {
	text, asked := os.LookupEnv(serveEnv)
	if !asked {
		return
	}
	if err := serve(text); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(text string) error {
	var o Options
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	// The end of stdin is the end of whoever asked.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	out := json.NewEncoder(os.Stdout)
	final := Run(ctx, o, func(r Report) { _ = out.Encode(r) })
	return out.Encode(final)
}

// Process is a load that runs beside the test.
type Process struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr tailBuffer

	mu      sync.Mutex
	latest  Report
	changed chan struct{} // closed and made anew at each report
	ended   chan struct{}
	readErr error
}

// Start starts the load in a process of its own. The command decides where it
// runs; it must end up in this same program, which calls [Serve]. The caller
// ends it with [Process.Stop].
func Start(cmd *exec.Cmd, o Options) (*Process, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	p := &Process{cmd: cmd, changed: make(chan struct{}), ended: make(chan struct{})}
	cmd.Env = append(cmd.Environ(), serveEnv+"="+string(text))
	cmd.Stderr = &p.stderr
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	go p.follow(stdout)
	return p, nil
}

// follow reads reports until the process ends.
func (p *Process) follow(stdout io.Reader) {
	defer close(p.ended)
	for dec := json.NewDecoder(bufio.NewReader(stdout)); ; {
		var r Report
		if err := dec.Decode(&r); err != nil {
			if !errors.Is(err, io.EOF) {
				p.readErr = err
			}
			return
		}
		p.mu.Lock()
		p.latest = r
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// Report is the newest report, without latencies while the load runs.
func (p *Process) Report() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest
}

// Await waits until enough says yes to a report.
func (p *Process) Await(ctx context.Context, enough func(Report) bool) error {
	for {
		p.mu.Lock()
		latest, changed := p.latest, p.changed
		p.mu.Unlock()
		if enough(latest) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the load: %w; so far: %v", ctx.Err(), latest)
		case <-p.ended:
			return fmt.Errorf("wait for the load: it ended: %s; so far: %v", &p.stderr, latest)
		case <-changed:
		}
	}
}

// AwaitVersion waits until count more requests were answered by this version.
func (p *Process) AwaitVersion(ctx context.Context, version string, count int) error {
	before := p.Report().Versions[version]
	return p.Await(ctx, func(r Report) bool { return r.Versions[version]-before >= count })
}

// Stop ends the load, waits for the answers to what is under way, and gives
// the final report.
func (p *Process) Stop() (Report, error) {
	p.stdin.Close()
	<-p.ended
	// What is under way is bounded by Options.Timeout.
	kill := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	err := p.cmd.Wait()
	if err != nil || p.readErr != nil {
		return p.Report(), fmt.Errorf("stop load: %w: %s", errors.Join(err, p.readErr), &p.stderr)
	}
	return p.Report(), nil
}

// tailBuffer keeps what the process said to stderr.
type tailBuffer struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tailBuffer) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.buf) < 64<<10 {
		t.buf = append(t.buf, b...)
	}
	return len(b), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
