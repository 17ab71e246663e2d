package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

func holdCommand() *cobra.Command {
	var (
		w          wisher
		span, date string
	)
	cmd := &cobra.Command{
		Use:   "hold TARGET [--for=TIME | --until=DATE] [--reason=TEXT]",
		Short: "Let no upgrade of a target begin",
		Long: `Hold TARGET: nothing is taken by itself until upgraderd unhold, or until the time
is over. A hold takes the place of one before. What is on trial comes to its
verdict, and what is on its way stops before its swap. The source is asked as
ever, for upgraderd list and plan.

upgraderd upgrade is refused meanwhile, unless it is given --despite-hold.
upgraderd fetch, import and rollback are not.

--for= is a time span as in systemd.time(7). --until= is a date, a time of day or
both, here and now; it becomes a time span at once, which upgraderd counts while
it runs: a clock that is set afterwards neither ends the hold nor keeps it.`,
		Example:           "  upgraderd hold app --for=2d --reason='trade fair'\n  upgraderd hold app --until='2026-12-01 08:00'",
		ValidArgsFunction: complete(false, targetNames),
		Args:              usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			m := w.mark()
			d, err := holdTime(span, date, time.Now())
			if err != nil {
				return withStatus(exitUsage, err)
			}
			h, err := wish.NewHold(d, m)
			if err != nil {
				return withStatus(exitUsage, err)
			}
			return w.change(cmd, args[0], func(target string, all *wish.Wishes) (string, error) {
				all.Hold = &h
				return target + ": " + h.String(), nil
			})
		},
	}
	cmd.Flags().StringVar(&span, "for", "", "end it after this `time`, such as 2h or 7d")
	cmd.Flags().StringVar(&date, "until", "", "end it at this `date`, such as 2026-12-01, 18:00 or '2026-12-01 18:00 UTC'")
	w.reasonFlag(cmd)
	w.flags(cmd)
	return cmd
}

func unholdCommand() *cobra.Command {
	var w wisher
	cmd := &cobra.Command{
		Use:               "unhold TARGET",
		Short:             "Let upgrades of a target begin again",
		Long:              "End the hold of TARGET. What the source offers meanwhile is taken at once.",
		Example:           "  upgraderd unhold app",
		ValidArgsFunction: complete(false, targetNames),
		Args:              usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return w.change(cmd, args[0], func(target string, all *wish.Wishes) (string, error) {
				if all.Hold == nil {
					return target + " is not held", nil
				}
				was := all.Hold
				all.Hold = nil
				return fmt.Sprintf("%s: no more %s", target, was), nil
			})
		},
	}
	w.flags(cmd)
	return cmd
}

// holdTime is how long a hold shall last, zero if until it is taken back.
func holdTime(span, date string, now time.Time) (time.Duration, error) {
	switch {
	case span != "" && date != "":
		return 0, advise(errors.New("--for= and --until= are two ways to say one thing"), "leave one out")
	case date != "":
		t, err := parseDate(date, now)
		if err != nil {
			return 0, err
		}
		if !t.After(now) {
			return 0, fmt.Errorf("--until=%q is over: it is %s", date, now.Format("2006-01-02 15:04:05 MST"))
		}
		return t.Sub(now), nil
	case span != "":
		d, err := unitfile.TimeSpan(span)
		switch {
		case errors.Is(err, unitfile.ErrInfinity):
			return 0, nil
		case err != nil:
			return 0, fmt.Errorf("--for=%q: %w", span, err)
		case d <= 0:
			return 0, fmt.Errorf("--for=%q: a hold of no time is none", span)
		}
		return d, nil
	}
	return 0, nil
}

// parseDate reads a date as systemd.time(7) writes it, in local time or with UTC
// behind it. A time of day alone is the next one.
func parseDate(s string, now time.Time) (time.Time, error) {
	zone := now.Location()
	text, utc := strings.CutSuffix(strings.TrimSpace(s), " UTC")
	if utc {
		zone = time.UTC
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil && !utc {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		t, err := time.ParseInLocation(layout, text, zone)
		if err != nil {
			continue
		}
		day := now.In(zone)
		at := func(days int) time.Time {
			return time.Date(day.Year(), day.Month(), day.Day()+days, t.Hour(), t.Minute(), t.Second(), 0, zone)
		}
		if today := at(0); today.After(now) {
			return today, nil
		}
		return at(1), nil
	}
	return time.Time{}, advise(fmt.Errorf("--until=%q is no date", s), "write it as 2026-12-01, 18:00 or '2026-12-01 18:00', with UTC behind it if it is that")
}
