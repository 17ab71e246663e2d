package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
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
	// Dial replaces the connection to the server. Default TCP, and to a private
	// address by redirect only where the source has one; see inner.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	isPrivate func(netip.Addr) bool // by a test; default isPrivate
}

// HTTP is a directory behind an http or https URL.
type HTTP struct {
	base   *url.URL // without user
	user   *url.Userinfo
	client *http.Client
	o      HTTPOptions
}

var (
	_ Source = (*HTTP)(nil)
	_ Closer = (*HTTP)(nil)
)

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
	if o.isPrivate == nil {
		o.isPrivate = isPrivate
	}
	bounds := &inner{source: base.Hostname(), isPrivate: o.isPrivate}
	if o.Dial == nil {
		o.Dial = bounds.dialer()
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
		CheckRedirect: bounds.checkRedirect,
		Transport: &http.Transport{
			Protocols:              protocols,
			Proxy:                  bounds.proxy,
			OnProxyConnectResponse: proxyAnswered,
			DialContext:            o.Dial,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(4)},
			TLSHandshakeTimeout:    connectTimeout,
			MaxResponseHeaderBytes: headerMax,
			DisableCompression:     true,
			// Minutes lie between two looks, so a connection is not kept: no
			// descriptor waits for the next one, and nothing that a server
			// sends unasked is read. Session tickets make the next short.
			DisableKeepAlives: true,
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

// Close frees connections that were made but, since their request was given up,
// not used.
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
	defer answer.drop()
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
		return nil, "", tooLarge(name, resp.ContentLength, max)
	}
	raw, err := io.ReadAll(io.LimitReader(answer, max+1))
	if err != nil {
		return nil, "", err
	}
	if int64(len(raw)) > max {
		return nil, "", tooLarge(name, -1, max)
	}
	return raw, markOfRead(resp), nil
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
		answer.drop()
		return nil, h.status(name, resp)
	}
	// The file is not the one we have a part of.
	answer.drop()
	return h.Open(ctx, name, Position{})
}

func encodingOf(resp *http.Response) string {
	if e := resp.Header.Get("Content-Encoding"); !strings.EqualFold(e, "identity") {
		return e
	}
	return ""
}

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

// freshFor is how old a file must be for its validators to be taken for it: a
// date has whole seconds, and so have the ETags that servers make of one.
const freshFor = 2 * time.Second

// markOfRead marks a small file for the next conditional request. A file that
// is younger than its validators can tell has none, and is asked for in full
// once more. Both times are the server's, so its clock may be wrong.
func markOfRead(resp *http.Response) Mark {
	modified, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil {
		return markOfResponse(resp)
	}
	now, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil || now.Sub(modified) < freshFor {
		return ""
	}
	return markOfResponse(resp)
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
