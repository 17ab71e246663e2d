package upgrader

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/window"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// The wishes of an operator are read at each look, and once more before a swap
// begins. What they forbid:
//
//   - A hold: that an upgrade begins. Nothing is taken by itself, what is on its way
//     stops before its swap and stays staged, and an order to upgrade is refused unless
//     it says that the hold is known. What is on trial comes to its verdict, an order may
//     fetch or import, which moves nothing, and an order may roll back.
//   - A pin: versions that it does not match. A floor, or what was passed over, counts
//     only as far as the pin lets it come into question: who pins 1.4 where 2.0 runs
//     means to go back.
//   - A skip: one version, also by order.

// heldFor is how far the time of a hold is.
type heldFor struct {
	ID   string `json:"id"`
	Sec  int64  `json:"sec,omitempty"`
	Over bool   `json:"over,omitempty"`
}

// ChangeWishes has change change what an operator forbids of a target. It counts when
// this returns; a daemon that is reloaded tells so, and acts on what is not forbidden
// any more.
func ChangeWishes(stateDir, target string, change func(*wish.Wishes) error) error {
	s, err := viewForOrder(stateDir, target)
	if err != nil {
		return err
	}
	return wish.Change(s, change)
}

// Wished reads what an operator forbids of a target. A hold that is over is none.
func Wished(stateDir, target string) (wish.Wishes, error) {
	s, err := viewForOrder(stateDir, target)
	if err != nil {
		return wish.Wishes{}, err
	}
	var r record
	if _, err := s.LoadRecord(&r); err != nil {
		return wish.Wishes{}, err
	}
	return r.wishes(s)
}

// LeadsBack tells whether a pin may lead a target below what it accepted once, as an
// order does that allows a downgrade: it rules out the floor, or what runs or is on its
// way, and not what is older. In doubt it does.
func LeadsBack(stateDir, target string, p wish.Pin) bool {
	s, err := viewForOrder(stateDir, target)
	if err != nil {
		return true
	}
	var r record
	if _, err := s.LoadRecord(&r); err != nil {
		return true
	}
	names := []string{r.Floor, r.Current, r.From, r.To}
	for _, link := range []store.LinkName{store.Current, store.Next} {
		there, _, err := s.Link(link)
		if err != nil {
			return true
		}
		names = append(names, there.Name)
	}
	return slices.ContainsFunc(names, func(name string) bool {
		return name != "" && p.LeadsBelow(fetcher.Version(version(name)))
	})
}

// wishes are those in force.
func (r *record) wishes(s links) (wish.Wishes, error) {
	w, err := wish.Read(s)
	if c := r.Hold; w.Hold != nil && c != nil && c.ID == w.Hold.ID && c.Over {
		w.Hold = nil
	}
	return w, err
}

// heed reads the wishes, tells what is new of them, and ends a hold whose time is
// over.
func (m *machine) heed(ctx context.Context) error {
	w, err := wish.Read(m.store)
	if err != nil {
		return err
	}
	before := m.wishes
	if h := w.Hold; h == nil {
		m.record.Hold = nil
	} else if m.count(*h); m.record.Hold.Over {
		w.Hold = nil
		if before.Hold != nil && before.Hold.ID == h.ID {
			m.emit(ctx, journal.WishEnded, slog.String("wish", h.String()), slog.String("reason", "its time is over"))
			before.Hold = nil
		}
		m.clearHold(ctx, h.ID)
	}
	m.wishes = w
	m.tellWishes(ctx, before, w)
	return nil
}

// count brings the time of a hold up to now. It counts by itself, as that of what is
// known bad: the clock of when it began and the clock of now may both be wrong. It is
// noted now and then, and when the daemon ends.
func (m *machine) count(h wish.Hold) {
	c := m.record.Hold
	if c == nil || c.ID != h.ID {
		c = &heldFor{ID: h.ID}
		m.record.Hold, m.held = c, term{}
	}
	if m.held.since.IsZero() {
		m.held = term{time.Now(), time.Duration(c.Sec) * time.Second}
	}
	if c.Over || h.For() == 0 {
		return
	}
	held := m.held.noted + time.Since(m.held.since)
	c.Over = held >= h.For()
	if held-m.held.noted >= min(h.For()/16, noteMax) {
		m.noteHold()
	}
}

