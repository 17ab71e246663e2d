// Package forgetest is a forge: it answers as the documentation of GitHub, GitLab
// and Gitea says that they do, for one project whose releases a test makes. It
// takes notes of who asked for what, and lets a test answer in its place.
package forgetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Forge is a forge of one kind, and the storage that it sends downloads to: GitHub
// always does, and the others do not.
type Forge struct {
	// Kind is github, gitlab or gitea.
	Kind string
	// API is where it answers, for Endpoint=; Path names the project.
	API, Path string

	mu       sync.Mutex
	token    string
	releases []*Release // newest first
	last     int64
	instead  func(w http.ResponseWriter, r *http.Request) bool
	site     *httptest.Server
	storage  *httptest.Server

	notes    sync.Mutex // taken last
	requests []Request
}

// Release is one release; the fields may be changed before it is asked for.
type Release struct {
	ID                          int64
	Tag                         string
	Draft, PreRelease, Upcoming bool

	files []*file
	forge *Forge
}

type file struct {
	id       int64
	name     string
	content  []byte
	digest   string
	partial  bool
	link     string
	modified time.Time
}

// Request is one that was answered.
type Request struct {
	Storage       bool // by the storage
	Path          string
	Status        int
	Authorization string
	Private       string // values of other headers that tokens stand in
}

// New starts a forge, which the test's end stops.
func New(t *testing.T, kind string) *Forge {
	t.Helper()
	f := &Forge{Kind: kind}
	f.site = httptest.NewServer(f.noted(false, f.serve))
	f.storage = httptest.NewServer(f.noted(true, f.store))
	t.Cleanup(f.site.Close)
	t.Cleanup(f.storage.Close)
	host := strings.TrimPrefix(f.site.URL, "http://")
	f.API = f.site.URL + map[string]string{"github": "/api/v3", "gitlab": "/api/v4", "gitea": "/api/v1"}[kind]
	f.Path = map[string]string{"github": "github://acme/app", "gitlab": "gitlab://" + host + "/acme/tools/app", "gitea": "gitea://" + host + "/acme/app"}[kind]
	return f
}

// Demand makes the project private: who does not show the token sees nothing.
func (f *Forge) Demand(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.token = token
}

// Instead has answer asked first; it gives true if it has answered.
func (f *Forge) Instead(answer func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instead = answer
}

// Asked gives the requests that were answered since the last call.
func (f *Forge) Asked() []Request {
	f.notes.Lock()
	defer f.notes.Unlock()
	asked := f.requests
	f.requests = nil
	return asked
}

// Release makes a release, the newest.
func (f *Forge) Release(tag string) *Release {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	r := &Release{ID: f.last, Tag: tag, forge: f}
	f.releases = slices.Insert(f.releases, 0, r)
	return r
}

// Withdraw removes a release.
func (f *Forge) Withdraw(r *Release) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.releases = slices.DeleteFunc(f.releases, func(other *Release) bool { return other == r })
}

// Attach uploads a file, in place of one of that name.
func (r *Release) Attach(name string, content []byte) {
	r.forge.mu.Lock()
	defer r.forge.mu.Unlock()
	r.drop(name)
	r.forge.last++
	r.files = append(r.files, &file{
		id: r.forge.last, name: name, content: content, digest: fmt.Sprintf("sha256:%x", sha256.Sum256(content)),
		modified: time.Unix(1_700_000_000+r.forge.last, 0),
	})
}

// Link adds a file that lies elsewhere.
func (r *Release) Link(name, address string) {
	r.forge.mu.Lock()
	defer r.forge.mu.Unlock()
	r.forge.last++
	r.files = append(r.files, &file{id: r.forge.last, name: name, link: address})
}

// Detach removes a file.
func (r *Release) Detach(name string) {
	r.forge.mu.Lock()
	defer r.forge.mu.Unlock()
	r.drop(name)
}

// Damage has the forge tell another digest of a file, and whether it has been
// uploaded as a whole.
func (r *Release) Damage(name, digest string, partial bool) {
	r.forge.mu.Lock()
	defer r.forge.mu.Unlock()
	for _, f := range r.files {
		if f.name == name {
			f.digest, f.partial = digest, partial
		}
	}
}

func (r *Release) drop(name string) {
	r.files = slices.DeleteFunc(r.files, func(f *file) bool { return f.name == name })
}

// noted takes a note of each answer before its first byte leaves.
func (f *Forge) noted(storage bool, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		note := func(status int) {
			f.notes.Lock()
			defer f.notes.Unlock()
			private := r.Header.Get("Private-Token") + r.Header.Get("Job-Token") + r.Header.Get("Cookie")
			f.requests = append(f.requests, Request{storage, r.URL.EscapedPath(), status, r.Header.Get("Authorization"), private})
		}
		serve(&writer{ResponseWriter: w, note: note}, r)
	}
}

type writer struct {
	http.ResponseWriter
	note  func(int)
	noted bool
}

