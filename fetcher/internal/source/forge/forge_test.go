package forge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/forge/forgetest"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

const canary = sourcetest.Canary

var kinds = []string{"github", "gitlab", "gitea"}

// each runs do for each kind of forge.
func each(t *testing.T, do func(t *testing.T, f *forgetest.Forge)) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { do(t, forgetest.New(t, kind)) })
	}
}

// follow opens the project of f.
func follow(t *testing.T, f *forgetest.Forge, o Options) *Project {
	t.Helper()
	u, err := url.Parse(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	o.Endpoint = f.API
	p, err := New(u, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// withToken gives options with a token in a file, and sets it at the forge.
func withToken(t *testing.T, f *forgetest.Forge) Options {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Demand(canary)
	return Options{Token: true, Client: client.Options{Access: credential.Access{TokenFile: name}}}
}

// publisher attaches files to one release.
type publisher struct {
	forge   *forgetest.Forge
	release *forgetest.Release
}

func (p *publisher) Publish(name string, content []byte) {
	if p.release == nil {
		p.release = p.forge.Release("v1")
	}
	p.release.Attach(name, content)
}

func (p *publisher) Remove(name string) { p.release.Detach(name) }

func TestConforms(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			sourcetest.Conform(t, func(t *testing.T) (source.Source, sourcetest.Publisher) {
				f := forgetest.New(t, kind)
				return follow(t, f, withToken(t, f)), &publisher{forge: f}
			})
		})
	}
}

