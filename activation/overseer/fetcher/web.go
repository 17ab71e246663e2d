package fetcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	connectTimeout = 10 * time.Second
	// stallTimeout ends an answer that makes no progress.
	stallTimeout = 30 * time.Second
	smallMax     = 4 << 20 // of answers that are no binaries
)

// client is for all servers: nothing waits without a limit. A token is not shown to
// another host on redirect, see http.Client.
var client = &http.Client{Transport: &http.Transport{
	Proxy:                  http.ProxyFromEnvironment,
	DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
	TLSHandshakeTimeout:    connectTimeout,
	ResponseHeaderTimeout:  stallTimeout,
	MaxResponseHeaderBytes: 64 << 10,
	IdleConnTimeout:        time.Minute,
	ForceAttemptHTTP2:      true,
}}

// statusError is an answer that brings no file.
type statusError struct {
	method string
	status int
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%s: got %d %s", e.method, e.status, http.StatusText(e.status))
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return text + ": check the token, or the keys"
	}
	return text
}

func (e *statusError) Is(target error) bool {
	return target == errNotThere && e.status == http.StatusNotFound
}

// do sends a request that has to be answered with one of the statuses. The body
// ends in an error when nothing comes for long.
func do(r *http.Request, wanted ...int) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	resp, err := client.Do(r.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &stalling{body: resp.Body, cancel: cancel, ctx: ctx, timer: time.AfterFunc(stallTimeout, func() { cancel(errStalled) })}
	for _, w := range wanted {
		if resp.StatusCode == w {
			return resp, nil
		}
	}
	resp.Body.Close()
	return nil, &statusError{r.Method, resp.StatusCode}
}

var errStalled = errors.New("nothing came for " + stallTimeout.String())

type stalling struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (s *stalling) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	s.timer.Reset(stallTimeout)
	if err != nil && err != io.EOF && errors.Is(context.Cause(s.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

func (s *stalling) Close() error {
	s.timer.Stop()
	err := s.body.Close()
	s.cancel(nil)
	return err
}

// small reads an answer of few bytes.
func small(r *http.Request, most int64) ([]byte, error) {
	resp, err := do(r, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("more than %d bytes", most)
	}
	return b, err
}

// bearer shows a token, if there is one.
func bearer(r *http.Request, token string) {
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
}
