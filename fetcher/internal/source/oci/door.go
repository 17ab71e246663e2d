package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
)

const (
	// ticketMax is more than a token that names a repository has.
	ticketMax = 64 << 10
	// ticketLasts is what is assumed where the service does not say; see
	// https://distribution.github.io/distribution/spec/auth/token/.
	ticketLasts = time.Minute
	ticketSlack = 10 * time.Second
)

// door is how the registry lets us in. Who made it may not be who decides: a
// challenge names the service that makes tokens, which gets the login in place of
// the registry, and gives a ticket that is good for some minutes.
type door struct {
	access credential.Access
	client *client.Client
	plain  bool   // the registry is spoken to without TLS
	scope  string // that a ticket is asked for, whatever a challenge says

	mu     sync.Mutex
	login  bool // the registry takes the login itself
	ticket credential.Secret
	until  time.Time
}

// refusal is a status 401 of the registry's, with what it asks for.
type refusal struct {
	err       error
	challenge []string
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// ask makes a request, and once more if the registry wants to know who asks.
func (a *Artifact) ask(ctx context.Context, u *url.URL, name, accept string, do func(client.Request) error) error {
	r := client.Request{URL: u, Name: name, Header: http.Header{}}
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	if err := a.door.show(r.Header); err != nil {
		return err
	}
	err := do(r)
	var no *refusal
	if !errors.As(err, &no) {
		return err
	}
	opened, failed := a.door.answer(ctx, no.challenge)
	if failed != nil {
		return failed
	}
	if !opened {
		return err
	}
	if err := a.door.show(r.Header); err != nil {
		return err
	}
	return do(r)
}

// show adds what the registry has taken before.
func (d *door) show(h http.Header) error {
	if d.access.TokenFile != "" {
		return d.access.Authorize(h)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.login:
		return d.access.Authorize(h)
	case d.ticket != "" && time.Now().Before(d.until):
		h.Set("Authorization", "Bearer "+d.ticket.Reveal())
	}
	return nil
}

// answer does what a challenge asks for. It tells whether that may help.
func (d *door) answer(ctx context.Context, challenge []string) (bool, error) {
	if d.access.TokenFile != "" {
		return false, nil // it was shown
	}
	for _, text := range challenge {
		scheme, parameters := parseChallenge(text)
		switch scheme {
		case "bearer":
			return true, d.fetch(ctx, parameters["realm"], parameters["service"])
		case "basic":
			d.mu.Lock()
			first := d.access.LoginFile != "" && !d.login
			d.login = d.access.LoginFile != ""
			d.mu.Unlock()
			return first, nil
		}
	}
	return false, nil
}

// fetch gets a ticket from the service that makes them.
func (d *door) fetch(ctx context.Context, realm, service string) error {
	const hint = "see what the registry is set to for its token service"
	u, err := url.Parse(realm)
	if err != nil || u.User != nil || u.Hostname() == "" || u.Scheme != "https" && (u.Scheme != "http" || !d.plain) {
		return fault.New(fault.Protocol, errors.New("the registry names no token service that can be asked"), hint)
	}
	query := u.Query()
	query.Set("scope", d.scope)
	if service != "" {
		query.Set("service", service)
	}
	u.RawQuery = query.Encode()
	r := client.Request{URL: u, Name: "token of " + u.Host, Header: http.Header{}}
	if err := d.access.Authorize(r.Header); err != nil {
		return err
	}
	raw, _, err := d.client.Read(ctx, r, ticketMax, "")
	if err != nil {
		f := *fault.Bare(err, fault.Local)
		if f.Code == fault.NotFound { // else a file would seem to be missing
			f.Code, f.Hint = fault.Protocol, hint
		}
		return &f
	}
	var said struct {
		Token     string `json:"token"`
		OAuth     string `json:"access_token"`
		ExpiresIn int64  `json:"expires_in"`
	}
	// Its error would show what was read.
	if json.Unmarshal(raw, &said) != nil {
		return fault.Passing(fault.Protocol, errors.New("the token service gives no token"), hint)
	}
	if said.Token == "" {
		said.Token = said.OAuth
	}
	ticket, err := credential.ParseToken([]byte(said.Token))
	if err != nil {
		return fault.Passing(fault.Protocol, fmt.Errorf("the token of the token service %w", err), hint)
	}
	lasts := ticketLasts
	if said.ExpiresIn > 0 {
		lasts = time.Duration(min(said.ExpiresIn, 24*3600)) * time.Second
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ticket, d.until = ticket, time.Now().Add(lasts-min(ticketSlack, lasts/2))
	return nil
}

// parseChallenge reads WWW-Authenticate: a scheme, in lower case, and parameters,
// as registries write them: quoted, with no escapes but of the quote.
func parseChallenge(s string) (scheme string, parameters map[string]string) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	parameters = map[string]string{}
	for rest != "" {
		key, value, ok := strings.Cut(strings.TrimLeft(rest, " ,"), "=")
		if !ok {
			break
		}
		if quoted, ok := strings.CutPrefix(value, `"`); ok {
			value, rest, _ = strings.Cut(quoted, `"`)
		} else {
			value, rest, _ = strings.Cut(value, ",")
		}
		key = strings.ToLower(strings.TrimSpace(key))
		if _, twice := parameters[key]; !twice {
			parameters[key] = value
		}
	}
	return strings.ToLower(scheme), parameters
}
