package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// fault says why the server did not answer, or stopped. Text of net/http that
// can hold a URL is never passed on.
func (a *Answer) fault(err error) error {
	host := a.host
	network := "check the network between this host and " + host
	switch cause := context.Cause(a.ctx); {
	case cause == nil:
	case errors.Is(cause, errStalled):
		return fault.Passing(fault.Stalled, fmt.Errorf("no progress for %v", a.c.o.StallTimeout), network)
	case errors.Is(cause, errTooLong):
		return fault.Passing(fault.TooSlow, fmt.Errorf("%s %w", a.name, errTooLong), network)
	default:
		return fault.Context(a.ctx)
	}
	return fault.Bare(err, func(err error) *fault.Error {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		var (
			dns         *net.DNSError
			op          *net.OpError
			certificate *tls.CertificateVerificationError
			record      tls.RecordHeaderError
			alert       tls.AlertError
		)
		isOp := errors.As(err, &op)
		switch {
		case isOp && op.Op == "proxyconnect":
			return fault.Passing(fault.Proxy, err, "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the daemon")
		case errors.As(err, &dns):
			return fault.Passing(fault.DNS, err, "check Path= and the host's resolver")
		case errors.As(err, &certificate):
			return fault.New(fault.TLS, fmt.Errorf("%w%s", certificate.Err, summary(certificate.UnverifiedCertificates)),
				"check the server's certificate and this host's clock, or set CAFile=")
		case errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
			return fault.New(fault.TLS, errors.New("the server does not speak TLS"), "check Path=: http or https, and the port")
		case errors.As(err, &alert), isOp && (op.Op == "remote error" || op.Op == "local error"):
			return fault.New(fault.TLS, err, "check which TLS versions and certificates the server asks for")
		case strings.Contains(err.Error(), "TLS handshake timeout"):
			return fault.Passing(fault.Connect, err, network)
		case isOp && op.Op == "dial":
			return fault.Passing(fault.Connect, err, network)
		case strings.HasPrefix(err.Error(), "tls: "):
			return fault.New(fault.TLS, err, "check which TLS versions and certificates the server asks for")
		case strings.Contains(err.Error(), "Location header"):
			// Its text repeats the header, which may repeat a token of ours.
			return fault.New(fault.Redirect, errors.New("redirect to what is no URL"), "check Path=")
		case strings.Contains(err.Error(), "Content-Length"):
			return fault.Passing(fault.Size, err, cutHint)
		case isOp, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return fault.Passing(fault.Broken, fmt.Errorf("the connection broke after %d bytes: %w", a.got, err), network)
		}
		return fault.Passing(fault.Protocol, fmt.Errorf("%.200s", err.Error()), "check that Path= is what a web server answers")
	})
}

func summary(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return ""
	}
	c := chain[0]
	return fmt.Sprintf(" (certificate of %q by %q, until %s)", c.Subject, c.Issuer, c.NotAfter.UTC().Format("2006-01-02"))
}

// Status says what an answer means that brings no file.
func (a *Answer) Status() *fault.Error {
	resp := a.Response
	code := resp.StatusCode
	err := fmt.Errorf("%s: %d %s", a.name, code, http.StatusText(code))
	now := serversNow(resp)
	wait := retryAfter(resp.Header.Get("Retry-After"), now)
	limit, limited := usedUp(resp.Header, now)
	var f *fault.Error
	switch {
	case limited && (code == http.StatusForbidden || code == http.StatusTooManyRequests):
		wait = max(wait, limit)
		err = fmt.Errorf("%w; no more requests are let in until %s", err, now.Add(wait).UTC().Format("15:04:05 MST"))
		f = fault.Passing(fault.Throttled, err, "raise PollIntervalSec=")
	case code == http.StatusForbidden && wait > 0:
		f = fault.Passing(fault.Throttled, err, "raise PollIntervalSec=")
	case code == http.StatusNotFound || code == http.StatusGone:
		f = fault.Passing(fault.NotFound, err, "check Path=, and that the file is published")
	case code == http.StatusUnauthorized || code == http.StatusForbidden || code == http.StatusUnavailableForLegalReasons:
		f = fault.New(fault.Denied, err, a.c.deniedHint())
	case code == http.StatusProxyAuthRequired:
		f = fault.New(fault.Proxy, err, "check the user and password in HTTP_PROXY or HTTPS_PROXY of the daemon")
	case code == http.StatusTooManyRequests:
		f = fault.Passing(fault.Throttled, err, "raise PollIntervalSec=")
	case code == http.StatusRequestTimeout || code >= 500:
		f = fault.Passing(fault.Server, err, "it is asked again by itself; if it stays so, see what the server logs")
	case code >= 300 && code < 400:
		f = fault.New(fault.Redirect, err, "check Path=")
	default:
		f = fault.New(fault.Status, err, "check Path=")
	}
	f.RetryAfter = wait
	if a.c.o.Explain != nil {
		f = a.c.o.Explain(a, f)
	}
	return f
}

func (c *Client) deniedHint() string {
	switch a := c.o.Access; {
	case a.TokenFile != "":
		return "check the access rights at the source, and whether the token in TokenFile= still counts; the file is read anew for each request"
	case a.LoginFile != "":
		return "check the access rights at the source, and the user and password in LoginFile=; the file is read anew for each request"
	}
	return "check the access rights at the source; TokenFile= or LoginFile= says who asks"
}

// retryAfterMax keeps a server from silencing us for good.
const retryAfterMax = time.Hour

// serversNow is the time by the clock that a date in Retry-After is by. This
// host's is asked only where the server has none (RFC 9110, 6.6.1).
func serversNow(resp *http.Response) time.Time {
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		return date
	}
	return time.Now()
}

// retryAfter reads seconds or a date; what is neither counts as not there.
func retryAfter(s string, now time.Time) time.Duration {
	var d time.Duration
	if seconds, err := strconv.ParseUint(s, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if date, err := http.ParseTime(s); err == nil {
		d = date.Sub(now)
	} else if s != "" && strings.Trim(s, "0123456789") == "" {
		d = retryAfterMax // more seconds than fit a number
	}
	return min(max(d, 0), retryAfterMax)
}
