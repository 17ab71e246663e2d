package fetcher

import (
	"context"
	"io"
	"time"
)

// paced reads no faster than so many bytes a second. It does so in small steps,
// and what a silent source left unused is lost but for an instant's worth, so that
// no second carries more than its share: others use the line, too.
type paced struct {
	ctx  context.Context
	from io.ReadCloser
	rate int64
	due  time.Time // when the next byte may be read
}

// paceStep is how much time one read is worth, at most. Shorter ones would only
// cost more system calls.
const paceStep = 50 * time.Millisecond

// pace gives body at rate bytes a second, 0 as fast as it comes.
func pace(ctx context.Context, body io.ReadCloser, rate int64) io.ReadCloser {
	if rate <= 0 {
		return body
	}
	return &paced{ctx, body, rate, time.Now()}
}

func (p *paced) Read(buf []byte) (int, error) {
	if wait := time.Until(p.due); wait > 0 {
		if err := sleep(p.ctx, wait); err != nil {
			return 0, err
		}
	}
	most := max(1, p.rate/int64(time.Second/paceStep))
	n, err := p.from.Read(buf[:min(int64(len(buf)), most)])
	if now := time.Now(); now.Sub(p.due) > paceStep {
		p.due = now.Add(-paceStep)
	}
	p.due = p.due.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return n, err
}

func (p *paced) Close() error { return p.from.Close() }
