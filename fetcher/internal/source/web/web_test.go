package web

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

const canary = sourcetest.Canary

// webPublisher is a web server as nginx is one: ETag, Last-Modified, Range.
type webPublisher struct {
	mu    sync.Mutex
	files map[string]webFile
	n     int
}

type webFile struct {
	content []byte
	tag     string
}

func (p *webPublisher) Publish(name string, content []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	p.files["/dir/"+name] = webFile{content, fmt.Sprintf(`"%d"`, p.n)}
}

func (p *webPublisher) Remove(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.files, "/dir/"+name)
}

func (p *webPublisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	file, ok := p.files[r.URL.Path]
	p.mu.Unlock()
	user, password, _ := r.BasicAuth()
	if !ok || user != "user" || password != canary || r.URL.Query().Get("token") != canary {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", file.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file.content))
}

func TestConforms(t *testing.T) {
	sourcetest.Conform(t, func(t *testing.T) (source.Source, sourcetest.Publisher) {
		p := &webPublisher{files: map[string]webFile{"/outside": {content: []byte("outside")}, "/dir/sub/inside": {content: []byte("inside")}}}
		server := httptest.NewServer(p)
		t.Cleanup(server.Close)
		base, err := url.Parse(strings.Replace(server.URL, "//", "//user:"+canary+"@", 1) + "/dir?token=" + canary)
		if err != nil {
			t.Fatal(err)
		}
		d, err := New(base, client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return d, p
	})
}
