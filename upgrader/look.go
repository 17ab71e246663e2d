package upgrader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// source is what the machine asks of a [fetcher.Fetcher]; a test's source
// does without files.
type source interface {
	Check(ctx context.Context) (fetcher.Listing, error)
	Fetch(ctx context.Context, c fetcher.Candidate, dir string, progress func(done, total int64)) (*fetcher.Verified, error)
	Wait(ctx context.Context) error
	Close()
}

var _ source = (*fetcher.Fetcher)(nil)

func (m *machine) dropSource() {
	if m.source != nil {
		m.source.Close()
		m.source = nil
	}
}

// look is the step of Idle: wait, ask the source, and choose.
func (m *machine) look(ctx context.Context) (Event, error) {
	if err := m.adopt(ctx); err != nil {
		return "", err
	}
	m.retain(ctx)
	m.cleanSpools(ctx)
	if err := m.await(ctx); err != nil {
		return NothingNew, err
	}
	current, has, err := m.current(ctx)
	if err != nil {
		return LookFailed, err
	}
	unread := m.heed(ctx) // if so, nobody knows what is forbidden
	event, err := Event(""), unread
	if unread == nil || m.wayBack(ctx) {
		if event, err = m.obey(ctx, current, has); event == "" && err == nil {
			err = unread
		}
	}
	if err != nil {
		m.trouble(ctx, journal.StepFailed, err)
		m.retryAfter(m.pause.next(0))
		return LookFailed, err
	}
	if event != "" {
		return event, nil
	}
	m.inspect(ctx)
	within, done := m.interruptible(ctx, m.wanted)
	defer done()
	return m.consult(within, current, has)
}

// current is the release that is installed. Without knowing it, "newer" has no
// meaning.
func (m *machine) current(ctx context.Context) (store.Release, bool, error) {
	current, has, err := m.store.Link(store.Current)
	if err != nil {
		if text := m.errText(err); m.hush.isNews(journal.ReleaseIncomparable, m.state, text) {
			m.emit(ctx, journal.ReleaseIncomparable, slog.String("reason", text))
		}
		m.record.Trouble = m.errText(err)
		m.retryAfter(m.pause.next(0))
	}
	return current, has, err
}

// consult asks the source, now.
func (m *machine) consult(ctx context.Context, current store.Release, has bool) (Event, error) {
	if m.wanted != nil && m.wanted.Verb == OrderImport {
		return m.consultGiven(ctx, *m.wanted, current, has)
	}
	if err := m.openSource(); err != nil {
		m.trouble(ctx, blame(err), err)
		m.retryAfter(m.pause.next(pauseMax))
		return LookFailed, err
	}
	listing, err := m.source.Check(ctx)
	if err != nil {
		if ctx.Err() == nil {
			m.trouble(ctx, blame(err), err)
		}
		return LookFailed, err
	}
	if m.offered.Load() != nil {
		return NothingNew, nil // asked by settings that hold no more; adopt looks again
	}
	m.offline = false
	if m.hush.in == m.state { // what failed in a later step is not mended by this one
		m.calm(ctx)
	}
	m.noteLook(ctx)
	m.record.Seen = m.record.Seen.With(listing, m.checked)
	m.record.Offered = offersOf(listing)
	if err := m.heal(ctx, listing.Candidates); err != nil && ctx.Err() == nil {
		m.trouble(ctx, journal.StepFailed, err) // and is tried again with the next look
	}
	c, ok, err := m.choose(ctx, listing, current, has)
	if err != nil {
		m.trouble(ctx, journal.StepFailed, err)
		m.retryAfter(m.pause.next(0))
		return LookFailed, err
	}
	if m.wanted.stages() || m.wanted.seeksNewest() {
		ok = m.settleOrder(ctx, *m.wanted, c, ok, current, has)
	}
	if why := m.heldBack(nil); ok && m.ordered == nil && why != "" {
		m.forbid(ctx, c.Version, why)
		return NothingNew, nil
	}
	m.shut = false
	if ok && m.ordered == nil && m.waits(ctx, c) {
		return NothingNew, nil
	}
	if !ok {
		if m.state == Idle && m.record.Trouble != "" { // what failed on its way is not on offer any more
			m.calm(ctx)
			m.tidy(ctx)
		}
		return NothingNew, nil
	}
	if m.state == Held && (store.Digest(c.Digest).String() == m.record.Digest ||
		!c.HasDigest() && string(c.Version) == version(m.record.To)) {
		return NothingNew, nil // it is the one that waits
	}
	m.candidate = c
	return ReleaseFound, nil
}

