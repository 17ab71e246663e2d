package upgrader

import (
	"context"
	"log/slog"
	"slices"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

const instancesDefault = 3

// retain removes the oldest releases beyond InstancesMax=, never one that a
// link names or that still runs. While old workers drain nothing is removed:
// which releases they run stands nowhere.
func (m *machine) retain(ctx context.Context) {
	if err := m.prune(ctx); err != nil && ctx.Err() == nil {
		m.trouble(ctx, journal.StepFailed, err)
	}
}

func (m *machine) prune(ctx context.Context) error {
	most := m.target.InstancesMax
	if most <= 0 {
		most = instancesDefault
	}
	all, err := m.store.Releases()
	if err != nil || len(all) <= most {
		return err
	}
	keep := map[string]bool{}
	for _, which := range store.LinkNames() {
		r, ok, err := m.store.Link(which)
		if err != nil {
			return err
		}
		if ok {
			keep[r.Name] = true
		}
	}
	f, err := m.facts(ctx)
	if err != nil {
		return err
	}
	if st, ok := serving(f); ok {
		if st.Draining > 0 || st.Starting != "" {
			return nil
		}
		keep[st.Release] = true
	}
	bad := map[string]bool{}
	for _, r := range all {
		if bad[r.Name], err = m.isBad(r); err != nil {
			return err
		}
	}
	slices.SortStableFunc(all, func(a, b store.Release) int {
		if bad[a.Name] != bad[b.Name] { // what nobody will run again goes first
			if bad[a.Name] {
				return 1
			}
			return -1
		}
		return versionOf(b).Compare(versionOf(a))
	})
	// What must stay takes its place first; the newest of the others fill up.
	room := most - len(keep)
	for _, r := range all {
		switch {
		case keep[r.Name]:
		case room > 0:
			room--
		default:
			if err := m.store.Remove(r); err != nil {
				return err
			}
			m.emit(ctx, journal.ReleaseRemoved, slog.String("release", r.Name))
		}
	}
	return nil
}

func (m *machine) isBad(r store.Release) (bool, error) {
	digest, err := m.store.Digest(r)
	if err != nil {
		return true, nil // a release that nobody can vouch for
	}
	_, bad, err := m.store.Bad(digest)
	return bad, err
}
