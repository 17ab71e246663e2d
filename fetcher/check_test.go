package fetcher

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

func TestNewRefuses(t *testing.T) {
	key, _ := newKey(t)
	good := func() Options {
		return Options{Target: "app", Path: "/srv/app", Patterns: []string{"app_@v"}, Keys: []string{key.String()}}
	}
	if f, err := New(good(), nil); err != nil || f.o.PollInterval != 15*time.Minute || f.o.SizeMax != 1<<30 || f.o.StallTimeout != 30*time.Second {
		t.Fatalf("%v, %+v", err, f.o)
	}
	const secret = "s3cr3t-canary"
	for _, c := range []struct {
		name   string
		change func(o *Options)
		code   fault.Code
	}{
		{"no keys", func(o *Options) { o.Keys = nil }, fault.ConfigTrust},
		{"no keys, signed said", func(o *Options) { o.Keys, o.Verify = nil, VerifySigned }, fault.ConfigTrust},
		{"keys, but Verify=no", func(o *Options) { o.Verify = VerifyNo }, fault.ConfigTrust},
		{"unknown verification", func(o *Options) { o.Verify = "none" }, fault.ConfigTrust},
		{"broken key", func(o *Options) { o.Keys = []string{"RWxx"} }, fault.ConfigTrust},
		{"no pattern", func(o *Options) { o.Patterns = nil }, fault.ConfigSource},
		{"pattern without version", func(o *Options) { o.Patterns = []string{"app_@v", "app"} }, fault.ConfigSource},
		{"no path", func(o *Options) { o.Path = "" }, fault.ConfigSource},
		{"relative path", func(o *Options) { o.Path = "srv/app" }, fault.ConfigSource},
		{"other scheme", func(o *Options) { o.Path = "ftp://u:" + secret + "@example.org/" }, fault.ConfigSource},
		{"file scheme", func(o *Options) { o.Path = "file:///srv" }, fault.ConfigSource},
		{"no host", func(o *Options) { o.Path = "https:///x?" + secret }, fault.ConfigSource},
		{"fragment", func(o *Options) { o.Path = "https://example.org/#" + secret }, fault.ConfigSource},
		{"not a URL", func(o *Options) { o.Path = "https://[" + secret }, fault.ConfigSource},
		{"broken CA file", func(o *Options) { o.Path, o.CAFile = "https://example.org", "/dev/null" }, fault.ConfigSource},
		{"negative limit", func(o *Options) { o.SizeMax = -1 }, fault.ConfigSource},
		{"negative interval", func(o *Options) { o.PollInterval = -1 }, fault.ConfigSource},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := good()
			c.change(&o)
			_, err := New(o, nil)
			e := wantCode(t, err, c.code)
			if e.Temporary || strings.Contains(err.Error(), secret) {
				t.Errorf("temporary %v: %v", e.Temporary, err)
			}
		})
	}
	o := good()
	o.Target = ""
	if _, err := New(o, nil); fault.CodeOf(err) != fault.ConfigSource {
		t.Errorf("no target: %v", err)
	}
}

// TestCheckFails breaks each thing that a manifest's trust hangs on, from a
// directory and over HTTP. No half-trusted candidate may come out.
func TestCheckFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		harm   func(s *shop)
		code   fault.Code
		signed bool // the case does not concern unsigned sources
	}{
		{"no manifest", func(s *shop) { s.drop(manifestName) }, fault.MetaMissing, true},
		{"no signature", func(s *shop) { s.drop(signatureName) }, fault.SigMissing, true},
		{"empty signature", func(s *shop) { s.put(signatureName, nil) }, fault.SigMissing, true},
		{"empty manifest, signed", func(s *shop) { s.sign(nil) }, fault.MetaEmpty, false},
		{"stranger's signature", func(s *shop) {
			_, private := newKey(s.t)
			s.put(signatureName, minisign.Sign(private, s.manifest()))
		}, fault.SigKey, true},
		{"manifest changed afterwards", func(s *shop) { s.put(manifestName, append(s.manifest(), s.manifest()...)) }, fault.SigBad, true},
		{"web pages", func(s *shop) {
			s.put(manifestName, []byte("<!DOCTYPE html><title>Log in</title>"))
			s.put(signatureName, []byte("<!DOCTYPE html><title>Log in</title>"))
		}, fault.MetaNotSigned, false},
		{"signed nonsense", func(s *shop) { s.sign([]byte("version: 7\n")) }, fault.MetaSyntax, false},
		{"manifest too large", func(s *shop) { s.sign(make([]byte, manifestMax+1)) }, fault.MetaTooLarge, false},
		{"signature too large", func(s *shop) { s.put(signatureName, make([]byte, signatureMax+1)) }, fault.MetaTooLarge, true},
		{"signature is a directory", func(s *shop) {
			s.drop(signatureName)
			os.Mkdir(filepath.Join(s.dir, signatureName), 0o755)
		}, fault.SourceNotFile, true},
	} {
		for _, kind := range []string{"dir", "http", "dir unsigned"} {
			if kind == "dir unsigned" && c.signed || kind == "http" && c.code == fault.SourceNotFile {
				continue
			}
			t.Run(kind+" "+c.name, func(t *testing.T) {
				s := newShop(t)
				s.release("app_1.bin", []byte("one"))
				o := s.options()
				check := func(t *testing.T) {
					f := mustNew(t, o)
					good := mustCheck(t, f)
					c.harm(s)
					listing, err := f.Check(context.Background())
					e := wantCode(t, err, c.code)
					if len(listing.Candidates) > 0 {
						t.Errorf("listing %+v beside the error", listing)
					}
					if unsigned := kind == "dir unsigned"; strings.Contains(err.Error(), "unsigned") != unsigned {
						t.Errorf("%v: says unsigned or not, wrongly", err)
					}
					if e.Hint == "" {
						t.Errorf("%v does not say what to do", err)
					}
					if c.code == fault.SourceNotFile {
						s.drop(signatureName)
					}
					s.release("app_2.bin", []byte("two"))
					again, err := f.Check(context.Background())
					if err != nil || len(again.Candidates) != 2 || again.Unchanged {
						t.Errorf("after the source was mended: %+v, %v (at first %+v)", again, err, good)
					}
				}
				switch kind {
				case "http":
					o.Path = s.serve().URL
					check(t)
				case "dir unsigned":
					o.Verify, o.Keys = VerifyNo, nil
					synctest.Test(t, check)
				default:
					synctest.Test(t, check) // the second look costs no time there
				}
			})
		}
	}
}

