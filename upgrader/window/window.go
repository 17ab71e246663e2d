// Package window reads the hours in which something may begin, such as
// "Mon..Fri 02:00-04:00", and tells when they are. Hours that go past midnight belong
// to the day on which they begin. They are of the host's time zone, or of UTC, and so
// of the wall clock: nothing else knows what time of day it is.
package window

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Window is a span of hours, on some days of the week.
type Window struct {
	// Days are those on which it begins, Sunday first.
	Days [7]bool
	// From and To are minutes since midnight; To is the next day's where it is not
	// later than From.
	From, To int
	UTC      bool
}

const day = 24 * 60

// names are those of the days, as systemd.time(7) has them.
var names = [7]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// Parse reads "[DAYS] HH:MM-HH:MM [UTC]", where DAYS are names of days and ranges of
// them with "..", with commas between, as in systemd.time(7). Without DAYS it is
// every day.
func Parse(s string) (Window, error) {
	w := Window{Days: [7]bool{true, true, true, true, true, true, true}}
	words := strings.Fields(s)
	if n := len(words); n > 0 && words[n-1] == "UTC" {
		w.UTC, words = true, words[:n-1]
	}
	if len(words) == 2 {
		days, err := parseDays(words[0])
		if err != nil {
			return Window{}, err
		}
		w.Days, words = days, words[1:]
	}
	if len(words) != 1 {
		return Window{}, errors.New("want days, if not all, and hours")
	}
	from, to, ok := strings.Cut(words[0], "-")
	if !ok {
		return Window{}, fmt.Errorf("%q are no hours from one time to another", words[0])
	}
	var err error
	if w.From, err = parseTime(from); err != nil {
		return Window{}, err
	}
	if w.To, err = parseTime(to); err != nil {
		return Window{}, err
	}
	if w.From == w.To || w.From == day {
		return Window{}, fmt.Errorf("%q are no hours; all day is 00:00-24:00", words[0])
	}
	return w, nil
}

func parseDays(s string) (days [7]bool, err error) {
	for _, part := range strings.Split(s, ",") {
		first, last, ranged := strings.Cut(part, "..")
		a, err := parseDay(first)
		if err != nil {
			return days, err
		}
		b := a
		if ranged {
			if b, err = parseDay(last); err != nil {
				return days, err
			}
		}
		for d := a; ; d = (d + 1) % 7 {
			days[d] = true
			if d == b {
				break
			}
		}
	}
	return days, nil
}

// parseDay takes a day by its name, short or whole.
func parseDay(s string) (int, error) {
	for d, name := range names {
		if strings.EqualFold(s, name) || strings.EqualFold(s, time.Weekday(d).String()) {
			return d, nil
		}
	}
	return 0, fmt.Errorf("%q is no day of the week", s)
}

func parseTime(s string) (int, error) {
	hour, minute, ok := strings.Cut(s, ":")
	h, err1 := strconv.ParseUint(hour, 10, 8)
	m, err2 := strconv.ParseUint(minute, 10, 8)
	if !ok || err1 != nil || err2 != nil || len(hour) > 2 || len(minute) != 2 || h > 24 || m > 59 || h == 24 && m > 0 {
		return 0, fmt.Errorf("%q is no time of day", s)
	}
	return int(h*60 + m), nil
}

// Open tells whether t is in the window.
func (w Window) Open(t time.Time) bool {
	t = w.in(t)
	minute, today := t.Hour()*60+t.Minute(), t.Weekday()
	if w.From < w.To {
		return w.Days[today] && minute >= w.From && minute < w.To
	}
	return w.Days[today] && minute >= w.From || w.Days[(today+6)%7] && minute < w.To
}

// next is when the window opens after t.
func (w Window) next(t time.Time) time.Time {
	t = w.in(t)
	for d := 0; ; d++ {
		at := time.Date(t.Year(), t.Month(), t.Day()+d, 0, w.From, 0, 0, t.Location())
		if w.Days[at.Weekday()] && at.After(t) {
			return at
		}
		if d > 8 { // no day at all, which Parse lets nobody write
			return t.AddDate(1, 0, 0)
		}
	}
}

func (w Window) in(t time.Time) time.Time {
	if w.UTC {
		return t.UTC()
	}
	return t.Local()
}

// Closed tells that t is in none of the windows, and when the next one opens. Where
// there are no windows, nothing is ever closed.
func Closed(all []Window, t time.Time) (next time.Time, closed bool) {
	for _, w := range all {
		if w.Open(t) {
			return time.Time{}, false
		}
		if at := w.next(t); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next, len(all) > 0
}
