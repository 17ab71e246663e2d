package upgrader

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// OrderVerb is what an operator can ask for.
type OrderVerb string

const (
	OrderFetch    OrderVerb = "fetch"    // bring a release here and leave it staged
	OrderImport   OrderVerb = "import"   // the same, from files that the operator gave
	OrderUpgrade  OrderVerb = "upgrade"  // swap to what is fetched, or look at the source now; to Version, if one is named
	OrderConfirm  OrderVerb = "confirm"  // keep the release that serves beside the one before
	OrderRollback OrderVerb = "rollback" // go back to a release that is on disk
)

// Order is what an operator asks of one target. It lies in the target's
// directory until there is an answer, so it outlives the daemon, and a reboot.
// A later one takes the place of one that was not begun.
type Order struct {
	// ID tells one order from the next; Place makes one.
	ID   string    `json:"id"`
	Verb OrderVerb `json:"verb"`
	// Version to move to. Empty: the newest, or the release before.
	Version string `json:"version,omitempty"`
	// File is the artifact's name, of an import. Its files lie in the spool of
	// the order's ID.
	File string `json:"file,omitempty"`
	// AllowDowngrade lets an upgrade lead below what was accepted before, and
	// lowers the floor to where it led.
	AllowDowngrade bool `json:"allow_downgrade,omitempty"`
	// DespiteHold lets an upgrade begin although upgrades are held.
	DespiteHold bool `json:"despite_hold,omitempty"`
	// BesideSec has an upgrade end with the release serving beside the one before, for
	// so many seconds at most; an order to confirm or to roll back decides. Zero: it
	// takes its place.
	BesideSec int64 `json:"beside_sec,omitempty"`
	// Past is the newest version that the order passed over: what was left, or
	// what the source offered beside.
	Past string    `json:"past,omitempty"`
	When time.Time `json:"when"`
}

// String is the order in words, as the journal has it.
func (o Order) String() string {
	if o.DespiteHold {
		o.DespiteHold = false
		return o.String() + ", despite the hold"
	}
	if o.BesideSec > 0 {
		o.BesideSec = 0
		return o.String() + ", beside what serves"
	}
	switch {
	case o.Verb == OrderImport:
		return "import " + o.File
	case o.Verb == OrderFetch && o.Version == "":
		return "fetch now"
	case o.Verb == OrderFetch:
		return "fetch " + o.Version
	case o.Verb == OrderConfirm && o.Version == "":
		return "confirm"
	case o.Verb == OrderConfirm:
		return "confirm " + o.Version
	case o.Verb == OrderRollback && o.Version == "":
		return "roll back"
	case o.Verb == OrderRollback:
		return "roll back to " + o.Version
	case o.Version == "":
		return "upgrade now"
	case o.AllowDowngrade:
		return "move to " + o.Version + ", be it older or not"
	}
	return "upgrade to " + o.Version
}

// Answer is how an order ended. The zero Answer is that of no order.
type Answer struct {
	ID      string  `json:"id"`
	Verdict Verdict `json:"verdict,omitempty"` // empty: there was nothing to do
	Reason  string  `json:"reason,omitempty"`
}

// stages tells an order that ends with a release staged.
func (o *Order) stages() bool {
	return o != nil && (o.Verb == OrderFetch || o.Verb == OrderImport)
}

// seeksNewest tells an order to upgrade to whatever is newest.
func (o *Order) seeksNewest() bool { return o != nil && o.Verb == OrderUpgrade && o.Version == "" }

// check refuses what is no order.
func (o Order) check() error {
	switch {
	case o.ID == "" || !slices.Contains([]OrderVerb{OrderFetch, OrderImport, OrderUpgrade, OrderConfirm, OrderRollback}, o.Verb):
		return fmt.Errorf("order %q is none of fetch, import, upgrade, confirm and rollback", o.Verb)
	case o.BesideSec != 0 && (o.Verb != OrderUpgrade || o.besideTime() < BesideMin || o.besideTime() > BesideMax):
		return fmt.Errorf("order to %s beside for %d s: only an upgrade has a release serve beside another, for %s to %s", o.Verb, o.BesideSec, BesideMin, BesideMax)
	case o.Verb == OrderImport && (o.File == "" || o.File != filepath.Base(o.File)):
		return fmt.Errorf("order to import %q names no file", o.File)
	case o.Verb == OrderImport:
		if err := store.CheckSpoolID(o.ID); err != nil {
			return err
		}
	}
	if o.Version == "" {
		return nil
	}
	_, err := fetcher.ParseVersion(o.Version)
	return err
}

