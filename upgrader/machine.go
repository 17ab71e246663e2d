package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// State is what a target's machine is busy with. It stands in record.json
// before the step of that state begins.
type State string

// The states. Each has one step, see steps.
const (
	Recovering  State = "recovering"   // comparing record, links and systemd after a start or a failed step
	Idle        State = "idle"         // waiting for the source to offer something newer
	Fetching    State = "fetching"     // getting the artifact and verifying it
	Staging     State = "staging"      // making a release of the artifact
	Checking    State = "checking"     // running Check= in the sandbox
	Swapping    State = "swapping"     // moving the unit to the release
	Confirming  State = "confirming"   // watching the release that serves now
	Beside      State = "beside"       // watching it beside the one before, until one of them is chosen
	Keeping     State = "keeping"      // having the one before drain
	RollingBack State = "rolling-back" // moving the unit back
	Held        State = "held"         // staged, and waiting for the operator (Swap=none)
)

// Event is how a step ended: a fact, in the past tense.
type Event string

// The events.
const (
	NothingPending      Event = "NothingPending"
	UpgradeAbandoned    Event = "UpgradeAbandoned"
	SwapInterrupted     Event = "SwapInterrupted"
	RollbackInterrupted Event = "RollbackInterrupted"
	StepFailed          Event = "StepFailed"
	NothingNew          Event = "NothingNew"
	LookFailed          Event = "LookFailed"
	ReleaseFound        Event = "ReleaseFound"
	RollbackOrdered     Event = "RollbackOrdered"
	UpgradeOrdered      Event = "UpgradeOrdered"
	ReleaseVerified     Event = "ReleaseVerified"
	FetchFailed         Event = "FetchFailed"
	ReleaseStaged       Event = "ReleaseStaged"
	StageFailed         Event = "StageFailed"
	ReleaseRefused      Event = "ReleaseRefused"
	CheckPassed         Event = "CheckPassed"
	UpgradeAwaited      Event = "UpgradeAwaited"
	UpgradeForbidden    Event = "UpgradeForbidden"
	CheckNotRun         Event = "CheckNotRun"
	ReleaseServed       Event = "ReleaseServed"
	BothServed          Event = "BothServed"
	ReleaseChosen       Event = "ReleaseChosen"
	KeepInterrupted     Event = "KeepInterrupted"
	ReleaseInstalled    Event = "ReleaseInstalled"
	OperatorAwaited     Event = "OperatorAwaited"
	OperatorActed       Event = "OperatorActed"
	UnitUnusable        Event = "UnitUnusable"
	ReleaseBroke        Event = "ReleaseBroke"
	ReleaseProved       Event = "ReleaseProved"
	SwapAllowed         Event = "SwapAllowed"
	RolledBack          Event = "RolledBack"
	RollbackFailed      Event = "RollbackFailed"
)

// transition is a row of the table: in From, On happened, so To is next.
type transition struct {
	From State
	On   Event
	To   State
}

