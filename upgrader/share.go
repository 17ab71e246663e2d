package upgrader

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// commons is what the targets of one daemon share. Several units may run the
// same artifact, each a target of its own, such as the instances of a
// template: they take turns, from fetching to the verdict, so that it is
// fetched once, and a bad one is seen by the first unit only.
type commons struct {
	mu      sync.Mutex
	turns   map[string]*turn  // by the artifact's digest, or by the unit
	members map[string]member // by the target's name
}

// turn is the lock of one artifact, or of one unit, first come, first served.
type turn struct {
	token  chan struct{} // full while somebody works on it
	wanted int           // holder and waiters
	holder string
}

// member is a target whose store others may read.
type member struct {
	program, config string
	trusts          string // whom it believes, see trusts
	store           *store.Store
}

func newCommons() *commons {
	return &commons{turns: map[string]*turn{}, members: map[string]member{}}
}

func (c *commons) join(t *Target, s *store.Store) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members[t.Name] = member{t.Program, t.Config, trusts(t.Source), s}
}

// follow takes notice of another configuration of a member.
func (c *commons) follow(t *Target) {
	c.mu.Lock()
	m, ok := c.members[t.Name]
	c.mu.Unlock()
	if ok {
		c.join(t, m.store)
	}
}

// trusts sums up who can make a target with this source take a release.
func trusts(o fetcher.Options) string {
	if o.Verify == fetcher.VerifyNo {
		return fmt.Sprintf("%s %q %q %q", o.Verify, o.Path, o.Mirrors, o.Endpoint)
	}
	return fmt.Sprintf("%s %q %q %d %q", o.Verify, o.Keys, o.RevokedKeys, o.Threshold, o.Root)
}

func (c *commons) leave(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.members, name)
}

// others are the members besides name.
func (c *commons) others(name string) map[string]member {
	c.mu.Lock()
	defer c.mu.Unlock()
	others := make(map[string]member, len(c.members))
	for other, m := range c.members {
		if other != name {
			others[other] = m
		}
	}
	return others
}

// take waits for an artifact or a unit and locks it for target name; waiting is
// told who has it. Whoever gets done calls it, once.
func (c *commons) take(ctx context.Context, what, name string, waiting func(holder string)) (done func(), err error) {
	c.mu.Lock()
	t := c.turns[what]
	if t == nil {
		t = &turn{token: make(chan struct{}, 1)}
		c.turns[what] = t
	}
	t.wanted++
	holder := t.holder
	c.mu.Unlock()

	give := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if t.wanted--; t.wanted == 0 {
			delete(c.turns, what)
		}
	}
	if holder != "" {
		waiting(holder)
	}
	select {
	case t.token <- struct{}{}:
	case <-ctx.Done():
		give()
		return nil, ctx.Err()
	}
	c.setHolder(t, name)
	return func() {
		c.setHolder(t, "")
		<-t.token
		give()
	}, nil
}

// tryTake is take where nobody has it, and nil where somebody has.
func (c *commons) tryTake(what, name string) (done func()) {
	c.mu.Lock()
	_, taken := c.turns[what]
	c.mu.Unlock()
	if taken {
		return nil
	}
	done, _ = c.take(context.Background(), what, name, func(string) {})
	return done
}

func (c *commons) setHolder(t *turn, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.holder = name
}

// takeTurn locks the artifact that the record names, unless the machine has
// it. It keeps it until [machine.endTurn].
func (m *machine) takeTurn(ctx context.Context) error {
	if m.turn != nil {
		return nil
	}
	digest, err := m.record.digest()
	if err != nil || digest == (store.Digest{}) {
		return nil //nolint:nilerror // an artifact that has no digest yet is nobody else's
	}
	m.turn, err = m.commons.take(ctx, digest.String(), m.target.Name, func(holder string) {
		m.emit(ctx, journal.TurnAwaited, slog.String("holder", holder))
	})
	return err
}

// endTurn lets the next target work on the artifact.
func (m *machine) endTurn() {
	if m.turn != nil {
		m.turn()
		m.turn = nil
	}
}

// takeUnit locks the target's unit, unless the machine has it, until the verdict:
// what one target watches, no other moves. It is taken after the artifact, and the
// artifact never after it.
func (m *machine) takeUnit(ctx context.Context) (err error) {
	if m.unitTurn != nil || m.commons == nil {
		return nil
	}
	m.unitTurn, err = m.commons.take(ctx, m.target.Unit, m.target.Name, func(holder string) {
		m.emit(ctx, journal.UnitAwaited, slog.String("holder", holder))
	})
	return err
}

// leaveUnit lets the next target move the unit.
func (m *machine) leaveUnit() {
	if m.unitTurn != nil {
		m.unitTurn()
		m.unitTurn = nil
	}
}

// badElsewhere tells whether another target found the artifact bad, and why.
func (m *machine) badElsewhere(digest store.Digest) (string, bool) {
	for name, other := range m.commons.others(m.target.Name) {
		if bad, isBad, err := other.store.Bad(digest); err == nil && isBad {
			return fmt.Sprintf("target %s found it bad: %s", name, bad.Reason), true
		}
	}
	return "", false
}

// borrow copies the release from another target that has it. Only what the
// source lists comes here: it says which digest, and the other store which bytes
// that was. Where patches led to them, that is the word of the other target's
// source, so it must be one that is believed here, too. The other target must
// want the same program, since that decides what a tree looks like.
func (m *machine) borrow(ctx context.Context, to store.Release, digest store.Digest) bool {
	for name, other := range m.commons.others(m.target.Name) {
		if other.program != m.target.Program || other.config != m.target.Config || other.trusts != trusts(m.target.Source) {
			continue
		}
		if has, err := other.store.Digest(to); err != nil || has != digest {
			continue
		}
		began := time.Now()
		err := m.store.Copy(ctx, other.store, to, digest)
		if err == nil {
			m.emit(ctx, journal.ReleaseBorrowed, slog.String("holder", name), slog.Duration("took", time.Since(began)))
			return true
		}
		// The source has it too.
		m.log.DebugContext(ctx, "borrowing a release", "error", err)
	}
	return false
}
