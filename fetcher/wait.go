package fetcher

import (
	"context"
	"math/bits"
	"math/rand/v2"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// backoffFirst is the wait after a first failure; it doubles with each one
// that follows, up to the poll interval.
const backoffFirst = time.Second

// rhythm remembers what Wait must know of the steps before it.
type rhythm struct {
	checked  bool        // since New
	state    source.Mark // of a source that can tell, at the last Check
	failures int         // cycles in a row
	last     *Error      // of this cycle
}

// looked notes that a Check was made, with the source in this state.
func (r *rhythm) looked(state source.Mark) { r.checked, r.state = true, state }

// failed notes a failure, unless the caller just did not want to go on.
func (r *rhythm) failed(e *Error) {
	if e.Code != fault.Canceled {
		r.last = e
	}
}

// next tells how long to wait, and begins a new cycle.
func (r *rhythm) next(o Options) time.Duration {
	last := r.last
	r.last = nil
	if last == nil {
		r.failures = 0
		return o.PollInterval + o.delay()
	}
	r.failures++
	wait := o.PollInterval
	if !persistent(last.Code) {
		// Half of it is chance, so that hosts that failed together do not
		// come back together.
		full := min(backoffFirst<<min(r.failures-1, 20), o.PollInterval)
		wait = full/2 + jitter(full/2)
	}
	return max(wait, last.RetryAfter)
}

// persistent tells failures that asking again soon cannot mend.
func persistent(code fault.Code) bool {
	switch code {
	case fault.Denied, fault.SigKey, fault.SigMissing, fault.SigSyntax, fault.MetaSyntax, fault.TooLarge,
		fault.TUFThreshold, fault.TUFSyntax, fault.TUFTooLarge:
		return true
	}
	return false
}

// Wait returns nil when the source may have something new, or when a step that
// failed may succeed now: after inotify says so, after the poll interval, or
// after the back-off that the last failure asks for. It returns at once before
// the first Check. The only error is that of ctx.
func (f *Fetcher) Wait(ctx context.Context) error {
	f.mu.Lock()
	checked, state := f.rhythm.checked, f.rhythm.state
	failed := f.rhythm.last
	patience := f.rhythm.next(f.o)
	f.mu.Unlock()
	if !checked {
		return nil
	}
	f.log.DebugContext(ctx, "wait for the source", "patience", patience)
	if w, ok := f.mirrors[0].lists.(source.Watcher); ok && (failed == nil || failed.RetryAfter == 0) {
		limited, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := w.Watch(limited, state); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return f.explain("wait", fault.Context(ctx))
		}
		return nil
	}
	if err := sleep(ctx, patience); err != nil {
		return f.explain("wait", err)
	}
	return nil
}

// delay is what is added to the poll interval.
func (o Options) delay() time.Duration {
	if o.FixedDelay == 0 || o.RandomizedDelay <= 0 {
		return jitter(o.RandomizedDelay)
	}
	// The point of the range: floor(seed × (most+1) / 2⁶⁴).
	share, _ := bits.Mul64(o.FixedDelay, uint64(o.RandomizedDelay)+1)
	return time.Duration(share)
}

func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most + 1)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fault.Context(ctx)
	}
}
