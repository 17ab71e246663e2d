package fetcher

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"time"
)

// HTTP follows one file under a URL: it asks for its headers, and for the file when
// one of them has changed.
type HTTP struct {
	// URL is the file's. Set this or URLFunc.
	URL string
	// URLFunc gives the URL anew for each look, as for the operating system and
	// architecture of this host.
	URLFunc func() (url string, err error)
	// Interval is the time between two looks. Default 5 min.
	Interval time.Duration
	// CheckHeaders are the headers that tell that the file has changed. Default
	// ETag, If-Modified-Since, Last-Modified and Content-Length. A server that
	// sends none of them is asked for the file each time.
	CheckHeaders []string
	// Token is sent as a bearer token, to this server alone. Default: none.
	Token string
	// Keys are public keys of which one must have signed the file: each a line
	// of minisign or SSH, or the absolute name of a file of keys. The signature lies
	// beside the file, as URL.minisig and its like. Default: nothing is
	// verified.
	Keys []string

	pace pace
	keys *ring
	seen map[string]string
}

// Init checks the fields.
func (h *HTTP) Init() error {
	if (h.URL == "") == (h.URLFunc == nil) {
		return errors.New("set URL or URLFunc of fetcher.HTTP, and not both")
	}
	if h.URL != "" {
		if _, err := parseURL(h.URL); err != nil {
			return err
		}
	}
	if h.Interval <= 0 {
		h.Interval = defaultInterval
	}
	if h.CheckHeaders == nil {
		h.CheckHeaders = []string{"ETag", "If-Modified-Since", "Last-Modified", "Content-Length"}
	}
	var err error
	h.keys, err = newRing(h.Keys)
	return err
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		err = fmt.Errorf("%q is no http(s) URL", u.Redacted())
	}
	return u, err
}

// Fetch looks once.
func (h *HTTP) Fetch() (io.Reader, error) {
	h.pace.wait(h.Interval)
	text := h.URL
	if h.URLFunc != nil {
		var err error
		if text, err = h.URLFunc(); err != nil {
			return nil, fmt.Errorf("ask URLFunc: %w", err)
		}
	}
	u, err := parseURL(text)
	if err != nil {
		return nil, err
	}
	head, err := h.ask(http.MethodHead, u)
	if err != nil {
		return nil, err
	}
	head.Body.Close()
	now := map[string]string{"": u.String()}
	same := h.seen[""] == u.String()
	for _, name := range h.CheckHeaders {
		if value := head.Header.Get(name); value != "" {
			now[name] = value
			same = same && h.seen[name] == value
		}
	}
	if same && len(now) > 1 {
		return nil, nil
	}
	resp, err := h.ask(http.MethodGet, u) //nolint:bodyclose // finish hands it out
	if err != nil {
		return nil, err
	}
	beside := func(name string) ([]byte, error) {
		s := *u
		s.Path, s.RawPath = path.Join(path.Dir(u.Path), name), ""
		r, err := h.request(http.MethodGet, &s)
		if err != nil {
			return nil, err
		}
		return small(r, signatureMax)
	}
	return finish(path.Base(u.Path), resp.Body, h.keys, beside, func() { h.seen = now })
}

func (h *HTTP) ask(method string, u *url.URL) (*http.Response, error) {
	r, err := h.request(method, u)
	if err != nil {
		return nil, err
	}
	return do(r, http.StatusOK)
}

func (h *HTTP) request(method string, u *url.URL) (*http.Request, error) {
	r, err := http.NewRequest(method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	// What is measured and signed are the bytes of the file.
	r.Header.Set("Accept-Encoding", "identity")
	bearer(r, h.Token)
	return r, nil
}
