package fetcher

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/forge/forgetest"
)

// attach publishes the files that the shop has as a release, signed.
func (s *shop) attach(r *forgetest.Release) {
	s.t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(s.dir, e.Name()))
		if err != nil {
			s.t.Fatal(err)
		}
		r.Attach(e.Name(), raw)
	}
}

// eachForge follows a project on each kind of forge.
func eachForge(t *testing.T, do func(t *testing.T, f *forgetest.Forge, o Options)) {
	for _, kind := range []string{"github", "gitlab", "gitea"} {
		t.Run(kind, func(t *testing.T) {
			leaks(t)
			f := forgetest.New(t, kind)
			do(t, f, Options{Target: "app", Path: f.Path, Endpoint: f.API, Patterns: []string{"app_@v.bin"}})
		})
	}
}

func TestForgeSigned(t *testing.T) {
	eachForge(t, func(t *testing.T, forge *forgetest.Forge, o Options) {
		s := newShop(t)
		o.Keys = []string{s.key}
		f := mustNew(t, o)
		_, err := f.Check(context.Background())
		wantCode(t, err, fault.NotFound)

		r := forge.Release("v1.0")
		_, err = f.Check(context.Background())
		wantCode(t, err, fault.MetaMissing)
		if !strings.Contains(err.Error(), "release v1.0") {
			t.Errorf("%v does not say in which release", err)
		}
		s.release("app_1.0.bin", []byte("one"))
		s.attach(r)
		c := newest(t, f)
		if got := content(t, mustFetch(t, f, c, t.TempDir())); string(got) != "one" {
			t.Errorf("fetched %q", got)
		}
		if again := mustCheck(t, f); !again.Unchanged {
			t.Error("nothing changed, but the listing says so")
		}

		// A list of another release, and a file that no list names.
		other := newShop(t)
		other.release("app_2.0.bin", []byte("two"))
		next := forge.Release("v2.0")
		other.attach(next)
		_, err = f.Check(context.Background())
		wantCode(t, err, fault.SigKey)
		forge.Withdraw(next)
		next = forge.Release("v2.0")
		s.release("app_2.0.bin", []byte("two"))
		s.attach(next)
		next.Attach("app_9.0.bin", []byte("nine"))
		if c = newest(t, f); c.Version != "2.0" {
			t.Errorf("newest is %v", c)
		}
		next.Attach("app_2.0.bin", []byte("owt"))
		_, err = f.Fetch(context.Background(), c, t.TempDir(), nil)
		wantCode(t, err, fault.ArtifactDigest)
	})
}

// TestForgeDigest has GitHub vouch for what nobody has signed.
func TestForgeDigest(t *testing.T) {
	forge := forgetest.New(t, "github")
	r := forge.Release("v1.0")
	r.Attach("app_1.0.bin", []byte("one"))
	r.Attach("app_0.9.bin", []byte("old"))
	r.Damage("app_0.9.bin", "", false)
	o := Options{Target: "app", Path: forge.Path, Endpoint: forge.API, Patterns: []string{"app_@v.bin"}, Verify: VerifyNo}
	f := mustNew(t, o)
	listing := mustCheck(t, f)
	if len(listing.Candidates) != 2 || listing.Candidates[0].Digest != sha256.Sum256([]byte("one")) || listing.Candidates[1].HasDigest() {
		t.Fatalf("listed %v", listing.Candidates)
	}
	forge.Asked()
	if again := mustCheck(t, f); !again.Unchanged || len(again.Candidates) != 2 {
		t.Errorf("nothing changed, but %+v", again)
	}
	if asked := forge.Asked(); len(asked) != 1 || asked[0].Status != http.StatusNotModified {
		t.Errorf("an unchanged release cost %v", asked)
	}
	dir := t.TempDir()
	mustFetch(t, f, listing.Candidates[0], dir)
	mustFetch(t, f, listing.Candidates[1], dir)

	// The digest is of the bytes that were, and the bytes are others.
	r.Damage("app_1.0.bin", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("eno"))), false)
	if again := mustCheck(t, f); again.Unchanged {
		t.Error("another digest, and the listing is unchanged")
	}
	_, err := f.Fetch(context.Background(), newest(t, f), t.TempDir(), nil)
	wantCode(t, err, fault.ArtifactDigest)
}

