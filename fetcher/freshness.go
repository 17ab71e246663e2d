package fetcher

import (
	"fmt"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// bestBefore begins the name of an empty file that says in the manifest until
// when the manifest counts: BEST-BEFORE-2027-01-31 is the last day, in UTC. So
// says sysupdate.d(5) since systemd 258. Whoever shows a host an old manifest
// for ever can do so until then.
const bestBefore = "BEST-BEFORE-"

// expiry reads when the last day of a manifest ends, if name says so.
func expiry(name string) (end time.Time, ok bool, err error) {
	date, ok := strings.CutPrefix(name, bestBefore)
	if !ok {
		return time.Time{}, false, nil
	}
	day, err := time.Parse(time.DateOnly, date)
	if err != nil {
		return time.Time{}, true, fmt.Errorf("%q names no day, want e.g. %s2027-01-31", name, bestBefore)
	}
	return day.AddDate(0, 0, 1), true, nil
}

// fresh tells whether a listing still counts at this time. It is asked of each
// look, of an unchanged manifest too: time passes without a change.
func (f *Fetcher) fresh(l Listing, now time.Time) error {
	if !l.Until.IsZero() && !now.Before(l.Until) {
		return fault.Passing(fault.MetaExpired, fmt.Errorf("%s counted until %s, and this host's clock says %s", manifestName, day(l.Until), now.UTC().Format(time.DateTime)),
			"publish a new one; if this is the newest there is, somebody may be hiding it from this host, or the clock is wrong")
	}
	return nil
}

// day names the last day before end.
func day(end time.Time) string { return end.Add(-time.Nanosecond).Format(time.DateOnly) }
