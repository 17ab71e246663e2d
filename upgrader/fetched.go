package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// An order to fetch or to import takes the way of every release, from the list
// and its signatures to Check=, and ends before the swap: the release stays
// staged, the unit goes on, and the record says which one waits. It does not come
// by itself, as with any release that an operator decided about; what is newer
// does. An order to upgrade goes on with Checking, since the host may be another
// by then than the one it was checked on.

// leaveStaged ends such an order. With Swap=none there is a state for what waits.
func (m *machine) leaveStaged(ctx context.Context) Event {
	o := *m.record.Order
	m.record.Order = nil
	m.answer(o, VerdictStaged, "")
	if m.target.Swap == SwapNone {
		return CheckPassed
	}
	m.record.Fetched = m.record.To
	m.passOver(version(m.record.To), o.Past)
	m.emit(ctx, journal.UpgradeAwaited)
	return UpgradeAwaited
}

// fetched is the release that waits, if it still does.
func (m *machine) fetched() (store.Release, bool) {
	staged, ok, err := m.store.Link(store.Staged)
	return staged, err == nil && ok && staged.Name == m.record.Fetched
}

// apply begins an upgrade to what is staged. The source is not asked: it was when
// the release came, and signatures and digest held.
func (m *machine) apply(ctx context.Context, o Order, current store.Release, has bool, to store.Release) (Event, error) {
	digest, err := m.store.Digest(to)
	if err != nil {
		return "", err
	}
	why, err := m.unfit(ctx, &o, fetcher.Candidate{Version: versionOf(to), Name: to.Name, Digest: digest}, current, has)
	if err != nil {
		return "", err
	}
	if why != "" {
		m.refuseOrder(ctx, o, "%s: %s", to.Version, why)
		return "", nil
	}
	m.begin(current, has, to, digest)
	m.offline = true
	o.Past = m.record.Past
	m.record.Order = &o
	return UpgradeOrdered, nil
}

// settleOrder answers an order to fetch for which there is nothing to do, and
// tells whether c is to be fetched.
func (m *machine) settleOrder(ctx context.Context, o Order, c fetcher.Candidate, found bool, current store.Release, has bool) bool {
	held, waits := release(m.record.To)
	if m.state != Held {
		held, waits = m.fetched()
	}
	switch {
	case m.answered: // why not
	case found && !(waits && c.HasDigest() && held.Digest12 == store.Digest(c.Digest).Short()):
		return true
	case waits && (found || o.Version == ""):
		m.answer(o, VerdictStaged, "")
	case has:
		m.answer(o, "", fmt.Sprintf("the source offers nothing newer than %s that may be taken", current.Version))
	default:
		m.answer(o, "", "the source offers nothing that may be taken")
	}
	m.ordered = nil
	return false
}

// consultGiven looks at the files of an import, which is a source like any other,
// of the same keys and limits. What is wrong with it ends the order: it would be
// as wrong at the next try.
func (m *machine) consultGiven(ctx context.Context, o Order, current store.Release, has bool) (Event, error) {
	err := m.openGiven(o)
	var listing fetcher.Listing
	if err == nil {
		listing, err = m.given.Check(ctx)
	}
	if err != nil {
		return NothingNew, m.importFailed(ctx, o, err)
	}
	m.record.Seen = m.record.Seen.With(listing, m.wall.date())
	c, ok, err := m.choose(ctx, listing, current, has)
	if err != nil {
		return NothingNew, m.importFailed(ctx, o, err)
	}
	if !m.settleOrder(ctx, o, c, ok, current, has) {
		return NothingNew, nil
	}
	m.candidate = c
	return ReleaseFound, nil
}

func (m *machine) openGiven(o Order) error {
	dir, err := m.store.Spool(o.ID)
	if err != nil {
		return err
	}
	from := m.target.Source
	if from.NoManifest {
		return errNoList
	}
	// Whom to trust and what to take is the target's; where and how is not.
	t := *m.target
	t.Source = fetcher.Options{
		Target: from.Target, Path: dir, Patterns: from.Patterns,
		Verify: from.Verify, Keys: from.Keys, RevokedKeys: from.RevokedKeys, Threshold: from.Threshold, MaxAge: from.MaxAge,
		Root: from.Root, Seen: m.record.Seen, SizeMax: from.SizeMax,
	}
	m.dropGiven()
	m.offline = true
	m.given, err = m.newest(&t)
	return err
}

// importFailed ends an import that cannot be carried out.
func (m *machine) importFailed(ctx context.Context, o Order, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var e *fetcher.Error
	if errors.As(err, &e) { // whose source is a directory that nobody knows
		named := *e
		named.Source = "the files given"
		err = &named
	}
	m.refuseOrder(ctx, o, "%s", m.errText(err))
	m.record.Order = nil
	return nil
}

// from is the source of the release on its way.
func (m *machine) from() source {
	if m.given != nil {
		return m.given
	}
	return m.source
}

func (m *machine) dropGiven() {
	if m.given != nil {
		m.given.Close()
		m.given = nil
	}
}

// cleanSpools removes the files of imports that are over, or that nobody ordered
// in the end.
func (m *machine) cleanSpools(ctx context.Context) {
	keep := func(id string) bool {
		var o Order
		_, err := m.store.Order(&o) // an error is for order to tell
		return err == nil && o.ID == id && id != m.record.Answer.ID
	}
	if err := m.store.CleanSpools(keep); err != nil {
		m.log.LogAttrs(ctx, slog.LevelDebug, "clean spools", slog.String("error", m.errText(err)))
	}
}