// transitions is the whole state machine. What it has no row for cannot
// happen; a test looks for holes, and draws the picture in doc.go.
func transitions() []transition {
	return []transition{
		{Recovering, NothingPending, Idle},
		{Recovering, OperatorAwaited, Held},
		{Recovering, SwapInterrupted, Swapping},
		{Recovering, ReleaseServed, Confirming},
		{Recovering, BothServed, Beside},
		{Recovering, KeepInterrupted, Keeping},
		{Recovering, RollbackInterrupted, RollingBack},
		{Recovering, UpgradeAbandoned, RollingBack},
		{Recovering, ReleaseBroke, RollingBack},
		{Recovering, StepFailed, Recovering},

		{Idle, NothingNew, Idle},
		{Idle, LookFailed, Idle},
		{Idle, ReleaseFound, Fetching},
		{Idle, RollbackOrdered, Swapping},
		{Idle, UpgradeOrdered, Checking},

		{Fetching, ReleaseVerified, Staging},
		{Fetching, ReleaseStaged, Checking},
		{Fetching, ReleaseRefused, Idle},
		{Fetching, FetchFailed, Idle},

		{Staging, ReleaseStaged, Checking},
		{Staging, ReleaseRefused, Idle},
		{Staging, StageFailed, Idle},

		{Checking, CheckPassed, Swapping},
		{Checking, UpgradeAwaited, Idle},
		{Checking, UpgradeForbidden, Idle},
		{Checking, ReleaseRefused, Idle},
		{Checking, CheckNotRun, Idle},

		{Swapping, ReleaseServed, Confirming},
		{Swapping, BothServed, Beside},
		{Swapping, ReleaseInstalled, Idle},
		{Swapping, OperatorAwaited, Held},
		{Swapping, OperatorActed, Idle},
		{Swapping, ReleaseRefused, Idle},
		{Swapping, ReleaseBroke, RollingBack},
		{Swapping, UnitUnusable, Idle},
		{Swapping, StepFailed, Recovering},

		{Confirming, ReleaseProved, Idle},
		{Confirming, ReleaseBroke, RollingBack},
		{Confirming, OperatorActed, Idle},
		{Confirming, StepFailed, Recovering},

		{Beside, ReleaseChosen, Keeping},
		{Beside, ReleaseServed, Confirming},
		{Beside, ReleaseBroke, RollingBack},
		{Beside, StepFailed, Recovering},

		{Keeping, ReleaseProved, Idle},
		{Keeping, ReleaseBroke, RollingBack},
		{Keeping, StepFailed, Recovering},

		{RollingBack, RolledBack, Idle},
		{RollingBack, RollbackFailed, Idle},
		{RollingBack, OperatorActed, Idle},
		{RollingBack, StepFailed, Recovering},

		{Held, NothingNew, Held},
		{Held, LookFailed, Held},
		{Held, ReleaseFound, Fetching},
		{Held, SwapAllowed, Swapping},
		{Held, OperatorActed, Idle},
	}
}

// step does a state's work and tells how it ended. An error says why, for the
// step that takes over or the next attempt; what a person has to know is in
// the journal already. After ctx ends the event does not count.
type step func(*machine, context.Context) (Event, error)

func steps() map[State]step {
	return map[State]step{
		Recovering:  (*machine).recover,
		Idle:        (*machine).look,
		Fetching:    (*machine).fetch,
		Staging:     (*machine).stage,
		Checking:    (*machine).check,
		Swapping:    (*machine).swap,
		Confirming:  (*machine).confirm,
		Beside:      (*machine).beside,
		Keeping:     (*machine).keep,
		RollingBack: (*machine).rollBack,
		Held:        (*machine).hold,
	}
}

// after looks up the table.
func after(from State, on Event) (State, bool) {
	for _, t := range transitions() {
		if t.From == from && t.On == on {
			return t.To, true
		}
	}
	return "", false
}

// Systemd is what the machine asks of systemd; [*systemd.Client] is the real
// one. Implementations must return when ctx ends, must be safe for use by
// several targets at once, and must not report a job's result that they did
// not see: [systemd.ResultUnknown] is a good answer.
type Systemd interface {
	Facts(ctx context.Context, unit string) (systemd.Facts, error)
	Reload(ctx context.Context, unit string) (systemd.Result, error)
	Restart(ctx context.Context, unit string) (systemd.Result, error)
	Start(ctx context.Context, unit string) (systemd.Result, error)
	Stop(ctx context.Context, unit string) (systemd.Result, error)
	ResetFailed(ctx context.Context, unit string) error
}

var _ Systemd = (*systemd.Client)(nil)