// Place leaves an order for the daemon, which looks when it is reloaded or
// starts, and returns its ID. The target must have a store, and the caller the
// right to write there.
func Place(stateDir, target string, o Order) (id string, err error) {
	o.ID = rand.Text()
	if err := o.check(); err != nil {
		return "", err
	}
	s, err := viewForOrder(stateDir, target)
	if err != nil {
		return "", err
	}
	return o.ID, o.place(s)
}

func viewForOrder(stateDir, target string) (*store.Store, error) {
	s, err := store.View(filepath.Join(stateDir, target))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, advice.Give(fmt.Errorf("%s has no release yet", target), "the first one comes by itself once upgraderd.service runs")
	}
	return s, err
}

func (o Order) place(s *store.Store) error {
	o.When = time.Now().UTC()
	return s.PlaceOrder(o)
}

// WantedUndone is the reason of a release that an order undid while it was on
// trial.
const WantedUndone = "the operator wants it undone"

// Ordered reports whether an order is still there.
func Ordered(stateDir, target, id string) (bool, error) {
	s, err := store.View(filepath.Join(stateDir, target))
	if err != nil {
		return false, err
	}
	var o Order
	ok, err := s.Order(&o)
	return ok && o.ID == id, err
}

// Stands reports whether an order waits or is carried out, also where a later one has
// taken its place on disk meanwhile; and how it ended, if it has. It may be neither.
func Stands(stateDir, target, id string) (a Answer, answered, stands bool, err error) {
	s, err := store.View(filepath.Join(stateDir, target))
	if err != nil {
		return Answer{}, false, false, err
	}
	for range 2 { // it may be answered, and go, between the two files
		var r record
		if _, err := s.LoadRecord(&r); err != nil {
			return Answer{}, false, false, err
		}
		if a, ok := r.answerTo(id); ok {
			return a, true, false, nil
		}
		if r.Order != nil && r.Order.ID == id {
			return Answer{}, false, true, nil
		}
		var o Order
		if ok, err := s.Order(&o); err == nil && ok && o.ID == id {
			return Answer{}, false, true, nil
		}
	}
	return Answer{}, false, false, nil
}

// order reads what the operator wants, if that is still to be done. What cannot
// be an order is told and thrown away.
func (m *machine) order(ctx context.Context) (Order, bool, error) {
	var o Order
	ok, err := m.store.Order(&o)
	if err == nil && ok {
		err = o.check()
	}
	if err != nil {
		m.emit(ctx, journal.OrderRefused, slog.String("order", "do what is in order.json"), slog.String("reason", m.errText(err)))
		return Order{}, false, m.store.ClearOrder(func(data []byte) bool {
			var o Order
			return json.Unmarshal(data, &o) != nil || o.check() != nil
		})
	}
	if !ok {
		return Order{}, false, nil
	}
	if o.ID == m.record.Answer.ID { // the answer was on disk before the order went
		return Order{}, false, m.store.ClearOrder(func(data []byte) bool {
			var now Order
			return json.Unmarshal(data, &now) == nil && now.ID == o.ID
		})
	}
	m.once(ctx, "order "+o.ID, journal.OperatorOrdered, slog.String("order", o.String()))
	return o, true, nil
}

// answer ends an order. It is on disk with the next record.
func (m *machine) answer(o Order, v Verdict, reason string) {
	r := &m.record
	if r.Answer.ID != "" && r.Answer.ID != o.ID {
		r.Answers = append(r.Answers, r.Answer)
		r.Answers = r.Answers[max(0, len(r.Answers)-answersMax):]
	}
	r.Answer = Answer{ID: o.ID, Verdict: v, Reason: reason}
	m.answered = true
}

// answersMax is how many orders may be answered before who gave the first one has
// looked for its answer.
const answersMax = 8

// answerTo finds the answer to an order.
func (r *record) answerTo(id string) (Answer, bool) {
	for _, a := range append(slices.Clip(r.Answers), r.Answer) {
		if a.ID == id && id != "" {
			return a, true
		}
	}
	return Answer{}, false
}

