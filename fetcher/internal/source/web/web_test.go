package web

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
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
		return follow(t, strings.Replace(server.URL, "//", "//user:"+canary+"@", 1)+"/dir?token="+canary, client.Options{}), p
	})
}

// TestConformsWithNginx lets in whoever has a user and password, or a token.
func TestConformsWithNginx(t *testing.T) {
	for _, c := range []struct {
		name, more string
		file       string
		access     func(file string) credential.Access
	}{
		{"open to all", "", "", func(string) credential.Access { return credential.Access{} }},
		{"login", "auth_basic releases; auth_basic_user_file USERS;", "user:{PLAIN}" + canary, func(file string) credential.Access {
			return credential.Access{LoginFile: file}
		}},
		{"token", `if ($http_authorization != "Bearer ` + canary + `") { return 401; }`, canary, func(file string) credential.Access {
			return credential.Access{TokenFile: file}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			users, secret := filepath.Join(dir, "users"), filepath.Join(dir, "secret")
			put(t, users, c.file)
			put(t, secret, strings.Replace(c.file, "{PLAIN}", "", 1)+"\n")
			more := strings.Replace(c.more, "USERS", users, 1)
			sourcetest.Conform(t, func(t *testing.T) (source.Source, sourcetest.Publisher) {
				root := t.TempDir()
				put(t, filepath.Join(root, "outside"), "outside")
				if err := os.MkdirAll(filepath.Join(root, "dir", "sub"), 0o755); err != nil {
					t.Fatal(err)
				}
				put(t, filepath.Join(root, "dir", "sub", "inside"), "inside")
				server := sourcetest.StartNginx(t, root, "", more)
				d := follow(t, "http://"+server.Addr+"/dir", client.Options{Access: c.access(secret)})
				return d, &sourcetest.Shelf{T: t, Dir: filepath.Join(root, "dir")}
			})
			if c.file == "" {
				return
			}
			server := sourcetest.StartNginx(t, dir, "", more)
			put(t, secret, "another:"+canary)
			_, _, err := follow(t, "http://"+server.Addr, client.Options{Access: c.access(secret)}).Read(context.Background(), "users", 100, "")
			sourcetest.WantCode(t, err, fault.Denied, false)
			_, _, err = follow(t, "http://"+server.Addr, client.Options{}).Read(context.Background(), "users", 100, "")
			sourcetest.WantCode(t, err, fault.Denied, false)
		})
	}
}

func TestOneWhoAsks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "login")
	put(t, file, "user:"+canary)
	base, err := url.Parse("https://user:" + canary + "@example.org/")
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(base, client.Options{Access: credential.Access{LoginFile: file}})
	sourcetest.WantCode(t, err, fault.ConfigSource, false)
}

func follow(t *testing.T, address string, o client.Options) *Dir {
	t.Helper()
	base, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(base, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
