package main

import (
	"context"
	"fmt"
	"time"
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

// sayStatus shows what an operator sees.
func (s *show) sayStatus(ctx context.Context) error {
	s.screen.heading("What upgraderd says of it")
	status, err := s.machine.Run(ctx, "upgraderd", "status")
	if err != nil {
		return err
	}
	s.screen.command("upgraderd status")
	s.screen.output(status)
	return nil
}

// facts are what the table is made of.
type facts struct {
	outcomes      []outcome
	sent, failed  int
	errors        []string // of the requests that failed, in words
	took          time.Duration
	before, after string // the service's main PID
}

// verdicts shows the facts, and gives errWrong unless all of them are as they
// must be.
func (s *screen) verdicts(f facts) error {
	s.heading("What was seen")
	wrong := 0
	verdict := func(ok bool) cell {
		if ok {
			return cell{"ok", green}
		}
		wrong++
		return cell{"WRONG", red}
	}
	var rows [][]cell
	for _, o := range f.outcomes {
		rows = append(rows, []cell{
			{o.version, plain}, {o.name, plain}, {o.verdict, plain}, {o.got, plain},
			judged(yes(o.gotBad), yes(o.bad)), judged(o.gotServe, o.serves), verdict(o.ok()),
		})
	}
	s.table([]string{"RELEASE", "", "EXPECTED", "GOT", "KNOWN BAD", "SERVES", ""}, rows)

	s.print("")
	last := f.outcomes[len(f.outcomes)-1]
	s.table([]string{"", "", ""}, [][]cell{
		{{"requests sent", plain}, {fmt.Sprintf("%d in %s", f.sent, seconds(f.took)), plain}, verdict(f.sent > 0)},
		{{"failed", plain}, judged(f.failed, 0), verdict(f.failed == 0)},
		{{"main PID before", plain}, {f.before, plain}, verdict(f.before != "" && f.before != "0")},
		{{"main PID after", plain}, judged(f.after, f.before), verdict(f.after == f.before)},
		{{"version that serves", plain}, judged(last.gotServe, last.serves), verdict(last.gotServe == last.serves)},
	})
	for _, e := range f.errors {
		s.output(e)
	}
	s.print("")
	if wrong > 0 {
		s.print("  "+s.paint(red, fmt.Sprintf("WRONG in %d rows", wrong)), "")
		return errWrong
	}
	return nil
}

// yes is how the table says it; what is not so shall not catch the eye.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "-"
}
