package main

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/upgraderd/upgraderd/test/load"
)

// What a swap adds to the slowest request near it. Each swap has a window that
// begins with the trigger, and a quiet window of the same length right before
// it, of the same run: the machine's own hiccups fall into both. What is
// compared is the median over all swaps of the slowest request in the window.
// The control is the same program, started beside the service without a swap:
// what any new process costs those who share its processors.

const (
	latencySwaps     = 60
	slowLatencySwaps = 20
	slowStart        = 2 * time.Second
	// latencyAfter is how long after the first answer a window goes on: the
	// old release has drained by then.
	latencyAfter = 250 * time.Millisecond
	mostAdded    = 1.1
	// latencyCalm is from the end of a window to the begin of the quiet one before
	// the next swap. The supervisor gives its memory back in it, a second after a
	// swap: in none of the windows.
	latencyCalm = 1500 * time.Millisecond
)

func measureLatency(ctx context.Context, b *bench) error {
	if err := latency(ctx, b, "", latencySwaps, 0); err != nil {
		return err
	}
	return latency(ctx, b, "slow:"+slowStart.String(), slowLatencySwaps, slowStart)
}

func latency(ctx context.Context, b *bench, fault string, count int, start time.Duration) error {
	s, err := newScene(ctx, b, fault)
	if err != nil {
		return err
	}
	defer s.Close()
	o := traffic(address)
	o.Samples = true
	clients, err := s.load(ctx, o)
	if err != nil {
		return err
	}
	window := start + latencyAfter
	// Who measures must not be what is measured: looks at which release answers, in
	// the swap's window alone, were as many requests again as all clients make. So
	// one look comes when it is over.
	order := swapOrder{Releases: s.releases, Count: count, Via: hangup, Every: 2*window + latencyCalm, Glance: window}
	var swapped, started []swap
	err = s.order(ctx, "swaps", order, &swapped)
	if err == nil && start == 0 {
		err = s.order(ctx, "starts", order, &started)
	}
	time.Sleep(window)
	r, err := ended(clients, err)
	if err != nil {
		return err
	}
	name := "slowest request around a swap"
	if start > 0 {
		name += fmt.Sprintf(", program that starts in %s", start)
	}
	busy, quiet := around(r.Samples, swapped, window)
	ratio := busy.Seconds() / quiet.Seconds()
	b.table.hold(ratio <= mostAdded && r.Failures() == 0, name, fmt.Sprintf("≤ %.1f × without", mostAdded),
		"%s / %s = %.2f × (median of %d windows of %s)", ms(busy), ms(quiet), ratio, len(swapped), window)
	if len(started) > 0 {
		busy, quiet := around(r.Samples, started, window)
		b.table.show("control: around a bare start beside the service",
			"%s / %s = %.2f × (median of %d)", ms(busy), ms(quiet), busy.Seconds()/quiet.Seconds(), len(started))
	}
	return nil
}

// around gives the medians of the slowest request in the window that begins
// with each swap, and in the one before it.
func around(samples []load.Sample, swaps []swap, window time.Duration) (busy, quiet time.Duration) {
	var with, without []time.Duration
	for _, w := range swaps {
		with = append(with, slowest(samples, w.Began, w.Began.Add(window)))
		without = append(without, slowest(samples, w.Began.Add(-window), w.Began))
	}
	return median(with), median(without)
}

// slowest is the longest that a request took which began in this window.
// Samples are in the order of their begin.
func slowest(samples []load.Sample, from, to time.Time) time.Duration {
	first := sort.Search(len(samples), func(i int) bool { return !samples[i].Began.Before(from) })
	var most time.Duration
	for _, s := range samples[first:] {
		if !s.Began.Before(to) {
			break
		}
		most = max(most, s.Took)
	}
	return most
}
