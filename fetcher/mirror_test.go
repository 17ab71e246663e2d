package fetcher

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// pair is a shop behind two servers. What is published later by way of old reaches
// neither.
type pair struct {
	s       *shop
	o       Options
	a, b    *storefront
	journal bytes.Buffer
}

func newPair(t *testing.T) *pair {
	t.Helper()
	s := newShop(t)
	p := &pair{s: s, o: s.options(), a: s.serve(), b: s.serve()}
	p.o.Path, p.o.Mirrors = p.a.URL+"/", []string{p.b.URL + "/"}
	p.o.StallTimeout = 2 * time.Second
	return p
}

func (p *pair) follow() *Fetcher {
	p.s.t.Helper()
	f, err := New(p.o, slog.New(slog.NewTextHandler(&p.journal, nil)))
	if err != nil {
		p.s.t.Fatal(err)
	}
	p.s.t.Cleanup(f.Close)
	return f
}

// says tells how often a line of the log has both words.
func (p *pair) says(a, b string) (n int) {
	for _, line := range strings.Split(p.journal.String(), "\n") {
		if strings.Contains(line, a) && strings.Contains(line, b) {
			n++
		}
	}
	return n
}

func hang(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }

func status(code int, header ...string) answer {
	return func(w http.ResponseWriter, r *http.Request) bool {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		return true
	}
}

// TestMirrorLists has Path= fail at telling what there is, and the mirror make up for
// it: with its own list and its own signature.
func TestMirrorLists(t *testing.T) {
	for _, c := range []struct {
		name string
		a    answer
		why  fault.Code
	}{
		{"not found", status(404), fault.MetaMissing},
		{"denied", status(403), fault.Denied},
		{"broken", status(500), fault.Server},
		{"throttled", status(429, "Retry-After", "3600"), fault.Throttled},
		{"a loop", func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}, fault.Redirect},
		{"never answers", hang, fault.Stalled},
		{"hangs up", func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, fault.Broken},
		{"a web page", func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprint(w, "<html>log in</html>")
			return true
		}, fault.MetaNotSigned},
		{"a list with a line more", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/"+manifestName {
				return false
			}
			fmt.Fprintf(w, "%064d  app_2.bin\n", 0)
			return true
		}, fault.SigBad},
		{"no signature", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/"+signatureName {
				return false
			}
			http.NotFound(w, r)
			return true
		}, fault.SigMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaks(t)
			p := newPair(t)
			p.s.release("app_1.bin", []byte("one"))
			p.a.before(c.a)
			f := p.follow()
			for range 2 {
				if got := newest(t, f); got.Version != "1" {
					t.Errorf("newest is %+v", got)
				}
			}
			if asked := p.b.asked(); !slices.Equal(asked[:2], []string{"/SHA256SUMS  200", "/SHA256SUMS.minisig  200"}) {
				t.Errorf("the mirror was asked %q", asked)
			}
			first := len(p.a.asked())
			if c.why == fault.Throttled && first != 1 {
				t.Errorf("who wanted to be left alone was asked %d times", first)
			}
			if n := p.says("mirror is of no use", string(c.why)); n != 1 {
				t.Errorf("said %d times: %s", n, p.journal.String())
			}
			p.a.before(nil)
			p.b.before(status(500))
			if c.why == fault.Throttled {
				return
			}
			if got := newest(t, f); got.Version != "1" || p.says("of use again", p.a.URL) != 1 {
				t.Errorf("back at Path=: %+v\n%s", got, p.journal.String())
			}
		})
	}
}

// TestMirrorsOlderList goes to the mirror while Path= is away, and does not go back
// to the older list that Path= still has when it returns.
func TestMirrorsOlderList(t *testing.T) {
	p := newPair(t)
	p.s.release("app_1.bin", []byte("one"))
	stale := *p.s
	stale.dir, stale.files = t.TempDir(), nil
	if err := os.CopyFS(stale.dir, os.DirFS(p.s.dir)); err != nil {
		t.Fatal(err)
	}
	old := stale.serve()
	p.o.Path = old.URL
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // minisign's time has seconds
	p.s.release("app_2.bin", []byte("two"))

	f := p.follow()
	if got := newest(t, f); got.Version != "1" {
		t.Fatalf("newest is %+v, and Path= has 1", got)
	}
	old.before(status(503))
	if got := newest(t, f); got.Version != "2" {
		t.Fatalf("newest is %+v, and the mirror has 2", got)
	}
	old.before(nil)
	two := newest(t, f)
	if two.Version != "2" || p.says(string(fault.MetaOlder), old.URL) != 1 {
		t.Fatalf("newest is %+v, and 2 was seen\n%s", two, p.journal.String())
	}
	if got := content(t, mustFetch(t, f, two, t.TempDir())); string(got) != "two" {
		t.Errorf("got %q", got)
	}
	if asked := old.asked(); slices.ContainsFunc(asked, func(s string) bool { return strings.Contains(s, "app_2") }) {
		t.Errorf("the stale one was asked for what it cannot have: %q", asked)
	}
}

