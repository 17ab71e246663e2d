package fetcher

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// lone publishes one file at a time of its choice, without a list.
func (s *shop) lone(name string, content []byte, signed time.Time) {
	s.t.Helper()
	s.put(name, content)
	s.put(name+".minisig", minisign.SignWithComments(s.private, content, fmt.Sprintf("timestamp:%d\tfile:%s", signed.Unix(), name), ""))
}

func (s *shop) loneOptions(url string) Options {
	return Options{Target: "app", Path: url + "/app", NoManifest: true, Keys: []string{s.key}, StallTimeout: 2 * time.Second}
}

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// TestLoneArtifact follows a file that is replaced, from a real nginx.
func TestLoneArtifact(t *testing.T) {
	leaks(t)
	s := newShop(t)
	one, two := noise(t, 3<<20+17), noise(t, 100)
	s.lone("app", one, noon)
	s.shelve()
	server := sourcetest.StartNginx(t, s.dir, "", "")
	f := mustNew(t, s.loneOptions("http://"+server.Addr))
	listing := mustCheck(t, f)
	c, _ := listing.Newest()
	if want := (Candidate{Version: "2026.11.01.120000", Name: "app", Size: -1}); c != want || len(listing.Candidates) != 1 || listing.Unchanged {
		t.Fatalf("listing %+v, want %+v", listing, want)
	}
	if !listing.Signed.IsZero() || len(listing.Signers) != 0 {
		t.Errorf("listing %+v believes what nothing proves", listing)
	}
	if again := mustCheck(t, f); !again.Unchanged {
		t.Errorf("second listing %+v, want it unchanged", again)
	}
	into := t.TempDir()
	v := mustFetch(t, f, c, into)
	if got := v.Candidate(); !bytes.Equal(content(t, v), one) || got.Digest != sha256.Sum256(one) || got.Version != c.Version || got.Size != int64(len(one)) {
		t.Errorf("verified %+v", got)
	}
	if got := names(t, into); !slices.Equal(got, []string{"app"}) {
		t.Errorf("directory holds %q", got)
	}
	if asked := server.Asked(t, 3); !strings.HasPrefix(asked[0], "GET /app.minisig 200") || !strings.HasPrefix(asked[1], "GET /app.minisig 304") || !strings.HasPrefix(asked[2], "GET /app 200") || len(asked) != 3 {
		t.Errorf("asked %q", asked)
	}

	s.lone("app", two, noon.Add(time.Second))
	next := newest(t, f)
	if next.Version.Compare(c.Version) <= 0 {
		t.Errorf("%s is not newer than %s", next.Version, c.Version)
	}
	if got := content(t, mustFetch(t, f, next, into)); !bytes.Equal(got, two) {
		t.Error("the artifact is not what was published")
	}
	s.lone("app", one, noon.Add(-time.Hour))
	if back := newest(t, f); back.Version.Compare(c.Version) >= 0 {
		t.Errorf("%s, of an hour before, is not older than %s", back.Version, c.Version)
	}
}

