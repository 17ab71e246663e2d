// Package oci is a source: an artifact in a registry, as the OCI distribution
// specification has them. Its promise: a tag is followed, but what is read and
// opened between two looks is of the one manifest that the first of them
// found, by its digest, wherever the tag points by then; and nothing of a
// manifest counts before it has its digest.
//
//	…/manifests/TAG ── Look ──▶ digest ──▶ layers ── Read, Open ──▶ …/blobs/DIGEST
//
// The files of the source are the layers that have a title, as oras(1) gives
// them. Where the tag leads to an index, the manifest for this host's platform
// counts. Layers that lie elsewhere (urls) are not looked for there.
package oci

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// Options say how to reach a registry. The zero value of a field means the
// default named beside it.
type Options struct {
	// Endpoint is the http or https URL that has the registry's /v2/.
	// Default: https at the registry that the path names.
	Endpoint string
	// Access lets us in: a token is shown to the registry, a login to it or to
	// the service that makes its tokens.
	Access credential.Access
	// Platform chooses of an index. Default: this host's.
	Platform Platform
	// Client says how to speak to the registry. Its Access is not used.
	Client client.Options
}

// Artifact is what a tag or a digest of a repository names.
type Artifact struct {
	text       string
	repository string
	reference  string   // a tag, or sha256:…
	base       *url.URL // …/v2/REPOSITORY
	platform   Platform
	client     *client.Client
	door       door

	mu    sync.Mutex
	found *manifest // by the last look
}

var (
	_ source.Source = (*Artifact)(nil)
	_ source.Looker = (*Artifact)(nil)
	_ source.Lister = (*Artifact)(nil)
	_ source.Closer = (*Artifact)(nil)
)

const pathHint = "Path= takes oci://REGISTRY/REPOSITORY:TAG, or @sha256:… in place of the tag"

// New follows the artifact that u names: oci://REGISTRY/REPOSITORY:TAG or
// oci://REGISTRY/REPOSITORY@DIGEST. Nothing is asked of the registry yet.
func New(u *url.URL, o Options) (*Artifact, error) {
	bad := func(what string) (*Artifact, error) {
		return nil, fault.New(fault.ConfigSource, errors.New(what), pathHint)
	}
	if u.User != nil || u.RawQuery != "" || u.Hostname() == "" {
		return bad("the URL of the artifact holds a user or a query, or names no registry")
	}
	repository, reference := split(strings.TrimPrefix(u.Path, "/"))
	switch {
	case !isRepository(repository):
		return bad("the path names no repository: lower-case letters and digits, with . _ - and / between them")
	case reference == "":
		return bad("the path names neither a tag nor a digest")
	case !isTag(reference) && !isDigest(reference):
		return bad("what the path has behind the repository is neither a tag nor a sha256 digest")
	}
	a := &Artifact{text: "oci://" + u.Host + u.Path, repository: repository, reference: reference, platform: o.Platform}
	if a.platform == (Platform{}) {
		a.platform = here()
	}
	registry := &url.URL{Scheme: "https", Host: u.Host}
	if u.Host == "docker.io" || u.Host == "index.docker.io" { // a name that is not where it is
		registry.Host = "registry-1.docker.io"
		if !strings.Contains(repository, "/") {
			a.repository = "library/" + repository
		}
	}
	if o.Endpoint != "" {
		var err error
		registry, err = url.Parse(o.Endpoint)
		if err != nil || registry.Scheme != "http" && registry.Scheme != "https" || registry.Hostname() == "" || registry.User != nil || registry.RawQuery != "" || registry.Fragment != "" {
			return nil, fault.New(fault.ConfigSource, errors.New("the endpoint is not a plain http(s) URL"), "Endpoint= takes a URL such as https://registry.example.com")
		}
	}
	if err := o.Access.Check(); err != nil {
		return nil, err
	}
	a.base = registry.JoinPath("v2", a.repository)
	o.Client.Access, o.Client.Explain = credential.Access{}, a.explain
	var err error
	if a.client, err = client.New(registry.Hostname(), o.Client); err != nil {
		return nil, err
	}
	a.door = door{access: o.Access, client: a.client, plain: registry.Scheme == "http", scope: "repository:" + a.repository + ":pull"}
	return a, nil
}

// split takes a path apart. Where it has a tag and a digest, the digest counts.
func split(path string) (repository, reference string) {
	repository, digest, isDigest := strings.Cut(path, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository, reference = repository[:i], repository[i+1:]
	}
	if isDigest {
		reference = digest
	}
	return repository, reference
}

