package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// An order can be taken back until its release is fetched. From then on things are
// moved that have to come to their end, and a rollback is the way back.

// WantedBack is the reason of what ended since its order was taken back.
const WantedBack = "the operator took the order back"

// What stands in the way of taking an order back.
var (
	ErrNoOrder = errors.New("there is no such order, or it is over")
	ErrTooLate = errors.New("the order is carried out, and cannot be taken back any more")
)

// TakeBack asks for the order with this ID to be taken back, and returns at once: its
// answer tells whether that came in time.
func (d *Daemon) TakeBack(target, id string) error {
	d.mu.Lock()
	m, st := d.machines[target], d.status[target]
	d.mu.Unlock()
	switch waits, err := Ordered(d.o.StateDir, target, id); {
	case err != nil:
		return fmt.Errorf("take back an order of %s: %w", target, err)
	case m == nil || !waits && !(st.Begun && st.Order.ID == id):
		return fmt.Errorf("take back an order of %s: %w", target, ErrNoOrder)
	case st.Begun && st.Order.ID == id && st.State != Fetching:
		return advice.Give(fmt.Errorf("take back an order of %s, which is %s %s: %w", target, st.State, version(st.To), ErrTooLate), "to undo what it does: upgraderd rollback %s", target)
	}
	m.taken.Store(&id)
	if stop := m.stop.Load(); stop != nil {
		(*stop)()
	}
	m.wake()
	return nil
}

// Look has a target look at its orders, and its source, now.
func (d *Daemon) Look(target string) {
	d.mu.Lock()
	m := d.machines[target]
	d.mu.Unlock()
	if m != nil {
		m.wake()
	}
}

// Foresee is [Foresee] of a target that the daemon follows.
func (d *Daemon) Foresee(ctx context.Context, target string) (Plan, error) {
	d.mu.Lock()
	m := d.machines[target]
	d.mu.Unlock()
	if m == nil {
		return Plan{}, fmt.Errorf("%s is not followed", target)
	}
	return Foresee(ctx, Options{StateDir: d.o.StateDir, Systemd: d.o.Systemd}, m.followed.Load())
}

// interruptible gives a context that ends with ctx, or when the order that is
// carried out, if one is, is taken back. done has to be called.
func (m *machine) interruptible(ctx context.Context, o *Order) (_ context.Context, done func()) {
	if o == nil {
		return ctx, func() {}
	}
	within, cancel := context.WithCancel(ctx)
	m.stop.Store(&cancel)
	if m.tookBack(*o) { // before there was something to stop
		cancel()
	}
	return within, func() {
		m.stop.Store(nil)
		cancel()
	}
}

func (m *machine) tookBack(o Order) bool {
	id := m.taken.Load()
	return id != nil && *id == o.ID
}

// abandonOrder ends what an order began, before anything was swapped. What it was
// about does not come by itself: whoever took it back does not want it now.
func (m *machine) abandonOrder(ctx context.Context, o Order) {
	m.emit(ctx, journal.OrderTakenBack, slog.String("order", o.String()))
	m.passOver(version(m.record.To), o.Past)
	m.dropVerified()
	m.tidy(ctx)
	m.conclude(VerdictCancelled, WantedBack)
}

// passOver has nothing come by itself up to these versions.
func (m *machine) passOver(versions ...string) {
	for _, v := range versions {
		if past := m.record.Past; past == "" || fetcher.Version(v).Compare(fetcher.Version(past)) > 0 {
			m.record.Past = v
		}
	}
}