// TestLoneArtifactFails has one thing wrong at a time; nothing is taken, and nothing
// left.
func TestLoneArtifactFails(t *testing.T) {
	page := func(w http.ResponseWriter, _ *http.Request) bool { fmt.Fprint(w, "<html>log in</html>"); return true }
	for _, c := range []struct {
		name string
		do   func(s *shop, o *Options)
		a    answer
		code fault.Code
	}{
		{"no signature", func(s *shop, _ *Options) { s.drop("app.minisig") }, nil, fault.SigMissing},
		{"an empty signature", func(s *shop, _ *Options) { s.put("app.minisig", nil) }, nil, fault.SigMissing},
		{"a signature without a time", func(s *shop, _ *Options) {
			s.put("app.minisig", minisign.SignWithComments(s.private, []byte("one"), "by hand", ""))
		}, nil, fault.MetaUndated},
		{"of other bytes", func(s *shop, _ *Options) { s.put("app", []byte("two")) }, nil, fault.SigBad},
		{"a bit of the middle", func(s *shop, _ *Options) {
			whole := noise(s.t, 1<<20)
			s.lone("app", whole, noon)
			whole[1<<19] ^= 1
			s.put("app", whole)
		}, nil, fault.SigBad},
		{"of another's key", func(s *shop, _ *Options) {
			other := newShop(s.t)
			s.put("app.minisig", minisign.SignWithComments(other.private, []byte("one"), fmt.Sprintf("timestamp:%d", noon.Unix()), ""))
		}, nil, fault.SigKey},
		{"a later time than was signed", func(s *shop, _ *Options) {
			raw, err := os.ReadFile(filepath.Join(s.dir, "app.minisig"))
			if err != nil {
				s.t.Fatal(err)
			}
			s.put("app.minisig", bytes.Replace(raw, fmt.Appendf(nil, "%d", noon.Unix()), fmt.Appendf(nil, "%d", noon.Unix()+1_000_000), 1))
		}, nil, fault.SigBad},
		{"too old", func(_ *shop, o *Options) { o.MaxAge = time.Minute }, nil, fault.MetaExpired},
		{"of no bytes", func(s *shop, _ *Options) { s.lone("app", nil, noon) }, nil, fault.ArtifactEmpty},
		{"no file", func(s *shop, _ *Options) { s.drop("app") }, nil, fault.NotFound},
		{"too large", func(_ *shop, o *Options) { o.SizeMax = 2 }, nil, fault.TooLarge},
		{"web pages", nil, page, fault.MetaNotSigned},
		{"a web page in its place", nil, func(w http.ResponseWriter, r *http.Request) bool { return r.URL.Path == "/app" && page(w, r) }, fault.SigBad},
		{"too few", func(s *shop, o *Options) { o.Threshold, o.Keys = 2, append(o.Keys, newShop(s.t).key) }, nil, fault.SigThreshold},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaks(t)
			s := newShop(t)
			s.lone("app", []byte("one"), noon)
			server := s.serve()
			server.before(c.a)
			o := s.loneOptions(server.URL)
			if c.do != nil {
				c.do(s, &o)
			}
			f := mustNew(t, o)
			into := t.TempDir()
			listing, err := f.Check(context.Background())
			if err == nil {
				_, err = f.Fetch(context.Background(), listing.Candidates[0], into, nil)
			}
			wantCode(t, err, c.code)
			if got := names(t, into); len(got) != 0 {
				t.Errorf("left %q", got)
			}
		})
	}
}

// TestLoneArtifactGoesOn cuts a transfer. Another process brings the rest, and where
// what came first was wrong, the whole.
func TestLoneArtifactGoesOn(t *testing.T) {
	whole := noise(t, 5<<20)
	ranged := fmt.Sprintf("/app bytes=%d- 206", 3<<20)
	for _, c := range []struct {
		name  string
		first []byte
		want  []string
	}{
		{"right", whole[:3<<20], []string{ranged}},
		{"wrong", make([]byte, 3<<20), []string{ranged, "/app  200"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShop(t)
			s.lone("app", whole, noon)
			server := s.serve()
			tag := func(w http.ResponseWriter, r *http.Request) bool { w.Header().Set("ETag", `"one"`); return false }
			server.before(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/app" {
					return false
				}
				tag(w, r)
				w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
				w.Write(c.first)
				panic(http.ErrAbortHandler)
			})
			o := s.loneOptions(server.URL)
			f := mustNew(t, o)
			into := t.TempDir()
			_, err := f.Fetch(context.Background(), newest(t, f), into, nil)
			wantCode(t, err, fault.Size)
			if got := names(t, into); !slices.Equal(got, []string{"artifact.part", "artifact.part.mark"}) {
				t.Errorf("directory holds %q", got)
			}
			server.before(tag)
			next := mustNew(t, o)
			newest(t, next)
			server.asked()
			v := mustFetch(t, next, newest(t, next), into)
			if !bytes.Equal(content(t, v), whole) {
				t.Error("the artifact is not what was published")
			}
			if asked := server.asked()[1:]; !slices.Equal(asked, c.want) {
				t.Errorf("asked %q, want %q", asked, c.want)
			}
		})
	}
}

// TestLoneArtifactMirrors takes the bytes of a mirror, where they have another name,
// by the signature that Path= has.
func TestLoneArtifactMirrors(t *testing.T) {
	s := newShop(t)
	s.lone("app", []byte("one"), noon)
	s.put("app-copy", []byte("one"))
	a, b := s.serve(), s.serve()
	a.before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/app" {
			return false
		}
		fmt.Fprint(w, "lie")
		return true
	})
	o := s.loneOptions(a.URL)
	o.Mirrors = []string{b.URL + "/app-copy"}
	f := mustNew(t, o)
	if got := content(t, mustFetch(t, f, newest(t, f), t.TempDir())); string(got) != "one" {
		t.Errorf("got %q", got)
	}
}