// machine moves one target. One goroutine owns it; others leave a wish in
// offer and read what it publishes.
type machine struct {
	target   *Target                // this cycle's snapshot
	followed atomic.Pointer[Target] // the same, for others
	store    disk
	systemd  Systemd
	newest   func(*Target) (source, error) // makes a source of a snapshot
	source   source
	given    source        // an import's, in place of source while it is carried out
	offline  bool          // what is on its way did not come from source
	slots    chan struct{} // artifacts fetched and unpacked at once, over all targets
	slot     bool          // one of them is ours
	commons  *commons
	turn     func()       // ends our turn on the artifact; nil if it is not ours
	unitTurn func()       // the same of the unit
	plain    *slog.Logger // without the target's attributes
	log      *slog.Logger

	state    State
	record   record
	verified *fetcher.Verified // between Fetching and Staging
	base     systemd.Facts     // what Confirming compares with
	stood    dependents        // those of the unit, when it was last seen to run
	way      string            // the swap announced last
	denied   string            // digest whose swap systemd would not queue
	hush     hush
	pause    backoff
	lookNow  bool
	loaded   bool   // the record was read
	resumed  bool   // what the record left unfinished was announced
	armed    bool   // the guard's timer may run
	passed   string // digest that passed its check
	saved    string // the record as it is on disk

	self   string                  // the release of upgraderd that this daemon is, "" if none
	busy   func(but string) string // another target that is on trial, "" if none
	unread error                   // the record, where a later upgraderd wrote it

	guard *Guarded // undo what is pending, and end; nil in the daemon

	offered  atomic.Pointer[offer]
	taken    atomic.Pointer[string]             // the ID of an order that its sender took back
	stop     atomic.Pointer[context.CancelFunc] // ends what an order can be taken back from
	woken    chan struct{}                      // holds one token
	publish  func(TargetStatus)
	reported TargetStatus // what was published last
	wall     wallClock
	serving  string          // release that a supervisor named last
	found    string          // candidate announced last, so that a retry is not news
	said     map[string]bool // what was said once, see once
	terms    map[store.Digest]term
	wishes   wish.Wishes // as they were read last, those that are in force
	held     term        // of the hold
	shut     bool        // something waits for a window

	candidate fetcher.Candidate // from Idle to Fetching
	wanted    *Order            // an upgrade that the operator ordered, for choose
	ordered   *Order            // the order that candidate is for; nil: it is newer
	answered  bool              // an order has its answer, and can go
	inspected bool              // the releases on disk were read back
	rotten    []store.Release   // those that are not what was verified
	entered   time.Time         // when the state was; for the attempt's phases
	retryAt   time.Time         // bounds the next wait; zero: only the source decides
	checked   time.Time         // when the source answered last
	noted     time.Time         // when that was written down
}

// offer is what the daemon wants the machine to follow from its next cycle
// on; nil ends it.
type offer struct{ target *Target }

// errRetired ends a machine whose target is gone.
var errRetired = errors.New("target is no longer configured")

// run drives the machine until ctx ends or the target is retired. Killing it
// anywhere is the same as ending it: the record tells the next one.
func (m *machine) run(ctx context.Context) error {
	all := steps()
	m.state, m.entered = Recovering, time.Now()
	m.lookNow = true
	defer m.dropVerified()
	defer m.dropSource()
	defer m.dropGiven()
	defer m.endTurn()
	defer m.leaveUnit()
	defer m.freeSlot()
	defer m.endHold()
	for {
		event, err := all[m.state](m, ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errRetired) {
			return err
		}
		next, ok := after(m.state, event)
		if !ok {
			// A hole in the table is a bug, and going on would be a guess.
			panic(fmt.Sprintf("upgrader: state %s has no row for event %s (%v)", m.state, event, err))
		}
		if event == StepFailed {
			failure := journal.StepFailed
			if m.state == RollingBack { // as loud as can be, and tried again
				failure = journal.RollbackFailed
			}
			m.trouble(ctx, failure, err)
			if !sleep(ctx, m.pause.next(0)) {
				return ctx.Err()
			}
		}
		if err := m.enter(ctx, next); err != nil {
			return err
		}
		if m.guard != nil && !next.pending() && next != Recovering {
			return nil
		}
	}
}

// enter makes next the state, on disk first: nothing is done that a crash
// would leave unsaid. A disk that does not take the record stops this target,
// and nothing else, until it does.
func (m *machine) enter(ctx context.Context, next State) error {
	m.pass()
	m.state = next
	if next != Staging {
		m.freeSlot()
	}
	if next != Fetching {
		m.dropGiven()
	}
	if next == Recovering {
		m.report()
		return nil // the record still names what has to be recovered
	}
	switch next {
	case Confirming, Idle, Held:
		m.bringBack(ctx, next != Confirming)
	}
	if next != m.record.State {
		m.record.Since = m.wall.date()
	}
	m.record.State = next
	for {
		err := m.save()
		m.report()
		if err == nil {
			if next == Beside {
				m.clearOrder(ctx) // the one that led here; the next one decides
			}
			if next == Idle || next == Held {
				m.endTurn() // only now that the verdict is on disk
				m.leaveUnit()
				m.disarm(ctx)
				m.clearOrder(ctx)
				m.remember(ctx)
			}
			return nil
		}
		m.trouble(ctx, journal.StepFailed, err)
		if !sleep(ctx, m.pause.next(0)) {
			return ctx.Err()
		}
	}
}