// noteHold has the next record say how far the hold is.
func (m *machine) noteHold() {
	if m.record.Hold == nil || m.held.since.IsZero() {
		return
	}
	held := m.held.noted + time.Since(m.held.since)
	whole := held.Truncate(time.Second)
	m.record.Hold.Sec = int64(whole / time.Second)
	m.held = term{time.Now().Add(whole - held), whole}
}

// endHold notes how far the hold is, for the next process. What was not noted makes
// the hold longer, never shorter.
func (m *machine) endHold() {
	if m.wishes.Hold == nil || m.wishes.Hold.ForSec == 0 {
		return
	}
	m.noteHold()
	var last record // what a step that was cut off had in mind is not to be on disk
	if json.Unmarshal([]byte(m.saved), &last) != nil {
		return
	}
	last.Hold = m.record.Hold
	m.record = last
	if err := m.save(); err != nil {
		m.log.Debug("noting how far the hold is", "error", m.errText(err))
	}
}

// holdLeft is how long the hold lasts from now on, false if until it is taken back.
func (m *machine) holdLeft() (time.Duration, bool) {
	h := m.wishes.Hold
	if h == nil || h.ForSec == 0 || m.held.since.IsZero() {
		return 0, false
	}
	// Not less, so that a file that nobody can read any more does not make us spin.
	return max(h.For()-m.held.noted-time.Since(m.held.since), time.Second), true
}

// clearHold takes a hold that is over out of the file. One that cannot be taken is
// known to be over by the record.
func (m *machine) clearHold(ctx context.Context, id string) {
	err := wish.Change(m.store, func(w *wish.Wishes) error {
		if w.Hold != nil && w.Hold.ID == id {
			w.Hold = nil
		}
		return nil
	})
	if err != nil {
		m.log.DebugContext(ctx, "clear the hold", "error", m.errText(err))
	}
}

// tellWishes says what changed.
func (m *machine) tellWishes(ctx context.Context, before, now wish.Wishes) {
	was, is := lines(before), lines(now)
	for _, mark := range slices.Sorted(maps.Keys(was)) {
		if _, still := is[mark]; !still {
			m.emit(ctx, journal.WishEnded, slog.String("wish", was[mark]), slog.String("reason", "the operator took it back"))
		}
	}
	for _, mark := range slices.Sorted(maps.Keys(is)) {
		if _, known := was[mark]; !known {
			m.emit(ctx, journal.OperatorWished, slog.String("wish", is[mark]))
		}
	}
}

// lines are the wishes in words, by what tells one from the next.
func lines(w wish.Wishes) map[string]string {
	all := map[string]string{}
	if w.Hold != nil {
		all["hold "+w.Hold.ID] = w.Hold.String()
	}
	if w.Pin != nil {
		all[fmt.Sprintf("pin %s %v", w.Pin.Version, w.Pin.When)] = w.Pin.String()
	}
	for _, s := range w.Skips {
		all[fmt.Sprintf("skip %s %v", s.Version, s.When)] = s.String()
	}
	return all
}

// forbidden tells why an upgrade to a version may not begin, "" if it may. o is the
// order to do so, nil where the source offers it.
func (m *machine) forbidden(o *Order, v fetcher.Version) string {
	if why := m.heldBack(o); why != "" {
		return why
	}
	return m.ruledOut(v)
}

// heldBack tells why no upgrade may begin now.
func (m *machine) heldBack(o *Order) string {
	if m.wishes.Hold == nil || o != nil && (o.DespiteHold || o.Verb != OrderUpgrade) {
		return ""
	}
	return fmt.Sprintf("%s; to end that: upgraderd unhold %s; to upgrade all the same: upgraderd upgrade %s --despite-hold", m.wishes.Hold, m.target.Name, m.target.Name)
}

