// Package client speaks HTTP with servers that may be slow, wrong or hostile.
// Its promise: no wait and no answer is without a limit, a secret reaches only
// the host that it was meant for, and every error is a *fault.Error that can be
// shown to anybody.
//
// Every source that is reached over HTTP is made of its requests. What a
// source adds is where a file lies, and who may read it.
package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

const (
	connectTimeout = 10 * time.Second
	// readTimeout bounds a small file as a whole; an artifact has none, as
	// long as it makes progress.
	readTimeout  = 2 * time.Minute
	headerMax    = 64 << 10
	redirectsMax = 5
	// idleTimeout is how long a connection waits for the next file of one look:
	// the signature after the list, the artifact after both.
	idleTimeout = time.Second
)

// Options say how to speak to a server. The zero value of a field means the
// default named beside it.
type Options struct {
	// CAFile holds PEM certificates trusted beside the system's.
	CAFile string
	// StallTimeout ends a transfer without progress. Default 30 s.
	StallTimeout time.Duration
	// RateMin is the least number of bytes a second, over each RateWindow
	// of waiting. Default 1 KiB/s over 60 s.
	RateMin    int64
	RateWindow time.Duration
	// Access is shown to the home, and to nobody else.
	Access credential.Access
	// Certificate likewise. It is read for each connection.
	Certificate credential.Certificate
	// Dial replaces the connection to the server. Default TCP, and to a private
	// address by redirect only where the home has one; see inner.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// NoProxy passes by the proxies of the environment.
	NoProxy bool
	// NoRedirect gives answers that redirect as they are.
	NoRedirect bool
	// Explain says more of an answer that brings no file than its status
	// does, which is f. It may read the answer. Default: f.
	Explain func(a *Answer, f *fault.Error) *fault.Error

	isPrivate func(netip.Addr) bool // by a test; default isPrivate
	connect   time.Duration         // by a test; default connectTimeout
}

// Client speaks to one server, its home, and to where that redirects. Its
// methods may be called from several goroutines.
type Client struct {
	o    Options
	home string
	http *http.Client
}

// New makes a client of the server host, a name or address without port. Nothing
// is asked of it yet.
func New(host string, o Options) (*Client, error) {
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
	bounds := &inner{home: host, isPrivate: o.isPrivate, connect: cmp.Or(o.connect, connectTimeout)}
	if o.Dial == nil {
		o.Dial = bounds.dialer()
	}
	checkRedirect := bounds.checkRedirect
	if o.NoRedirect {
		checkRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	roots, err := loadRoots(o.CAFile)
	if err != nil {
		return nil, err
	}
	if err := o.Access.Check(); err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	if !o.Certificate.Given() {
		return &Client{o: o, home: host, http: &http.Client{CheckRedirect: checkRedirect, Transport: transport(o, bounds, config)}}, nil
	}
	if _, err := o.Certificate.Load(); err != nil {
		return nil, err
	}
	return &Client{o: o, home: host, http: &http.Client{CheckRedirect: checkRedirect, Transport: &doors{
		host:      host,
		home:      transport(o, bounds, showing(o.Certificate, config)),
		elsewhere: transport(o, bounds, config),
	}}}, nil
}

// transport makes one connection to each host, which lasts for one look.
func transport(o Options, bounds *inner, config *tls.Config) *http.Transport {
	// One transfer at a time needs no multiplexing, and HTTP/1.1 has less to
	// attack: no GOAWAY, no header flood in frames.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	proxy := bounds.proxy
	if o.NoProxy {
		proxy = nil
	}
	return &http.Transport{
		Protocols:              protocols,
		Proxy:                  proxy,
		OnProxyConnectResponse: proxyAnswered,
		DialContext:            o.Dial,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    connectTimeout,
		MaxResponseHeaderBytes: headerMax,
		DisableCompression:     true,
		// Minutes lie between two looks, so a connection is not kept for the
		// next one: no descriptor waits meanwhile, and session tickets make
		// its handshake short.
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     idleTimeout,
	}
}

// Close frees the connection that waits for another request.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Request is one file of a server.
type Request struct {
	// Method defaults to GET.
	Method string
	// URL is where it lies, without user.
	URL *url.URL
	// Name is the file's name for messages.
	Name string
	// Header goes along. Of it a redirect to another host takes only what is
	// in carried: all else may be a credential.
	Header http.Header
	// Mark tells the state of the file by an answer that brings it. What it
	// has behind an ETag and a space is compared, and not sent. Default: the
	// ETag, or the date.
	Mark func(http.Header) source.Mark
	// Anonymous has nothing of Options.Access shown, wherever the URL leads:
	// it is not the server's own word.
	Anonymous bool
}