// look is what look.json says: when the source answered last.
type look struct {
	Answered time.Time `json:"answered"`
}

// lookNoted is how seldom that is written: a source may be asked every second.
const lookNoted = time.Minute

// noteLook notes that the source answered, for whoever asks without the daemon.
func (m *machine) noteLook(ctx context.Context) {
	m.checked = m.wall.date()
	if now := time.Now(); m.noted.IsZero() || now.Sub(m.noted) >= lookNoted {
		m.noted = now
		if err := m.store.SaveLook(look{m.checked}); err != nil {
			m.log.DebugContext(ctx, "note when the source answered", "error", m.errText(err))
		}
	}
}

func (m *machine) openSource() error {
	if m.source != nil {
		return nil
	}
	t := *m.target
	t.Source.Seen, t.Source.Bases = m.record.Seen, m.store.Find
	s, err := m.newest(&t)
	if err != nil {
		return err
	}
	m.source = s
	return nil
}

// await returns when the source may have news, when a failed step is due
// again, or when the daemon offers another configuration.
func (m *machine) await(ctx context.Context) error {
	// After an import the target's own source may not have been asked once.
	if m.lookNow || m.source == nil && m.retryAt.IsZero() {
		m.lookNow = false
		return nil
	}
	m.report()
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	if !m.retryAt.IsZero() {
		waiting, cancel = context.WithDeadline(waiting, m.retryAt)
		defer cancel()
		m.retryAt = time.Time{}
	}
	if left, ok := m.holdLeft(); ok {
		waiting, cancel = context.WithTimeout(waiting, left)
		defer cancel()
	}
	if left, ok := m.untilOpen(); ok {
		m.shut = false
		waiting, cancel = context.WithTimeout(waiting, left)
		defer cancel()
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-m.woken:
			cancel()
		case <-waiting.Done():
		}
	}()
	var err error
	if m.source == nil {
		<-waiting.Done()
	} else {
		err = m.source.Wait(waiting)
	}
	early := waiting.Err() != nil // before our own cancel
	cancel()
	<-watched
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !early {
		// A source that can neither tell nor wait must not spin us.
		if !sleep(ctx, m.pause.next(0)) {
			return ctx.Err()
		}
	}
	if o := m.offered.Load(); o != nil {
		return m.adopt(ctx)
	}
	return nil
}

// retryAfter bounds the next wait: something else than the source failed.
func (m *machine) retryAfter(d time.Duration) { m.retryAt = time.Now().Add(d) }

