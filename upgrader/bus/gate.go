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
	of  map[string]int // by unique name; those without a call are not in it
	all *int
}

func newGate() gate { return gate{&sync.Mutex{}, map[string]int{}, new(int)} }

// enter counts a call of sender's until leave is called.
func (g gate) enter(sender string) (leave func(), _ *dbus.Error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.of[sender] >= callsEach || *g.all >= callsAll {
		return nil, refusal(errorLimits, "too many calls are under way: at most %d of each client, and %d together", callsEach, callsAll)
	}
	g.of[sender]++
	*g.all++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		*g.all--
		if g.of[sender]--; g.of[sender] == 0 {
			delete(g.of, sender)
		}
	}, nil
}
