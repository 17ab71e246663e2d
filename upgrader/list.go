package upgrader

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// offersMax is how many releases of a source are remembered, the newest of them: the
// record is small.
const offersMax = 32

// Offer is a release that a source lists.
type Offer struct {
	Version string `json:"version"`
	// Digest12 are the first digits of its digest, "" where the source does not tell.
	Digest12 string `json:"digest12,omitempty"`
}

// offersOf are the newest of a listing.
func offersOf(l fetcher.Listing) []Offer {
	offers := []Offer{} // not nil: the source was asked
	for _, c := range l.Candidates[:min(len(l.Candidates), offersMax)] {
		o := Offer{Version: string(c.Version)}
		if c.HasDigest() {
			o.Digest12 = store.Digest(c.Digest).Short()
		}
		offers = append(offers, o)
	}
	return offers
}

// List is what releases of a target there are. Its JSON form is what `upgraderd list
// --json` prints.
type List struct {
	Target string `json:"target"`
	// Asked tells that the source was asked, by the daemon or now: else nothing is
	// known of what it offers.
	Asked bool `json:"asked"`
	// Hold and Pin are the operator's.
	Hold     *wish.Hold `json:"hold,omitempty"`
	Pin      *wish.Pin  `json:"pin,omitempty"`
	Releases []Listed   `json:"releases"`
}

// Listed is a release that the source offers, that is on disk, or that is known of
// for another reason.
type Listed struct {
	Offer
	// Offered tells that the source lists it, OnDisk that it is here.
	Offered bool `json:"offered"`
	OnDisk  bool `json:"on_disk"`
	// Links are those of the store that name it: current, next, beside, previous, staged.
	Links []string `json:"links,omitempty"`
	// Damaged tells that its files are not what was verified, as the daemon saw when
	// it read them last.
	Damaged bool `json:"damaged,omitempty"`
	// KnownBad is why it is not tried again, "" if it is not known bad.
	KnownBad string `json:"known_bad,omitempty"`
	// Skipped is set where the operator skips its version, RuledOut where the pin does
	// not match it.
	Skipped  bool `json:"skipped,omitempty"`
	RuledOut bool `json:"ruled_out,omitempty"`
}

// ReadList lists the releases of a target, newest first, with those that the source
// offered when it was asked last. It needs no daemon, takes no lock and changes
// nothing.
func ReadList(stateDir, target string) (List, error) {
	l := List{Target: target, Releases: []Listed{}}
	s, err := store.View(filepath.Join(stateDir, target))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	var r record
	if _, err := s.LoadRecord(&r); err != nil {
		return l, err
	}
	return l, l.fill(s, r)
}

// AskList is [ReadList] with what the source offers now, asked as [Foresee] does.
func AskList(ctx context.Context, o Options, t *Target) (List, error) {
	l := List{Target: t.Name}
	v, err := newVisit(o, t)
	if err != nil {
		return l, err
	}
	defer v.end()
	listing, err := v.source.Check(ctx)
	if err != nil {
		return l, err
	}
	v.m.record.Offered = offersOf(listing)
	return l, l.fill(v.store, v.m.record)
}

// fill joins what the source, the disk and the operator say.
func (l *List) fill(s *store.Store, r record) error {
	l.Asked = r.Offered != nil
	at := func(o Offer) *Listed {
		same := func(have Listed) bool {
			return have.Version == o.Version && (have.Digest12 == o.Digest12 || have.Digest12 == "" || o.Digest12 == "")
		}
		i := slices.IndexFunc(l.Releases, same)
		if i < 0 {
			i, l.Releases = len(l.Releases), append(l.Releases, Listed{Offer: o})
		}
		l.Releases[i].Digest12 = cmp.Or(l.Releases[i].Digest12, o.Digest12)
		return &l.Releases[i]
	}
	l.Releases = []Listed{}
	all, err := s.Releases()
	if err != nil {
		return err
	}
	for _, have := range all {
		row := at(Offer{have.Version, have.Digest12})
		row.OnDisk = true
		row.Damaged = slices.Contains(r.Rotten, have.Name)
	}
	for _, which := range []store.LinkName{store.Current, store.Next, store.Beside, store.Previous, store.Staged} {
		if have, ok, err := s.Link(which); err == nil && ok {
			row := at(Offer{have.Version, have.Digest12})
			row.Links = append(row.Links, string(which))
		}
	}
	for _, o := range r.Offered {
		at(o).Offered = true
	}
	digests, err := s.KnownBad()
	if err != nil {
		return err
	}
	for _, d := range digests {
		if bad, ok, err := s.Bad(d); err == nil && ok {
			at(Offer{bad.Version, d.Short()}).KnownBad = bad.Reason
		}
	}
	w, err := r.wishes(s)
	if err != nil {
		return err
	}
	l.Hold, l.Pin = w.Hold, w.Pin
	for _, skip := range w.Skips {
		if !slices.ContainsFunc(l.Releases, func(have Listed) bool { return sameVersion(have.Version, skip.Version) }) {
			at(Offer{Version: skip.Version})
		}
	}
	for i, row := range l.Releases {
		_, l.Releases[i].Skipped = w.Skipped(fetcher.Version(row.Version))
		l.Releases[i].RuledOut = !w.Allows(fetcher.Version(row.Version))
	}
	slices.SortStableFunc(l.Releases, func(a, b Listed) int {
		return cmp.Or(fetcher.Version(b.Version).Compare(fetcher.Version(a.Version)), cmp.Compare(a.Digest12, b.Digest12))
	})
	return nil
}

func sameVersion(a, b string) bool { return fetcher.Version(a).Compare(fetcher.Version(b)) == 0 }
