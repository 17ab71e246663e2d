package source

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
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const (
	connectTimeout = 10 * time.Second
	// readTimeout bounds a small file as a whole; an artifact has none, as
	// long as it makes progress.
	readTimeout  = 2 * time.Minute
	headerMax    = 64 << 10
	redirectsMax = 5
	// markMax is far longer than any ETag of a server that means well.
	markMax = 512
	// caFileMax is four times the bundle of all authorities Debian trusts.
	caFileMax = 1 << 20
)

// HTTPOptions say how to speak to a server. The zero value of a field means
// the default named beside it.
type HTTPOptions struct {
	// CAFile holds PEM certificates trusted beside the system's.
	CAFile string
	// StallTimeout ends a transfer without progress. Default 30 s.
	StallTimeout time.Duration
	// RateMin is the least number of bytes a second, over each RateWindow
	// of waiting. Default 1 KiB/s over 60 s.
	RateMin    int64
	RateWindow time.Duration
	// Dial replaces the connection to the server. Default TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// HTTP is a directory behind an http or https URL.
type HTTP struct {
	base   *url.URL // without user
	user   *url.Userinfo
	client *http.Client
	o      HTTPOptions
}

var _ Source = (*HTTP)(nil)

// NewHTTP follows the directory at base. Nothing is asked of the server yet.
func NewHTTP(base *url.URL, o HTTPOptions) (*HTTP, error) {
	if o.StallTimeout <= 0 {
		o.StallTimeout = 30 * time.Second
	}
	if o.RateMin <= 0 {
		o.RateMin = 1 << 10
	}
	if o.RateWindow <= 0 {
		o.RateWindow = time.Minute
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: connectTimeout}).DialContext
	}
	roots, err := loadRoots(o.CAFile)
	if err != nil {
		return nil, err
	}
	// One transfer at a time needs no multiplexing, and HTTP/1.1 has less to
	// attack: no GOAWAY, no header flood in frames.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	plain := *base
	plain.User = nil
	return &HTTP{base: &plain, user: base.User, o: o, client: &http.Client{
		CheckRedirect: checkRedirect,
		Transport: &http.Transport{
			Protocols:              protocols,
			Proxy:                  proxy,
			OnProxyConnectResponse: proxyAnswered,
			DialContext:            o.Dial,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    connectTimeout,
			MaxResponseHeaderBytes: headerMax,
			DisableCompression:     true,
			MaxIdleConns:           2,
			IdleConnTimeout:        30 * time.Second,
		},
	}}, nil
}

// loadRoots gives nil, the system's authorities, where no file is named.
func loadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	const hint = "CAFile= takes the absolute name of a file of PEM certificates"
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.New(fault.ConfigSource, err, hint)
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, caFileMax+1))
	if err != nil {
		return nil, fault.New(fault.ConfigSource, err, hint)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if len(pem) > caFileMax || !roots.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.ConfigSource, fmt.Errorf("%s holds no PEM certificate", file), hint)
	}
	return roots, nil
}

// String gives the URL without user, password and query.
func (h *HTTP) String() string { return redact(h.base) }

// Close frees idle connections.
func (h *HTTP) Close() { h.client.CloseIdleConnections() }

// Read gets a small file whole, if it is not as it was.
func (h *HTTP) Read(ctx context.Context, name string, max int64, since Mark) ([]byte, Mark, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readTimeout, errTooLong)
	defer cancel()
	header := http.Header{}
	switch {
	case since.isETag():
		header.Set("If-None-Match", string(since))
	case since != "":
		header.Set("If-Modified-Since", string(since))
	}
	answer, err := h.get(ctx, name, header)
	if err != nil {
		return nil, "", err
	}
	defer answer.Close()
	resp := answer.response
	switch {
	case resp.StatusCode == http.StatusNotModified && since != "":
		return nil, since, ErrUnchanged
	case resp.StatusCode != http.StatusOK:
		return nil, "", h.status(name, resp)
	}
	if encoding := encodingOf(resp); encoding != "" {
		return nil, "", fault.New(fault.Encoding, fmt.Errorf("%s came with Content-Encoding %q, which was not asked for", name, encoding),
			"let the server or the proxy before it send the file as it is")
	}
	if resp.ContentLength > max {
		return nil, "", fault.New(fault.MetaTooLarge, fmt.Errorf("%s has %d bytes, at most %d are read", name, resp.ContentLength, max), "check Path=")
	}
	raw, err := io.ReadAll(io.LimitReader(answer, max+1))
	if err != nil {
		return nil, "", err
	}
	if int64(len(raw)) > max {
		return nil, "", fault.New(fault.MetaTooLarge, fmt.Errorf("%s has more than %d bytes", name, max), "check Path=")
	}
	return raw, markOfResponse(resp), nil
}