// clearOrder removes an order whose answer is on disk. A new one stays, and one
// that cannot be removed is known by its answer.
func (m *machine) clearOrder(ctx context.Context) {
	if !m.answered {
		return
	}
	m.answered = false
	if _, ok, err := m.order(ctx); err != nil {
		m.log.DebugContext(ctx, "clear the order", "error", m.errText(err))
	} else if ok {
		m.lookNow = true
	}
}

// refuseOrder tells why an order is not carried out.
func (m *machine) refuseOrder(ctx context.Context, o Order, format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	m.emit(ctx, journal.OrderRefused, slog.String("order", o.String()), slog.String("reason", why))
	m.answer(o, VerdictRefused, why)
}

// obey begins what was ordered, where all that it needs is on disk: a rollback, or
// an upgrade to what was fetched. The event is empty where it is not, and the rest
// is for choose to take.
func (m *machine) obey(ctx context.Context, current store.Release, has bool) (Event, error) {
	o, ok, err := m.toSwap(ctx)
	if err == nil && m.answered { // it was taken back; what the source has can wait
		return NothingNew, nil
	}
	if err != nil || !ok {
		return "", err
	}
	switch {
	case m.heldBack(&o) != "":
		m.refuseOrder(ctx, o, "%s", m.heldBack(&o))
	case o.Verb == OrderUpgrade:
		if to, ok := m.fetched(); ok && (o.Version == "" || o.Version == to.Version) {
			return m.apply(ctx, o, current, has, to)
		}
		m.wanted = &o
		m.pause.reset()
	case !has:
		m.refuseOrder(ctx, o, "no release is installed")
	case o.Version != "" && m.skips(o.Version) != "":
		m.refuseOrder(ctx, o, "%s", m.skips(o.Version))
	default:
		to, ok, err := m.earlier(o, current)
		if err != nil {
			return "", err
		}
		if !ok {
			m.refuseOrder(ctx, o, "no other release that it could be is on disk; move to one that the source has: upgraderd upgrade %s VERSION --allow-downgrade", m.target.Name)
			return "", nil
		}
		return m.goTo(ctx, o, current, to)
	}
	return "", nil
}

// toSwap gives an order that is about the unit. One to fetch or to import is for
// the look that follows.
func (m *machine) toSwap(ctx context.Context) (Order, bool, error) {
	m.wanted = nil
	o, ok, err := m.order(ctx)
	if ok && m.tookBack(o) {
		m.emit(ctx, journal.OrderTakenBack, slog.String("order", o.String()))
		if o.Verb != OrderRollback && slices.ContainsFunc(m.record.Offered, func(f Offer) bool { return f.Version == o.Version }) {
			m.passOver(o.Version)
		}
		m.answer(o, VerdictCancelled, WantedBack)
		return Order{}, false, nil
	}
	if ok {
		why := ""
		switch {
		case o.Verb == OrderConfirm:
			why = "no two releases serve beside each other"
		case o.besideTime() > 0:
			why = m.noBeside(ctx)
		}
		if why != "" {
			m.refuseOrder(ctx, o, "%s", why)
			return Order{}, false, nil
		}
	}
	if ok && m.state == Idle && m.record.Order != nil && m.record.Order.ID != o.ID {
		m.record.Order = nil // what failed on its way has had another take its place
	}
	if err != nil || !ok || !o.stages() {
		return o, ok, err
	}
	m.wanted = &o
	m.pause.reset()
	return Order{}, false, nil
}

// wayBack tells of an order to roll back, which goes through where nobody can read what
// is forbidden: of what was known last a skip alone stands in its way.
func (m *machine) wayBack(ctx context.Context) bool {
	o, ok, err := m.order(ctx)
	return err == nil && ok && o.Verb == OrderRollback
}

// earlier is the release on disk that a rollback leads to: that of the version
// named; or the one before this; or the newest that is older.
func (m *machine) earlier(o Order, current store.Release) (store.Release, bool, error) {
	if o.Version == "" {
		if r, ok, err := m.store.Link(store.Previous); err != nil || ok && r != current && m.skips(r.Version) == "" {
			return r, ok, err
		}
	}
	all, err := m.store.Releases()
	if err != nil {
		return store.Release{}, false, err
	}
	slices.SortFunc(all, func(a, b store.Release) int {
		return cmp.Or(versionOf(b).Compare(versionOf(a)), cmp.Compare(a.Name, b.Name))
	})
	for _, r := range all {
		if r == current || o.Version != "" && r.Version != o.Version || m.skips(r.Version) != "" ||
			o.Version == "" && versionOf(r).Compare(versionOf(current)) >= 0 {
			continue
		}
		switch bad, err := m.isBad(r); {
		case err != nil:
			return store.Release{}, false, err
		case !bad:
			return r, true, nil
		}
	}
	return store.Release{}, false, nil
}