// choose picks the newest candidate that is newer than what is installed, not
// older than what was ever accepted or than MinVersion=, and not known bad; or
// the one that the operator ordered.
//
// A candidate of the very version that was accepted is never taken with another
// digest: a source whose mirrors disagree would otherwise swap to and fro for
// ever. The publisher has to raise the version.
//
// Where the source names one, no other comes into question.
func (m *machine) choose(ctx context.Context, l fetcher.Listing, current store.Release, has bool) (fetcher.Candidate, bool, error) {
	m.ordered = nil
	all := l.Candidates
	if o := m.wanted; o != nil {
		if o.Version != "" || o.Verb == OrderImport {
			c, why, err := m.pick(ctx, o, all, current, has)
			switch {
			case why == "" || err != nil:
			case o.Verb == OrderUpgrade && has && c.Version.Compare(versionOf(current)) == 0 && (!c.HasDigest() || store.Digest(c.Digest).Short() == current.Digest12):
				m.answer(*o, "", why) // which is what was asked for
			default:
				m.refuseOrder(ctx, *o, "%s", why)
			}
			m.ordered = o
			return c, why == "" && err == nil, err
		}
		m.ordered = o
	}
	if l.Current.Name != "" {
		if has && l.Current.Version.Compare(versionOf(current)) == 0 && (!l.Current.HasDigest() || store.Digest(l.Current.Digest).Short() == current.Digest12) {
			return fetcher.Candidate{}, false, nil
		}
		all = []fetcher.Candidate{l.Current}
	}
	all = m.inQuestion(ctx, all)
	floor, bounded := m.floor(current, has)
	for i, c := range all {
		digest := store.Digest(c.Digest)
		if bounded {
			switch order := c.Version.Compare(versionOf(floor)); {
			case order == 0 && c.HasDigest() && digest.Short() != floor.Digest12:
				m.once(ctx, "republished "+digest.String(), journal.ReleaseRepublished,
					slog.String("to", string(c.Version)), slog.String("digest", digest.String()))
				return fetcher.Candidate{}, false, nil
			case order < 0 && l.Commanded: // it is gone back to
			case order < 0 && i == 0:
				m.once(ctx, "went back "+string(c.Version), journal.SourceWentBack,
					slog.String("to", string(c.Version)), slog.String("floor", floor.Version))
				return fetcher.Candidate{}, false, nil
			case order < 0 || order == 0 && has && floor == current:
				return fetcher.Candidate{}, false, nil
			}
		}
		if past := m.past(); past != "" && (c.Version.Compare(past) == 0 || c.Version.Compare(past) < 0 && !l.Commanded) {
			m.once(ctx, "passed "+c.String(), journal.ReleasePassed, slog.String("to", string(c.Version)))
			return fetcher.Candidate{}, false, nil
		}
		if m.target.MinVersion != "" && c.Version.Compare(m.target.MinVersion) < 0 {
			return fetcher.Candidate{}, false, nil
		}
		bad, isBad, err := m.knownBad(ctx, c)
		if err != nil {
			return fetcher.Candidate{}, false, err
		}
		if isBad {
			m.once(ctx, badKey(c), journal.ReleaseKnownBad,
				slog.String("to", string(c.Version)), slog.String("digest", digest.String()), slog.String("reason", bad.Reason))
			continue
		}
		if why := m.ruledOut(c.Version); why != "" {
			m.forbid(ctx, c.Version, why)
			continue
		}
		return c, true, nil
	}
	return fetcher.Candidate{}, false, nil
}

// inQuestion are the candidates that the pin lets through. It tells of the newest
// that it does not.
func (m *machine) inQuestion(ctx context.Context, all []fetcher.Candidate) []fetcher.Candidate {
	if len(all) > 0 && !m.wishes.Allows(all[0].Version) {
		m.forbid(ctx, all[0].Version, m.ruledOut(all[0].Version))
	}
	var some []fetcher.Candidate
	for _, c := range all {
		if m.wishes.Allows(c.Version) {
			some = append(some, c)
		}
	}
	return some
}

// knownBad looks a candidate up, by version where the source does not tell
// its digest.
func (m *machine) knownBad(ctx context.Context, c fetcher.Candidate) (store.Bad, bool, error) {
	if c.HasDigest() {
		return m.bad(ctx, c.Digest)
	}
	digests, err := m.store.KnownBad()
	if err != nil {
		return store.Bad{}, false, err
	}
	for _, d := range digests {
		bad, ok, err := m.bad(ctx, d)
		if err != nil {
			return store.Bad{}, false, err
		}
		if ok && bad.Version == string(c.Version) {
			return bad, true, nil
		}
	}
	return store.Bad{}, false, nil
}

// bad tells whether a digest is known bad still: a verdict may expire.
func (m *machine) bad(ctx context.Context, d store.Digest) (store.Bad, bool, error) {
	bad, ok, err := m.store.Bad(d)
	if err != nil || !ok || m.target.KnownBad == 0 || m.known(ctx, d, bad) < m.target.KnownBad {
		return bad, ok, err
	}
	if err := m.store.Forgive(d); err != nil {
		return bad, true, err
	}
	delete(m.terms, d)
	m.emit(ctx, journal.ReleaseForgiven, slog.String("to", bad.Version), slog.String("digest", d.String()),
		slog.Duration("limit", m.target.KnownBad), slog.String("reason", bad.Reason))
	return store.Bad{}, false, nil
}

// term is how long a digest has been known bad, in time of this process and
// what those before it noted.
type term struct {
	since time.Time
	noted time.Duration // on disk, when since was
}

// noteMax is how much of a term a restart may forget.
const noteMax = 10 * time.Minute