// TestLoneArtifactUnsigned goes by the date that the server gives.
func TestLoneArtifactUnsigned(t *testing.T) {
	modified, tag := noon, `"one"`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tag != "" {
			w.Header().Set("ETag", tag)
		}
		http.ServeContent(w, r, "app", modified, strings.NewReader("bytes of "+tag))
	}))
	defer server.Close()
	f := mustNew(t, Options{Target: "app", Path: server.URL + "/app", NoManifest: true, Verify: VerifyNo})
	c := newest(t, f)
	if want := (Candidate{Version: "2026.11.01.120000", Name: "app", Size: 14}); c != want {
		t.Fatalf("newest is %+v, want %+v", c, want)
	}
	if !mustCheck(t, f).Unchanged {
		t.Error("not unchanged")
	}
	if got := content(t, mustFetch(t, f, c, t.TempDir())); string(got) != `bytes of "one"` {
		t.Errorf("got %q", got)
	}
	modified, tag = noon.Add(time.Hour), `"two"`
	into := t.TempDir()
	_, err := f.Fetch(context.Background(), c, into, nil)
	wantCode(t, err, fault.SourceChanged)
	if got := names(t, into); len(got) != 0 {
		t.Errorf("left %q", got)
	}
	if got := newest(t, f); got.Version != "2026.11.01.130000" {
		t.Errorf("newest is %+v", got)
	}
	modified = time.Time{}
	_, err = f.Check(context.Background())
	wantCode(t, err, fault.MetaUndated)
}

// TestLoneArtifactTools signs with the tools of the trade.
func TestLoneArtifactTools(t *testing.T) {
	d := newDesk(t, "signing.md")
	d.write("app", "a program", 0o644)
	d.run(0, `
		minisign -G -W -p minisign.pub -s minisign.key >/dev/null
		gpg --quick-generate-key app@example.org ed25519 sign never
		gpg --export app@example.org > app.gpg
		ssh-keygen -q -t ed25519 -N '' -f ssh
		cp app by-minisign; cp app by-gpg; cp app by-ssh
		minisign -S -s minisign.key -m by-minisign >/dev/null
		gpg --detach-sign --output by-gpg.gpg by-gpg
		ssh-keygen -q -Y sign -n file -f ssh by-ssh 2>/dev/null`)
	server := httptest.NewServer(http.FileServer(http.Dir(d.dir)))
	defer server.Close()
	for _, c := range []struct {
		file, key string
		code      fault.Code
	}{{"by-minisign", "minisign.pub", ""}, {"by-gpg", "app.gpg", ""}, {"by-ssh", "ssh.pub", fault.MetaUndated}} {
		f := mustNew(t, Options{Target: "app", Path: server.URL + "/" + c.file, NoManifest: true, Keys: []string{filepath.Join(d.dir, c.key)}})
		listing, err := f.Check(context.Background())
		if c.code != "" {
			wantCode(t, err, c.code)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		v := mustFetch(t, f, listing.Candidates[0], t.TempDir())
		day := string(v.Candidate().Version)[:10]
		if got := content(t, v); string(got) != "a program" || day < time.Now().UTC().Add(-24*time.Hour).Format("2006.01.02") {
			t.Errorf("%s: %q, %+v", c.file, got, v.Candidate())
		}
	}
}

func TestNewRefusesLoneArtifact(t *testing.T) {
	s := newShop(t)
	for _, c := range []struct {
		path   string
		change func(o *Options)
		code   fault.Code
	}{
		{s.dir, nil, fault.ConfigSource},
		{"https://example.org/", nil, fault.ConfigSource},
		{"https://example.org", nil, fault.ConfigSource},
		{"https://example.org/a/..", nil, fault.ConfigSource},
		{"https://example.org/a%2fb", nil, fault.ConfigSource},
		{"https://example.org/app", func(o *Options) { o.Patterns = []string{"app_@v"} }, fault.ConfigSource},
		{"https://example.org/app", func(o *Options) { o.Mirrors = []string{"https://example.com/"} }, fault.ConfigSource},
		{"https://example.org/app", func(o *Options) { o.Keys = nil }, fault.ConfigTrust},
		{"https://example.org/a%20b", nil, ""},
		{"https://example.org/dir/app", nil, ""},
	} {
		o := s.loneOptions("")
		o.Path = c.path
		if c.change != nil {
			c.change(&o)
		}
		f, err := New(o, nil)
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %q", c.path, err, c.code)
		}
		if err == nil {
			f.Close()
		}
	}
}