// Open starts to get a file, from the middle where the server lets us.
func (h *HTTP) Open(ctx context.Context, name string, from Position) (*Stream, error) {
	header := http.Header{}
	if from.Offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", from.Offset))
		// A weak tag must not stand in If-Range (RFC 9110, 13.1.5); the
		// comparison below then has to do.
		if from.Mark != "" && !from.Mark.isWeak() {
			header.Set("If-Range", string(from.Mark))
		}
	}
	answer, err := h.get(ctx, name, header)
	if err != nil {
		return nil, err
	}
	resp := answer.response
	s := &Stream{Body: answer, Size: resp.ContentLength, Mark: markOfResponse(resp)}
	if encoding := encodingOf(resp); encoding != "" {
		// Some servers say so of every .gz file they keep. The bytes are
		// taken as they come, and the digest decides.
		s.Note = fmt.Sprintf("the server declared Content-Encoding %q, which was not asked for", encoding)
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		return s, nil
	case resp.StatusCode == http.StatusPartialContent && from.Offset > 0:
		first, last, size, ok := contentRange(resp.Header.Get("Content-Range"))
		if ok && first == from.Offset && (from.Mark == "" || from.Mark == s.Mark) {
			s.Offset, s.Size = first, size
			answer.end(last + 1 - first)
			return s, nil
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && from.Offset > 0:
	default:
		answer.Close()
		return nil, h.status(name, resp)
	}
	// The file is not the one we have a part of.
	answer.Close()
	return h.Open(ctx, name, Position{})
}

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
	target := h.base.JoinPath(url.PathEscape(name))
	a := &answer{h: h, name: name}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.stall = time.AfterFunc(h.o.StallTimeout, func() { a.cancel(errStalled) })
	req, err := http.NewRequestWithContext(a.ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		a.Close()
		return nil, fault.New(fault.ConfigSource, errors.New("not a URL that can be asked"), "check Path=")
	}
	req.Header = header
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "upgraderd")
	if h.user != nil {
		password, _ := h.user.Password()
		req.SetBasicAuth(h.user.Username(), password)
	}
	a.response, err = h.client.Do(req)
	a.stall.Stop()
	if err != nil {
		err = a.fault(err)
		a.Close()
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
	case err == io.EOF && (a.want < 0 || a.got == a.want):
		return n, io.EOF
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		return n, a.short()
	}
	return n, a.fault(err)
}

func (a *answer) short() error {
	announced := "an end that never came"
	if a.want >= 0 {
		announced = fmt.Sprintf("%d bytes", a.want)
	}
	return fault.Passing(fault.Size, fmt.Errorf("%s: the server announced %s and sent %d", a.name, announced, a.got), "")
}

// Close ends the transfer and frees its connection.
func (a *answer) Close() error {
	a.stall.Stop()
	a.cancel(context.Canceled)
	if a.response != nil {
		return a.response.Body.Close()
	}
	return nil
}

// fault says why the server did not answer, or stopped. Text of net/http that
// can hold a URL is never passed on.
func (a *answer) fault(err error) error {
	host := a.h.base.Host
	network := "check the network between this host and " + host
	switch context.Cause(a.ctx) {
	case nil:
	case errStalled:
		return fault.Passing(fault.Stalled, fmt.Errorf("no progress for %v", a.h.o.StallTimeout), network)
	case errTooLong:
		return fault.Passing(fault.TooSlow, fmt.Errorf("%s %w", a.name, errTooLong), network)
	default:
		return fault.Context(a.ctx)
	}
	return asFault(err, func(err error) *fault.Error {
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
		case errors.As(err, &record):
			return fault.New(fault.TLS, errors.New("the server does not speak TLS"), "check Path=: http or https, and the port")
		case errors.As(err, &alert), isOp && (op.Op == "remote error" || op.Op == "local error"):
			return fault.New(fault.TLS, err, "check which TLS versions and certificates the server asks for")
		case strings.Contains(err.Error(), "TLS handshake timeout"):
			return fault.Passing(fault.Connect, err, network)
		case isOp && op.Op == "dial":
			return fault.Passing(fault.Connect, err, network)
		case strings.HasPrefix(err.Error(), "tls: "):
			return fault.New(fault.TLS, err, "check which TLS versions and certificates the server asks for")
		case strings.Contains(err.Error(), "Content-Length"):
			return fault.Passing(fault.Size, err, "")
		case isOp, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return fault.Passing(fault.Broken, fmt.Errorf("the connection broke after %d bytes: %w", a.got, err), network)
		}
		return fault.Passing(fault.Protocol, err, "")
	})
}