// TestMirrorSends has Path= tell what there is and fail at the bytes.
func TestMirrorSends(t *testing.T) {
	whole := noise(t, 5<<20)
	const half = 3 << 20
	send := func(w http.ResponseWriter, b []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
		w.Header().Set("ETag", `"of a"`)
		w.Write(b)
		http.NewResponseController(w).Flush()
	}
	ranged := fmt.Sprintf("/app_1.bin bytes=%d- 206", half)
	const anew = "/app_1.bin  200"
	for _, c := range []struct {
		name string
		a    answer
		why  fault.Code
		b    []string // what the mirror was asked for
	}{
		{"not there", status(404), fault.NotFound, []string{anew}},
		{"cut in the middle", func(w http.ResponseWriter, _ *http.Request) bool {
			send(w, whole[:half])
			panic(http.ErrAbortHandler)
		}, fault.Size, []string{ranged}},
		{"stops in the middle", func(w http.ResponseWriter, r *http.Request) bool {
			send(w, whole[:half])
			return hang(w, r)
		}, fault.Stalled, []string{ranged}},
		{"other bytes", func(w http.ResponseWriter, _ *http.Request) bool {
			send(w, make([]byte, len(whole)))
			return true
		}, fault.ArtifactDigest, []string{anew}},
		{"other bytes, cut in the middle", func(w http.ResponseWriter, _ *http.Request) bool {
			send(w, make([]byte, half))
			panic(http.ErrAbortHandler)
		}, fault.Size, []string{ranged, anew}},
		{"endless", func(w http.ResponseWriter, _ *http.Request) bool {
			for range 100 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					break
				}
			}
			return true
		}, fault.TooLarge, []string{anew}},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaks(t)
			p := newPair(t)
			p.o.SizeMax = 20 << 20
			p.s.release("app_1.bin", whole)
			f := p.follow()
			p.a.before(func(w http.ResponseWriter, r *http.Request) bool { return r.URL.Path == "/app_1.bin" && c.a(w, r) })
			one := newest(t, f)
			into := t.TempDir()
			v := mustFetch(t, f, one, into)
			if !bytes.Equal(content(t, v), whole) {
				t.Error("the artifact is not what was published")
			}
			if asked := p.b.asked(); !slices.Equal(asked, c.b) {
				t.Errorf("the mirror was asked %q, want %q", asked, c.b)
			}
			if p.says("mirror is of no use", string(c.why)) != 1 || p.says("msg=fetched", p.b.URL) != 1 {
				t.Errorf("log:\n%s", p.journal.String())
			}
			if got := names(t, into); !slices.Equal(got, []string{"app_1.bin"}) {
				t.Errorf("directory holds %q", got)
			}
		})
	}
}

// TestMirrorMarks gives the next process a part from the mirror: its mark says
// nothing to Path=, which goes on with the part all the same.
func TestMirrorMarks(t *testing.T) {
	p := newPair(t)
	whole := noise(t, 5<<20)
	p.s.release("app_1.bin", whole)
	f := p.follow()
	one := newest(t, f)
	into := t.TempDir()
	p.a.before(status(503))
	p.b.before(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
		w.Header().Set("ETag", `"of b"`)
		w.Write(whole[:1<<20])
		panic(http.ErrAbortHandler)
	})
	if _, err := f.Fetch(context.Background(), one, into, nil); fault.CodeOf(err) == "" {
		t.Fatal(err)
	}
	var ifRange []string
	p.a.before(func(_ http.ResponseWriter, r *http.Request) bool {
		ifRange = append(ifRange, r.Header.Get("If-Range"))
		return false
	})
	p.a.asked()
	next := p.follow()
	if v := mustFetch(t, next, newest(t, next), into); !bytes.Equal(content(t, v), whole) {
		t.Error("the artifact is not what was published")
	}
	if asked := p.a.asked(); len(asked) != 3 || asked[2] != fmt.Sprintf("/app_1.bin bytes=%d- 206", 1<<20) || ifRange[2] != "" {
		t.Errorf("asked %q, If-Range %q", asked, ifRange)
	}
}

// TestAllMirrorsFail says so of each, and hurries if one of them may be back soon.
func TestAllMirrorsFail(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + hung.Addr().String()
	hung.Close()
	p := newPair(t)
	p.s.release("app_1.bin", []byte("one"))
	p.o.Mirrors = append(p.o.Mirrors, dead)
	p.a.before(status(403))
	p.b.before(status(503, "Retry-After", "100"))
	f := p.follow()
	_, err = f.Check(context.Background())
	e := wantCode(t, err, fault.Server)
	for _, says := range []string{"list releases from " + p.b.URL, "503", "and from " + p.a.URL, "403 Forbidden (FETCH_DENIED)", "and from " + dead, "(FETCH_CONNECT)"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%v\ndoes not say %q", err, says)
		}
	}
	if !e.Temporary || e.RetryAfter != 0 {
		t.Errorf("temporary %v, retry after %v; two of three may be asked at once", e.Temporary, e.RetryAfter)
	}
	if _, err := f.Check(context.Background()); fault.CodeOf(err) != fault.Connect {
		t.Errorf("got %v; of those that did not ask to be left alone the last fails in passing", err)
	}

	p.o.Mirrors = nil
	p.b.before(nil)
	_, err = p.follow().Check(context.Background())
	if e := wantCode(t, err, fault.Denied); strings.Contains(e.Error(), "and from") {
		t.Error(err)
	}
}

