package source

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
// another kind of place, and takes no credential along to another host. The
// Referer goes too: it would carry the query, where tokens live.
func (n *inner) checkRedirect(req *http.Request, via []*http.Request) error {
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
	if err := n.follow(req.URL); err != nil {
		return err
	}
	req.URL.User = nil
	if req.URL.Host != via[0].URL.Host {
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return nil
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

// redact leaves what tells places apart and can be shown to anybody.
func redact(u *url.URL) string {
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath, Opaque: u.Opaque}
	return plain.String()
}