// closed tells that upgrades do not begin by themselves at this hour. It is the wall
// clock's, since nothing else knows the hour. The first release disturbs nobody, and
// what is left to the operator is so at any hour.
func (m *machine) closed() string {
	if _, has, err := m.store.Link(store.Current); err == nil && !has || m.target.Swap == SwapNone {
		return ""
	}
	return closed(m.target, m.wall())
}

func closed(t *Target, now time.Time) string {
	next, closed := window.Closed(t.Windows, now)
	if !closed {
		return ""
	}
	return "outside of Window=, which opens at " + next.Format("Mon 2006-01-02 15:04 MST")
}

// windowGlance is how long a release waits at most before the hour is looked at again:
// the clock may be set.
const windowGlance = 10 * time.Minute

// untilOpen is how long to wait for the next window, if something waits for it.
func (m *machine) untilOpen() (time.Duration, bool) {
	next, closed := window.Closed(m.target.Windows, m.wall())
	if !m.shut || !closed {
		return 0, m.shut
	}
	return min(next.Sub(m.wall()), windowGlance), true
}

// waits tells that a candidate is staged, and may not be swapped in at this hour. One
// that is not here yet is fetched, to be there when a window opens.
func (m *machine) waits(ctx context.Context, c fetcher.Candidate) bool {
	why := m.closed()
	staged, ok, err := m.store.Link(store.Staged)
	if why == "" || err != nil || !ok || versionOf(staged).Compare(c.Version) != 0 ||
		c.HasDigest() && staged.Digest12 != store.Digest(c.Digest).Short() {
		return false
	}
	m.shut = true
	m.forbid(ctx, c.Version, why)
	return true
}

// ruledOut tells why a version does not come into question.
func (m *machine) ruledOut(v fetcher.Version) string {
	if why := m.skips(string(v)); why != "" {
		return why
	}
	if !m.wishes.Allows(v) {
		return fmt.Sprintf("%s is %s; to take that back: upgraderd pin %s --none", m.target.Name, m.wishes.Pin, m.target.Name)
	}
	return ""
}

// skips tells that a version is skipped.
func (m *machine) skips(v string) string {
	s, ok := m.wishes.Skipped(fetcher.Version(v))
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s; to take that back: upgraderd skip %s --none", s, m.target.Name)
}

// forbid says once that something is offered and not taken.
func (m *machine) forbid(ctx context.Context, v fetcher.Version, why string) {
	m.once(ctx, "forbidden "+string(v)+" "+why, journal.ReleaseForbidden, slog.String("to", string(v)), slog.String("reason", why))
}

// goOn lets a release that passed its check to its swap, unless that was forbidden
// while it was on its way. It stays staged then, and is found again.
func (m *machine) goOn(ctx context.Context) (Event, error) {
	o := m.record.Order
	if err := m.heed(ctx); err != nil {
		m.trouble(ctx, journal.StepFailed, err)
		m.retryAfter(m.pause.next(0))
		return UpgradeForbidden, err
	}
	to := fetcher.Version(version(m.record.To))
	why := m.forbidden(o, to)
	if why == "" && o == nil {
		if late := m.closed(); late != "" { // the attempt goes on when a window opens
			m.shut = true
			m.forbid(ctx, to, late)
			return UpgradeForbidden, nil
		}
	}
	if why == "" {
		return CheckPassed, nil
	}
	m.forbid(ctx, to, why)
	m.conclude(VerdictInconclusive, "forbidden on its way: "+why)
	if o != nil {
		m.refuseOrder(ctx, *o, "%s", why)
	}
	return UpgradeForbidden, nil
}

// mayGoOn tells whether what waits in Held may be swapped.
func (m *machine) mayGoOn(ctx context.Context) (bool, error) {
	if err := m.heed(ctx); err != nil {
		m.trouble(ctx, journal.StepFailed, err)
		return false, err
	}
	if m.target.Swap == SwapNone {
		return false, nil
	}
	to := fetcher.Version(version(m.record.To))
	why := m.forbidden(m.record.Order, to)
	if why == "" && m.record.Order == nil {
		why = m.closed()
	}
	if why != "" {
		m.forbid(ctx, to, why)
	}
	return why == "", nil
}
