// Package forge is a source: the releases of a project on GitHub, GitLab, Gitea or
// Forgejo. Its promise: what is read and opened between two looks belongs to one
// release, the one that the first of them found. A file replaced meanwhile is
// the new file, never a mixture; a release replaced by another is an error.
//
//	api/…/releases/latest ── Look ──▶ tag, files ── Read, Open ──▶ bytes
//
// The files of the source are those that people attached to the release, by their
// names; the archives that a forge makes of a tag are none of them. Only one
// page after the other is asked for, and few of them, however many releases
// there are.
//
// The API's host alone sees a token. Where that sends a download elsewhere, as
// GitHub does to a storage and a link of GitLab to anywhere, none goes along.
package forge

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

const (
	// pageSize releases are asked for at once, and of pagesMax pages the first
	// release that counts is taken: before it stand drafts that only those who
	// wrote them see, and what is announced for a later day.
	pageSize = 10
	pagesMax = 3
	// pageMax is a page whose releases have long notes and hundreds of files.
	pageMax = 8 << 20
	// filesMax is twice what GitHub lets a release have.
	filesMax = 2000
	tagMax   = 255
)

// Options say which release of a project is followed, and how its forge is
// spoken to.
type Options struct {
	// Endpoint is the base of the API. Default: https and the host in the
	// path, or GitHub's own.
	Endpoint string
	// Tag names the release. Default: the newest.
	Tag string
	// PreRelease has releases count that are marked as one.
	PreRelease bool
	// Token tells that the client has one to show.
	Token  bool
	Client client.Options
}

// Project is a project whose releases are followed.
type Project struct {
	text    string // for messages
	o       Options
	dialect dialect
	api     *url.URL
	client  *client.Client

	mu    sync.Mutex
	found *release // by the last look
	quiet quiet
}

var (
	_ source.Source = (*Project)(nil)
	_ source.Looker = (*Project)(nil)
	_ source.Lister = (*Project)(nil)
	_ source.Closer = (*Project)(nil)
)

// dialect is what forges differ in.
type dialect interface {
	// place gives where the API is, and the project there, for a URL whose
	// scheme is the forge's kind.
	place(u *url.URL) (endpoint, project string, err error)
	// latest is where the newest full release is told, below the project, ""
	// if one of the list has to be chosen.
	latest() string
	// tagged is where the release of a tag is told, below the project.
	tagged(tag string) string
	// list is the query for a page of all releases, newest first.
	list(page int) url.Values
	// accept is the type of the API's answers.
	accept() string
	// files reads the files of a release.
	files(p *Project, raw json.RawMessage) ([]file, error)
}

var dialects = map[string]dialect{"github": github{}, "gitlab": gitlab{}, "gitea": gitea{}}

// Speaks tells whether there is a dialect for a URL of a scheme.
func Speaks(scheme string) bool { return dialects[scheme] != nil }

// New follows the project that u names by its scheme. Nothing is asked of the
// forge yet.
func New(u *url.URL, o Options) (*Project, error) {
	p := &Project{o: o, dialect: dialects[u.Scheme], text: u.Scheme + "://" + u.Host + strings.TrimSuffix(u.EscapedPath(), "/")}
	if u.User != nil || u.RawQuery != "" {
		return nil, bad("the path holds a user or a query", "name the project only; TokenFile= says who asks")
	}
	endpoint, project, err := p.dialect.place(u)
	if err != nil {
		return nil, err
	}
	if o.Endpoint != "" {
		endpoint = o.Endpoint
	}
	if o.Tag != "" {
		if len(o.Tag) > tagMax || strings.ContainsFunc(o.Tag, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
			return nil, bad("the tag is none that git knows", "write the tag as the release has it")
		}
		p.text += " (" + o.Tag + ")"
	}
	base, err := parseEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	p.api = base.JoinPath(project)
	p.client, err = client.New(base.Hostname(), o.Client)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func bad(what, hint string) error { return fault.New(fault.ConfigSource, errors.New(what), hint) }

// parseEndpoint takes http only where nobody can listen.
func parseEndpoint(s string) (*url.URL, error) {
	const hint = "Endpoint= takes the https:// URL of the forge's API"
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, bad("the endpoint is no URL", hint)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, bad("the endpoint holds more than a place", hint)
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return u, nil
	}
	return nil, bad("the endpoint is neither https nor this host", hint)
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// segments takes the path of u apart, into at least and at most that many names.
func segments(u *url.URL, least, most int) ([]string, error) {
	names := strings.Split(strings.Trim(u.Path, "/"), "/")
	if names[0] == "" || len(names) < least || len(names) > most {
		return nil, bad("the path names no project", "write github://OWNER/REPO, gitlab://HOST/GROUP/PROJECT or gitea://HOST/OWNER/REPO")
	}
	for _, name := range names {
		if name == "" || name[0] == '.' || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
			return nil, bad(fmt.Sprintf("%q is not the name of an owner or a project", name), "write it as the address of the project has it")
		}
	}
	return names, nil
}

