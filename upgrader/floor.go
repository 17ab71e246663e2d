package upgrader

import (
	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// The floor is the newest release that was ever accepted: it proved itself, or
// was installed for a unit that did not run. Whoever controls the source cannot
// lead a host below it, also not after somebody went back to an older release by
// hand. Only an operator's order lowers it, or a pin that rules it out.

// floor is the release that nothing taken may be older than. A record that was
// lost leaves at least what is installed. What a pin rules out is none.
func (m *machine) floor(current store.Release, has bool) (store.Release, bool) {
	f, ok := release(m.record.Floor)
	if ok && m.wishes.Allows(versionOf(f)) && (!has || versionOf(f).Compare(versionOf(current)) > 0) {
		return f, true
	}
	return current, has && m.wishes.Allows(versionOf(current))
}

// past is the version up to which nothing comes by itself, "" if there is none.
func (m *machine) past() fetcher.Version {
	past := fetcher.Version(m.record.Past)
	if !m.wishes.Allows(past) {
		return ""
	}
	return past
}

// accept raises the floor to what was just accepted, or lowers it to that where
// the operator allowed it, or pinned. What the operator passed over does not come by itself.
func (r *record) accept() {
	to, ok := release(r.To)
	if !ok {
		return
	}
	f, has := release(r.Floor)
	ruledOut := r.Pin != "" && !wish.Pin{Version: r.Pin}.Matches(versionOf(f))
	if !has || ruledOut || r.Order != nil && r.Order.AllowDowngrade || versionOf(to).Compare(versionOf(f)) > 0 {
		r.Floor = to.Name
	}
	r.Past = ""
	if r.Order != nil {
		r.Past = r.Order.Past
	}
}
