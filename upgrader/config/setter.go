package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/window"
)

// setter parses a value and puts it where it belongs. For a key that takes a
// list it is called once per assignment, in order.
type setter func(s scope, t *upgrader.Target, value string) error

// text is a string with specifiers, judged by check.
func text(field func(*upgrader.Target) *string, check func(string) (string, error)) setter {
	return func(s scope, t *upgrader.Target, value string) error {
		v, err := s.expand(value)
		if err != nil {
			return err
		}
		v, err = check(v)
		if err == nil {
			*field(t) = v
		}
		return err
	}
}

// word is one of a few spellings; it has no specifiers.
func word[T ~string](field func(*upgrader.Target) *T, known ...T) setter {
	return func(_ scope, t *upgrader.Target, value string) error {
		var spellings []string
		for _, k := range known {
			if value == string(k) {
				*field(t) = k
				return nil
			}
			spellings = append(spellings, string(k))
		}
		return noneOf(value, spellings)
	}
}

// boolean is yes or no, in the spellings of systemd.
func boolean(field func(*upgrader.Target) *bool) setter {
	return func(_ scope, t *upgrader.Target, value string) error {
		yes, err := unitfile.Bool(value)
		if err != nil {
			return refuse("write yes or no", "%s is no boolean", unitfile.Quote(value))
		}
		*field(t) = yes
		return nil
	}
}

func noneOf(value string, spellings []string) error {
	hint := ""
	if n := nearest(value, spellings); n != "" {
		hint = "did you mean " + n + "?"
	}
	return refuse(hint, "%s is none of %s", unitfile.Quote(value), strings.Join(spellings, ", "))
}

// year is the longest time any key takes: long enough for "never", and far
// from where two durations added overflow.
const year = 8766 * time.Hour

// span is a time span between least and most.
func span(field func(*upgrader.Target) *time.Duration, least, most time.Duration) setter {
	return func(_ scope, t *upgrader.Target, value string) error {
		d, err := unitfile.TimeSpan(value)
		switch {
		case errors.Is(err, unitfile.ErrInfinity):
			return refuse("write a time, at most "+spell(most), "infinity is not a time this key takes")
		case err != nil:
			return refuse("write a time such as 30s, 5min or 1h 30min", "%s is no time span: %w", unitfile.Quote(value), err)
		case d < least:
			return refuse("", "%s is too short: at least %s", unitfile.Quote(value), spell(least))
		case d > most:
			return refuse("", "%s is too long: at most %s", unitfile.Quote(value), spell(most))
		}
		*field(t) = d
		return nil
	}
}

// spell writes a time as a file would.
func spell(d time.Duration) string {
	switch {
	case d == year:
		return "1y"
	case d%time.Minute == 0 && d > 0:
		return fmt.Sprintf("%dmin", d/time.Minute)
	case d%time.Second == 0:
		return fmt.Sprintf("%ds", d/time.Second)
	case d%time.Millisecond == 0:
		return fmt.Sprintf("%dms", d/time.Millisecond)
	}
	return fmt.Sprintf("%dus", d/time.Microsecond)
}

// count is a whole number.
func count(field func(*upgrader.Target) *int, least, most int) setter {
	return func(_ scope, t *upgrader.Target, value string) error {
		n, err := strconv.Atoi(value)
		switch {
		case err != nil || value[0] == '+':
			return refuse(fmt.Sprintf("write a number from %d to %d", least, most), "%s is no whole number", unitfile.Quote(value))
		case n < least:
			return refuse("", "%d is too small: at least %d", n, least)
		case n > most:
			return refuse("", "%d is too large: at most %d", n, most)
		}
		*field(t) = n
		return nil
	}
}

// petabyte is more than any artifact, and far from where sums overflow.
const petabyte = 1 << 50

// size is a number of bytes.
func size(field func(*upgrader.Target) *int64, least int64) setter {
	return func(_ scope, t *upgrader.Target, value string) error {
		n, err := unitfile.Size(value)
		switch {
		case err != nil:
			hint := "write bytes, or a number with K, M, G or T"
			if unit := strings.TrimRight(value, "iBb"); unit != value {
				if _, err := unitfile.Size(unit); err == nil {
					hint = fmt.Sprintf("write %s: units count in 1024 and stand alone", unit)
				}
			}
			return refuse(hint, "%s is no size: %w", unitfile.Quote(value), err)
		case n < least:
			return refuse("", "%s is too small: at least %d", unitfile.Quote(value), least)
		case n > petabyte:
			return refuse("", "%s is too large: at most 1P", unitfile.Quote(value))
		}
		*field(t) = n
		return nil
	}
}

// maxItems bounds every list: enough for any use, too few to be a burden.
const maxItems = 32

// words adds words, each with its quotes and specifiers resolved and judged by
// check.
func words(field func(*upgrader.Target) *[]string, check func(scope, string) (string, error)) setter {
	return func(s scope, t *upgrader.Target, value string) error {
		list, err := split(s, value)
		if err != nil {
			return err
		}
		for _, w := range list {
			if w, err = check(s, w); err != nil {
				return err
			}
			*field(t) = append(*field(t), w)
		}
		if n := len(*field(t)); n > maxItems {
			return refuse("", "%d values, at most %d are taken", n, maxItems)
		}
		return nil
	}
}

// setWindow adds hours.
func setWindow(_ scope, t *upgrader.Target, value string) error {
	w, err := window.Parse(value)
	if err != nil {
		return refuse("write hours such as 02:00-04:00, or Mon..Fri 02:00-04:00 UTC", "%s: %w", unitfile.Quote(value), err)
	}
	t.Windows = append(t.Windows, w)
	if n := len(t.Windows); n > maxItems {
		return refuse("", "%d values, at most %d are taken", n, maxItems)
	}
	return nil
}

// split takes a value apart and resolves the specifiers of each word, so that
// what a specifier stands for is never split.
func split(s scope, value string) ([]string, error) {
	list, err := unitfile.Words(value)
	if err != nil {
		return nil, refuse(`quotes hold a word together, \\ is a backslash`, "%s cannot be split into words: %w", unitfile.Quote(value), err)
	}
	for i := range list {
		if list[i], err = s.expand(list[i]); err != nil {
			return nil, err
		}
		if strings.IndexByte(list[i], 0) >= 0 {
			return nil, errors.New("a word holds a NUL byte")
		}
	}
	return list, nil
}
