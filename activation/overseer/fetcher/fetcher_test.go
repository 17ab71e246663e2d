package fetcher_test

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/activation/overseer/fetcher"
)

const soon = time.Millisecond

// fetch takes one turn and reads what comes: "" where nothing does.
func fetch(t *testing.T, f fetcher.Interface) string {
	t.Helper()
	text, err := try(f)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func try(f fetcher.Interface) (string, error) {
	r, err := f.Fetch()
	if r == nil || err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	if c, ok := r.(io.Closer); ok {
		c.Close()
	}
	return string(b), err
}

func initial(t *testing.T, f fetcher.Interface) {
	t.Helper()
	if err := f.Init(); err != nil {
		t.Fatal(err)
	}
}

// shelf is a web server whose files can be changed.
type shelf struct {
	*httptest.Server
	mu     sync.Mutex
	files  map[string]string
	bare   bool // without headers that tell versions apart
	short  bool // the body breaks off
	asked  []string
	bearer []string
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{files: map[string]string{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *shelf) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	s.bearer = append(s.bearer, r.Header.Get("Authorization"))
	text, ok := s.files[r.URL.Path]
	switch {
	case !ok:
		http.NotFound(w, r)
		return
	case s.bare && r.Method == http.MethodHead:
		w.Header().Set("Transfer-Encoding", "identity")
		return
	case !s.bare:
		w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprint(len(text), text[:min(8, len(text))])))
	}
	if s.short && r.Method == http.MethodGet {
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		text = text[:len(text)/2]
	}
	io.WriteString(w, text)
}

func (s *shelf) put(path, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = text
}

func TestHTTP(t *testing.T) {
	s := newShelf(t)
	s.put("/app", "one")
	f := &fetcher.HTTP{URL: s.URL + "/app", Interval: soon, Token: "secret"}
	initial(t, f)
	for i, want := range []string{"one", "", "two", ""} {
		if i == 2 {
			s.put("/app", "two")
		}
		if got := fetch(t, f); got != want {
			t.Errorf("turn %d: got %q, want %q", i, got, want)
		}
	}
	for _, b := range s.bearer {
		if b != "Bearer secret" {
			t.Errorf("got Authorization %q, want the token", b)
		}
	}
	// What broke off is asked for again.
	s.put("/app", "three and more")
	s.short = true
	if _, err := try(f); err == nil {
		t.Error("half a file: got no error")
	}
	s.short = false
	if got := fetch(t, f); got != "three and more" {
		t.Errorf("got %q, want the whole of it", got)
	}
	// Where nothing tells versions apart, who fetches compares.
	s.bare = true
	for range 2 {
		if got := fetch(t, f); got != "three and more" {
			t.Errorf("got %q, want the file", got)
		}
	}
	delete(s.files, "/app")
	if _, err := try(f); err == nil || !strings.Contains(err.Error(), "HEAD: got 404 Not Found") {
		t.Errorf("got %v, want 404", err)
	}
}

// overseer's example: the URL depends on operating system and architecture.
func TestHTTPByPlatform(t *testing.T) {
	s := newShelf(t)
	s.put("/app-"+runtime.GOOS+"-"+runtime.GOARCH, "for this host")
	version := "app"
	f := &fetcher.HTTP{Interval: soon, URLFunc: func() (string, error) {
		if version == "" {
			return "", errors.New("no idea")
		}
		return fmt.Sprintf("%s/%s-%s-%s", s.URL, version, runtime.GOOS, runtime.GOARCH), nil
	}}
	initial(t, f)
	if got := fetch(t, f); got != "for this host" {
		t.Errorf("got %q", got)
	}
	// Another URL is news, whatever its headers say.
	s.put("/next-"+runtime.GOOS+"-"+runtime.GOARCH, "for this host")
	version = "next"
	if got := fetch(t, f); got != "for this host" {
		t.Errorf("got %q", got)
	}
	version = ""
	if _, err := try(f); err == nil || err.Error() != "ask URLFunc: no idea" {
		t.Errorf("got %v", err)
	}
}

func gz(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, text)
	w.Close()
	return b.String()
}

func TestGzip(t *testing.T) {
	s := newShelf(t)
	s.put("/app.gz", gz("small"))
	f := &fetcher.HTTP{URL: s.URL + "/app.gz", Interval: soon}
	initial(t, f)
	if got := fetch(t, f); got != "small" {
		t.Errorf("got %q, want small", got)
	}
	s.put("/app.gz", "plain, whatever it is called")
	if got := fetch(t, f); got != "plain, whatever it is called" {
		t.Errorf("got %q", got)
	}
}