// TestCheckLooksTwice catches a publisher between manifest and signature.
func TestCheckLooksTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t)
		s.release("app_1.bin", []byte("one"))
		f := mustNew(t, s.options())
		s.files["app_2.bin"] = []byte("two")
		s.put(manifestName, s.manifest())
		go func() {
			time.Sleep(secondLook / 2)
			s.release("app_2.bin", []byte("two"))
		}()
		if c := newest(t, f); c.Version != "2" {
			t.Errorf("newest is %v", c)
		}
	})
}

// TestCheckAsksOnlyForChanges counts what goes over the wire.
func TestCheckAsksOnlyForChanges(t *testing.T) {
	s := newShop(t)
	s.release("app_1.bin", []byte("one"))
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{manifestName, signatureName} {
		if err := os.Chtimes(filepath.Join(s.dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	server := s.serve()
	o := s.options()
	o.Path = server.URL
	f := mustNew(t, o)
	first := mustCheck(t, f)
	server.asked()
	again := mustCheck(t, f)
	if got, want := server.asked(), []string{"/SHA256SUMS  304", "/SHA256SUMS.minisig  304"}; !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
	if !again.Unchanged || !slices.Equal(again.Candidates, first.Candidates) || !slices.Equal(again.Signers, first.Signers) {
		t.Errorf("second listing %+v, first %+v", again, first)
	}
	again.Candidates[0].Version = "9"
	if third := mustCheck(t, f); third.Candidates[0].Version != "1" {
		t.Error("a caller's change to a listing shows in the next")
	}
	// A new signature of the same manifest, by a key that is not ours.
	_, stranger := newKey(t)
	s.put(signatureName, minisign.Sign(stranger, s.manifest()))
	_, err := f.Check(context.Background())
	wantCode(t, err, fault.SigKey)
}

// TestOneConnection has a look and the fetch after it ask a server by one connection.
func TestOneConnection(t *testing.T) {
	s := newShop(t)
	s.release("app_1.bin", []byte("one"))
	server := s.serve()
	var mu sync.Mutex
	clients := map[string]int{}
	server.before(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		clients[r.RemoteAddr]++
		return false
	})
	o := s.options()
	o.Path = server.URL
	f := mustNew(t, o)
	v, err := f.Fetch(t.Context(), newest(t, f), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	v.Close()
	mu.Lock()
	defer mu.Unlock()
	if len(clients) != 1 {
		t.Errorf("list, signature and artifact came by %d connections, want 1: %v", len(clients), clients)
	}
}

func TestCheckOrder(t *testing.T) {
	s := newShop(t)
	for _, name := range []string{"app_1.9.bin", "app_1.10.bin", "app_2~rc1.bin", "app_2.bin", "app-2.raw", "app_02.bin", "app_x y.bin", "readme"} {
		s.release(name, []byte(name))
	}
	o := s.options()
	o.Patterns = []string{"app-@v.raw", "app_@v.bin"}
	listing := mustCheck(t, mustNew(t, o))
	var got []string
	for _, c := range listing.Candidates {
		got = append(got, c.Name)
	}
	want := []string{"app-2.raw", "app_02.bin", "app_2.bin", "app_2~rc1.bin", "app_1.10.bin", "app_1.9.bin"}
	if !slices.Equal(got, want) || listing.Files != 8 {
		t.Errorf("candidates %q of %d files, want %q of 8", got, listing.Files, want)
	}
	o.Patterns = []string{"other_@v"}
	if listing := mustCheck(t, mustNew(t, o)); len(listing.Candidates) != 0 || listing.Files != 8 {
		t.Errorf("no file matches, but %+v", listing)
	}
}

// TestCheckMissingDirectory names the directory, not the manifest.
func TestCheckMissingDirectory(t *testing.T) {
	s := newShop(t)
	for _, verify := range []Verify{VerifySigned, VerifyNo} {
		o := s.options()
		o.Path = filepath.Join(s.dir, "none")
		if o.Verify = verify; verify == VerifyNo {
			o.Keys = nil
		}
		_, err := mustNew(t, o).Check(context.Background())
		if e := wantCode(t, err, fault.SourceMissing); !e.Temporary || !strings.Contains(err.Error(), o.Path) {
			t.Errorf("%v", err)
		}
	}
}

// TestSecretsStayHidden gives secrets wherever one can be given, breaks
// everything, and searches all that is said.
func TestSecretsStayHidden(t *testing.T) {
	const secret = "s3cr3t-canary"
	var said strings.Builder
	log := slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := newShop(t)
	s.release("app_1.bin", []byte("one"))
	server := s.serve()
	for _, answer := range []func(w http.ResponseWriter, r *http.Request){
		func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) },
		func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "ftp://u:"+secret+"@x/?"+secret, http.StatusFound)
		},
		func(w http.ResponseWriter, r *http.Request) { http.Error(w, r.URL.String(), http.StatusForbidden) },
		func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.String()) },
		func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, r.URL.String())
		},
	} {
		server.before(func(w http.ResponseWriter, r *http.Request) bool { answer(w, r); return true })
		for _, address := range []string{server.URL, "http://no-such-host.invalid", "http://127.0.0.1:1", strings.Replace(server.URL, "http:", "https:", 1)} {
			o := s.options()
			o.Path = strings.Replace(address, "//", "//"+secret+":"+secret+"@", 1) + "/dir?token=" + secret
			f, err := New(o, log)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			_, err = f.Check(ctx)
			cancel()
			if err == nil {
				t.Errorf("no error from %s", address)
			}
			fmt.Fprintf(&said, "%v %+v %s %v\n", err, err, f, f)
		}
	}
	if strings.Contains(said.String(), secret) {
		t.Errorf("a secret was said: %s", said.String())
	}
}