// known is for how long the daemon has known digest d to be bad. It counts by
// itself: the date in the entry and the clock of now may both be wrong. What it
// has counted is noted now and then, so that the next process goes on from there.
func (m *machine) known(ctx context.Context, d store.Digest, bad store.Bad) time.Duration {
	noted := time.Duration(bad.KnownSec) * time.Second
	t, ok := m.terms[d]
	if !ok || t.noted != noted { // new to us, or written anew by somebody else
		t = term{time.Now(), noted}
	}
	known := t.noted + time.Since(t.since)
	if known-t.noted >= min(m.target.KnownBad/16, noteMax) && known < m.target.KnownBad {
		entry := bad
		entry.KnownSec = int64(known / time.Second)
		if err := m.store.MarkBad(d, entry); err != nil {
			m.log.DebugContext(ctx, "noting how long a release is known bad", "error", err)
		} else {
			whole := time.Duration(entry.KnownSec) * time.Second
			t = term{time.Now().Add(whole - known), whole}
		}
	}
	if m.terms == nil {
		m.terms = map[store.Digest]term{}
	}
	m.terms[d] = t
	return known
}

// saidMax bounds what is remembered of a source that offers other bytes every
// day; repeating oneself once a thousand lines is no spam.
const saidMax = 1000

// once emits an event that stays true poll after poll, the first time only.
func (m *machine) once(ctx context.Context, key string, e journal.Event, attrs ...slog.Attr) {
	if m.said[key] {
		return
	}
	m.noteSaid(key)
	m.emit(ctx, e, attrs...)
}

func (m *machine) noteSaid(key string) {
	if m.said == nil || len(m.said) >= saidMax {
		m.said = make(map[string]bool)
	}
	m.said[key] = true
}

// badKey is what [machine.once] knows a known bad candidate by.
func badKey(c fetcher.Candidate) string { return "bad " + c.String() }

// hold is the step of Held: a release is staged, and swapping it is the
// operator's.
func (m *machine) hold(ctx context.Context) (Event, error) {
	if err := m.adopt(ctx); err != nil {
		return "", err
	}
	staged, ok, err := m.store.Link(store.Staged)
	if err != nil || !ok || staged.Name != m.record.To {
		return OperatorActed, err // whoever took it away had a reason
	}
	current, has, err := m.store.Link(store.Current)
	if err == nil && has && current == staged {
		m.emit(ctx, journal.OperatorIntervened, slog.String("reason", "the operator installed it"), slog.String("result", string(VerdictInconclusive)))
		m.conclude(VerdictInconclusive, "the operator installed it")
		if err := m.store.ClearLink(store.Staged); err != nil {
			m.trouble(ctx, journal.StepFailed, err)
		}
		return OperatorActed, nil
	}
	if goes, _ := m.mayGoOn(ctx); goes { // an error is for after the wait
		return SwapAllowed, nil
	}
	// The operator's link does not wake us; a glance now and then does.
	m.retryAfterIfNone(heldGlance)
	if err := m.await(ctx); err != nil {
		return NothingNew, err
	}
	switch goes, err := m.mayGoOn(ctx); {
	case err != nil && !m.wayBack(ctx):
		return LookFailed, err
	case goes:
		return SwapAllowed, nil
	}
	switch o, ok, err := m.toSwap(ctx); {
	case err != nil:
		m.trouble(ctx, journal.StepFailed, err)
	case ok && m.target.Swap != SwapNone && o.Verb == OrderUpgrade:
		if why := m.forbidden(&o, fetcher.Version(cmp.Or(o.Version, staged.Version))); why != "" {
			m.refuseOrder(ctx, o, "%s", why)
			break
		}
		if o.Version == "" || o.Version == staged.Version {
			m.record.Order = &o
			return SwapAllowed, nil
		}
		m.wanted = &o
	case ok && m.target.Swap != SwapNone: // back, which nothing forbids
		m.lookNow = true
		return OperatorActed, nil
	case ok:
		m.record.Order = nil
		m.refuseOrder(ctx, o, "Swap=none leaves the unit to the operator; point current at the release and restart %s", m.target.Unit)
	}
	within, done := m.interruptible(ctx, m.wanted)
	defer done()
	event, err := m.consult(within, current, has)
	if err != nil && !errors.Is(err, context.Canceled) {
		err = fmt.Errorf("look for something newer than %s: %w", staged, err)
	}
	return event, err
}

// heldGlance is how soon an operator's own swap is noticed.
const heldGlance = 30 * time.Second

func (m *machine) retryAfterIfNone(d time.Duration) {
	if m.retryAt.IsZero() {
		m.retryAfter(d)
	}
}
