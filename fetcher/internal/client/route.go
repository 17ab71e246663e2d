package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// checkRedirect follows at most five redirects, never to a less protected or
// another kind of place, and takes no credential along to another host: only what
// is carried, since services keep theirs in headers of many names. The
// Referer goes too: it would carry the query, where tokens live.
func (n *inner) checkRedirect(req *http.Request, via []*http.Request) error {
	req.Header.Del("Referer")
	last := via[len(via)-1].URL
	refuse := func(why string) error {
		return fault.New(fault.Redirect, fmt.Errorf("redirect from %s to %s: %s", Redact(last), Redact(req.URL), why), "name the final place in Path=")
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
	if err := n.follow(req.URL); err != nil {
		return err
	}
	req.URL.User = nil
	if req.URL.Host != via[0].URL.Host {
		for key := range req.Header {
			if !carried[key] {
				req.Header.Del(key)
			}
		}
	}
	return nil
}

// carried are the headers that any host may see.
var carried = map[string]bool{
	"Accept": true, "Accept-Encoding": true, "User-Agent": true, "Range": true, "If-Range": true, "If-None-Match": true, "If-Modified-Since": true,
}

// proxy is that of the environment. Its own error would print the password.
func (n *inner) proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if err != nil {
		return nil, fault.New(fault.Proxy, errors.New("HTTP_PROXY or HTTPS_PROXY is not the URL of a proxy"), "correct it in the daemon's environment")
	}
	if u != nil {
		n.proxies.Store(u.Hostname(), true)
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

// Redact leaves what tells places apart and can be shown to anybody.
func Redact(u *url.URL) string {
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath, Opaque: u.Opaque}
	return plain.String()
}
