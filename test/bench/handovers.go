package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/upgraderd/upgraderd/test/load"
)

const (
	handoverCount = 200
	// handoverEvery leaves the old release the time to drain, so that not more
	// than --max-draining= of them do at once.
	handoverEvery = 250 * time.Millisecond
	restartCount  = 10
)

// traffic is what the figures are promised under.
func traffic(address string) load.Options {
	return load.Options{Address: address, Rate: 2000, Kept: 16}
}

// measureHandovers counts what clients lose in many handovers in a row, and in
// a few restarts of the same program without upgraderd, under the same load.
// What the handovers leave in the supervisor is looked at before and after.
func measureHandovers(ctx context.Context, b *bench) error {
	s, err := newScene(ctx, b, "")
	if err != nil {
		return err
	}
	defer s.Close()

	// A few first: a supervisor that never did a handover has parts of its
	// program to see yet.
	warm := swapOrder{Releases: s.releases, Count: 10, Via: reload, Every: handoverEvery}
	var done []swap
	if err := s.order(ctx, "swaps", warm, &done); err != nil {
		return err
	}
	before, err := s.footprint(ctx)
	if err != nil {
		return err
	}

	began := time.Now()
	clients, err := s.load(ctx, traffic(address))
	if err != nil {
		return err
	}
	order := swapOrder{Releases: s.releases, Count: handoverCount, Via: reload, Every: handoverEvery}
	err = s.order(ctx, "swaps", order, &done)
	swapped := len(done)
	lost, err := ended(clients, err)
	rate := float64(lost.Sent) / time.Since(began).Seconds()
	if err != nil {
		return err
	}
	after, err := s.footprint(ctx)
	if err != nil {
		return err
	}
	// The heap of a Go program finds its size in some hundred handovers; from
	// there on it must not grow.
	more := swapOrder{Releases: s.releases, Count: handoverCount / 2, Via: hangup, Every: handoverEvery}
	if err := s.order(ctx, "swaps", more, &done); err != nil {
		return err
	}
	later, err := s.footprint(ctx)
	if err != nil {
		return err
	}

	plain, err := s.load(ctx, traffic(plainAddress))
	if err != nil {
		return err
	}
	var restarted int
	err = s.order(ctx, "restarts", restartsOrder{Unit: plainUnit, Count: restartCount, Every: handoverEvery}, &restarted)
	control, err := ended(plain, err)
	if err != nil {
		return err
	}

	for _, text := range lost.Errors {
		b.say("%s", text)
	}
	b.table.hold(lost.Failures() == 0 && swapped == handoverCount,
		fmt.Sprintf("failed requests in %d handovers", handoverCount), "0",
		"%d of %d (%.0f/s), %s", lost.Failures(), lost.Sent, rate, ways(lost))
	b.table.hold(control.Failures() > 0,
		fmt.Sprintf("control: in %d times stop, then start", restarted), "> 0",
		"%d of %d, %s", control.Failures(), control.Sent, ways(control))
	before.judge(b.table, after, later)
	return nil
}

// ways lists how requests failed.
func ways(r load.Report) string {
	text := ""
	for _, f := range []load.Failure{load.Refused, load.Reset, load.EOF, load.Timeout, load.Status, load.Other} {
		if n := r.Failed[f]; n > 0 {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("%d %s", n, f)
		}
	}
	if text == "" {
		return "none lost"
	}
	return text
}

// restartsOrder asks for what people did before: stop, then start.
type restartsOrder struct {
	Unit  string
	Count int
	Every time.Duration
}

// restarts tells how many there were.
func restarts(ctx context.Context, o restartsOrder) (int, error) {
	for n := range o.Count {
		time.Sleep(o.Every)
		for _, verb := range []string{"stop", "start"} {
			if out, err := exec.CommandContext(ctx, "systemctl", verb, o.Unit).CombinedOutput(); err != nil {
				return n, fmt.Errorf("systemctl %s %s: %w: %s", verb, o.Unit, err, out)
			}
		}
	}
	return o.Count, nil
}
