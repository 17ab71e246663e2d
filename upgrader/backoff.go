package upgrader

import (
	"math/rand/v2"
	"time"
)

const (
	pauseMin = time.Second
	// pauseMax lets a target recover within a minute of its fault's end,
	// with nobody helping.
	pauseMax = 45 * time.Second
)

// backoff spaces attempts: doubling, with jitter, so that a fleet that failed
// together does not come back together. The zero backoff is ready.
type backoff struct{ failures int }

// next is the pause before the next attempt, at least atLeast.
func (b *backoff) next(atLeast time.Duration) time.Duration {
	d := pauseMax
	if b.failures < 6 {
		d = min(pauseMin<<b.failures, pauseMax)
	}
	b.failures++
	d += time.Duration(rand.Int64N(int64(d/5) + 1))
	return max(d, atLeast)
}

func (b *backoff) reset() { b.failures = 0 }
