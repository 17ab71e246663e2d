package fetcher

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const signatureName = manifestName + ".minisig"

// shop publishes releases in a directory, signed, as a release script does.
type shop struct {
	t       *testing.T
	dir     string
	key     string
	private minisign.PrivateKey
	files   map[string][]byte
}

func newShop(t *testing.T) *shop {
	t.Helper()
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &shop{t: t, dir: t.TempDir(), key: public.String(), private: private, files: map[string][]byte{}}
}

// release publishes a file beside those that are there.
func (s *shop) release(name string, content []byte) {
	s.t.Helper()
	s.files[name] = content
	s.put(name, content)
	s.sign(s.manifest())
}

func (s *shop) manifest() []byte {
	var names []string
	for name := range s.files {
		names = append(names, name)
	}
	slices.Sort(names)
	var b bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(s.files[name]), name)
	}
	return b.Bytes()
}

// sign publishes a manifest and its signature.
func (s *shop) sign(manifest []byte) {
	s.t.Helper()
	s.put(signatureName, minisign.Sign(s.private, manifest))
	s.put(manifestName, manifest)
}

func (s *shop) put(name string, content []byte) {
	s.t.Helper()
	temp := filepath.Join(s.t.TempDir(), "new")
	if err := os.WriteFile(temp, content, 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) drop(name string) {
	s.t.Helper()
	if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

// options follow the shop's directory.
func (s *shop) options() Options {
	return Options{Target: "app", Path: s.dir, Patterns: []string{"app_@v.bin"}, Keys: []string{s.key}}
}

// storefront serves a shop over HTTP and can be told to misbehave.
type storefront struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string // "PATH RANGE STATUS"
	answer   answer
}

// answer may answer a request, and then gives true.
type answer func(w http.ResponseWriter, r *http.Request) bool

func (s *shop) serve() *storefront {
	web := &storefront{}
	files := http.FileServer(http.Dir(s.dir))
	web.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		web.mu.Lock()
		answer := web.answer
		web.mu.Unlock()
		noted := &notedWriter{ResponseWriter: w, web: web, request: r}
		if answer == nil || !answer(noted, r) {
			files.ServeHTTP(noted, r)
		}
	}))
	s.t.Cleanup(web.Close)
	return web
}

// before lets a answer first; nil ends that.
func (w *storefront) before(a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = a
}

// asked gives the requests answered so far, and forgets them.
func (w *storefront) asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.requests
	w.requests = nil
	return asked
}

// notedWriter notes a request before the client sees the answer.
type notedWriter struct {
	http.ResponseWriter
	web     *storefront
	request *http.Request
	noted   bool
}

func (w *notedWriter) WriteHeader(status int) {
	if !w.noted {
		w.noted = true
		w.web.mu.Lock()
		w.web.requests = append(w.web.requests, strings.TrimSpace(fmt.Sprint(w.request.URL.Path, " ", w.request.Header.Get("Range"), " ", status)))
		w.web.mu.Unlock()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *notedWriter) Write(b []byte) (int, error) {
	if !w.noted {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

func (w *notedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func mustNew(t *testing.T, o Options) *Fetcher {
	t.Helper()
	f, err := New(o, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func mustCheck(t *testing.T, f *Fetcher) Listing {
	t.Helper()
	listing, err := f.Check(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return listing
}

func mustFetch(t *testing.T, f *Fetcher, c Candidate, dir string) *Verified {
	t.Helper()
	v, err := f.Fetch(context.Background(), c, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// newest checks, and gives the first candidate.
func newest(t *testing.T, f *Fetcher) Candidate {
	t.Helper()
	c, ok := mustCheck(t, f).Newest()
	if !ok {
		t.Fatal("no candidate")
	}
	return c
}

func wantCode(t *testing.T, err error, code fault.Code) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want %s", err, code)
	}
	if e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	text := err.Error()
	if e.Target == "" || !strings.HasPrefix(text, e.Target+": ") || !strings.Contains(text, "["+string(code)+"]") || strings.Contains(text, "\n") {
		t.Errorf("error is not as it should be: %q", text)
	}
	return e
}

// content reads a verified artifact.
func content(t *testing.T, v *Verified) []byte {
	t.Helper()
	raw, err := io.ReadAll(io.NewSectionReader(v.File(), 0, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// names lists a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func noise(t testing.TB, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	rand.Read(b)
	return b
}

// leaks makes sure at the end of a test that as many descriptors are open and as
// many goroutines run as now.
func leaks(t *testing.T) {
	t.Helper()
	files, routines := len(names(t, "/proc/self/fd")), runtime.NumGoroutine()
	t.Cleanup(func() {
		var nowFiles, nowRoutines int
		for range 100 {
			nowFiles, nowRoutines = len(names(t, "/proc/self/fd")), runtime.NumGoroutine()
			if nowFiles <= files && nowRoutines <= routines {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("%d descriptors and %d goroutines are left, %d and %d were before", nowFiles, nowRoutines, files, routines)
	})
}
