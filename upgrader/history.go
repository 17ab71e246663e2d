package upgrader

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// historyLength is how many attempts are remembered, and reasonMax how many
// bytes of each one's reason: together less than the store keeps, but where JSON
// writes six bytes for one.
const (
	historyLength = 200
	reasonMax     = 1 << 10
)

// Attempt is one upgrade or ordered rollback, from the decision to the verdict.
// An upgrade that is retried is the same attempt. Its JSON form is what
// `upgraderd history --json` prints.
type Attempt struct {
	// Number tells attempts of one target apart, and grows.
	Number int `json:"number"`
	// Asked is the operator's order in words, "" where the source offered.
	Asked string `json:"asked,omitempty"`
	// From and To are versions, From "" where nothing was installed.
	From   string `json:"from,omitempty"`
	To     string `json:"to"`
	Digest string `json:"digest"` // of To
	// Swap is how the unit was moved, "" where it never was.
	Swap Swap `json:"swap,omitempty"`
	// Began and Ended are by this host's clock, which may have been wrong.
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
	// Phases are in their order. Their times are not by the wall clock.
	Phases []Phase `json:"phases,omitempty"`
	// Handover is nil where there was none, or its supervisor is too old to tell.
	Handover *Handover `json:"handover,omitempty"`
	// AnsweredUs is when the first probe went well, since the attempt began; 0 if
	// none did, or nothing was to be asked.
	AnsweredUs int64 `json:"answered_us,omitempty"`
	// Invocation is the unit's INVOCATION_ID while To was judged.
	Invocation string `json:"invocation,omitempty"`
	// Verdict is "" while the attempt is under way.
	Verdict Verdict `json:"verdict,omitempty"`
	Reason  string  `json:"reason,omitempty"`
}

// Phase is one state that an attempt was in. What a killed daemon had not noted
// is missing from it.
type Phase struct {
	State  State `json:"state"`
	TookUs int64 `json:"took_us"`
}

// Took is how long the phase lasted: never less than nothing, nor more than what
// the phases of an attempt can have together.
func (p Phase) Took() time.Duration {
	most := math.MaxInt64 / int64(time.Microsecond) / int64(len(steps()))
	return time.Duration(min(max(p.TookUs, 0), most)) * time.Microsecond
}

// history is what history.json says.
type history struct {
	Attempts []Attempt `json:"attempts"`
}

// History reads the attempts of a target that are remembered, oldest first, and
// the one under way behind them. It needs no daemon, takes no lock and changes
// nothing.
func History(stateDir, target string) ([]Attempt, error) {
	s, err := store.View(filepath.Join(stateDir, target))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r record
	if _, err := s.LoadRecord(&r); err != nil {
		return nil, err
	}
	var h history
	if _, err := s.LoadHistory(&h); err != nil {
		return nil, err
	}
	if r.Attempt != nil {
		h.add(*r.Attempt)
	}
	for i := range h.Attempts { // one of each state, whoever wrote the file
		a := &h.Attempts[i]
		a.Phases = a.Phases[:min(len(a.Phases), len(steps()))]
	}
	return h.Attempts, nil
}

// add puts a in its place: one of the same number is the same.
func (h *history) add(a Attempt) {
	h.Attempts = slices.DeleteFunc(h.Attempts, func(b Attempt) bool { return b.Number == a.Number })
	h.Attempts = append(h.Attempts, a)
	h.Attempts = h.Attempts[max(0, len(h.Attempts)-historyLength):]
}

// beginAttempt notes that To of the record is on its way, unless it was already.
func (m *machine) beginAttempt() {
	r := &m.record
	if a := r.Attempt; a != nil && a.Verdict == "" && a.Digest == r.Digest {
		return
	}
	if r.Number == 0 { // the first, or the record was lost
		var h history
		if _, err := m.store.LoadHistory(&h); err == nil && len(h.Attempts) > 0 {
			r.Number = h.Attempts[len(h.Attempts)-1].Number
		}
	}
	r.Number++
	r.Attempt = &Attempt{Number: r.Number, To: version(r.To), From: version(r.From), Digest: r.Digest, Began: m.wall.date()}
	m.entered = time.Now()
}

// concludeAttempt notes the verdict. The record holds it until the history does.
func (m *machine) concludeAttempt(v Verdict, reason string) {
	r := &m.record
	if r.Attempt == nil {
		return
	}
	m.totals().ended(v)
	a := r.Attempt
	a.Verdict, a.Ended, a.Swap, a.Invocation = v, m.wall.date(), r.Swap, r.Invocation
	if v == VerdictInstalled {
		a.Swap = "" // the unit did not run
	}
	a.Reason = strings.ToValidUTF8(reason[:min(len(reason), reasonMax)], "")
	switch {
	case a.Asked != "": // what decided is the verdict
	case r.Order != nil:
		a.Asked = r.Order.String()
	case r.Pin != "" && fetcher.Version(a.To).Compare(fetcher.Version(a.From)) < 0:
		a.Asked = "pin to " + r.Pin
	}
}

// pass adds the time since the state was entered to its phase.
func (m *machine) pass() {
	now := time.Now()
	took := now.Sub(m.entered)
	m.entered = now
	a := m.record.Attempt
	if a == nil || m.state == Idle {
		return
	}
	i := slices.IndexFunc(a.Phases, func(p Phase) bool { return p.State == m.state })
	if i < 0 {
		i, a.Phases = len(a.Phases), append(a.Phases, Phase{State: m.state})
	}
	a.Phases[i].TookUs += took.Microseconds()
}

// remember moves an attempt with a verdict from the record, where that is durable,
// to the history. Where it cannot, it stays, and the next time comes: no upgrade
// fails for what is only told.
func (m *machine) remember(ctx context.Context) {
	a := m.record.Attempt
	if a == nil || a.Verdict == "" {
		return
	}
	var h history
	if _, err := m.store.LoadHistory(&h); err != nil {
		m.log.WarnContext(ctx, "the history cannot be read and begins anew", "error", m.errText(err))
		h = history{}
	}
	h.add(*a)
	err := m.store.SaveHistory(h)
	for ; reason.Of(err) == store.CodeRecordTooLarge && len(h.Attempts) > 1; err = m.store.SaveHistory(h) {
		h.Attempts = h.Attempts[len(h.Attempts)/2:]
	}
	if err != nil {
		m.log.DebugContext(ctx, "save the history", "error", m.errText(err))
		return
	}
	m.record.Attempt = nil
}
