package upgrader

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// record is what record.json says: the step about to be taken, and all that
// is needed to finish or revert it. Releases are named as their directories.
type record struct {
	State State     `json:"state"`
	Since time.Time `json:"since"`
	Unit  string    `json:"unit"`
	// Current is the link at the time of writing, to mend it by.
	Current string `json:"current,omitempty"`
	// From serves, To is on its way. Both empty: nothing is on its way.
	From   string `json:"from,omitempty"`
	To     string `json:"to,omitempty"`
	Digest string `json:"digest,omitempty"` // of To
	// Previous is the link before a swap, for its undoing.
	Previous string `json:"previous,omitempty"`
	Swap     Swap   `json:"swap,omitempty"`
	// Invocation and Restarts are the unit's before a swap, and after it
	// while confirming: what changes them meanwhile is not us.
	Invocation string `json:"invocation,omitempty"`
	Restarts   uint32 `json:"restarts,omitempty"`
	// Failures are those of the unit that systemd had told of before a swap.
	Failures string `json:"failures,omitempty"`
	// Dependents were active when the service was last seen to run, by unit, with
	// their invocation then: what a restart of ours takes down of them comes back.
	Dependents map[string]string `json:"dependents,omitempty"`
	// Attempts counts the swaps to Digest that were begun.
	Attempts int `json:"attempts,omitempty"`
	// Down tells that To ended by itself and left the unit inactive, so that
	// a rollback has to start it: nobody stopped it.
	Down bool `json:"down,omitempty"`
	// Reason is why To is being rolled back.
	Reason string `json:"reason,omitempty"`
	// Unproven tells that the rollback is no verdict on To: it is not known bad.
	Unproven bool `json:"unproven,omitempty"`
	// Beside is for how long To serves beside From, nil where it takes its place.
	Beside *besideFor `json:"beside,omitempty"`
	// Order is the operator's that began this, if one did; Answer is that to the
	// last order.
	Order  *Order `json:"order,omitempty"`
	Answer Answer `json:"answer,omitzero"`
	// Answers are those before it, the last one last: who asked looks now and then.
	Answers []Answer `json:"answers,omitempty"`
	// Pin is the one that To was chosen under, if there was one; Hold is how far the
	// time of the hold is.
	Pin  string   `json:"pin,omitempty"`
	Hold *heldFor `json:"hold,omitempty"`
	// Seen is the newest list of the source that was believed.
	Seen fetcher.Seen `json:"seen,omitzero"`
	// Offered are the newest releases that the source listed when it was asked last,
	// nil if it never was. Rotten are releases that were damaged when they were read.
	Offered []Offer  `json:"offered,omitzero"`
	Rotten  []string `json:"rotten,omitempty"`
	// Floor is the newest release that was ever accepted.
	Floor string `json:"floor,omitempty"`
	// Fetched is the release that an order left staged, for an upgrade to apply.
	// It counts while the link staged names it.
	Fetched string `json:"fetched,omitempty"`
	// Proved are the last releases that were good, the newest verdict last: where a
	// rollback may go if what it should return to has rotted.
	Proved []string `json:"proved,omitempty"`
	// Past is the version up to which nothing is taken by itself, since the
	// operator chose another. Empty: the operator did not.
	Past string `json:"past,omitempty"`
	// Trouble is the failure that is being retried, "" if none.
	Trouble string   `json:"trouble,omitempty"`
	Last    *Outcome `json:"last,omitempty"`
	// Attempt is the one under way, or one whose verdict is not in the history
	// yet. Number is that of the last one.
	Attempt *Attempt `json:"attempt,omitempty"`
	Number  int      `json:"number,omitempty"`
	// Totals are nil until something counts.
	Totals *Totals `json:"totals,omitempty"`
}

// Verdict is how an attempt to upgrade ended.
type Verdict string

