package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/store/reason"
	"github.com/upgraderd/upgraderd/upgrader/unpack"
)

// roomFactor and roomSpare: an artifact and its tree lie side by side for a
// moment, and a disk that is full to the brim helps nobody.
const (
	roomFactor = 2
	roomSpare  = 64 << 20
)

// fetch is the step of Fetching. An order can be taken back from it.
func (m *machine) fetch(ctx context.Context) (Event, error) {
	within, done := m.interruptible(ctx, m.ordered)
	defer done()
	event, err := m.bring(within)
	if o := m.record.Order; event == FetchFailed && ctx.Err() == nil && o != nil && m.tookBack(*o) {
		m.abandonOrder(ctx, *o)
		return FetchFailed, nil
	}
	return event, err
}

// bring brings the candidate here and verifies it, or finds its release on disk
// already.
func (m *machine) bring(ctx context.Context) (Event, error) {
	c := m.candidate
	current, has, err := m.store.Link(store.Current)
	if err != nil {
		return m.fetchFailed(ctx, err)
	}
	to, err := store.NewRelease(string(c.Version), c.Digest)
	if err != nil {
		return m.fetchFailed(ctx, err)
	}
	m.begin(current, has, to, c.Digest)
	m.record.Order = m.ordered
	if m.found != c.String() {
		m.found = c.String()
		m.emit(ctx, journal.ReleaseFound)
	}
	if c.HasDigest() {
		if err := m.takeTurn(ctx); err != nil {
			return FetchFailed, err
		}
		if why, bad := m.badElsewhere(c.Digest); bad {
			return m.refuse(ctx, why)
		}
		staged := m.onDisk(to, c.Digest)
		if !staged {
			if err := m.takeSlot(ctx); err != nil {
				return FetchFailed, err
			}
			staged = m.borrow(ctx, to, c.Digest)
		}
		if staged {
			if err := m.store.SetLink(store.Staged, to); err != nil {
				return m.fetchFailed(ctx, err)
			}
			m.tidy(ctx)
			return ReleaseStaged, nil
		}
	}
	if err := m.takeSlot(ctx); err != nil {
		return FetchFailed, err
	}
	if err := m.store.Preflight(max(c.Size, 0)*roomFactor + roomSpare); err != nil {
		return m.fetchFailed(ctx, err)
	}
	// Which release the bytes are of, for who finds them after a crash.
	if err := m.save(); err != nil {
		return m.fetchFailed(ctx, err)
	}
	m.report()
	dir, err := m.store.Incoming(c.Digest)
	if err != nil {
		return m.fetchFailed(ctx, err)
	}
	began := time.Now()
	var v *fetcher.Verified
	err = m.watched(ctx, func(progress func(done, total int64)) (err error) {
		v, err = m.from().Fetch(ctx, c, dir, progress)
		return err
	})
	if err != nil {
		_ = os.Remove(dir) // goes if it is empty; what can be resumed stays
		return m.fetchFailed(ctx, err)
	}
	m.verified = v
	return m.judge(ctx, v, time.Since(began))
}

