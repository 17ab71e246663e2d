package fetcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"time"
)

// Github follows the latest release of a project on GitHub, and takes the first of
// its assets that fits.
type Github struct {
	// User and Repo name the project.
	User, Repo string
	// Interval is the time between two looks. Default 5 min. Without a Token,
	// GitHub answers a host 60 times an hour, unless nothing has changed.
	Interval time.Duration
	// Asset tells which asset fits. Default: its name contains GOOS and GOARCH
	// of this program.
	Asset func(filename string) bool
	// Token lets this program see a private project. It is shown to GitHub's API
	// alone, not to the storage that it redirects to. Default: none.
	Token string
	// Endpoint is the URL of the API of another GitHub. Default
	// https://api.github.com.
	Endpoint string
	// Keys are as for HTTP; the signature is an asset of the same release.
	Keys []string

	pace    pace
	keys    *ring
	etag    string
	release release
	seen    string
}

// release and asset are what is read of the API's answer.
type release struct {
	Tag    string  `json:"tag_name"`
	Assets []asset `json:"assets"`
}

type asset struct {
	Name    string `json:"name"`
	URL     string `json:"url"` // of the API; the browser's asks private projects for a cookie
	Updated string `json:"updated_at"`
	Digest  string `json:"digest"`
}

func (a asset) mark() string { return a.URL + "|" + a.Updated + "|" + a.Digest }

// Init checks the fields.
func (g *Github) Init() error {
	for name, value := range map[string]string{"User": g.User, "Repo": g.Repo} {
		if value == "" || strings.ContainsAny(value, "/?#") {
			return fmt.Errorf("set %s of fetcher.Github to one name, got %q", name, value)
		}
	}
	if g.Asset == nil {
		g.Asset = func(name string) bool {
			// A signature of the asset is none.
			return strings.Contains(name, runtime.GOOS) && strings.Contains(name, runtime.GOARCH) && !isSignature(name)
		}
	}
	if g.Endpoint == "" {
		g.Endpoint = "https://api.github.com"
	}
	if _, err := parseURL(g.Endpoint); err != nil {
		return err
	}
	if g.Interval <= 0 {
		g.Interval = defaultInterval
	}
	var err error
	g.keys, err = newRing(g.Keys)
	return err
}

func isSignature(name string) bool {
	for _, end := range []string{".minisig", ".sig", ".asc", ".gpg", ".sshsig", ".sha256", ".sha256sum"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// Fetch looks once.
func (g *Github) Fetch() (io.Reader, error) {
	g.pace.wait(g.Interval)
	if err := g.look(); err != nil {
		return nil, fmt.Errorf("ask for the latest release of %s/%s: %w", g.User, g.Repo, err)
	}
	var found *asset
	for i := range g.release.Assets {
		if g.Asset(g.release.Assets[i].Name) {
			found = &g.release.Assets[i]
			break
		}
	}
	if found == nil {
		return nil, fmt.Errorf("release %s of %s/%s has no asset that fits", g.release.Tag, g.User, g.Repo)
	}
	mark := found.mark()
	if mark == g.seen {
		return nil, nil
	}
	r, err := g.request(found.URL, "application/octet-stream")
	if err != nil {
		return nil, err
	}
	resp, err := do(r, http.StatusOK) //nolint:bodyclose // finish hands it out
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", found.Name, err)
	}
	return finish(found.Name, resp.Body, g.keys, g.beside, func() { g.seen = mark })
}

// look reads what the latest release is; what has not changed costs nothing.
func (g *Github) look() error {
	r, err := g.request(g.Endpoint+"/repos/"+url.PathEscape(g.User)+"/"+url.PathEscape(g.Repo)+"/releases/latest", "application/vnd.github+json")
	if err != nil {
		return err
	}
	if g.etag != "" {
		r.Header.Set("If-None-Match", g.etag)
	}
	resp, err := do(r, http.StatusOK, http.StatusNotModified)
	if err != nil {
		if errors.Is(err, errNotThere) && g.Token == "" {
			err = fmt.Errorf("%w: a private project needs a Token", err)
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return nil
	}
	var latest release
	if err := json.NewDecoder(io.LimitReader(resp.Body, smallMax)).Decode(&latest); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	g.release, g.etag = latest, resp.Header.Get("ETag")
	return nil
}

func (g *Github) beside(name string) ([]byte, error) {
	for _, a := range g.release.Assets {
		if a.Name != name {
			continue
		}
		r, err := g.request(a.URL, "application/octet-stream")
		if err != nil {
			return nil, err
		}
		return small(r, signatureMax)
	}
	return nil, errNotThere
}

// request shows the token to the API alone: an answer may name any URL.
func (g *Github) request(text, accept string) (*http.Request, error) {
	u, err := parseURL(text)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("Accept-Encoding", "identity")
	if api, err := parseURL(g.Endpoint); err == nil && api.Host == u.Host && api.Scheme == u.Scheme {
		bearer(r, g.Token)
	}
	return r, nil
}
