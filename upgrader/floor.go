package upgrader

import "github.com/upgraderd/upgraderd/upgrader/store"

// The floor is the newest release that was ever accepted: it proved itself, or
// was installed for a unit that did not run. Whoever controls the source cannot
// lead a host below it, also not after somebody went back to an older release by
// hand. Only an operator's order lowers it.

// floor is the release that nothing taken may be older than. A record that was
// lost leaves at least what is installed.
func (m *machine) floor(current store.Release, has bool) (store.Release, bool) {
	f, ok := release(m.record.Floor)
	if ok && (!has || versionOf(f).Compare(versionOf(current)) > 0) {
		return f, true
	}
	return current, has
}

// accept raises the floor to what was just accepted, or lowers it to that where
// the operator allowed it. What the operator passed over does not come by itself.
func (r *record) accept() {
	to, ok := release(r.To)
	if !ok {
		return
	}
	f, has := release(r.Floor)
	if !has || r.Order != nil && r.Order.AllowDowngrade || versionOf(to).Compare(versionOf(f)) > 0 {
		r.Floor = to.Name
	}
	r.Past = ""
	if r.Order != nil {
		r.Past = r.Order.Past
	}
}
