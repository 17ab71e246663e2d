package upgrader

import (
	"context"
	"log/slog"
	"os"
	"slices"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// inspect reads what the unit starts with, and what a rollback would return to,
// back from the disk: once after each start of ours and each reload. Before a
// swap that is done anyway; between two of them months may pass.
func (m *machine) inspect(ctx context.Context) {
	if m.inspected {
		return
	}
	m.inspected, m.rotten, m.record.Rotten = true, nil, nil
	for _, which := range []store.LinkName{store.Current, store.Previous} {
		r, ok, err := m.store.Link(which)
		if err != nil || !ok {
			continue // which somebody else tells
		}
		if err := m.store.Verify(ctx, r); isRot(err) {
			m.rotten, m.record.Rotten = append(m.rotten, r), append(m.record.Rotten, r.Name)
			m.emit(ctx, journal.ReleaseDamaged, slog.String("release", r.Name), slog.String("error", m.errText(err)))
		}
	}
}

// heal fetches damaged releases again, if the source still offers these very
// bytes. The good files take the place of the bad ones in one step; what runs
// goes on with those it has open.
func (m *machine) heal(ctx context.Context, offered []fetcher.Candidate) error {
	for len(m.rotten) > 0 {
		r := m.rotten[0]
		i := slices.IndexFunc(offered, func(c fetcher.Candidate) bool {
			return c.HasDigest() && string(c.Version) == r.Version && store.Digest(c.Digest).Short() == r.Digest12
		})
		if i >= 0 {
			if err := m.fetchAgain(ctx, offered[i]); err != nil {
				return err
			}
			m.emit(ctx, journal.ReleaseHealed, slog.String("release", r.Name))
			m.record.Rotten = slices.DeleteFunc(m.record.Rotten, func(name string) bool { return name == r.Name })
		}
		m.rotten = m.rotten[1:]
	}
	return nil
}

func (m *machine) fetchAgain(ctx context.Context, c fetcher.Candidate) error {
	if err := m.takeSlot(ctx); err != nil {
		return err
	}
	defer m.freeSlot()
	if err := m.store.Preflight(max(c.Size, 0)*roomFactor + roomSpare); err != nil {
		return err
	}
	dir, err := m.store.Incoming(c.Digest)
	if err != nil {
		return err
	}
	defer m.tidy(ctx)
	v, err := m.source.Fetch(ctx, c, dir, nil)
	if err != nil {
		_ = os.Remove(dir) // goes if it is empty; what can be resumed stays
		return err
	}
	defer func() { _ = v.Close() }() // read only
	_, err = m.install(ctx, v)
	return err
}
