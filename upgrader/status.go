package upgrader

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/progress"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// TargetStatus is what there is to know about a target, whether the daemon
// runs or not. Its JSON form is what `upgraderd status --json` prints.
type TargetStatus struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Swap is how the last swap was done, or what the target asks for.
	Swap  Swap  `json:"swap"`
	State State `json:"state"`
	// Since is when State began.
	Since time.Time `json:"since,omitzero"`
	// Current and so on are release names, "" if there is no such link.
	Current  string `json:"current,omitempty"`
	Next     string `json:"next,omitempty"`
	Previous string `json:"previous,omitempty"`
	Staged   string `json:"staged,omitempty"`
	// Beside is the release that serves beside Current, nil where none does.
	Beside *BesideRelease `json:"beside,omitempty"`
	// Serving is the release that the unit's supervisor named last; only the
	// daemon knows it.
	Serving string `json:"serving,omitempty"`
	// To is the release on its way, if State is not idle.
	To string `json:"to,omitempty"`
	// Fetched is the release that is staged by an order, and waits for one to
	// upgrade.
	Fetched string `json:"fetched,omitempty"`
	// Waits tells for which hour the release that is staged waits.
	Waits string `json:"waits,omitempty"`
	// Progress is how far the transfer is, where one takes longer than a second.
	Progress *progress.Progress `json:"progress,omitempty"`
	// Last is how the last attempt ended.
	Last *Outcome `json:"last,omitempty"`
	// Trouble is a failure that is being retried.
	Trouble string `json:"trouble,omitempty"`
	// Checked is when the source answered last, to the minute where the daemon is
	// not asked.
	Checked  time.Time  `json:"checked,omitzero"`
	KnownBad []KnownBad `json:"known_bad,omitempty"`
	// Hold, Pin and Skips are what the operator forbids.
	Hold  *Hold       `json:"hold,omitempty"`
	Pin   *wish.Pin   `json:"pin,omitempty"`
	Skips []wish.Skip `json:"skips,omitempty"`
	// Order is the operator's that is carried out or waits, nil if there is none, and
	// Begun tells that it is carried out. Answer is how the last one ended.
	Order  *Order `json:"order,omitempty"`
	Begun  bool   `json:"order_begun,omitempty"`
	Answer Answer `json:"answer,omitzero"`
	// Unsigned is a source that nobody signs for (Verify=no).
	Unsigned bool `json:"unsigned,omitempty"`
	// PollIntervalSec is the longest time between two looks at the source, but for
	// RandomizedDelaySec=.
	PollIntervalSec float64 `json:"poll_interval_sec,omitempty"`
	// Totals count over all attempts.
	Totals Totals `json:"totals,omitzero"`
}

// KnownBad is a digest that is not tried again.
type KnownBad struct {
	Digest  string    `json:"digest"`
	Version string    `json:"version,omitempty"`
	Reason  string    `json:"reason"`
	When    time.Time `json:"when"`
}

// Hold is a hold, and for how many seconds it lasts still: zero, if until it is taken
// back.
type Hold struct {
	wish.Hold
	LeftSec int64 `json:"left_sec,omitempty"`
}

// ReadStatus reads the status of targets from disk. It needs no daemon, takes
// no lock and changes nothing; what cannot be read stands in Trouble.
func ReadStatus(stateDir string, targets []*Target) []TargetStatus {
	all := make([]TargetStatus, 0, len(targets))
	for _, t := range targets {
		all = append(all, readStatus(stateDir, t))
	}
	return all
}

