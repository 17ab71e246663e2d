package bus

import (
	"maps"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// How many calls may be under way, of those that take time: that ask polkit, the
// source or the disk.
const (
	callsEach = 8
	callsAll  = 64
)

// How many of them a user may make one after the other, and how long each of them
// counts. Whoever looks at every target of a host now and then has enough.
const (
	callsBurst = 60
	callsEvery = time.Second
)

// How many refusals of a user's calls are logged one after the other, and how often
// from then on.
const (
	refusalsBurst = 10
	refusalsEvery = time.Minute
)

// gate lets in no more than that. It knows users of whom something counts still.
type gate struct {
	mu       sync.Mutex
	of       map[uint32]int // calls under way, by user
	all      int
	calls    map[uint32]ration
	refusals map[uint32]ration
	untold   map[uint32]int // refusals that were not logged
}

func newGate() *gate {
	return &gate{of: map[uint32]int{}, calls: map[uint32]ration{}, refusals: map[uint32]ration{}, untold: map[uint32]int{}}
}

// ration is when the last thing that was taken does not count any more.
type ration time.Time

// take takes one of those of a user, and tells whether there was one.
func take(of map[uint32]ration, uid uint32, burst int, every time.Duration) bool {
	now := time.Now()
	maps.DeleteFunc(of, func(_ uint32, r ration) bool { return !time.Time(r).After(now) })
	until := time.Time(of[uid])
	if until.Before(now) {
		until = now
	}
	if until = until.Add(every); until.Sub(now) > time.Duration(burst)*every {
		return false
	}
	of[uid] = ration(until)
	return true
}

// enter counts a call of c's until leave is called. Calls are counted by user, since
// connections cost nothing; root's are not, so that nobody keeps root out.
func (l *link) enter(c caller) (leave func(), _ *dbus.Error) {
	uid, refused := l.uid(c)
	if refused != nil {
		return nil, refused
	}
	if uid == 0 {
		return func() {}, nil
	}
	return l.gate.enter(uid)
}

func (g *gate) enter(uid uint32) (leave func(), _ *dbus.Error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.of[uid] >= callsEach || g.all >= callsAll {
		return nil, refusal(errorLimits, "too many calls are under way: at most %d of each user, and %d together", callsEach, callsAll)
	}
	if !take(g.calls, uid, callsBurst, callsEvery) {
		return nil, refusal(errorLimits, "too many calls of user %d: at most %d, and one more each %v; wait, and ask less often", uid, callsBurst, callsEvery)
	}
	g.of[uid]++
	g.all++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all--
		if g.of[uid]--; g.of[uid] == 0 {
			delete(g.of, uid)
		}
	}, nil
}

// tells reports whether the refusal of a call of a user is to be logged, and how many
// before it were not.
func (g *gate) tells(uid uint32) (untold int, yes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !take(g.refusals, uid, refusalsBurst, refusalsEvery) {
		g.untold[uid]++
		return 0, false
	}
	untold = g.untold[uid]
	delete(g.untold, uid)
	return untold, true
}