// String gives the project, and the tag where there is one.
func (p *Project) String() string { return p.text }

// Close frees connections that no request uses.
func (p *Project) Close() { p.client.Close() }

// Look asks for the release. If it is what it was, that costs one short answer,
// which GitHub does not count for those who show a token.
func (p *Project) Look(ctx context.Context) (source.View, error) {
	r, err := p.look(ctx)
	if err != nil {
		return source.View{}, err
	}
	p.mu.Lock()
	p.found = r
	p.mu.Unlock()
	return source.View{Mark: r.mark(), Tag: r.Tag}, nil
}

// current gives the release of the last look.
func (p *Project) current(ctx context.Context) (*release, error) {
	p.mu.Lock()
	r := p.found
	p.mu.Unlock()
	if r != nil {
		return r, nil
	}
	if _, err := p.Look(ctx); err != nil {
		return nil, err
	}
	return p.current(ctx)
}

// List names the files that have been uploaded as a whole.
func (p *Project) List(ctx context.Context, max int) ([]source.File, error) {
	r, err := p.current(ctx)
	if err != nil {
		return nil, err
	}
	var files []source.File
	for _, f := range r.files {
		if !f.partial {
			files = append(files, source.File{Name: f.name, Size: f.size, Digest: f.digest})
		}
	}
	if len(files) > max {
		return nil, fault.New(fault.MetaTooLarge, fmt.Errorf("more than %d files", max), "remove files from the release")
	}
	return files, nil
}

// Read gets a small file of the release.
func (p *Project) Read(ctx context.Context, name string, max int64, since source.Mark) (raw []byte, mark source.Mark, err error) {
	err = p.with(ctx, name, func(f file) error {
		since := since
		if f.mark != "" && f.mark == since {
			mark = since
			return source.ErrUnchanged
		}
		if f.mark != "" {
			since = ""
		}
		if f.size > max {
			return source.TooLarge(name, f.size, max)
		}
		raw, mark, err = p.client.Read(ctx, f.request, max, since)
		if err == nil && f.mark != "" {
			mark = f.mark
		}
		return err
	})
	if err != nil && err != source.ErrUnchanged { //nolint:errorlint // it is never wrapped
		return nil, "", err
	}
	return raw, mark, err
}

// Open starts to get a file of the release.
func (p *Project) Open(ctx context.Context, name string, from source.Position) (s *source.Stream, err error) {
	err = p.with(ctx, name, func(f file) error {
		from := from
		if f.mark != "" {
			if from.Mark != "" && from.Mark != f.mark {
				from.Offset = 0
			}
			from.Mark = ""
		}
		if s, err = p.client.Open(ctx, f.request, from); err != nil {
			return err
		}
		if s.Size < 0 {
			s.Size = f.size
		}
		if f.size >= 0 && s.Size != f.size {
			s.Body.Close()
			return fault.Passing(fault.Size, fmt.Errorf("%s: the release says that it has %d bytes, and the server sends one of %d", name, f.size, s.Size),
				"it is tried again by itself; if it stays so, upload the file anew")
		}
		s.Digest = f.digest
		if f.mark != "" {
			s.Mark = f.mark
		}
		return nil
	})
	return s, err
}

