// Package web is a source: a directory behind an http or https URL, as any server
// of static files has them. Nothing is written down about the server's answers
// but the marks that it gave, so a mark is as good as its ETag or date.
package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// Dir is a directory behind an http or https URL.
type Dir struct {
	base   *url.URL // without user
	user   *url.Userinfo
	client *client.Client
}

var (
	_ source.Source = (*Dir)(nil)
	_ source.Stater = (*Dir)(nil)
	_ source.Closer = (*Dir)(nil)
)

// New follows the directory at base. Nothing is asked of the server yet.
func New(base *url.URL, o client.Options) (*Dir, error) {
	if base.User != nil && o.Access.Given() {
		return nil, fault.New(fault.ConfigSource, errors.New("the URL holds a user, and TokenFile= or LoginFile= another"), "leave one of them out")
	}
	c, err := client.New(base.Hostname(), o)
	if err != nil {
		return nil, err
	}
	plain := *base
	plain.User = nil
	return &Dir{base: &plain, user: base.User, client: c}, nil
}

// String gives the URL without user, password and query.
func (d *Dir) String() string { return client.Redact(d.base) }

// Close frees connections that no request uses.
func (d *Dir) Close() { d.client.Close() }

// Read gets a small file whole, if it is not as it was.
func (d *Dir) Read(ctx context.Context, name string, max int64, since source.Mark) ([]byte, source.Mark, error) {
	r, err := d.file(name)
	if err != nil {
		return nil, "", err
	}
	return d.client.Read(ctx, r, max, since)
}

// Stat asks about a file, and not for it.
func (d *Dir) Stat(ctx context.Context, name string) (source.File, source.Mark, error) {
	r, err := d.file(name)
	if err != nil {
		return source.File{}, "", err
	}
	return d.client.Stat(ctx, r)
}

// Open starts to get a file, from the middle where the server lets us.
func (d *Dir) Open(ctx context.Context, name string, from source.Position) (*source.Stream, error) {
	r, err := d.file(name)
	if err != nil {
		return nil, err
	}
	return d.client.Open(ctx, r, from)
}

func (d *Dir) file(name string) (client.Request, error) {
	if err := source.CheckName(name); err != nil {
		return client.Request{}, err
	}
	r := client.Request{URL: d.base.JoinPath(url.PathEscape(name)), Name: name, Header: http.Header{}}
	if d.user != nil {
		password, _ := d.user.Password()
		r.Header.Set("Authorization", credential.Basic(d.user.Username(), credential.Secret(password)))
	}
	return r, nil
}