// TestForgeDigestAgainstList has the forge and a signed list disagree: the file is
// not transferred.
func TestForgeDigestAgainstList(t *testing.T) {
	forge := forgetest.New(t, "github")
	s := newShop(t)
	s.release("app_1.0.bin", []byte("one"))
	r := forge.Release("v1.0")
	s.attach(r)
	r.Damage("app_1.0.bin", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("eno"))), false)
	f := mustNew(t, Options{Target: "app", Path: forge.Path, Endpoint: forge.API, Patterns: []string{"app_@v.bin"}, Keys: []string{s.key}})
	_, err := f.Fetch(context.Background(), newest(t, f), t.TempDir(), nil)
	wantCode(t, err, fault.ArtifactDigest)
	if !strings.Contains(err.Error(), "the source says") {
		t.Errorf("%v does not tell who disagrees", err)
	}
}

// TestForgeTags takes the version from the tag, where names have none.
func TestForgeTags(t *testing.T) {
	eachForge(t, func(t *testing.T, forge *forgetest.Forge, o Options) {
		s := newShop(t)
		o.Keys, o.Patterns = []string{s.key}, []string{"v@v/app-linux-amd64"}
		f := mustNew(t, o)
		dir := t.TempDir()
		for _, version := range []Version{"1.0", "1.1"} {
			s.release("app-linux-amd64", []byte(version))
			s.attach(forge.Release("v" + string(version)))
			c := newest(t, f)
			if c.Version != version || c.Name != "app-linux-amd64" {
				t.Fatalf("found %v of version %s, want %s", c, c.Version, version)
			}
			if got := content(t, mustFetch(t, f, c, dir)); string(got) != string(version) {
				t.Errorf("fetched %q", got)
			}
		}
		s.attach(forge.Release("2.0"))
		if listing := mustCheck(t, f); len(listing.Candidates) != 0 {
			t.Errorf("the tag does not match, but %v", listing.Candidates)
		}
		// The same files under another tag are of that version.
		s.attach(forge.Release("v2.0"))
		if c := newest(t, f); c.Version != "2.0" {
			t.Errorf("found %s", c.Version)
		}
	})
}

// TestForgeTagsAreUnsigned keeps an old list from coming back under a new tag.
func TestForgeTagsAreUnsigned(t *testing.T) {
	forge := forgetest.New(t, "github")
	s := newShop(t)
	o := Options{Target: "app", Path: forge.Path, Endpoint: forge.API, Patterns: []string{"v@v/app"}, Keys: []string{s.key}}
	o.Seen = Seen{Signed: time.Now().Add(time.Hour), List: [32]byte{1}}
	s.release("app", []byte("old"))
	s.attach(forge.Release("v9"))
	_, err := mustNew(t, o).Check(context.Background())
	wantCode(t, err, fault.MetaOlder)

	// minisign's comment is of whoever signs: this one says no time.
	o.Seen = Seen{}
	r := forge.Release("v10")
	r.Attach(manifestName, s.manifest())
	r.Attach(signatureName, minisign.SignWithComments(s.private, s.manifest(), "by hand", ""))
	_, err = mustNew(t, o).Check(context.Background())
	wantCode(t, err, fault.MetaUndated)
}

func TestForgeOptions(t *testing.T) {
	base := Options{Target: "app", Path: "github://acme/app", Patterns: []string{"app_@v"}, Verify: VerifyNo}
	for _, c := range []struct {
		name   string
		change func(*Options)
		ok     bool
	}{
		{"plain", func(*Options) {}, true},
		{"the version in the tag", func(o *Options) { o.Patterns = []string{"v@v/app"} }, true},
		{"and no tags", func(o *Options) { o.Path, o.Patterns = "https://example.com/", []string{"v@v/app"} }, false},
		{"a directory", func(o *Options) { o.Patterns = []string{"stable/app_@v"} }, false},
		{"no repository", func(o *Options) { o.Path = "github://acme" }, false},
		{"a fragment", func(o *Options) { o.Path += "#v1" }, false},
		{"an endpoint in the clear", func(o *Options) { o.Endpoint = "http://example.com/api/v3" }, false},
		{"an unknown forge", func(o *Options) { o.Path = "bitbucket://acme/app" }, false},
	} {
		o := base
		c.change(&o)
		f, err := New(o, nil)
		if c.ok != (err == nil) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			f.Close()
			continue
		}
		wantCode(t, err, fault.ConfigSource)
	}
}