// Only what a trusted key signed is returned.
func TestSignatures(t *testing.T) {
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := public.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "app.pub")
	if err := os.WriteFile(keyFile, key, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := newShelf(t)
	put := func(name, text string) {
		s.put("/"+name, text)
		os.Remove(filepath.Join(dir, name)) // another file, whose time differs
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	web := &fetcher.HTTP{URL: s.URL + "/app.gz", Interval: soon, Keys: []string{keyFile}}
	file := &fetcher.File{Path: filepath.Join(dir, "app.gz"), Keys: []string{keyFile}}
	initial(t, web)
	initial(t, file)
	packed := gz("signed")
	put("app.gz", packed)
	for _, f := range []fetcher.Interface{web, file} {
		if _, err := try(f); err == nil || !strings.Contains(err.Error(), "verify app.gz") {
			t.Errorf("%T unsigned: got %v", f, err)
		}
	}
	put("app.gz.minisig", string(minisign.Sign(stranger, []byte(packed))))
	for _, f := range []fetcher.Interface{web, file} {
		if _, err := try(f); err == nil || !strings.Contains(err.Error(), "verify app.gz") {
			t.Errorf("%T by a stranger: got %v", f, err)
		}
	}
	put("app.gz.minisig", string(minisign.Sign(private, []byte(packed))))
	for _, f := range []fetcher.Interface{web, file} {
		if got := fetch(t, f); got != "signed" {
			t.Errorf("%T: got %q, want signed", f, got)
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	f := &fetcher.File{Path: path}
	initial(t, f)
	if got := fetch(t, f); got != "" {
		t.Errorf("what was there at Init: got %q, want nothing", got)
	}
	write("longer")
	if got := fetch(t, f); got != "longer" {
		t.Errorf("got %q, want longer", got)
	}
	os.Remove(path)
	if got := fetch(t, f); got != "" {
		t.Errorf("no file: got %q, want nothing", got)
	}
}

// A private project: the token is shown to the API, and not to the storage that it
// redirects to.
func TestGithub(t *testing.T) {
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" {
			t.Errorf("the storage was shown %q", a)
		}
		io.WriteString(w, "binary at "+r.URL.Path)
	}))
	defer storage.Close()
	elsewhere := strings.Replace(storage.URL, "127.0.0.1", "localhost", 1)
	updated, unchanged := "2027-01-01", 0
	mux := http.NewServeMux()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.NotFound(w, r) // as GitHub does
			return
		}
		mux.ServeHTTP(w, r)
	}))
	defer api.Close()
	name := "app_" + runtime.GOOS + "_" + runtime.GOARCH
	mux.HandleFunc("/repos/me/app/releases/latest", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"`+updated+`"`)
		if r.Header.Get("If-None-Match") == `"`+updated+`"` {
			unchanged++
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprintf(w, `{"tag_name":"v1","assets":[{"name":"%s.minisig","url":"%s/assets/1"},{"name":"%s","url":"%s/assets/2","updated_at":"%s"}]}`,
			name, api.URL, name, api.URL, updated)
	})
	mux.HandleFunc("/assets/2", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != "application/octet-stream" {
			t.Errorf("got Accept %q: GitHub would describe the asset", r.Header.Get("Accept"))
		}
		http.Redirect(w, r, elsewhere+"/v1", http.StatusFound)
	})
	f := &fetcher.Github{User: "me", Repo: "app", Interval: soon, Token: "secret", Endpoint: api.URL}
	initial(t, f)
	for i, want := range []string{"binary at /v1", "", "binary at /v1"} {
		if i == 2 {
			updated = "2027-01-02"
		}
		if got := fetch(t, f); got != want {
			t.Errorf("turn %d: got %q, want %q", i, got, want)
		}
	}
	if unchanged != 1 {
		t.Errorf("got %d answers without a body, want 1", unchanged)
	}
	f = &fetcher.Github{User: "me", Repo: "app", Endpoint: api.URL}
	initial(t, f)
	if _, err := try(f); err == nil || !strings.Contains(err.Error(), "a private project needs a Token") {
		t.Errorf("without a token: got %v", err)
	}
	f = &fetcher.Github{User: "me", Repo: "app", Token: "secret", Endpoint: api.URL, Asset: func(string) bool { return false }}
	initial(t, f)
	if _, err := try(f); err == nil || !strings.Contains(err.Error(), "release v1 of me/app has no asset that fits") {
		t.Errorf("no asset: got %v", err)
	}
}

func TestBadFields(t *testing.T) {
	tests := []struct {
		f    fetcher.Interface
		want string
	}{
		{&fetcher.HTTP{}, "set URL or URLFunc"},
		{&fetcher.HTTP{URL: "ftp://host/app"}, "no http(s) URL"},
		{&fetcher.HTTP{URL: "http://host/app", Keys: []string{"nonsense"}}, `key "nonsense"`},
		{&fetcher.HTTP{URL: "http://host/app", Keys: []string{"/nowhere"}}, "read key: open /nowhere"},
		{&fetcher.File{}, "set Path"},
		{&fetcher.File{Path: "/"}, "/ is no regular file"},
		{&fetcher.S3{Key: "app"}, "set Bucket"},
		{&fetcher.S3{Bucket: "b"}, "set Key"},
		{&fetcher.S3{Bucket: "b", Key: "app", Access: "id"}, "set Access and Secret"},
		{&fetcher.Github{Repo: "app"}, "set User"},
		{&fetcher.Github{User: "me", Repo: "a/b"}, "set Repo"},
	}
	for _, test := range tests {
		if err := test.f.Init(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%T: got %v, want %q in it", test.f, err, test.want)
		}
	}
}
