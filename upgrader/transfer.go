package upgrader

import (
	"context"
	"log/slog"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/progress"
)

// How often a transfer is told of: to whoever looks at the status, and in the
// journal. One that is over before needs no telling.
const (
	showEvery = time.Second
	tellEvery = 10 * time.Second
)

// transfer is what is shown of one, on disk.
type transfer struct {
	Digest string `json:"digest"` // of what is fetched, as in the record
	progress.Progress
}

// watched runs f, which fetches, and lets others see how far it is.
func (m *machine) watched(ctx context.Context, f func(progress func(done, total int64)) error) error {
	var meter progress.Meter
	began := time.Now()
	shown, told := began, began
	err := f(func(done, total int64) {
		meter.Note(done)
		now := time.Now()
		if now.Sub(shown) < showEvery {
			return
		}
		shown = now
		p := meter.Progress(total)
		m.showTransfer(ctx, &p)
		if now.Sub(told) >= tellEvery {
			told = now
			m.emit(ctx, journal.ReleaseComing, slog.String("progress", p.String()))
		}
	})
	if shown != began {
		m.showTransfer(ctx, nil)
	}
	return err
}

// showTransfer tells the daemon and the disk; nil is that it is over. It never is
// in the way of the transfer.
func (m *machine) showTransfer(ctx context.Context, p *progress.Progress) {
	st := m.reported
	st.Progress = p
	m.publish(st)
	var err error
	if p == nil {
		err = m.store.ClearProgress()
	} else {
		err = m.store.SaveProgress(transfer{m.record.Digest, *p})
	}
	if err != nil {
		m.log.DebugContext(ctx, "show the transfer", "error", m.errText(err))
	}
}