// with calls use with a file of the release. If that finds it gone, somebody may
// have replaced it since the look, so that is asked once.
func (p *Project) with(ctx context.Context, name string, use func(file) error) error {
	if err := source.CheckName(name); err != nil {
		return err
	}
	r, err := p.current(ctx)
	if err != nil {
		return err
	}
	f, err := r.file(name)
	if err != nil {
		return err
	}
	err = p.explain(use(f))
	if fault.CodeOf(err) != fault.NotFound {
		return err
	}
	now, again := p.look(ctx)
	if again != nil {
		return again
	}
	if now.ID != r.ID || now.Tag != r.Tag {
		return fault.Passing(fault.SourceChanged, fmt.Errorf("%w, and since the check %s took the place of %s", bare(err), now, r), "it is checked again by itself")
	}
	p.mu.Lock()
	p.found = now
	p.mu.Unlock()
	if f, err = now.file(name); err != nil {
		return err
	}
	return p.explain(use(f))
}

// bare leaves code and hint out of an error's text.
func bare(err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return known.Err
	}
	return err
}

// look asks which release there is.
func (p *Project) look(ctx context.Context) (*release, error) {
	if p.o.Tag != "" {
		return p.ask(ctx, p.api.JoinPath(p.dialect.tagged(p.o.Tag)), false)
	}
	if latest := p.dialect.latest(); latest != "" && !p.o.PreRelease {
		return p.ask(ctx, p.api.JoinPath(latest), false)
	}
	for page := range pagesMax {
		u := p.api.JoinPath("releases")
		u.RawQuery = p.dialect.list(page + 1).Encode()
		r, err := p.ask(ctx, u, true)
		if r != nil || err != nil {
			return r, err
		}
	}
	return nil, p.explain(fault.Passing(fault.NotFound, fmt.Errorf("none of the newest %d releases is to be had yet", pagesMax*pageSize), ""))
}

// ask gives the first release that counts. It is nil if a page of the list is
// full of others.
func (p *Project) ask(ctx context.Context, u *url.URL, list bool) (*release, error) {
	if err := p.quiet.ask(time.Now()); err != nil {
		return nil, err
	}
	p.mu.Lock()
	old := p.found
	p.mu.Unlock()
	since := source.Mark("")
	if old != nil && old.at == u.String() {
		since = old.tag
	}
	header := http.Header{"Accept": {p.dialect.accept()}}
	raw, tag, err := p.client.Read(ctx, client.Request{URL: u, Name: p.asked(), Header: header}, pageMax, since)
	if err == source.ErrUnchanged { //nolint:errorlint // it is never wrapped
		return old, nil
	}
	if err != nil {
		err = p.explain(err)
		p.quiet.told(err, time.Now())
		return nil, err
	}
	releases, err := p.read(raw, list)
	if err != nil {
		return nil, err
	}
	for _, r := range releases {
		if r.Draft || r.Upcoming || list && r.PreRelease && !p.o.PreRelease {
			continue
		}
		if r.files, err = p.dialect.files(p, r.Assets); err == nil {
			err = r.check()
		}
		if err != nil {
			return nil, err
		}
		r.Assets, r.at, r.tag = nil, u.String(), tag
		return r, nil
	}
	if list && len(releases) >= pageSize {
		return nil, nil
	}
	return nil, p.explain(fault.Passing(fault.NotFound, fmt.Errorf("%s: there is none", p.asked()), ""))
}

// asked names in messages what a look asks for.
func (p *Project) asked() string {
	if p.o.Tag != "" {
		return "release " + p.o.Tag
	}
	return "newest release"
}

// read takes an answer of the API apart.
func (p *Project) read(raw []byte, list bool) ([]*release, error) {
	var releases []*release
	var err error
	if list {
		err = json.Unmarshal(raw, &releases)
	} else {
		releases = []*release{{}}
		err = json.Unmarshal(raw, releases[0])
	}
	if err == nil {
		for _, r := range releases {
			if r == nil || r.Tag == "" || len(r.Tag) > tagMax {
				err = errors.New("a release without a tag")
			}
		}
	}
	if err != nil {
		return nil, notTheAPI(err)
	}
	return releases, nil
}

func notTheAPI(err error) error {
	return fault.Passing(fault.Protocol, fmt.Errorf("the answer is none of the forge's API: %.200s", strconv.QuoteToASCII(err.Error())),
		"check Path= and Endpoint=, and whether a login page or a proxy stands before the forge")
}

