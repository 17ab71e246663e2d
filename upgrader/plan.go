package upgrader

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// Plan is what the daemon would do about a target if it looked now. Its JSON
// form is what `upgraderd plan --json` prints.
type Plan struct {
	Target string `json:"target"`
	Unit   string `json:"unit"`
	// From is the version that is installed, "" where none is.
	From string `json:"from,omitempty"`
	// To is the version that would be taken, "" where nothing would.
	To string `json:"to,omitempty"`
	// File and Digest are those of To; Digest is "" where the source does not
	// tell it.
	File   string `json:"file,omitempty"`
	Digest string `json:"digest,omitempty"`
	// Bytes are to be fetched: -1 where the source does not tell, 0 where the
	// release is on disk. Patched tells that they are those of patches to what is
	// here; the whole file is fetched on any doubt.
	Bytes   int64 `json:"bytes"`
	Patched bool  `json:"patched,omitempty"`
	// Swap is how the unit would be moved and Why, or Obstacle why it cannot be.
	Swap     Swap   `json:"swap,omitempty"`
	Why      string `json:"why,omitempty"`
	Obstacle string `json:"obstacle,omitempty"`
	// Dependents are active, and systemd restarts or stops them with the unit.
	Dependents []string `json:"dependents,omitempty"`
	// Running tells that the unit runs; else its next start is the swap.
	Running bool `json:"running"`
	// WindowUs is how long the release would be watched, in microseconds.
	WindowUs int64 `json:"window_us"`
	// UnderWay is the version that is on its way now, "" if none. It comes to its
	// verdict first.
	UnderWay string `json:"under_way,omitempty"`
	// Beside tells that UnderWay serves beside From, until an order decides.
	Beside bool `json:"beside,omitempty"`
	// InTheWay are a hold and hours: To is not swapped in before they are over.
	InTheWay []string `json:"in_the_way,omitempty"`
	// Remarks are what stands in the way of what the source offers.
	Remarks []string `json:"remarks,omitempty"`
	// Before is the last attempt that moved the unit, nil if none is remembered.
	Before *Attempt `json:"before,omitempty"`
}

// Window is how long the release would be watched.
func (p Plan) Window() time.Duration { return time.Duration(p.WindowUs) * time.Microsecond }

// Foresee asks the source of a target, and systemd, what the daemon would do if it
// looked now, by the daemon's own code. It takes no lock and changes nothing: what
// Verify=tuf trusts is built up from Root= in a directory of its own, and that is
// removed. Of the options, Targets and Log are ignored.
//
// The error is the source's, or of a disk that cannot be read. That systemd cannot
// be asked, or the unit not be moved, stands in the plan.
func Foresee(ctx context.Context, o Options, t *Target) (Plan, error) {
	v, err := newVisit(o, t)
	if err != nil {
		return Plan{}, err
	}
	defer v.end()
	m := v.m
	p := Plan{Target: t.Name, Unit: t.Unit, Bytes: -1, WindowUs: m.window().Microseconds()}
	if m.record.State.pending() {
		p.UnderWay, p.Beside = version(m.record.To), m.record.State == Beside
	}
	p.before(o.StateDir)
	if err := m.foresee(ctx, v.source, &p); err != nil {
		return Plan{}, err
	}
	m.foreseeSwap(ctx, filepath.Join(o.StateDir, t.Name), &p)
	for line := range strings.Lines(v.said.String()) {
		p.Remarks = append(p.Remarks, strings.TrimSpace(line))
	}
	return p, nil
}

// visit is a machine that looks, and touches nothing.
type visit struct {
	m       *machine
	store   *store.Store
	source  *fetcher.Fetcher
	said    *bytes.Buffer // what it would have told the journal
	scratch string
}

func newVisit(o Options, t *Target) (*visit, error) {
	v := &visit{said: new(bytes.Buffer)}
	o.Targets = nil
	o.Log = slog.New(journal.NewHandler(v.said, journal.Options{Socket: ""}))
	d, err := New(o)
	if err != nil {
		return nil, err
	}
	if v.scratch, err = os.MkdirTemp("", "upgraderd-plan-*"); err != nil {
		return nil, err
	}
	if err := v.begin(d, o, t); err != nil {
		v.end()
		return nil, err
	}
	return v, nil
}