// goTo has a release that is on disk swapped in.
func (m *machine) goTo(ctx context.Context, o Order, current, to store.Release) (Event, error) {
	digest, err := m.store.Digest(to)
	if err != nil {
		return "", err
	}
	if err := m.store.SetLink(store.Staged, to); err != nil {
		return "", err
	}
	m.begin(current, true, to, digest)
	m.offline = true
	o.Past = current.Version
	m.record.Order = &o
	return RollbackOrdered, nil
}

// pick is choose for a version that the operator named: the candidate, or the
// reason why not.
func (m *machine) pick(ctx context.Context, o *Order, all []fetcher.Candidate, current store.Release, has bool) (fetcher.Candidate, string, error) {
	none := fetcher.Candidate{}
	i := slices.IndexFunc(all, func(c fetcher.Candidate) bool {
		return o.Verb == OrderImport && c.Name == o.File || o.Verb != OrderImport && string(c.Version) == o.Version
	})
	switch {
	case i < 0 && o.Verb == OrderImport:
		return none, fmt.Sprintf("the list that came with it does not name %s; import the list of releases that does, with its signature", o.File), nil
	case i < 0:
		return none, fmt.Sprintf("the source does not offer %s; to go back to one that is on disk: upgraderd rollback %s VERSION", o.Version, m.target.Name), nil
	}
	c := all[i]
	if some := slices.DeleteFunc(slices.Clone(all), func(c fetcher.Candidate) bool { return !m.wishes.Allows(c.Version) }); len(some) > 0 {
		o.Past = string(some[0].Version) // what the pin rules out is not passed over
	}
	why, err := m.unfit(ctx, o, c, current, has)
	return c, why, err
}

// unfit tells why an order cannot lead to a release, "" if it can.
func (m *machine) unfit(ctx context.Context, o *Order, c fetcher.Candidate, current store.Release, has bool) (string, error) {
	if has && c.Version.Compare(versionOf(current)) == 0 {
		return fmt.Sprintf("%s is installed", current.Version), nil
	}
	if min := m.target.MinVersion; min != "" && c.Version.Compare(min) < 0 {
		return fmt.Sprintf("it is older than MinVersion=%s", min), nil
	}
	if why := m.ruledOut(c.Version); why != "" {
		return why, nil
	}
	if f, ok := m.floor(current, has); ok && c.Version.Compare(versionOf(f)) < 0 && !o.AllowDowngrade {
		if o.stages() {
			return fmt.Sprintf("it is older than %s, which was accepted before; see upgraderd rollback and upgraderd upgrade --allow-downgrade", f.Version), nil
		}
		return fmt.Sprintf("it is older than %s, which was accepted before; if that is meant: --allow-downgrade", f.Version), nil
	}
	bad, isBad, err := m.knownBad(ctx, c)
	if isBad {
		return fmt.Sprintf("it is known bad: %s; if it is to be tried again: upgraderd forgive %s", bad.Reason, m.target.Name), err
	}
	return "", err
}

// stopped reports that the operator wants the release on trial undone. The order
// is answered with it where it leads to what a rollback returns to.
func (m *machine) stopped(ctx context.Context) bool {
	o, ok, err := m.order(ctx)
	if ok && o.Verb == OrderConfirm && m.state == Confirming {
		m.refuseOrder(ctx, o, "it serves alone, and its trial comes to its verdict by itself")
		if err := m.save(); err == nil {
			m.clearOrder(ctx)
		}
	}
	if err != nil || !ok || o.Verb != OrderRollback || m.tookBack(o) || m.record.Order != nil && m.record.Order.ID == o.ID {
		return false // an upgrade waits its turn, and this may be the order's own trial
	}
	if o.Version == "" || o.Version == version(m.record.From) {
		m.record.Order = &o
		return true
	}
	to, _ := release(m.record.To)
	if _, there, err := m.earlier(o, to); err != nil || there {
		return there && err == nil
	}
	m.refuseOrder(ctx, o, "no other release that it could be is on disk")
	_ = m.save() // else with the verdict
	return false
}