func summary(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return ""
	}
	c := chain[0]
	return fmt.Sprintf(" (certificate of %q by %q, until %s)", c.Subject.CommonName, c.Issuer.CommonName, c.NotAfter.UTC().Format("2006-01-02"))
}

// status says what an answer means that brings no file.
func (h *HTTP) status(name string, resp *http.Response) error {
	code := resp.StatusCode
	err := fmt.Errorf("%s: %d %s", name, code, http.StatusText(code))
	var f *fault.Error
	switch {
	case code == http.StatusNotFound || code == http.StatusGone:
		f = fault.Passing(fault.NotFound, err, "check Path=, and that the file is published")
	case code == http.StatusUnauthorized || code == http.StatusForbidden || code == http.StatusUnavailableForLegalReasons:
		f = fault.New(fault.Denied, err, "check the access rights at the source")
	case code == http.StatusProxyAuthRequired:
		f = fault.New(fault.Proxy, err, "check the user and password in HTTP_PROXY or HTTPS_PROXY of the daemon")
	case code == http.StatusTooManyRequests:
		f = fault.Passing(fault.Throttled, err, "raise PollIntervalSec=")
	case code == http.StatusRequestTimeout || code >= 500:
		f = fault.Passing(fault.Server, err, "")
	case code >= 300 && code < 400:
		f = fault.New(fault.Redirect, err, "check Path=")
	default:
		f = fault.New(fault.Status, err, "check Path=")
	}
	f.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	return f
}

// retryAfterMax keeps a server from silencing us for good.
const retryAfterMax = time.Hour

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

// checkRedirect follows at most five redirects, never to a less protected or
// another kind of place, and takes no credential along to another host. The
// Referer goes too: it would carry the query, where tokens live.
func checkRedirect(req *http.Request, via []*http.Request) error {
	req.Header.Del("Referer")
	last := via[len(via)-1].URL
	refuse := func(why string) error {
		return fault.New(fault.Redirect, fmt.Errorf("redirect from %s to %s: %s", redact(last), redact(req.URL), why), "name the final place in Path=")
	}
	switch {
	case len(via) > redirectsMax:
		return refuse(fmt.Sprintf("more than %d redirects", redirectsMax))
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return refuse("not http or https")
	case last.Scheme == "https" && req.URL.Scheme != "https":
		return refuse("from https to http")
	case req.URL.Host == "" || strings.Contains(req.URL.Hostname(), "%"):
		return refuse("not a host to go to")
	}
	req.URL.User = nil
	if req.URL.Host != via[0].URL.Host {
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return nil
}

// proxy is that of the environment. Its own error would print the password.
func proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if err != nil {
		return nil, fault.New(fault.Proxy, errors.New("HTTP_PROXY or HTTPS_PROXY is not the URL of a proxy"), "correct it in the daemon's environment")
	}
	return u, nil
}

func proxyAnswered(_ context.Context, proxyURL *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	err := fmt.Errorf("proxy %s: %d %s", proxyURL.Host, resp.StatusCode, http.StatusText(resp.StatusCode))
	return &fault.Error{Code: fault.Proxy, Err: err, Hint: "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the daemon", Temporary: resp.StatusCode >= 500}
}

// redact leaves what tells places apart and can be shown to anybody.
func redact(u *url.URL) string {
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath, Opaque: u.Opaque}
	return plain.String()
}

func encodingOf(resp *http.Response) string {
	if e := resp.Header.Get("Content-Encoding"); !strings.EqualFold(e, "identity") {
		return e
	}
	return ""
}

// markOfResponse prefers the ETag: dates have whole seconds only.
func markOfResponse(resp *http.Response) Mark {
	for _, s := range []string{resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")} {
		if s != "" && len(s) <= markMax {
			return Mark(s)
		}
	}
	return ""
}

func (m Mark) isETag() bool { return strings.HasPrefix(string(m), `"`) || m.isWeak() }
func (m Mark) isWeak() bool { return strings.HasPrefix(string(m), "W/") }

// contentRange reads "bytes FIRST-LAST/SIZE"; SIZE may be "*", then -1.
func contentRange(s string) (first, last, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, total, found := strings.Cut(s, "/")
	from, to, dashed := strings.Cut(span, "-")
	if !ok || !found || !dashed {
		return 0, 0, 0, false
	}
	number := func(s string) int64 {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			ok = false
		}
		return int64(n)
	}
	first, last, size = number(from), number(to), -1
	if total != "*" {
		size = number(total)
	}
	return first, last, size, ok && first <= last && (size < 0 || last < size)
}