const (
	VerdictGood         Verdict = "good"            // served for the whole confirm window
	VerdictInstalled    Verdict = "installed"       // the unit does not run; its next start is the test
	VerdictRefused      Verdict = "refused"         // never took traffic
	VerdictRolledBack   Verdict = "rolled-back"     // took traffic, turned bad, was undone
	VerdictStuck        Verdict = "rollback-failed" // turned bad and could not be undone
	VerdictInconclusive Verdict = "inconclusive"    // somebody else acted; neither good nor bad
	VerdictCancelled    Verdict = "cancelled"       // its order was taken back before the swap
	VerdictBeside       Verdict = "beside"          // of an order alone: it serves beside the one before, and waits for an order that decides
	VerdictStaged       Verdict = "staged"          // of an order alone: it is here and verified, and waits for an upgrade
)

// Outcome is the end of the last attempt.
type Outcome struct {
	Verdict Verdict `json:"verdict"`
	// From and To are versions.
	From   string    `json:"from,omitempty"`
	To     string    `json:"to"`
	Digest string    `json:"digest"`
	Reason string    `json:"reason,omitempty"`
	When   time.Time `json:"when"`
}

// save writes the record; it returns when the record is durable. A record
// that did not change is not written again.
func (m *machine) save() error {
	m.record.Unit = m.target.Unit
	if current, ok, err := m.store.Link(store.Current); err == nil && ok {
		m.record.Current = current.Name
	}
	now, err := json.Marshal(m.record)
	if err != nil {
		return fmt.Errorf("save record of %s: %w", m.target.Name, err)
	}
	if string(now) == m.saved {
		return nil
	}
	if err := m.store.SaveRecord(m.record); err != nil {
		m.saved = ""
		return err
	}
	m.saved = string(now)
	return nil
}

// begin notes that candidate c is on its way.
func (m *machine) begin(from store.Release, hasFrom bool, to store.Release, digest store.Digest) {
	r := &m.record
	if r.Digest != digest.String() {
		r.Attempts = 0
	}
	r.From, r.To, r.Digest = "", to.Name, digest.String()
	if hasFrom {
		r.From = from.Name
	}
	r.Previous, r.Swap, r.Invocation, r.Restarts, r.Failures, r.Down, r.Reason, r.Unproven = "", "", "", 0, "", false, "", false
	r.Order, r.Dependents, r.Pin, r.Beside = nil, nil, "", nil
	if p := m.wishes.Pin; p != nil && p.Matches(versionOf(to)) {
		r.Pin = p.Version
	}
	m.beginAttempt()
}

// conclude notes how the attempt ended. The next save makes it durable.
func (m *machine) conclude(v Verdict, reason string) {
	r := &m.record
	r.Last = &Outcome{
		Verdict: v, From: version(r.From), To: version(r.To), Digest: r.Digest,
		Reason: reason, When: m.wall.date(),
	}
	m.concludeAttempt(v, reason)
	judged := v != VerdictInconclusive && v != VerdictCancelled
	if judged {
		r.Attempts = 0
	}
	if v == VerdictGood || v == VerdictInstalled {
		r.accept()
	}
	if judged {
		r.Fetched = "" // staged names another one now, or none
	}
	if v == VerdictGood {
		r.prove()
	}
	if r.Order != nil {
		m.answer(*r.Order, v, reason)
		r.Order = nil
	}
	r.Previous, r.Swap, r.Invocation, r.Restarts, r.Failures, r.Down, r.Reason, r.Unproven = "", "", "", 0, "", false, "", false
	r.Trouble, r.Beside = "", nil
}

// provedMax is how many good releases are remembered; InstancesMax= has few of
// them stay on disk.
const provedMax = 8

// prove remembers that To is good.
func (r *record) prove() {
	all := slices.DeleteFunc(slices.Clone(r.Proved), func(name string) bool { return name == r.To })
	all = append(all, r.To)
	r.Proved = all[max(0, len(all)-provedMax):]
}

// digest is the record's, parsed.
func (r *record) digest() (store.Digest, error) { return store.ParseDigest(r.Digest) }

// release parses a name out of the record.
func release(name string) (store.Release, bool) {
	r, err := store.ParseRelease(name)
	return r, err == nil
}

// version is how people call a release.
func version(name string) string {
	if r, ok := release(name); ok {
		return r.Version
	}
	return name
}

// versionOf is a release's version in the order of versions.
func versionOf(r store.Release) fetcher.Version { return fetcher.Version(r.Version) }