func readStatus(stateDir string, t *Target) TargetStatus {
	blank := TargetStatus{Name: t.Name, Unit: t.Unit, Swap: t.Swap, State: Idle, Unsigned: unsigned(t)}
	s, err := store.View(filepath.Join(stateDir, t.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return blank
	}
	if err != nil {
		blank.Trouble = err.Error()
		return blank
	}
	var r record
	if _, err := s.LoadRecord(&r); err != nil {
		st := describe(s, t, record{State: Idle})
		st.Trouble = err.Error()
		return st
	}
	if r.State == "" {
		r.State = Idle
	}
	if r.Totals == nil {
		var h history
		if ok, err := s.LoadHistory(&h); ok && err == nil {
			r.Totals = h.totals()
		}
	}
	st := describe(s, t, r)
	if st.Order == nil {
		st.Order = waiting(s, r)
	}
	var l look
	if ok, err := s.Look(&l); err == nil && ok {
		st.Checked = l.Answered
	}
	var now transfer
	if ok, err := s.Progress(&now); err == nil && ok && r.State == Fetching && now.Digest == r.Digest {
		st.Progress = &now.Progress
	}
	return st
}

// describe joins record and listing.
func describe(s links, t *Target, r record) TargetStatus {
	st := TargetStatus{
		Name: t.Name, Unit: t.Unit, Swap: t.Swap, State: r.State, Since: r.Since,
		Last: r.Last, Trouble: r.Trouble, Unsigned: unsigned(t), Answer: r.Answer,
		PollIntervalSec: cmp.Or(t.Source.PollInterval, fetcher.PollIntervalDefault).Seconds(),
		Totals:          r.Totals.clone(),
	}
	// One that was begun and is not carried out was cut off, and will be begun again.
	if o := r.Order; o != nil && r.State != Idle && r.State != Recovering {
		begun := *o // the machine goes on with its own
		st.Order, st.Begun = &begun, true
	}
	if r.Swap != "" {
		st.Swap = r.Swap
	}
	if r.State != Idle {
		st.To = r.To
	}
	if b := r.Beside; b != nil && r.State == Beside {
		st.Beside = &BesideRelease{r.To, max(b.ForSec-b.Sec, 0)}
	}
	var errs []error
	for which, field := range map[store.LinkName]*string{
		store.Current: &st.Current, store.Next: &st.Next, store.Previous: &st.Previous, store.Staged: &st.Staged,
	} {
		link, _, err := s.Link(which)
		if err != nil {
			errs = append(errs, err)
		}
		*field = link.Name
	}
	if r.Fetched != "" && st.Staged == r.Fetched {
		st.Fetched = r.Fetched
	}
	if st.State == Idle && st.Staged != "" && st.Staged != st.Current && st.Fetched == "" {
		st.Waits = closed(t, time.Now())
	}
	digests, err := s.KnownBad()
	if err != nil {
		errs = append(errs, err)
	}
	for _, d := range digests {
		bad, ok, err := s.Bad(d)
		if err != nil || !ok {
			continue // forgiven this moment
		}
		st.KnownBad = append(st.KnownBad, KnownBad{Digest: hex.EncodeToString(d[:]), Version: bad.Version, Reason: bad.Reason, When: bad.When})
	}
	w, err := r.wishes(s)
	if err != nil {
		errs = append(errs, err)
	}
	st.Pin, st.Skips = w.Pin, w.Skips
	if h := w.Hold; h != nil {
		st.Hold = &Hold{*h, h.ForSec}
		if c := r.Hold; c != nil && c.ID == h.ID {
			st.Hold.LeftSec = max(h.ForSec-c.Sec, 0)
		}
	}
	slices.SortFunc(st.KnownBad, func(a, b KnownBad) int { return a.When.Compare(b.When) })
	if err := errors.Join(errs...); err != nil && st.Trouble == "" {
		st.Trouble = err.Error()
	}
	return st
}

// waiting is the order that is on disk and was not begun, nil if there is none. One
// that cannot be read is for the machine to tell.
func waiting(s *store.Store, r record) *Order {
	var o Order
	if ok, err := s.Order(&o); err != nil || !ok || o.check() != nil || o.ID == r.Answer.ID {
		return nil
	}
	return &o
}

func unsigned(t *Target) bool { return t.Source.Verify == "no" }

// report publishes the machine's status to whoever asks the daemon.
func (m *machine) report() {
	r := m.record
	r.State = m.state
	st := describe(m.store, m.target, r)
	st.Serving, st.Checked = m.serving, m.checked
	if o := m.wanted; o != nil && st.Order == nil && o.ID != r.Answer.ID {
		waits := *o
		st.Order = &waits
	}
	m.reported = st
	m.publish(st)
}

// summary is the daemon's STATUS= line: "3 targets: 2 up to date, 1
// confirming 1.5.0".
func summary(all []TargetStatus) string {
	counts := map[string]int{}
	for _, st := range all {
		counts[brief(st)]++
	}
	parts := make([]string, 0, len(counts))
	if n := counts[upToDate]; n > 0 { // what is well comes first
		parts = append(parts, fmt.Sprintf("%d %s", n, upToDate))
		delete(counts, upToDate)
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[what], what))
	}
	noun := "targets"
	if len(all) == 1 {
		noun = "target"
	}
	if len(parts) == 0 {
		return "0 targets"
	}
	return fmt.Sprintf("%d %s: %s", len(all), noun, strings.Join(parts, ", "))
}

const upToDate = "up to date"

// brief is a target in two or three words.
func brief(st TargetStatus) string {
	switch {
	case st.State == Held:
		return "waiting for the operator with " + version(st.To)
	case st.State == Fetching && st.Progress != nil:
		if percent, ok := st.Progress.Percent(); ok {
			return fmt.Sprintf("fetching %s (%d %%)", version(st.To), percent)
		}
		return "fetching " + version(st.To)
	case st.State != Idle && st.State != Recovering && st.To != "":
		return string(st.State) + " " + version(st.To)
	case st.Last != nil && st.Last.Verdict == VerdictStuck:
		return "stuck after a failed rollback"
	case st.Trouble != "":
		return "in trouble"
	case st.State == Recovering:
		return "starting"
	case st.Hold != nil:
		return "held"
	case st.Fetched != "":
		return "waiting for the operator with " + version(st.Fetched)
	case st.Current == "":
		return "without a release"
	}
	return upToDate
}
