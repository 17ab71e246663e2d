package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// answer is a response whose every wait is bounded.
type answer struct {
	h        *HTTP
	ctx      context.Context
	cancel   context.CancelCauseFunc
	stall    *time.Timer
	response *http.Response
	name     string
	want     int64 // bytes announced, -1 unknown
	got      int64
	waited   time.Duration // in this rate window
	window   int64         // bytes in this rate window
}

var (
	errStalled = errors.New("no progress")
	errTooLong = fmt.Errorf("not complete after %v", readTimeout)
)

func (h *HTTP) get(ctx context.Context, name string, header http.Header) (*answer, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	target := h.base.JoinPath(url.PathEscape(name))
	a := &answer{h: h, name: name}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.stall = time.AfterFunc(h.o.StallTimeout, func() { a.cancel(errStalled) })
	req, err := http.NewRequestWithContext(a.ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		a.drop()
		return nil, fault.New(fault.ConfigSource, errors.New("not a URL that can be asked"), "check Path=")
	}
	req.Header = header
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "upgraderd")
	if h.user != nil {
		password, _ := h.user.Password()
		req.SetBasicAuth(h.user.Username(), password)
	}
	a.response, err = h.client.Do(req) //nolint:bodyclose // drop closes it
	a.stall.Stop()
	if err != nil {
		err = a.fault(err)
		a.drop()
		return nil, err
	}
	a.want = a.response.ContentLength
	return a, nil
}

// end tells how many bytes are left to come.
func (a *answer) end(want int64) { a.want = want }

// Read reads the body. It fails when nothing comes, too little, or less than
// was announced.
func (a *answer) Read(p []byte) (int, error) {
	begin := time.Now()
	a.stall.Reset(a.h.o.StallTimeout)
	n, err := a.response.Body.Read(p)
	a.stall.Stop()
	a.waited += time.Since(begin)
	a.got += int64(n)
	a.window += int64(n)
	if err == nil && a.waited >= a.h.o.RateWindow {
		if rate := float64(a.window) / a.waited.Seconds(); rate < float64(a.h.o.RateMin) {
			return n, fault.Passing(fault.TooSlow, fmt.Errorf("%.0f bytes/s over %v, at least %d are wanted", rate, a.waited.Round(time.Second), a.h.o.RateMin),
				"check the network between this host and "+a.h.base.Hostname())
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

func (a *answer) short() error {
	announced := "an end that never came"
	if a.want >= 0 {
		announced = fmt.Sprintf("%d bytes", a.want)
	}
	return fault.Passing(fault.Size, fmt.Errorf("%s: the server announced %s and sent %d", a.name, announced, a.got), cutHint)
}

// drop ends the transfer and frees its connection.
func (a *answer) drop() {
	a.stall.Stop()
	a.cancel(context.Canceled)
	if a.response != nil {
		a.response.Body.Close()
	}
}

// Close ends the transfer and frees its connection.
func (a *answer) Close() error {
	a.drop()
	return nil
}
