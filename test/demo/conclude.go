package main

import (
	"context"
	"fmt"
	"time"

	"github.com/upgraderd/upgraderd/test/load"
)

// sayOutcome ends a step on the screen.
func (s *show) sayOutcome(o outcome) {
	text := fmt.Sprintf("%s, and %s serves", o.got, o.gotServe)
	if !o.ok() {
		text += fmt.Sprintf("; want %s, and %s serves", o.verdict, o.serves)
		if o.why != "" {
			text += ": " + o.why
		}
	}
	s.screen.result(o.ok(), text)
}

// conclude shows what upgraderd says and what was seen, and gives errWrong
// unless everything is as it must be.
func (s *show) conclude(ctx context.Context, outcomes []outcome, r load.Report, took time.Duration, before, after string) error {
	s.screen.heading("What upgraderd says of it")
	status, err := s.machine.Run(ctx, "upgraderd", "status")
	if err != nil {
		return err
	}
	s.screen.command("upgraderd status")
	s.screen.output(status)

	s.screen.heading("What was seen")
	wrong := 0
	note := func(ok bool) cell {
		if ok {
			return cell{"ok", green}
		}
		wrong++
		return cell{"WRONG", red}
	}
	var rows [][]cell
	for _, o := range outcomes {
		known := cell{"-", plain}
		if o.gotBad {
			known.text = "yes"
		}
		rows = append(rows, []cell{
			{o.version, plain}, {o.name, plain}, {o.verdict, plain}, {o.got, plain}, known, judged(o.gotServe, o.serves),
			note(o.ok()),
		})
	}
	s.screen.table([]string{"RELEASE", "", "EXPECTED", "GOT", "KNOWN BAD", "SERVES", ""}, rows)
	s.screen.print("")

	last := outcomes[len(outcomes)-1]
	s.screen.table([]string{"", "", ""}, [][]cell{
		{{"requests sent", plain}, {fmt.Sprintf("%d in %s", r.Sent, seconds(took)), plain}, note(r.Sent > 0)},
		{{"failed", plain}, judged(r.Failures(), 0), note(r.Failures() == 0)},
		{{"main PID before", plain}, {before, plain}, note(before != "" && before != "0")},
		{{"main PID after", plain}, judged(after, before), note(after == before)},
		{{"version that serves", plain}, judged(last.gotServe, last.serves), note(last.gotServe == last.serves)},
	})
	for _, e := range r.Errors {
		s.screen.output(e)
	}
	s.screen.print("")
	if wrong > 0 {
		s.screen.print("  "+s.screen.paint(red, fmt.Sprintf("WRONG: %d rows are not as they must be", wrong)), "")
		return errWrong
	}
	return nil
}