// TestMirrorsOfNoUse: what this host fails at, no mirror mends.
func TestMirrorsOfNoUse(t *testing.T) {
	p := newPair(t)
	p.s.release("app_1.bin", []byte("one"))
	f := p.follow()
	one := newest(t, f)
	ctx, cancel := context.WithCancel(context.Background())
	p.a.before(func(w http.ResponseWriter, r *http.Request) bool { cancel(); return hang(w, r) })
	_, err := f.Fetch(ctx, one, t.TempDir(), nil)
	wantCode(t, err, fault.Canceled)
	p.a.before(nil)
	into := t.TempDir()
	unknown := p.s.options()
	unknown.Path, unknown.Mirrors = p.o.Path, p.o.Mirrors
	got := errand{Options: unknown, TmpfsMiB: 60, Into: into}.run(t)
	if got.Code != fault.NoSpace || strings.Contains(got.Error, "and from") {
		t.Errorf("%s: %s", got.Code, got.Error)
	}
	if asked := p.b.asked(); len(asked) != 0 {
		t.Errorf("the mirror was asked %q", asked)
	}
}

// TestMirrorsGetNoSecret shows a token to all on the host of Path=, and to none
// elsewhere.
func TestMirrorsGetNoSecret(t *testing.T) {
	p := newPair(t)
	p.s.release("app_1.bin", []byte("one"))
	p.o.TokenFile = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(p.o.TokenFile, []byte("s3cr3t-canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.o.Mirrors = []string{p.a.URL + "/again", p.b.URL}
	got := map[string]string{}
	note := func(who string) answer {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if who == "a" && strings.HasPrefix(r.URL.Path, "/again") {
				who = "again"
			}
			got[who] = r.Header.Get("Authorization")
			if who != "b" {
				w.WriteHeader(500)
			}
			return who != "b"
		}
	}
	p.a.before(note("a"))
	p.b.before(note("b"))
	newest(t, p.follow())
	if got["a"] != "Bearer s3cr3t-canary" || got["again"] != got["a"] || got["b"] != "" || len(got) != 3 {
		t.Errorf("got %q", got)
	}
	if strings.Contains(p.journal.String(), "canary") {
		t.Error(p.journal.String())
	}
}

func TestNewRefusesMirrors(t *testing.T) {
	s := newShop(t)
	for _, c := range []struct {
		path    string
		mirrors []string
		says    string
	}{
		{s.dir, []string{"https://example.org"}, "for what is not a web server"},
		{"https://example.org", []string{s.dir}, "is given as a mirror"},
		{"https://example.org", []string{"https://b.example.org", "example.org"}, "is given as a mirror"}, {"https://example.org", []string{"https://"}, "neither"},
		{"https://example.org", slices.Repeat([]string{"https://example.org"}, mirrorsMax), "at most 15"},
	} {
		o := s.options()
		o.Path, o.Mirrors = c.path, c.mirrors
		_, err := New(o, nil)
		if e := wantCode(t, err, fault.ConfigSource); !strings.Contains(e.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
}

// TestMirrorOfARepository has Path= answer with an older timestamp than was seen, and
// then with other bytes than a role lists.
func TestMirrorOfARepository(t *testing.T) {
	leaks(t)
	r := newRepository(t)
	r.release("1.0")
	old := r.get("metadata/timestamp.json")
	files := http.FileServer(http.Dir(r.dir))
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case q.URL.Path == "/metadata/timestamp.json":
			w.Write(old)
		case strings.HasPrefix(q.URL.Path, "/targets/"):
			w.Write([]byte("program 6.6"))
		default:
			files.ServeHTTP(w, q)
		}
	}))
	defer bad.Close()
	good := httptest.NewServer(files)
	defer good.Close()
	o := r.options()
	o.Path, o.Mirrors = bad.URL, []string{good.URL + "/"}
	f := mustNew(t, o)
	if got := content(t, mustFetch(t, f, newest(t, f), t.TempDir())); string(got) != "program 1.0" {
		t.Errorf("got %q", got)
	}
	r.release("1.1")
	o.Path, o.Mirrors = good.URL, []string{bad.URL}
	mustCheck(t, mustNew(t, o)) // has seen the newer one
	o.Path, o.Mirrors = bad.URL, []string{good.URL}
	f = mustNew(t, o)
	if got := content(t, mustFetch(t, f, newest(t, f), t.TempDir())); string(got) != "program 1.1" {
		t.Errorf("got %q", got)
	}
}
