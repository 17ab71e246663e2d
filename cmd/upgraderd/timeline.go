package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/upgraderd/upgraderd/upgrader"
)

// A handover is drawn as the two workers side by side: when each started, served and
// drained. It is short beside the phases of its attempt, so it has an axis of its
// own, from the start of the new worker to the end of the old one.

const (
	starting = "░"
	serving  = "█"
	draining = "▒"
)

// axis is a span of time over a number of cells.
type axis struct {
	from, to time.Duration
	cells    int
}

func (x axis) cell(at time.Duration) int {
	whole := max(1, x.to-x.from)
	return min(max(int(float64(x.cells)*float64(at-x.from)/float64(whole)), 0), x.cells)
}

// stretch is part of a bar.
type stretch struct {
	from, to time.Duration
	fill     string
}

// bar draws stretches, which follow each other. What is too short to be seen has one
// cell all the same.
func (x axis) bar(all ...stretch) string {
	cells := make([]string, x.cells)
	for i := range cells {
		cells[i] = " "
	}
	for _, s := range all {
		if s.to <= s.from {
			continue
		}
		from := min(x.cell(s.from), x.cells-1)
		for i := from; i < max(x.cell(s.to), from+1); i++ {
			cells[i] = s.fill
		}
	}
	return strings.Join(cells, "")
}

// micros is a time of a record, which anybody may have written.
func micros(us int64) time.Duration {
	return time.Duration(min(max(us, 0), longest.Microseconds())) * time.Microsecond
}

// longest is more than any attempt takes, and can be added to.
const longest = 10 * 365 * 24 * time.Hour

// printHandover draws the workers of an attempt, and says when what happened.
func printHandover(s *screen, a upgrader.Attempt) error {
	h := a.Handover
	if h == nil {
		return nil
	}
	start, ready, drained := micros(h.StartedUs), micros(h.ReadyUs), micros(h.DrainedUs)
	ready = max(ready, start)
	end := max(ready+(ready-start)/4, drained)
	if h.DrainedUs == 0 { // it outlived the attempt
		end = max(end, min(duration(a), longest))
	}
	margin := max(time.Microsecond, (end-start)/25)
	old, now := s.oneLine("old "+a.From), s.oneLine("new "+a.To)
	name := max(12, utf8.RuneCountInString(old), utf8.RuneCountInString(now))
	x := axis{start - margin, end + margin, max(barWidth-8-(name-12), 20)}
	left := drained
	if h.DrainedUs == 0 {
		left = x.to
	}
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(s, format+"\n", args...)
		errs = append(errs, err)
	}
	line("")
	line("  %-*s  %s  %s", name, old, x.bar(stretch{x.from, ready, serving}, stretch{ready, left, draining}), drainedText(h))
	line("  %-*s  %s  %s", name, now, x.bar(stretch{start, ready, starting}, stretch{ready, x.to, serving}), "ready in "+span(ready-start))
	line("  %-*s  %s starting  %s serving  %s draining", name, "", starting, serving, draining)
	line("")
	for _, e := range events(a, start, ready, drained) {
		line("  %12s  %s", "+"+e.at.Round(time.Millisecond).String(), e.text)
	}
	return errors.Join(errs...)
}

func drainedText(h *upgrader.Handover) string {
	took := span(micros(h.DrainedUs) - micros(h.ReadyUs))
	switch {
	case h.DrainedUs == 0:
		return "still drains"
	case h.Killed:
		return "killed after " + took
	}
	return "drained in " + took
}

type happening struct {
	at   time.Duration // since the attempt began
	text string
}

// events are what happened, in its order.
func events(a upgrader.Attempt, start, ready, drained time.Duration) []happening {
	h := a.Handover
	told := a.From + " is told to drain"
	if h.Connections != nil {
		told += connections(" with %s open", *h.Connections)
	}
	all := []happening{
		{start, a.To + " is started beside " + a.From},
		{ready, a.To + " is ready, and serves"},
		{ready, told},
	}
	if h.DrainedUs > 0 {
		text := a.From + " has drained, and ended"
		if h.Killed {
			text = a.From + " was killed, its time was over"
			if h.Cut != nil {
				text += connections("; %s cut", *h.Cut)
			}
		}
		all = append(all, happening{drained, text})
	}
	if a.AnsweredUs > 0 {
		answered := happening{micros(a.AnsweredUs), a.To + " answers the first probe"}
		at := len(all)
		for at > 0 && all[at-1].at > answered.at {
			at--
		}
		all = append(all[:at], append([]happening{answered}, all[at:]...)...)
	}
	if a.Verdict != "" {
		all = append(all, happening{max(duration(a), all[len(all)-1].at), a.To + " is " + attemptVerdict(a)})
	}
	return all
}

func connections(format string, n int) string {
	noun := "connections"
	if n == 1 {
		noun = "connection"
	}
	return fmt.Sprintf(format, fmt.Sprintf("%d %s", max(0, n), noun))
}
