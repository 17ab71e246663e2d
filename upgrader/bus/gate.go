package bus

import (
	"sync"

	"github.com/godbus/dbus/v5"
)

// How many calls may be under way, of those that take time: that ask polkit, the
// source or the disk.
const (
	callsEach = 8
	callsAll  = 64
)

// gate lets in no more than that.
type gate struct {
	mu  *sync.Mutex
	of  map[uint32]int // by user; those without a call are not in it
	all *int
}

func newGate() gate { return gate{&sync.Mutex{}, map[uint32]int{}, new(int)} }

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

func (g gate) enter(uid uint32) (leave func(), _ *dbus.Error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.of[uid] >= callsEach || *g.all >= callsAll {
		return nil, refusal(errorLimits, "too many calls are under way: at most %d of each user, and %d together", callsEach, callsAll)
	}
	g.of[uid]++
	*g.all++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		*g.all--
		if g.of[uid]--; g.of[uid] == 0 {
			delete(g.of, uid)
		}
	}, nil
}