const (
	lower = "abcdefghijklmnopqrstuvwxyz0123456789"
	upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func isRepository(s string) bool {
	if len(s) > 255 {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || strings.Trim(part, lower+"._-") != "" || strings.ContainsAny(part[:1]+part[len(part)-1:], "._-") {
			return false
		}
	}
	return true
}

func isTag(s string) bool {
	return s != "" && len(s) <= 128 && strings.Trim(s, lower+upper+"._-") == "" && s[0] != '.' && s[0] != '-'
}

// String gives registry, repository and reference.
func (a *Artifact) String() string { return a.text }

// Close frees connections that no request uses.
func (a *Artifact) Close() { a.client.Close() }

// Look asks where the tag points. If that is where it pointed, nothing is
// transferred; and nothing is asked of a digest twice.
func (a *Artifact) Look(ctx context.Context) (source.View, error) {
	a.mu.Lock()
	old := a.found
	a.mu.Unlock()
	m, err := a.look(ctx, old)
	if err != nil {
		return source.View{}, err
	}
	a.mu.Lock()
	a.found = m
	a.mu.Unlock()
	view := source.View{Mark: source.Mark(m.digest), Tag: m.version}
	if view.Tag == "" && isTag(a.reference) {
		view.Tag = a.reference
	}
	return view, nil
}

// current gives the manifest of the last look.
func (a *Artifact) current(ctx context.Context) (*manifest, error) {
	a.mu.Lock()
	m := a.found
	a.mu.Unlock()
	if m != nil {
		return m, nil
	}
	if _, err := a.Look(ctx); err != nil {
		return nil, err
	}
	return a.current(ctx)
}

// List names the layers that have a title.
func (a *Artifact) List(ctx context.Context, max int) ([]source.File, error) {
	m, err := a.current(ctx)
	if err != nil {
		return nil, err
	}
	if len(m.layers) > max {
		return nil, fault.New(fault.MetaTooLarge, fmt.Errorf("more than %d layers", max), "remove old releases from the artifact")
	}
	var files []source.File
	for title, l := range m.layers {
		files = append(files, source.File{Name: title, Size: l.Size, Digest: l.sum()})
	}
	return files, nil
}

// Read gets a small layer whole, and gives it when it has its digest.
func (a *Artifact) Read(ctx context.Context, name string, max int64, since source.Mark) (raw []byte, mark source.Mark, err error) {
	l, err := a.layer(ctx, name)
	if err != nil {
		return nil, "", err
	}
	mark = source.Mark(l.Digest)
	if since == mark {
		return nil, mark, source.ErrUnchanged
	}
	if l.Size > max {
		return nil, "", source.TooLarge(name, l.Size, max)
	}
	err = a.blob(ctx, l, name, func(r client.Request) (err error) {
		raw, _, err = a.client.Read(ctx, r, max, "")
		return err
	})
	if err == nil {
		err = l.holds(name, raw)
	}
	if err != nil {
		return nil, "", err
	}
	return raw, mark, nil
}

// Open starts to get a layer. Its digest is that of the stream: whoever reads it
// whole compares.
func (a *Artifact) Open(ctx context.Context, name string, from source.Position) (s *source.Stream, err error) {
	l, err := a.layer(ctx, name)
	if err != nil {
		return nil, err
	}
	mark := source.Mark(l.Digest)
	if from.Mark != "" && from.Mark != mark || from.Offset >= l.Size {
		from.Offset = 0
	}
	// What has this digest is always the same, so the registry's marks say no more.
	from.Mark = ""
	err = a.blob(ctx, l, name, func(r client.Request) (err error) {
		s, err = a.client.Open(ctx, r, from)
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.Size >= 0 && s.Size != l.Size {
		s.Body.Close()
		return nil, fault.Passing(fault.Size, fmt.Errorf("%s: the manifest says that it has %d bytes, and the registry sends %d", name, l.Size, s.Size),
			"it is tried again by itself; if it stays so, push the artifact anew")
	}
	s.Size, s.Mark, s.Digest = l.Size, mark, l.sum()
	return s, nil
}

// layer finds a file in the manifest of the last look.
func (a *Artifact) layer(ctx context.Context, name string) (descriptor, error) {
	if err := source.CheckName(name); err != nil {
		return descriptor{}, err
	}
	m, err := a.current(ctx)
	if err != nil {
		return descriptor{}, err
	}
	l, ok := m.layers[name]
	if !ok {
		return descriptor{}, fault.Passing(fault.NotFound, fmt.Errorf("no layer with the title %s", name), "check Path=, and that the file is pushed with the artifact")
	}
	return l, nil
}

// blob asks for a layer. One that is gone is no file that was never there.
func (a *Artifact) blob(ctx context.Context, l descriptor, name string, do func(client.Request) error) error {
	err := a.ask(ctx, a.base.JoinPath("blobs", l.Digest), name, "", do)
	if fault.CodeOf(err) == fault.NotFound {
		return fault.Passing(fault.SourceChanged, fmt.Errorf("%s: the registry does not have %s, which the manifest names", name, l.Digest),
			"it is checked again by itself; if it stays so, push the artifact anew")
	}
	return err
}

// holds tells that raw is what the descriptor promises.
func (d descriptor) holds(name string, raw []byte) error {
	if got := sha256.Sum256(raw); int64(len(raw)) != d.Size || got != d.sum() {
		return fault.Passing(fault.ArtifactDigest, fmt.Errorf("%s: got SHA-256 %x (%d bytes), want %s (%d bytes)", name, got, len(raw), d.Digest, d.Size),
			"check the registry, and any proxy before it")
	}
	return nil
}
