package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// Answer is a response whose every wait is bounded. Whoever got it closes it.
type Answer struct {
	// Response has status and header. Its body is read by way of the Answer.
	Response *http.Response

	c      *Client
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  *time.Timer
	host   string // that was asked
	name   string
	want   int64 // bytes announced, -1 unknown
	got    int64
	waited time.Duration // in this rate window
	window int64         // bytes in this rate window
}

var (
	errStalled = errors.New("no progress")
	errTooLong = fmt.Errorf("not complete after %v", readTimeout)
)

// Do asks for a file, and gives the server's answer, whatever its status.
func (c *Client) Do(ctx context.Context, r Request) (*Answer, error) {
	a := &Answer{c: c, host: r.URL.Host, name: r.Name}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.stall = time.AfterFunc(c.o.StallTimeout, func() { a.cancel(errStalled) })
	req, err := http.NewRequestWithContext(a.ctx, r.Method, r.URL.String(), nil)
	if err != nil {
		a.Close()
		return nil, fault.New(fault.ConfigSource, errors.New("not a URL that can be asked"), "check Path=")
	}
	if r.Header != nil {
		req.Header = r.Header.Clone()
	}
	if r.URL.Hostname() == c.home && !r.Anonymous {
		if err := c.o.Access.Authorize(req.Header); err != nil {
			a.Close()
			return nil, err
		}
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "upgraderd")
	a.Response, err = c.http.Do(req) //nolint:bodyclose // Close closes it
	a.stall.Stop()
	if err != nil {
		err = a.fault(err)
		a.Close()
		return nil, err
	}
	a.want = a.Response.ContentLength
	return a, nil
}

// end tells how many bytes are left to come.
func (a *Answer) end(want int64) { a.want = want }

// Read reads the body. It fails when nothing comes, too little, or less than
// was announced.
func (a *Answer) Read(p []byte) (int, error) {
	begin := time.Now()
	a.stall.Reset(a.c.o.StallTimeout)
	n, err := a.Response.Body.Read(p)
	a.stall.Stop()
	a.waited += time.Since(begin)
	a.got += int64(n)
	a.window += int64(n)
	if err == nil && a.waited >= a.c.o.RateWindow {
		if rate := float64(a.window) / a.waited.Seconds(); rate < float64(a.c.o.RateMin) {
			return n, fault.Passing(fault.TooSlow, fmt.Errorf("%.0f bytes/s over %v, at least %d are wanted", rate, a.waited.Round(time.Second), a.c.o.RateMin),
				"check the network between this host and "+a.host)
		}
		a.waited, a.window = 0, 0
	}
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && (a.want < 0 || a.got == a.want):
		return n, io.EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return n, a.short()
	}
	return n, a.fault(err)
}

// cutHint: a server that lies about a length does so again.
const cutHint = "it is tried again by itself; if it stays so, check the server, and any proxy before it"

func (a *Answer) short() error {
	announced := "an end that never came"
	if a.want >= 0 {
		announced = fmt.Sprintf("%d bytes", a.want)
	}
	return fault.Passing(fault.Size, fmt.Errorf("%s: the server announced %s and sent %d", a.name, announced, a.got), cutHint)
}

// Close ends the transfer and frees its connection.
func (a *Answer) Close() error {
	a.stall.Stop()
	a.cancel(context.Canceled)
	if a.Response != nil {
		a.Response.Body.Close()
	}
	return nil
}
