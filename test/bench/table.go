package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/upgraderd/upgraderd/test/figures"
)

// table is what a run found out.
type table struct {
	suite string
	rows  []figures.Row
}

func newTable(suite string) *table { return &table{suite: suite} }

// show adds a figure that has no target.
func (t *table) show(name, format string, args ...any) {
	t.rows = append(t.rows, figures.Row{Name: name, Figure: fmt.Sprintf(format, args...)})
}

// hold adds a figure that has to meet its target.
func (t *table) hold(met bool, name, target, format string, args ...any) {
	t.rows = append(t.rows, figures.Row{Name: name, Figure: fmt.Sprintf(format, args...), Target: target, Missed: !met})
}

func (t *table) good() bool {
	return !slices.ContainsFunc(t.rows, func(r figures.Row) bool { return r.Missed })
}

func (t *table) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s, %s\n\n", t.suite, machineClass())
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ROW\tFIGURE\tTARGET\t")
	for _, r := range t.rows {
		verdict := ""
		switch {
		case r.Missed:
			verdict = "MISSED"
		case r.Target != "":
			verdict = "ok"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", r.Name, r.Figure, r.Target, verdict)
	}
	tw.Flush()
	fmt.Fprintln(w)
}

// median of at least one value.
func median[T time.Duration | float64](values []T) T {
	return quantile(values, 0.5)
}

func quantile[T time.Duration | float64](values []T, q float64) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(math.Round(q*float64(len(sorted)-1)))]
}

// ms prints a time with three digits that mean something.
func ms(d time.Duration) string {
	v := d.Seconds() * 1000
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f ms", v)
	case v < 100:
		return fmt.Sprintf("%.1f ms", v)
	}
	return fmt.Sprintf("%.0f ms", v)
}