func (v *visit) begin(d *Daemon, o Options, t *Target) error {
	s, err := store.View(filepath.Join(o.StateDir, t.Name))
	if errors.Is(err, fs.ErrNotExist) {
		s, err = store.Open(filepath.Join(v.scratch, "empty"))
	}
	if err != nil {
		return err
	}
	from := t.Source
	from.StateDir = filepath.Join(v.scratch, "tuf")
	from.Command = runSource(d.o.SourceSocket)
	m := d.machine(t)
	v.m, v.store = m, s
	m.store, m.state = untouched{s}, Idle
	m.log = o.Log // every line is about this target
	if _, err := s.LoadRecord(&m.record); err != nil {
		return err
	}
	if m.wishes, err = m.record.wishes(s); err != nil {
		return err
	}
	from.Seen, from.Bases = m.record.Seen, m.store.Find
	v.source, err = fetcher.New(from, nil)
	return err
}

func (v *visit) end() {
	if v.source != nil {
		v.source.Close()
	}
	os.RemoveAll(v.scratch)
}

// foresee asks the source.
func (m *machine) foresee(ctx context.Context, f *fetcher.Fetcher, p *Plan) error {
	current, has, err := m.store.Link(store.Current)
	if err != nil {
		return err
	}
	if has {
		p.From = current.Version
	}
	listing, err := f.Check(ctx)
	if err != nil {
		return err
	}
	m.record.To = "" // what is on its way is not what is looked for
	c, ok, err := m.choose(ctx, listing, current, has)
	if err != nil || !ok {
		return err
	}
	p.To, p.File = string(c.Version), c.Name
	if why := m.heldBack(nil); why != "" {
		p.InTheWay = append(p.InTheWay, why)
	}
	if why := m.closed(); why != "" {
		p.InTheWay = append(p.InTheWay, why)
	}
	if c.HasDigest() {
		p.Digest = store.Digest(c.Digest).String()
		if to, err := store.NewRelease(p.To, c.Digest); err == nil && m.onDisk(to, c.Digest) {
			p.Bytes = 0
			return nil
		}
	}
	cost, err := f.Cost(ctx, c)
	if err != nil {
		return err
	}
	p.Bytes, p.Patched = cost.Bytes, cost.Patched
	return nil
}

// foreseeSwap asks systemd.
func (m *machine) foreseeSwap(ctx context.Context, root string, p *Plan) {
	f, err := m.facts(ctx)
	if err == nil {
		p.Running = f.Running()
		err = usable(p.Unit, f)
	}
	if err == nil {
		p.Swap, p.Why, err = pickSwap(m.target, f, root)
	}
	if err != nil {
		p.Obstacle = m.errText(err)
	}
	if p.Running && p.Swap == SwapRestart { // a reload leaves all as they are
		m.noteDependents(ctx, f)
		p.Dependents = slices.Sorted(maps.Keys(m.record.Dependents))
	}
}

// before looks up what the last swap was like.
func (p *Plan) before(stateDir string) {
	all, err := History(stateDir, p.Target)
	if err != nil {
		return // the plan is one without it
	}
	for _, a := range all {
		if a.Swap != "" && a.Verdict != "" {
			p.Before = &a
		}
	}
}

// untouched is a disk on which nothing changes.
type untouched struct{ disk }

func (untouched) SetLink(store.LinkName, store.Release) error     { return nil }
func (untouched) ClearLink(store.LinkName) error                  { return nil }
func (untouched) SaveRecord(any) error                            { return nil }
func (untouched) SaveHistory(any) error                           { return nil }
func (untouched) ClearOrder(func([]byte) bool) error              { return nil }
func (untouched) ChangeWishes(func([]byte) ([]byte, error)) error { return nil }
func (untouched) SaveLook(any) error                              { return nil }
func (untouched) MarkBad(store.Digest, store.Bad) error           { return nil }
func (untouched) Forgive(store.Digest) error                      { return nil }
