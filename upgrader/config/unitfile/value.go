package unitfile

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// ErrInfinity is what TimeSpan says of "infinity": a span by systemd's rules,
// but no time.Duration.
var ErrInfinity = errors.New("infinity has no end")

var errRange = errors.New("the number is too large")

// timeUnits are those of systemd.time(7). Months and years are averages.
var timeUnits = map[string]time.Duration{
	"":        time.Second, // a bare number counts seconds
	"seconds": time.Second, "second": time.Second, "sec": time.Second, "s": time.Second,
	"minutes": time.Minute, "minute": time.Minute, "min": time.Minute, "m": time.Minute,
	"hours": time.Hour, "hour": time.Hour, "hr": time.Hour, "h": time.Hour,
	"days": day, "day": day, "d": day,
	"weeks": 7 * day, "week": 7 * day, "w": 7 * day,
	"months": month, "month": month, "M": month,
	"years": year, "year": year, "y": year,
	"msec": time.Millisecond, "ms": time.Millisecond,
	"usec": time.Microsecond, "us": time.Microsecond, "µs": time.Microsecond, "μs": time.Microsecond,
}

const (
	day   = 24 * time.Hour
	month = 2629800 * time.Second  // 30.44 days
	year  = 31557600 * time.Second // 365.25 days
)

// TimeSpan reads a time span such as "90", "1min 30s" or "1.5h". Like
// systemd it counts whole microseconds and drops what is finer.
func TimeSpan(s string) (time.Duration, error) {
	rest := strings.Trim(s, whitespace)
	switch rest {
	case "":
		return 0, errors.New("the time span is empty")
	case "infinity":
		return 0, ErrInfinity
	}
	var sum int64 // microseconds
	for rest != "" {
		whole, fraction, after, err := number(rest)
		if err != nil {
			return 0, err
		}
		rest = strings.TrimLeft(after, whitespace)
		end := strings.IndexAny(rest, numerals+whitespace)
		if end < 0 {
			end = len(rest)
		}
		unit, ok := timeUnits[rest[:end]]
		if !ok {
			return 0, fmt.Errorf("%s is no unit of time (us, ms, s, min, h, d, w, M, y)", Quote(rest[:end]))
		}
		// Two bare numbers add up only with a space between them: 1.2.3
		// is a slip.
		if end == 0 && rest != "" && rest == after {
			return 0, fmt.Errorf("%s is no unit of time", Quote(rest))
		}
		perUnit := int64(unit / time.Microsecond)
		if sum, err = addTo(sum, whole, microseconds(fraction, perUnit), perUnit); err != nil {
			return 0, err
		}
		rest = strings.TrimLeft(rest[end:], whitespace)
	}
	if sum > math.MaxInt64/int64(time.Microsecond) {
		return 0, errRange
	}
	return time.Duration(sum) * time.Microsecond, nil
}

// sizeUnits come in the order in which they may follow each other.
var sizeUnits = []struct {
	suffix string
	factor int64
}{{"E", 1 << 60}, {"P", 1 << 50}, {"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"B", 1}, {"", 1}}

// Size reads a number of bytes such as "512", "1.5G" or "1M 512K", with
// 1K = 1024.
func Size(s string) (int64, error) {
	rest := strings.Trim(s, whitespace)
	if rest == "" {
		return 0, errors.New("the size is empty")
	}
	var (
		sum   int64
		units = sizeUnits
	)
	for rest != "" {
		if rest[0] == '.' { // a time span may begin so, a size may not
			return 0, fmt.Errorf("%s has no digit before its point", Quote(rest))
		}
		whole, fraction, after, err := number(rest)
		if err != nil {
			return 0, err
		}
		rest = strings.TrimLeft(after, whitespace)
		for len(units) > 0 && !strings.HasPrefix(rest, units[0].suffix) {
			units = units[1:]
		}
		if len(units) == 0 {
			return 0, fmt.Errorf("nothing may follow a number without a unit, but %s does", Quote(rest))
		}
		if sum, err = addTo(sum, whole, wholeBytes(fraction, units[0].factor), units[0].factor); err != nil {
			return 0, err
		}
		rest = strings.TrimLeft(rest[len(units[0].suffix):], whitespace)
		units = units[1:]
		if rest != "" && strings.IndexByte(numerals, rest[0]) < 0 {
			return 0, fmt.Errorf("%s is no unit that may stand here: T, G, M, K and B come in this order, each once", Quote(rest))
		}
	}
	return sum, nil
}

const numerals = "0123456789.+-"

// number takes a number from the front of s: its whole part, and the digits
// of its fraction as text, so that nothing is rounded.
func number(s string) (whole int64, fraction, rest string, err error) {
	if strings.HasPrefix(s, "-") {
		return 0, "", "", errors.New("the number is negative")
	}
	unsigned := strings.TrimPrefix(s, "+")
	before, rest := cutDigits(unsigned)
	if strings.HasPrefix(rest, ".") {
		fraction, rest = cutDigits(rest[1:])
		if fraction == "" {
			return 0, "", "", fmt.Errorf("%s has no digit after its point", Quote(s))
		}
	}
	switch {
	case before == "" && (fraction == "" || unsigned != s):
		return 0, "", "", fmt.Errorf("%s is no number", Quote(s))
	case before == "":
		return 0, fraction, rest, nil
	}
	whole, err = strconv.ParseInt(before, 10, 64)
	if err != nil {
		return 0, "", "", errRange
	}
	return whole, fraction, rest, nil
}

func cutDigits(s string) (digits, rest string) {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	return s[:end], s[end:]
}

// addTo gives sum + (whole + part) × factor, where part is what the digits of
// the fraction come to.
func addTo(sum, whole, part, factor int64) (int64, error) {
	if whole > (math.MaxInt64-sum)/factor {
		return 0, errRange
	}
	sum += whole * factor
	if part > math.MaxInt64-sum {
		return 0, errRange
	}
	return sum + part, nil
}

// microseconds is what a fraction of a unit comes to. The value of each digit
// is cut to whole microseconds, as systemd does.
func microseconds(fraction string, unit int64) (part int64) {
	for _, digit := range fraction {
		if unit /= 10; unit == 0 {
			break
		}
		part += int64(digit-'0') * unit
	}
	return part
}

// wholeBytes is what a fraction of a unit of size comes to.
func wholeBytes(fraction string, unit int64) int64 {
	const most = 18 // digits that fit an int64; more are no whole byte
	fraction = fraction[:min(len(fraction), most)]
	part, scale := new(big.Int), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(len(fraction))), nil)
	part.SetString("0"+fraction, 10)
	return part.Mul(part, big.NewInt(unit)).Quo(part, scale).Int64()
}

// Bool reads a boolean in any of systemd's spellings, whatever the case of
// its letters.
func Bool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "1", "yes", "y", "true", "t", "on":
		return true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither yes nor no", Quote(s))
}