// emit writes an event with what every line of this target carries.
func (m *machine) emit(ctx context.Context, e journal.Event, attrs ...slog.Attr) {
	have := map[string]bool{}
	for _, a := range attrs {
		have[a.Key] = true
	}
	add := func(key, value string) {
		if !have[key] && value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("unit", m.target.Unit)
	add("phase", string(m.state))
	if m.record.To != "" {
		from := "nothing"
		switch {
		case m.own():
			from = m.ownBefore()
		case m.record.From != "":
			from = version(m.record.From)
		}
		add("from", from)
		add("to", version(m.record.To))
		add("digest", m.record.Digest)
	}
	journal.Emit(ctx, m.log, e, attrs...)
}

// trouble reports a failure once. The same again is for debugging only.
func (m *machine) trouble(ctx context.Context, e journal.Event, err error) {
	text := m.errText(err)
	if m.hush.isNews(e, m.state, text) {
		m.emit(ctx, e, slog.String("error", text))
	} else {
		m.log.DebugContext(ctx, "the failure goes on", "error", text)
	}
	m.record.Trouble = text
	m.report()
}

// calm forgets the failure, after what failed went well.
func (m *machine) calm(ctx context.Context) {
	if m.offline && m.hush.event == journal.SourceFailed {
		return // nothing that went well without it says anything about it
	}
	switch e, since := m.hush.clear(); e {
	case journal.SourceFailed:
		m.emit(ctx, journal.SourceRecovered, slog.Duration("took", time.Since(since)))
	case journal.HostFailed:
		m.emit(ctx, journal.HostRecovered, slog.Duration("took", time.Since(since)))
	}
	m.record.Trouble = ""
	m.pause.reset()
}

// errText is an error as the journal and the record may show it. The target's
// name stands in front of every line already.
func (m *machine) errText(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := err.(*fetcher.Error); ok { //nolint:errorlint // of a wrapped one the front has to stay
		short := *e
		short.Target = ""
		err = &short
	}
	return journal.Clean(strings.TrimPrefix(err.Error(), m.target.Name+": "))
}

// adopt takes the configuration that the daemon offers, at the beginning of a
// cycle only.
func (m *machine) adopt(ctx context.Context) error {
	o := m.offered.Swap(nil)
	if o == nil {
		return nil
	}
	if o.target == nil {
		return errRetired
	}
	m.use(o.target)
	m.commons.follow(o.target)
	m.inspected = false
	m.pause.reset() // what failed is tried at once; whether it is mended, that tells
	m.lookNow = true
	return nil
}

// use makes t the snapshot of what follows.
func (m *machine) use(t *Target) {
	m.target = t
	m.followed.Store(t)
	m.dropSource()
	m.way = ""
	m.log = m.plain.With("target", t.Name)
	if t.Source.Verify == fetcher.VerifyNo {
		m.log = m.log.With("verify", "no")
	}
}

// wake makes a machine that waits look at its offer.
func (m *machine) wake() {
	select {
	case m.woken <- struct{}{}:
	default:
	}
}

// hush remembers the last failure, to keep the journal readable.
type hush struct {
	event journal.Event
	in    State
	text  string
	since time.Time
}

func (h *hush) isNews(e journal.Event, in State, text string) bool {
	if h.event == e && h.in == in && h.text == text {
		return false
	}
	if h.event == 0 {
		h.since = time.Now()
	}
	h.event, h.in, h.text = e, in, text
	return true
}

func (h *hush) clear() (journal.Event, time.Time) {
	e, since := h.event, h.since
	*h = hush{}
	return e, since
}

// sleep waits for d, or less if ctx ends; it reports whether it was d.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
