package upgrader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	probeIntervalDefault = time.Second
	probeTimeoutDefault  = 5 * time.Second
	// probeBody bounds what is read of an answer: the status is the answer.
	probeBody = 64 << 10
	// probeWords is how much of a command's output stands in a reason.
	probeWords = 512
)

// probeRounds asks all probes at every interval and sends the outcome of each
// round, until ctx ends. Without probes it sends nothing.
func probeRounds(ctx context.Context, c Confirm, rounds chan<- error) {
	if len(c.Probes) == 0 {
		return
	}
	interval, timeout := c.ProbeInterval, c.ProbeTimeout
	if interval <= 0 {
		interval = probeIntervalDefault
	}
	if timeout <= 0 {
		timeout = probeTimeoutDefault
	}
	for sleep(ctx, interval) {
		err := probeAll(ctx, c.Probes, timeout)
		if ctx.Err() != nil {
			return
		}
		select {
		case rounds <- err:
		case <-ctx.Done():
			return
		}
	}
}

// probeAll asks all at the same time; the first in order that failed speaks
// for the round.
func probeAll(ctx context.Context, probes []Probe, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	errs := make([]error, len(probes))
	done := make(chan struct{}, len(probes))
	for i, p := range probes {
		go func() {
			errs[i] = p.ask(ctx)
			done <- struct{}{}
		}()
	}
	for range probes {
		<-done
	}
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("probe %s: %w", probes[i], err)
		}
	}
	return nil
}

// String is how a probe is written in a .upgrade file.
func (p Probe) String() string {
	switch p.Kind {
	case ProbeTCP:
		return "tcp://" + p.Address
	case ProbeUnix:
		return "unix:" + p.Address
	case ProbeExec:
		return "exec:" + strings.Join(p.Command, " ")
	}
	return p.Address
}

// ask is one question. It returns soon after ctx ends and leaves no
// connection and no process behind.
func (p Probe) ask(ctx context.Context) error {
	switch p.Kind {
	case ProbeHTTP:
		return askHTTP(ctx, p.Address)
	case ProbeTCP:
		return askConnect(ctx, "tcp", p.Address)
	case ProbeUnix:
		return askConnect(ctx, "unix", p.Address)
	case ProbeExec:
		return askCommand(ctx, p.Command)
	}
	return fmt.Errorf("kind %q is unknown", p.Kind)
}

func askHTTP(ctx context.Context, url string) error {
	// A connection of its own for each question: a kept one would stay with
	// the old worker and ask the wrong release. No proxy stands between us
	// and a service on this host.
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport: transport,
		// A redirect answers for another place.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "upgraderd")
	resp, err := client.Do(req)
	if err != nil {
		return errors.Unwrap(err) // without the URL, which we name ourselves
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, probeBody)); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("got status %d, want 2xx", resp.StatusCode)
	}
	return nil
}

func askConnect(ctx context.Context, network, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func askCommand(ctx context.Context, argv []string) error {
	if len(argv) == 0 {
		return errors.New("the command is empty")
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	words := &firstWords{}
	cmd.Stdout, cmd.Stderr = words, words
	inGroup(cmd)
	err := cmd.Run()
	if cmd.Process != nil {
		// Whatever it left running goes with it; the group may be empty.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if said := strings.TrimSpace(words.String()); said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// firstWords keeps the beginning of what is written to it.
type firstWords struct{ bytes.Buffer }

func (w *firstWords) Write(p []byte) (int, error) {
	if room := probeWords - w.Len(); room > 0 {
		w.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