func (w *writer) WriteHeader(status int) {
	if !w.noted {
		w.noted = true
		w.note(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	if !w.noted {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// serve answers for the API and what lies beside it.
func (f *Forge) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	instead := f.instead
	f.mu.Unlock()
	if instead != nil && instead(w, r) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.token != "" && r.Header.Get("Authorization") != "Bearer "+f.token {
		if r.Header.Get("Authorization") != "" {
			refuse(w, http.StatusUnauthorized, "Bad credentials")
			return
		}
		refuse(w, http.StatusNotFound, "Not Found")
		return
	}
	path := strings.TrimPrefix(f.site.URL+r.URL.EscapedPath(), f.API)
	switch f.Kind {
	case "github":
		f.github(w, r, path)
	case "gitlab":
		f.gitlab(w, r, path)
	case "gitea":
		f.gitea(w, r, path)
	}
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"message": message, "documentation_url": "https://docs.example.com/rest"})
}

func (f *Forge) github(w http.ResponseWriter, r *http.Request, path string) {
	rest, ok := strings.CutPrefix(path, "/repos/acme/app/releases")
	if !ok || r.Header.Get("Accept") == "" {
		refuse(w, http.StatusNotFound, "Not Found")
		return
	}
	if id, ok := strings.CutPrefix(rest, "/assets/"); ok {
		got := f.byID(id)
		switch {
		case got == nil:
			refuse(w, http.StatusNotFound, "Not Found")
		case r.Header.Get("Accept") != "application/octet-stream":
			f.tell(w, r, f.githubFile(got))
		default:
			// Whoever has the address may read, for a while.
			w.Header().Set("Location", f.storage.URL+"/"+id+"?X-Amz-Signature=s3cr3t-canary")
			w.WriteHeader(http.StatusFound)
		}
		return
	}
	f.releasesOf(w, r, rest, func(one *Release) bool { return !one.Draft && !one.PreRelease }, f.githubRelease, "per_page")
}

func (f *Forge) githubRelease(r *Release) any {
	files := []any{}
	for _, a := range r.files {
		files = append(files, f.githubFile(a))
	}
	at := f.API + "/repos/acme/app/releases/" + fmt.Sprint(r.ID)
	return map[string]any{
		"url": at, "html_url": "https://example.com/acme/app/releases/" + r.Tag, "assets_url": at + "/assets", "upload_url": at + "/assets{?name,label}",
		"id": r.ID, "node_id": "MDc6UmVsZWFzZTE=", "tag_name": r.Tag, "target_commitish": "main", "name": r.Tag, "draft": r.Draft, "immutable": false,
		"prerelease": r.PreRelease, "created_at": "2026-02-27T19:35:32Z", "published_at": "2026-02-27T19:35:32Z", "author": map[string]any{"login": "alice", "id": 1},
		"assets": files, "tarball_url": at + "/tarball", "zipball_url": at + "/zipball", "body": "What is new: \u2026",
	}
}

func (f *Forge) githubFile(a *file) any {
	state := "uploaded"
	if a.partial {
		state = "starter"
	}
	digest := any(a.digest)
	if a.digest == "" {
		digest = nil // of files from before June 2025
	}
	return map[string]any{
		"url": f.API + "/repos/acme/app/releases/assets/" + fmt.Sprint(a.id), "id": a.id, "node_id": "MDEyOlJlbGVhc2VBc3NldDE=", "name": a.name, "label": "",
		"uploader": map[string]any{"login": "alice", "id": 1}, "content_type": "application/octet-stream", "state": state, "size": len(a.content), "digest": digest,
		"download_count": 42, "created_at": "2026-02-27T19:35:32Z", "updated_at": "2026-02-27T19:35:32Z",
		"browser_download_url": "https://example.com/acme/app/releases/download/v1/" + url.PathEscape(a.name),
	}
}

func (f *Forge) gitlab(w http.ResponseWriter, r *http.Request, path string) {
	rest, ok := strings.CutPrefix(path, "/projects/acme%2Ftools%2Fapp/releases")
	if name, isFile := strings.CutPrefix(path, "/projects/7/packages/generic/app/"); isFile {
		_, name, _ = strings.Cut(name, "/")
		for _, one := range f.releases {
			for _, a := range one.files {
				if url.PathEscape(a.name) == name {
					w.Header().Set("ETag", fmt.Sprintf(`"%d"`, a.id))
					http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
					return
				}
			}
		}
		refuse(w, http.StatusNotFound, "404 Not Found")
		return
	}
	if !ok {
		refuse(w, http.StatusNotFound, "404 Project Not Found")
		return
	}
	if tag, ok := strings.CutPrefix(rest, "/"); ok {
		rest = "/tags/" + tag
	}
	f.releasesOf(w, r, rest, func(*Release) bool { return true }, f.gitlabRelease, "per_page")
}

func (f *Forge) gitlabRelease(r *Release) any {
	links := []any{}
	for _, a := range r.files {
		address := a.link
		if address == "" {
			address = f.API + "/projects/7/packages/generic/app/" + url.PathEscape(r.Tag) + "/" + url.PathEscape(a.name)
		}
		links = append(links, map[string]any{"id": a.id, "name": a.name, "url": address, "direct_asset_url": address, "link_type": "package"})
	}
	return map[string]any{
		"tag_name": r.Tag, "description": "What is new: \u2026", "name": r.Tag, "created_at": "2026-01-03T01:56:19.539Z", "released_at": "2026-01-03T01:56:19.539Z",
		"upcoming_release": r.Upcoming, "author": map[string]any{"id": 1, "username": "alice"}, "commit": map[string]any{"id": "079e90101242458910cccd35eab0e211dfc359c0"},
		"commit_path": "/acme/tools/app/-/commit/079e", "tag_path": "/acme/tools/app/-/tags/" + r.Tag, "evidences": []any{},
		"assets": map[string]any{"count": 2 + len(links), "sources": []any{map[string]any{"format": "zip", "url": "https://example.com/app.zip"}}, "links": links},
		"_links": map[string]any{"self": "https://example.com/acme/tools/app/-/releases/" + r.Tag},
	}
}

func (f *Forge) gitea(w http.ResponseWriter, r *http.Request, path string) {
	if uuid, ok := strings.CutPrefix(r.URL.Path, "/attachments/00000000-0000-4000-8000-"); ok {
		got := f.byID(strings.TrimLeft(uuid, "0"))
		if got == nil {
			refuse(w, http.StatusNotFound, "Not Found")
			return
		}
		http.ServeContent(w, r, "", got.modified, bytes.NewReader(got.content))
		return
	}
	rest, ok := strings.CutPrefix(path, "/repos/acme/app/releases")
	if !ok {
		refuse(w, http.StatusNotFound, "The target couldn't be found.")
		return
	}
	f.releasesOf(w, r, rest, func(one *Release) bool { return !one.Draft && !one.PreRelease }, f.giteaRelease, "limit")
}

func (f *Forge) giteaRelease(r *Release) any {
	files := []any{}
	for _, a := range r.files {
		uuid := fmt.Sprintf("00000000-0000-4000-8000-%012d", a.id)
		address, kind := f.site.URL+"/attachments/"+uuid, "attachment"
		if a.link != "" {
			address, kind = a.link, "external"
		}
		files = append(files, map[string]any{
			"id": a.id, "name": a.name, "size": len(a.content), "download_count": 42, "created_at": "2026-02-27T19:35:32Z", "uuid": uuid,
			"browser_download_url": address, "type": kind,
		})
	}
	return map[string]any{
		"id": r.ID, "tag_name": r.Tag, "target_commitish": "main", "name": r.Tag, "body": "What is new: \u2026", "url": f.API + "/repos/acme/app/releases/" + fmt.Sprint(r.ID),
		"draft": r.Draft, "prerelease": r.PreRelease, "created_at": "2026-02-27T19:35:32Z", "published_at": "2026-02-27T19:35:32Z",
		"author": map[string]any{"id": 1, "login": "alice"}, "assets": files,
	}
}

// releasesOf answers for rest, what stands behind …/releases.
func (f *Forge) releasesOf(w http.ResponseWriter, r *http.Request, rest string, isFull func(*Release) bool, show func(*Release) any, limit string) {
	if rest == "" {
		size, _ := strconv.Atoi(r.URL.Query().Get(limit))
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		from := min(max(page-1, 0)*size, len(f.releases))
		all := []any{}
		for _, one := range f.releases[from:min(from+size, len(f.releases))] {
			all = append(all, show(one))
		}
		f.tell(w, r, all)
		return
	}
	tag, byTag := strings.CutPrefix(rest, "/tags/")
	for _, one := range f.releases {
		if byTag && url.PathEscape(one.Tag) == tag && !one.Draft || rest == "/latest" && f.Kind != "gitlab" && isFull(one) {
			f.tell(w, r, show(one))
			return
		}
	}
	refuse(w, http.StatusNotFound, "Not Found")
}

// tell answers with JSON, under an ETag where the forge has one.
func (f *Forge) tell(w http.ResponseWriter, r *http.Request, answer any) {
	raw, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if f.Kind != "gitea" {
		tag := fmt.Sprintf(`W/"%x"`, sha256.Sum256(raw))
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.Write(raw)
}

// store answers for the storage, as a bucket does.
func (f *Forge) store(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.byID(r.URL.Path[1:])
	if got == nil || r.URL.Query().Get("X-Amz-Signature") == "" {
		http.Error(w, "<Error><Code>AccessDenied</Code></Error>", http.StatusForbidden)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"0x%X"`, got.id))
	http.ServeContent(w, r, "", got.modified, bytes.NewReader(got.content))
}

func (f *Forge) byID(id string) *file {
	for _, r := range f.releases {
		for _, a := range r.files {
			if fmt.Sprint(a.id) == id {
				return a
			}
		}
	}
	return nil
}