// TestCheckAsksForSignatures looks at which files a host asks for that trusts keys
// of two kinds, and what becomes of those that it cannot have.
func TestCheckAsksForSignatures(t *testing.T) {
	s := newShop(t)
	s.release("app_1.bin", []byte("one"))
	web := s.serve()
	stranger, _ := newKey(t)
	o := s.options()
	o.Path = web.URL
	// Ed25519, as RFC 8032 has it in its first test.
	o.Keys = []string{stranger.String(), s.key, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"}
	f := mustNew(t, o)
	own := func(key string) string {
		var k minisign.PublicKey
		if err := k.UnmarshalText([]byte(key)); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s.%X.minisig", manifestName, k.ID())
	}
	want := func(what string, files ...string) {
		t.Helper()
		var asked []string
		for _, r := range web.asked() {
			asked = append(asked, strings.TrimPrefix(strings.Fields(r)[0], "/"))
		}
		if !slices.Equal(asked, append([]string{manifestName}, files...)) {
			t.Errorf("%s: asked for %q", what, asked)
		}
	}
	mustCheck(t, f)
	want("the first is enough", signatureName)

	// Some servers say 403 for what is not there.
	ours, theirs := own(s.key), own(stranger.String())
	signature, err := os.ReadFile(filepath.Join(s.dir, signatureName))
	if err != nil {
		t.Fatal(err)
	}
	s.drop(signatureName)
	s.put(ours, signature)
	web.before(func(w http.ResponseWriter, r *http.Request) bool {
		if _, err := os.Stat(filepath.Join(s.dir, r.URL.Path)); err != nil {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	f = mustNew(t, o)
	mustCheck(t, f)
	want("the last one is it", signatureName, manifestName+".sshsig", manifestName+".sig", theirs, ours)
	if listing := mustCheck(t, f); len(listing.Signers) != 1 {
		t.Errorf("%+v", listing)
	}
	want("it is asked for first then", ours)

	// A server in trouble is no server without a signature.
	web.before(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".sshsig") {
			w.WriteHeader(http.StatusBadGateway)
		}
		return strings.HasSuffix(r.URL.Path, ".sshsig")
	})
	s.drop(ours)
	_, err = f.Check(context.Background())
	wantCode(t, err, fault.Server)
	want("trouble", ours, signatureName, manifestName+".sshsig")
}
