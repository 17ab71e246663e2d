package fetcher

import (
	"errors"
	"fmt"
	"slices"
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

// Seen is a list that was believed, for telling older ones by.
type Seen struct {
	// Signed is when it was signed, but not after it was seen: the clock of a
	// signer may be ahead.
	Signed time.Time `json:"signed,omitzero"`
	// List is its SHA-256.
	List [32]byte `json:"list,omitzero"`
}

// With is the newer of s and a list that was believed now.
func (s Seen) With(l Listing, now time.Time) Seen {
	signed := l.Signed
	if signed.After(now) {
		signed = now.UTC()
	}
	if !signed.After(s.Signed) {
		return s
	}
	return Seen{Signed: signed, List: l.List}
}

// fresh tells whether a listing still counts at this time. It is asked of each
// look, of an unchanged manifest too: time passes without a change.
//
// No clock of this host makes an old list young: it is at least as late as the
// newest list says that was believed.
func (f *Fetcher) fresh(l Listing, now time.Time) error {
	seen := f.lastSeen()
	if now.Before(seen.Signed) {
		now = seen.Signed
	}
	switch {
	case !l.Signed.IsZero() && l.Signed.Before(seen.Signed) && l.List != seen.List:
		return fault.Passing(fault.MetaOlder, fmt.Errorf("%s was signed at %s, and one of %s was here before", manifestName, stamp(l.Signed), stamp(seen.Signed)),
			"wait for the mirror to catch up; if that is the newest there is, sign it anew, and if not, somebody shows old lists")
	case f.o.MaxAge > 0 && l.Signed.IsZero() && !f.Unsigned():
		return fault.New(fault.MetaUndated, errors.New("no signature says when it was made, and MaxAge= asks for it"),
			"sign with minisign, without a comment of your own, or with OpenPGP; or leave MaxAge= out and list a file "+bestBefore+"YYYY-MM-DD")
	case f.versionsByTag() && l.Signed.IsZero() && !f.Unsigned():
		return fault.New(fault.MetaUndated, errors.New("no signature says when it was made, and only that tells an old release under a new tag"),
			"sign with minisign, without a comment of your own, or with OpenPGP; or have the names of the files hold the version")
	case f.o.MaxAge > 0 && !l.Signed.IsZero() && now.Sub(l.Signed) > f.o.MaxAge:
		return fault.Passing(fault.MetaExpired, fmt.Errorf("%s was signed at %s, longer ago than MaxAge= allows", manifestName, stamp(l.Signed)),
			"sign it anew; if this is the newest there is, somebody may be hiding it from this host, or the clock is wrong")
	}
	if !l.Until.IsZero() && !now.Before(l.Until) {
		return fault.Passing(fault.MetaExpired, fmt.Errorf("%s counted until %s, and this host's clock says %s", manifestName, day(l.Until), now.UTC().Format(time.DateTime)),
			"publish a new one; if this is the newest there is, somebody may be hiding it from this host, or the clock is wrong")
	}
	return nil
}

// versionsByTag tells that a tag says which version a file is, and nobody signs
// tags.
func (f *Fetcher) versionsByTag() bool {
	return slices.ContainsFunc(f.patterns, func(p Pattern) bool { return p.tagged })
}

func (f *Fetcher) lastSeen() Seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

func stamp(t time.Time) string { return t.UTC().Format(time.DateTime) + " UTC" }

// day names the last day before end.
func day(end time.Time) string { return end.Add(-time.Nanosecond).Format(time.DateOnly) }