// explain adds what a forge's answers mean.
func (p *Project) explain(err error) error {
	var known *fault.Error
	if err == nil || !errors.As(err, &known) {
		return err
	}
	e := *known
	switch {
	case e.Code == fault.Throttled && !p.o.Token:
		e.Hint = "set TokenFile=, which raises the limit, or raise PollIntervalSec="
	case e.Code == fault.NotFound && p.o.Token:
		e.Hint = "check Path= and what the token in TokenFile= may read; drafts are never taken, and pre-releases with PreRelease=yes"
	case e.Code == fault.NotFound:
		e.Hint = "check Path=; a private project needs TokenFile=, and drafts are never taken, and pre-releases with PreRelease=yes"
	}
	return &e
}

// release is what a forge tells of one.
type release struct {
	ID         int64           `json:"id"`
	Tag        string          `json:"tag_name"`
	Draft      bool            `json:"draft"`
	PreRelease bool            `json:"prerelease"`
	Upcoming   bool            `json:"upcoming_release"`
	Assets     json.RawMessage `json:"assets"`

	files []file
	at    string      // where it was asked for
	tag   source.Mark // ETag of the answer
}

// file is one that is attached to a release.
type file struct {
	name    string
	size    int64 // -1 unknown
	digest  [32]byte
	mark    source.Mark // of bytes that never change; empty: the server's
	partial bool        // being uploaded
	refused error
	request client.Request
}

func (r *release) String() string { return "release " + r.Tag }

// file gives the file of a name.
func (r *release) file(name string) (file, error) {
	const hint = "attach it to the release, under this name"
	for _, f := range r.files {
		switch {
		case f.name != name:
		case f.partial:
			return file{}, fault.Passing(fault.NotFound, fmt.Errorf("%s of %s is still being uploaded", name, r), hint)
		default:
			return f, f.refused
		}
	}
	return file{}, fault.Passing(fault.NotFound, fmt.Errorf("%s has no file %s", r, name), hint)
}

// check refuses what no release of a project that means well has.
func (r *release) check() error {
	if len(r.files) > filesMax {
		return fault.New(fault.MetaTooLarge, fmt.Errorf("%s has %d files, at most %d are looked at", r, len(r.files), filesMax), "remove files from the release")
	}
	seen := map[string]bool{}
	for _, f := range r.files {
		if seen[f.name] {
			return fault.New(fault.MetaSyntax, fmt.Errorf("%s has two files %q", r, f.name), "rename one of them")
		}
		seen[f.name] = true
	}
	return nil
}

// mark identifies the release and its files.
func (r *release) mark() source.Mark {
	h := sha256.New()
	fmt.Fprintf(h, "%d %q %q\n", r.ID, r.Tag, r.tag)
	for _, f := range r.files {
		fmt.Fprintf(h, "%q %d %x %q %v\n", f.name, f.size, f.digest, f.mark, f.partial)
	}
	return source.Mark(fmt.Sprintf("%x", h.Sum(nil)[:12]))
}

// quiet keeps a promise made to a server: to leave it alone for a while.
type quiet struct {
	mu    sync.Mutex
	until time.Time
	why   fault.Error
}

// told notes what the server asked for.
func (q *quiet) told(err error, now time.Time) {
	var known *fault.Error
	if errors.As(err, &known) && known.Code == fault.Throttled && known.RetryAfter > 0 {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.until, q.why = now.Add(known.RetryAfter), *known
	}
}

// ask gives an error as long as nothing may be asked.
func (q *quiet) ask(now time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if left := q.until.Sub(now); left > 0 {
		e := q.why
		e.RetryAfter = left
		return &e
	}
	return nil
}

// link is a file that lies at an address which people wrote.
func (p *Project) link(name, address string) file {
	f := file{name: name, size: -1}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil:
		f.refused = fault.New(fault.Redirect, fmt.Errorf("%s is linked to what is no http(s) address", name), "link it to the file itself")
		return f
	case u.Scheme == "http" && p.api.Scheme == "https":
		f.refused = fault.New(fault.Redirect, fmt.Errorf("%s is linked to an http address, and the release is told by https", name), "link it by https")
		return f
	}
	u.Fragment = ""
	f.request = client.Request{URL: u, Name: name, Anonymous: !sameOrigin(u, p.api)}
	return f
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(hostPort(a), hostPort(b))
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}