// takeSlot waits until fewer artifacts than may be are on their way. The slot is
// ours until there is a release of it, or none.
func (m *machine) takeSlot(ctx context.Context) error {
	if m.slot {
		return nil
	}
	select {
	case m.slots <- struct{}{}:
		m.slot = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// onDisk tells whether a release of this digest is there already. A complete one
// was verified when it came.
func (m *machine) onDisk(to store.Release, digest store.Digest) bool {
	have, err := m.store.Digest(to)
	return err == nil && have == digest
}

func (m *machine) freeSlot() {
	if m.slot {
		<-m.slots
		m.slot = false
	}
}

// judge looks at what Fetch brought: only now is the digest known for sure.
func (m *machine) judge(ctx context.Context, v *fetcher.Verified, took time.Duration) (Event, error) {
	got := v.Candidate()
	to, err := store.NewRelease(string(got.Version), got.Digest)
	if err != nil {
		return m.fetchFailed(ctx, err)
	}
	if m.record.Digest != store.Digest(got.Digest).String() {
		from, has := release(m.record.From)
		m.begin(from, has, to, got.Digest)
		m.record.Order = m.ordered
	}
	if bad, isBad, err := m.bad(ctx, got.Digest); err != nil || isBad {
		if err == nil {
			err = fmt.Errorf("release %s is known bad: %s", to, bad.Reason)
		}
		return m.fetchFailed(ctx, err)
	}
	result := "signature and digest hold"
	if m.target.Source.Verify == fetcher.VerifyNo {
		result = "the digest holds; nobody signed it"
	}
	switch n := v.Patches(); {
	case n == 1:
		result += "; made by a patch of what was here"
	case n > 1:
		result += fmt.Sprintf("; made by %d patches of what was here", n)
	}
	m.totals().FetchedBytes += v.Received()
	m.emit(ctx, journal.ReleaseFetched, slog.Int64("bytes", v.Received()), slog.Duration("took", took))
	m.emit(ctx, journal.ReleaseVerified, slog.String("result", result))
	m.calm(ctx)
	return ReleaseVerified, nil
}

func (m *machine) fetchFailed(ctx context.Context, err error) (Event, error) {
	if ctx.Err() != nil {
		return FetchFailed, ctx.Err()
	}
	m.dropVerified()
	if o := m.record.Order; o != nil && o.Verb == OrderImport {
		return FetchFailed, m.importFailed(ctx, *o, err)
	}
	m.trouble(ctx, blame(err), err)
	var e *fetcher.Error
	if !errors.As(err, &e) { // else the source knows when to come back
		m.retryAfter(m.pause.next(0))
	}
	return FetchFailed, err
}

// blame is the event that says whose fault it is that no release comes: this
// host's, where its disk or its limits are in the way, or the source's.
func blame(err error) journal.Event {
	code := string(reason.Of(err))
	var e *fetcher.Error
	if errors.As(err, &e) {
		code = string(e.Code)
	}
	if strings.HasPrefix(code, "FS_") || strings.HasPrefix(code, "PROC_") {
		return journal.HostFailed
	}
	return journal.SourceFailed
}

func (m *machine) dropVerified() {
	if m.verified != nil {
		_ = m.verified.Close() // read only
		m.verified = nil
	}
}

// stage is the step of Staging: the one way from bytes to a release, and it
// takes a Verified.
func (m *machine) stage(ctx context.Context) (Event, error) {
	defer m.dropVerified()
	began := time.Now()
	to, err := m.install(ctx, m.verified)
	if err != nil {
		if ctx.Err() != nil {
			return StageFailed, ctx.Err()
		}
		if isArtifactsFault(err) {
			return m.refuse(ctx, m.errText(err))
		}
		if o := m.record.Order; o != nil && o.Verb == OrderImport {
			return StageFailed, m.importFailed(ctx, *o, err)
		}
		m.trouble(ctx, journal.StepFailed, err)
		m.retryAfter(m.pause.next(0))
		return StageFailed, err
	}
	if err := m.store.SetLink(store.Staged, to); err != nil {
		m.trouble(ctx, journal.StepFailed, err)
		m.retryAfter(m.pause.next(0))
		return StageFailed, err
	}
	m.emit(ctx, journal.ReleaseStaged, slog.Duration("took", time.Since(began)))
	m.calm(ctx)
	m.tidy(ctx)
	return ReleaseStaged, nil
}

// configName is where the configuration that came with a program lies in the
// release.
const configName = "config"

func (m *machine) install(ctx context.Context, v *fetcher.Verified) (store.Release, error) {
	c := v.Candidate()
	digest := store.Digest(c.Digest)
	to, err := store.NewRelease(string(c.Version), digest)
	if err != nil {
		return store.Release{}, err
	}
	tree, err := m.store.IncomingTree(digest)
	if err != nil {
		return store.Release{}, err
	}
	if err := unpack.Unpack(ctx, v.File(), v.Name(), tree, unpack.Options{Program: m.target.content(), Config: m.target.Config != ""}); err != nil {
		return store.Release{}, err
	}
	if c := v.Config(); c != nil {
		if err := unpack.Add(c, tree, configName); err != nil {
			return store.Release{}, err
		}
	}
	if err := m.checkContent(tree); err != nil {
		var e *unpack.Error
		if !errors.As(err, &e) {
			return store.Release{}, err
		}
		named := *e // by where it is in the artifact, not by where it lies for now
		named.Op = fmt.Sprintf("check %s of %s", m.target.content(), c.Name)
		return store.Release{}, &named
	}
	return to, m.store.Install(ctx, tree, to, digest)
}

// checkContent looks at what the unit shall run, or read.
func (m *machine) checkContent(tree string) error {
	if m.target.Config != "" {
		return unpack.CheckConfig(tree, m.target.Config)
	}
	return unpack.CheckProgram(filepath.Join(tree, m.target.Program))
}

// isArtifactsFault tells a bad artifact from a bad day of this host: only the
// first makes a digest known bad.
func isArtifactsFault(err error) bool {
	code := string(reason.Of(err))
	for _, prefix := range []string{"ARTIFACT_", "ARCHIVE_", string(store.CodeReleaseTree)} {
		if strings.HasPrefix(code, prefix) {
			return true
		}
	}
	return false
}

// refuse ends the attempt before the release took any traffic. Its digest is
// known bad from now on.
func (m *machine) refuse(ctx context.Context, why string) (Event, error) {
	m.endRefused(ctx, why)
	return ReleaseRefused, nil
}

// endRefused is refuse where another event says what comes next.
func (m *machine) endRefused(ctx context.Context, why string) {
	m.lookNow = true // an older one may still be newer than what runs
	if err := m.markBad(why); err != nil {
		// Not remembered, so it will be tried again; that is the safe side, if
		// it is not at once.
		m.trouble(ctx, journal.StepFailed, err)
		m.lookNow = false
		m.retryAfter(m.pause.next(pauseMax))
	}
	m.emit(ctx, journal.ReleaseRefused, slog.String("reason", why), slog.String("result", string(VerdictRefused)))
	m.conclude(VerdictRefused, why)
	if err := m.store.ClearLink(store.Staged); err != nil {
		m.trouble(ctx, journal.StepFailed, err)
	}
	m.tidy(ctx)
}

// tidy removes artifacts that have done their work. What cannot be removed now
// is removed at the next start.
func (m *machine) tidy(ctx context.Context) {
	if err := m.store.CleanIncoming(nil); err != nil {
		m.trouble(ctx, journal.StepFailed, err)
	}
}

func (m *machine) markBad(why string) error {
	digest, err := m.record.digest()
	if err != nil {
		return err
	}
	// It is told with its reason right now, and need not be told again as
	// known bad by the next look at the source.
	m.noteSaid(badKey(m.candidate))
	delete(m.terms, digest) // it begins anew
	return m.store.MarkBad(digest, store.Bad{Version: version(m.record.To), Reason: why, When: m.wall.date()})
}