// look gives the tag that is found.
func look(t *testing.T, p *Project) string {
	t.Helper()
	view, err := p.Look(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return view.Tag
}

func TestWhichRelease(t *testing.T) {
	each(t, func(t *testing.T, f *forgetest.Forge) {
		marked := func(r *forgetest.Release, draft, pre, upcoming bool) {
			r.Draft, r.PreRelease, r.Upcoming = draft, pre, upcoming
		}
		f.Release("v1.0")
		f.Release("v1.1")
		if f.Kind == "gitlab" {
			for i := range 12 { // more than a page
				marked(f.Release(fmt.Sprintf("v1.2-%d", i)), false, false, true)
			}
		} else {
			marked(f.Release("v1.2-rc1"), false, true, false)
			for i := range 12 {
				marked(f.Release(fmt.Sprintf("v1.2-%d", i)), true, false, false)
			}
		}
		newest := "v1.1"
		if got := look(t, follow(t, f, Options{})); got != newest {
			t.Errorf("newest is %s, want %s", got, newest)
		}
		if f.Kind != "gitlab" {
			newest = "v1.2-rc1"
		}
		if got := look(t, follow(t, f, Options{PreRelease: true})); got != newest {
			t.Errorf("newest with PreRelease is %s, want %s", got, newest)
		}
		for _, tag := range []string{"v1.0", "release/v2 ü"} {
			if tag != "v1.0" {
				f.Release(tag)
			}
			o := Options{Tag: tag}
			if strings.Contains(tag, " ") {
				u, _ := url.Parse(f.Path)
				o.Endpoint = f.API
				if _, err := New(u, o); fault.CodeOf(err) != fault.ConfigSource {
					t.Errorf("tag %q: %v", tag, err)
				}
				continue
			}
			if got := look(t, follow(t, f, o)); got != tag {
				t.Errorf("found %s, want %s", got, tag)
			}
		}
		f.Release("release/v2")
		if got := look(t, follow(t, f, Options{Tag: "release/v2"})); got != "release/v2" {
			t.Errorf("found %s", got)
		}
	})
}

// TestTenThousandReleases looks at a forge with more releases than anybody
// reads.
func TestTenThousandReleases(t *testing.T) {
	each(t, func(t *testing.T, f *forgetest.Forge) {
		for i := range 10_000 {
			f.Release(fmt.Sprintf("v%d", i)).Draft = f.Kind != "gitlab"
		}
		p := follow(t, f, Options{PreRelease: true})
		_, err := p.Look(context.Background())
		if f.Kind == "gitlab" {
			if err != nil {
				t.Fatal(err)
			}
		} else {
			sourcetest.WantCode(t, err, fault.NotFound, true)
		}
		if asked := len(f.Asked()); asked > pagesMax {
			t.Errorf("%d requests", asked)
		}
	})
}

// TestUnchangedCostsOneRequest counts what a check of an unchanged release asks.
func TestUnchangedCostsOneRequest(t *testing.T) {
	each(t, func(t *testing.T, f *forgetest.Forge) {
		r := f.Release("v1")
		r.Attach("SHA256SUMS", []byte("sums"))
		p := follow(t, f, Options{})
		before, err := p.Look(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		_, mark, err := p.Read(context.Background(), "SHA256SUMS", 10, "")
		if err != nil {
			t.Fatal(err)
		}
		f.Asked()
		after, err := p.Look(context.Background())
		if err != nil || after != before {
			t.Fatalf("view %v became %v, %v", before, after, err)
		}
		if _, _, err := p.Read(context.Background(), "SHA256SUMS", 10, mark); !errors.Is(err, source.ErrUnchanged) {
			t.Fatal(err)
		}
		var status []int
		for _, r := range f.Asked() {
			status = append(status, r.Status)
		}
		want := map[string]string{"github": "[304]", "gitlab": "[304 304]", "gitea": "[200]"}[f.Kind]
		if fmt.Sprint(status) != want {
			t.Errorf("answered %v, want %s", status, want)
		}
		r.Attach("new", []byte("x"))
		if after, err := p.Look(context.Background()); err != nil || after.Mark == before.Mark {
			t.Errorf("a new file, and the same mark (%v)", err)
		}
	})
}

func TestList(t *testing.T) {
	each(t, func(t *testing.T, f *forgetest.Forge) {
		r := f.Release("v1")
		r.Attach("app_1", []byte("hello"))
		r.Attach("old", []byte("hello"))
		r.Damage("old", "", false)
		r.Attach("half", []byte("hello"))
		r.Damage("half", "", true)
		p := follow(t, f, Options{})
		files, err := p.List(context.Background(), 10)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range files {
			got = append(got, fmt.Sprintf("%s %d %.3x", f.Name, f.Size, f.Digest))
		}
		want := map[string]string{
			"github": "[app_1 5 2cf24d old 5 000000]",
			"gitlab": "[app_1 -1 000000 old -1 000000 half -1 000000]", // which tells less
			"gitea":  "[app_1 5 000000 old 5 000000 half 5 000000]",
		}[f.Kind]
		if fmt.Sprint(got) != want {
			t.Errorf("listed %v, want %s", got, want)
		}
		_, err = p.List(context.Background(), 1)
		sourcetest.WantCode(t, err, fault.MetaTooLarge, false)
		if f.Kind == "github" {
			_, err := p.Open(context.Background(), "half", source.Position{})
			sourcetest.WantCode(t, err, fault.NotFound, true)
			s := sourcetest.MustOpen(t, p, "app_1", source.Position{})
			s.Body.Close()
			if s.Digest != files[0].Digest {
				t.Errorf("the stream's digest is %x", s.Digest)
			}
		}
	})
}

// TestTokenStaysHome has a private project whose files are elsewhere.
func TestTokenStaysHome(t *testing.T) {
	each(t, func(t *testing.T, f *forgetest.Forge) {
		r := f.Release("v1")
		r.Attach("app", []byte("hello"))
		elsewhere := forgetest.New(t, "gitea")
		elsewhere.Release("v1").Attach("app", []byte("hello"))
		linked := elsewhere.API[:strings.Index(elsewhere.API, "/api")] + "/attachments/00000000-0000-4000-8000-000000000002"
		if f.Kind != "github" {
			r.Link("linked", linked)
		}
		p := follow(t, f, withToken(t, f))
		names := []string{"app", "linked"}
		if f.Kind == "github" {
			names = names[:1]
		}
		for _, name := range names {
			if got := sourcetest.MustReadAll(t, sourcetest.MustOpen(t, p, name, source.Position{})); string(got) != "hello" {
				t.Errorf("%s holds %q", name, got)
			}
		}
		home, away := 0, 0
		for _, r := range append(f.Asked(), elsewhere.Asked()...) {
			switch {
			case r.Authorization != "" && !r.Storage && r.Status < 400:
				home++
			case r.Authorization+r.Private == "" && r.Status == http.StatusOK:
				away++
			default:
				t.Errorf("%+v", r)
			}
		}
		if home == 0 || away != 1 {
			t.Errorf("%d requests with the token, %d without", home, away)
		}
	})
}

// TestLinks are of GitLab and Forgejo, and people write them.
func TestLinks(t *testing.T) {
	for _, kind := range []string{"gitlab", "gitea"} {
		f := forgetest.New(t, kind)
		r := f.Release("v1")
		bad := map[string]string{
			"ftp": "ftp://example.com/app", "file": "file:///etc/passwd", "user": "http://alice:" + canary + "@example.com/app", "no": "://", "relative": "/app",
		}
		for name, address := range bad {
			r.Link(name, address)
		}
		r.Attach("good", []byte("x"))
		p := follow(t, f, Options{})
		for name := range bad {
			_, err := p.Open(context.Background(), name, source.Position{})
			sourcetest.WantCode(t, err, fault.Redirect, false)
		}
		sourcetest.MustReadAll(t, sourcetest.MustOpen(t, p, "good", source.Position{}))
		p.api.Scheme = "https"
		if l := p.link("app", "http://example.com/app"); l.refused == nil || !strings.Contains(l.refused.Error(), "http address") {
			t.Errorf("from https to http: %v", l.refused)
		}
	}
}

// TestMovedBetweenCheckAndFetch changes the release after it was looked at.
func TestMovedBetweenCheckAndFetch(t *testing.T) {
	each(t, func(t *testing.T, f *forgetest.Forge) {
		first := f.Release("v1")
		first.Attach("app", []byte("one"))
		p := follow(t, f, Options{})
		look(t, p)

		// Another release does not take the place of the one that was found.
		second := f.Release("v2")
		second.Attach("app", []byte("two"))
		if got := sourcetest.MustReadAll(t, sourcetest.MustOpen(t, p, "app", source.Position{})); f.Kind != "gitlab" && string(got) != "one" {
			t.Errorf("got %q from the release that was found", got)
		}
		if f.Kind == "gitlab" {
			return // its links name no upload, so the list's digest has to tell
		}
		f.Withdraw(first)
		_, err := p.Open(context.Background(), "app", source.Position{})
		sourcetest.WantCode(t, err, fault.SourceChanged, true)
		if !strings.Contains(err.Error(), "v1") || !strings.Contains(err.Error(), "v2") {
			t.Errorf("%v does not say what became of it", err)
		}
		if got := look(t, p); got != "v2" {
			t.Errorf("found %s", got)
		}
		f.Withdraw(second)
		_, err = p.Open(context.Background(), "app", source.Position{})
		sourcetest.WantCode(t, err, fault.NotFound, true)
	})
}

// TestReplaced has a file uploaded again after the look: the new one is got, and
// from its start.
func TestReplaced(t *testing.T) {
	each(t, func(t *testing.T, f *forgetest.Forge) {
		r := f.Release("v1")
		r.Attach("app", []byte("hello"))
		r.Attach("sums", []byte("one"))
		p := follow(t, f, Options{})
		s := sourcetest.MustOpen(t, p, "app", source.Position{})
		sourcetest.MustReadAll(t, s)
		r.Attach("app", []byte("a new one"))
		r.Attach("sums", []byte("two"))
		again := sourcetest.MustOpen(t, p, "app", source.Position{Offset: 2, Mark: s.Mark})
		if got := sourcetest.MustReadAll(t, again); again.Offset != 0 || string(got) != "a new one" {
			t.Errorf("got %q from %d", got, again.Offset)
		}
		if raw, _, err := p.Read(context.Background(), "sums", 10, ""); err != nil || string(raw) != "two" {
			t.Errorf("read %q, %v", raw, err)
		}
		r.Detach("app")
		_, err := p.Open(context.Background(), "app", source.Position{})
		sourcetest.WantCode(t, err, fault.NotFound, true)
	})
}

// TestChannel is a tag that moves.
func TestChannel(t *testing.T) {
	each(t, func(t *testing.T, f *forgetest.Forge) {
		old := f.Release("nightly")
		old.Attach("app_1", []byte("one"))
		f.Release("v9").Attach("app_9", []byte("nine"))
		p := follow(t, f, Options{Tag: "nightly"})
		before, err := p.Look(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		f.Withdraw(old)
		_, err = p.Look(context.Background())
		sourcetest.WantCode(t, err, fault.NotFound, true)
		f.Release("nightly").Attach("app_2", []byte("two"))
		after, err := p.Look(context.Background())
		if err != nil || after.Mark == before.Mark {
			t.Fatalf("%v: view %v became %v", err, before, after)
		}
		files, err := p.List(context.Background(), 10)
		if err != nil || len(files) != 1 || files[0].Name != "app_2" {
			t.Errorf("%v, %v", files, err)
		}
	})
}

func TestRateLimit(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		headers map[string]string
		wait    time.Duration // at least this less ten seconds
	}{
		{"primary of GitHub", 403, map[string]string{"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "in 20m"}, 20 * time.Minute},
		{"the same as 429", 429, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "in 20m"}, 20 * time.Minute},
		{"secondary of GitHub", 403, map[string]string{"X-RateLimit-Remaining": "12", "Retry-After": "60"}, time.Minute},
		{"GitLab", 429, map[string]string{"RateLimit-Remaining": "0", "RateLimit-Reset": "in 20m", "Retry-After": "60"}, 20 * time.Minute},
		{"drafts of the IETF", 429, map[string]string{"RateLimit-Remaining": "0", "RateLimit-Reset": "120"}, 2 * time.Minute},
		{"for years", 403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999999"}, time.Hour},
	} {
		for _, token := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, " token ", token), func(t *testing.T) {
				f := forgetest.New(t, "github")
				f.Release("v1")
				o := Options{}
				if token {
					o = withToken(t, f)
				}
				p := follow(t, f, o)
				look(t, p)
				f.Asked()
				f.Instead(func(w http.ResponseWriter, r *http.Request) bool {
					for key, value := range c.headers {
						if value == "in 20m" {
							value = fmt.Sprint(time.Now().Add(20 * time.Minute).Unix())
						}
						w.Header().Set(key, value)
					}
					w.WriteHeader(c.status)
					io.WriteString(w, `{"message":"API rate limit exceeded for 192.0.2.1."}`)
					return true
				})
				for range 3 {
					_, err := p.Look(context.Background())
					sourcetest.WantCode(t, err, fault.Throttled, true)
					var e *fault.Error
					errors.As(err, &e)
					if e.RetryAfter > c.wait+10*time.Second || e.RetryAfter < c.wait-time.Minute {
						t.Errorf("retry after %v, want %v", e.RetryAfter, c.wait)
					}
					if strings.Contains(e.Hint, "TokenFile=") == token {
						t.Errorf("hint %q", e.Hint)
					}
				}
				if n := len(f.Asked()); n != 1 {
					t.Errorf("asked %d times although it wants to be left alone", n)
				}
			})
		}
	}
}

// TestRateLimitEnds waits until the forge may be asked again.
func TestRateLimitEnds(t *testing.T) {
	f := forgetest.New(t, "github")
	f.Release("v1")
	p := follow(t, f, Options{})
	limited := true
	f.Instead(func(w http.ResponseWriter, r *http.Request) bool {
		if limited {
			limited = false
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	_, err := p.Look(context.Background())
	sourcetest.WantCode(t, err, fault.Throttled, true)
	for fault.CodeOf(err) == fault.Throttled {
		time.Sleep(50 * time.Millisecond)
		_, err = p.Look(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCredentials are missing, wrong, and replaced by better ones.
func TestCredentials(t *testing.T) {
	each(t, func(t *testing.T, f *forgetest.Forge) {
		f.Release("v1").Attach("app", []byte("x"))
		o := withToken(t, f)
		_, err := follow(t, f, Options{}).Look(context.Background())
		sourcetest.WantCode(t, err, fault.NotFound, true)
		if !strings.Contains(err.Error(), "TokenFile=") {
			t.Errorf("%v does not say how to see a private project", err)
		}
		p := follow(t, f, o)
		look(t, p)
		f.Demand("another")
		_, err = p.Look(context.Background())
		sourcetest.WantCode(t, err, fault.Denied, false)
		if !strings.Contains(err.Error(), "TokenFile=") {
			t.Errorf("%v does not say which secret", err)
		}
		if err := os.WriteFile(o.Client.Access.TokenFile, []byte("another"), 0o600); err != nil {
			t.Fatal(err)
		}
		look(t, p)
	})
}

// TestAnswers are none that a forge gives.
func TestAnswers(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name, kind, body string
		code             fault.Code
	}{
		{"a web page", "github", "<!DOCTYPE html><title>Log in</title>", fault.Protocol},
		{"nothing", "github", "", fault.Protocol},
		{"null", "github", "null", fault.Protocol},
		{"no tag", "github", `{"id":1}`, fault.Protocol},
		{"a long tag", "github", `{"id":1,"tag_name":"` + long + `","assets":[]}`, fault.Protocol},
		{"another type", "github", `{"id":"one","tag_name":"v1"}`, fault.Protocol},
		{"no files", "github", `{"id":1,"tag_name":"v1"}`, fault.Protocol},
		{"files of another type", "github", `{"id":1,"tag_name":"v1","assets":{"links":[]}}`, fault.Protocol},
		{"a short digest", "github", `{"id":1,"tag_name":"v1","assets":[{"id":2,"name":"a","state":"uploaded","digest":"sha256:abcd"}]}`, fault.Protocol},
		{"a digest of no digits", "github", `{"id":1,"tag_name":"v1","assets":[{"id":2,"name":"a","state":"uploaded","digest":"sha256:` + strings.Repeat("x", 64) + `"}]}`, fault.Protocol},
		{"a long digest", "github", `{"id":1,"tag_name":"v1","assets":[{"id":2,"name":"a","state":"uploaded","digest":"sha256:` + strings.Repeat("a", 66) + `"}]}`, fault.Protocol},
		{"a name twice", "github", `{"id":1,"tag_name":"v1","assets":[{"id":2,"name":"a"},{"id":3,"name":"a"}]}`, fault.MetaSyntax},
		{"too many files", "github", `{"id":1,"tag_name":"v1","assets":[` + strings.Repeat(`{},`, filesMax) + `{}]}`, fault.MetaTooLarge},
		{"too large", "github", strings.Repeat(" ", pageMax+1), fault.MetaTooLarge},
		{"deep", "github", strings.Repeat(`[`, 100_000), fault.Protocol},
		{"an object for a list", "gitlab", `{"message":"no"}`, fault.Protocol},
		{"nulls", "gitlab", `[null]`, fault.Protocol},
		{"an empty list", "gitlab", `[]`, fault.NotFound},
		{"no links", "gitlab", `[{"tag_name":"v1","assets":[]}]`, fault.Protocol},
		{"a UUID that climbs", "gitea", `{"id":1,"tag_name":"v1","assets":[{"name":"a","uuid":"../api/v1/user"}]}`, fault.Protocol},
		{"no UUID", "gitea", `{"id":1,"tag_name":"v1","assets":[{"name":"a"}]}`, fault.Protocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := forgetest.New(t, c.kind)
			f.Instead(func(w http.ResponseWriter, r *http.Request) bool { io.WriteString(w, c.body); return true })
			_, err := follow(t, f, Options{}).Look(context.Background())
			sourcetest.WantCode(t, err, c.code, c.code == fault.Protocol || c.code == fault.NotFound)
			if len(err.Error()) > 600 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// TestWrongFile is one that is not as long as the release says.
func TestWrongFile(t *testing.T) {
	f := forgetest.New(t, "gitea")
	f.Release("v1").Attach("app", []byte("hello"))
	f.Instead(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/attachments/") {
			w.Write(bytes.Repeat([]byte("x"), 50))
			return true
		}
		return false
	})
	before := sourcetest.OpenFiles(t)
	_, err := follow(t, f, Options{}).Open(context.Background(), "app", source.Position{})
	sourcetest.WantCode(t, err, fault.Size, true)
	sourcetest.Settled(t, before)
}

// TestRenamedProject is one whose old name leads to the new one.
func TestRenamedProject(t *testing.T) {
	f := forgetest.New(t, "github")
	f.Release("v1").Attach("app", []byte("hello"))
	o := withToken(t, f)
	u, _ := url.Parse("github://old/name")
	o.Endpoint = f.API
	p, err := New(u, o)
	if err != nil {
		t.Fatal(err)
	}
	f.Instead(func(w http.ResponseWriter, r *http.Request) bool {
		rest, ok := strings.CutPrefix(r.URL.Path, "/api/v3/repos/old/name")
		if ok {
			http.Redirect(w, r, f.API+"/repos/acme/app"+rest, http.StatusMovedPermanently)
		}
		return ok
	})
	if got := look(t, p); got != "v1" {
		t.Errorf("found %s", got)
	}
	if got := sourcetest.MustReadAll(t, sourcetest.MustOpen(t, p, "app", source.Position{})); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		path string
		o    Options
		want string // the API of the project; "" for an error
	}{
		{"github://acme/app", Options{}, "https://api.github.com/repos/acme/app"},
		{"github://acme/app/", Options{}, "https://api.github.com/repos/acme/app"},
		{"github://acme/app", Options{Endpoint: "https://ghe.example.com/api/v3/"}, "https://ghe.example.com/api/v3/repos/acme/app"},
		{"gitlab://git.example.com:8443/a/b/c.d", Options{}, "https://git.example.com:8443/api/v4/projects/a%2Fb%2Fc.d"},
		{"gitea://[::1]:3000/a/b", Options{Endpoint: "http://[::1]:3000/sub/api/v1"}, "http://[::1]:3000/sub/api/v1/repos/a/b"},
		{"github://acme", Options{}, ""},
		{"github://acme/app/more", Options{}, ""},
		{"github:///app", Options{}, ""},
		{"github://acme:80/app", Options{}, ""},
		{"github://acme/..", Options{}, ""},
		{"github://acme/a%2Fb", Options{}, ""},
		{"github://" + canary + "@acme/app", Options{}, ""},
		{"github://acme/app?token=" + canary, Options{}, ""},
		{"gitlab://git.example.com/app", Options{}, ""},
		{"gitlab:///a/b", Options{}, ""},
		{"gitea://git.example.com/a/b/c", Options{}, ""},
		{"gitea:///a/b", Options{}, ""},
		{"github://acme/app", Options{Endpoint: "http://ghe.example.com/api/v3"}, ""},
		{"github://acme/app", Options{Endpoint: "ghe.example.com"}, ""},
		{"github://acme/app", Options{Endpoint: "https://u:" + canary + "@ghe.example.com/"}, ""},
		{"github://acme/app", Options{Tag: strings.Repeat("v", tagMax+1)}, ""},
		{"github://acme/app", Options{Tag: "a\nb"}, ""},
	} {
		u, err := url.Parse(c.path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := New(u, c.o)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s %+v: no error, but %s", c.path, c.o, p.api)
				continue
			}
			sourcetest.WantCode(t, err, fault.ConfigSource, false)
			continue
		}
		if err != nil || p.api.String() != c.want {
			t.Errorf("%s: %v, %v; want %s", c.path, p.api, err, c.want)
		}
	}
}

// FuzzAnswer feeds answers of a forge that means ill.
func FuzzAnswer(f *testing.F) {
	for _, kind := range kinds {
		raw, err := os.ReadFile(filepath.Join("testdata", kind+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, raw, false)
		f.Add(kind, []byte("["+string(raw)+"]"), true)
	}
	f.Fuzz(func(t *testing.T, kind string, raw []byte, list bool) {
		d := dialects[kind]
		if d == nil {
			return
		}
		p := &Project{dialect: d, api: &url.URL{Scheme: "https", Host: "example.com", Path: "/api/v1/repos/a/b"}}
		releases, err := p.read(raw, list)
		if err != nil {
			return
		}
		for _, r := range releases {
			if r.files, err = d.files(p, r.Assets); err != nil || r.check() != nil {
				continue
			}
			for _, f := range r.files {
				u := f.request.URL
				if f.refused == nil && (u.Scheme != "https" || u.User != nil || u.Host != "example.com" && !f.request.Anonymous) {
					t.Errorf("%q leads to %v with a token", f.name, u)
				}
			}
		}
	})
}
