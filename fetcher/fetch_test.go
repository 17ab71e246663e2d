package fetcher

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// TestFollow is the whole way, from each kind of source.
func TestFollow(t *testing.T) {
	for _, c := range []struct {
		name     string
		http     bool
		change   func(o *Options, s *shop)
		digests  bool
		unsigned bool
	}{
		{"directory, signed", false, func(*Options, *shop) {}, true, false},
		{"http, signed", true, func(*Options, *shop) {}, true, false},
		{"directory, unsigned manifest", false, func(o *Options, s *shop) { o.Verify, o.Keys = VerifyNo, nil }, true, true},
		{"http, unsigned manifest", true, func(o *Options, s *shop) { o.Verify, o.Keys = VerifyNo, nil }, true, true},
		{"directory, no manifest", false, func(o *Options, s *shop) { o.Verify, o.Keys = VerifyNo, nil; s.drop(manifestName) }, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaks(t)
			s := newShop(t)
			one, two := noise(t, 3<<20+17), noise(t, 100)
			s.release("app_1.bin", one)
			s.release("app_0.9.bin", []byte("older"))
			s.release("other_7.bin", []byte("another program"))
			o := s.options()
			c.change(&o, s)
			if c.http {
				o.Path = s.serve().URL
			}
			f := mustNew(t, o)
			if f.Unsigned() != c.unsigned || strings.Contains(f.String(), "unsigned") != c.unsigned {
				t.Errorf("Unsigned is %v, prints as %q", f.Unsigned(), f)
			}

			listing := mustCheck(t, f)
			if len(listing.Candidates) != 2 || listing.Unchanged || (len(listing.Signers) == 0) != c.unsigned {
				t.Fatalf("listing %+v", listing)
			}
			candidate := listing.Candidates[0]
			if candidate.Name != "app_1.bin" || candidate.Version != "1" || candidate.HasDigest() != c.digests {
				t.Fatalf("newest is %+v", candidate)
			}
			if again := mustCheck(t, f); !c.http && (!again.Unchanged || !slices.Equal(again.Candidates, listing.Candidates)) {
				t.Errorf("second listing %+v, want it unchanged", again)
			}

			into := t.TempDir()
			var shown []int64
			v, err := f.Fetch(context.Background(), candidate, into, func(done, total int64) {
				if total != int64(len(one)) {
					t.Errorf("total %d, want %d", total, len(one))
				}
				shown = append(shown, done)
			})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			if !bytes.Equal(content(t, v), one) {
				t.Error("the artifact is not what was published")
			}
			want := Candidate{Version: "1", Name: "app_1.bin", Digest: sha256.Sum256(one), Size: int64(len(one))}
			if v.Candidate() != want || v.Path() != filepath.Join(into, "app_1.bin") {
				t.Errorf("verified %+v at %s", v.Candidate(), v.Path())
			}
			if !slices.IsSorted(shown) || len(shown) == 0 || shown[len(shown)-1] != int64(len(one)) {
				t.Errorf("progress %v, want it to rise to %d", shown, len(one))
			}
			if got := names(t, into); !slices.Equal(got, []string{"app_1.bin"}) {
				t.Errorf("directory holds %q", got)
			}
			st, err := v.File().Stat()
			if err != nil || st.Mode().Perm() != 0o400 {
				t.Errorf("mode %v, %v", st.Mode(), err)
			}
			if _, err := v.File().Write([]byte("x")); err == nil {
				t.Error("the artifact can be written to through its file")
			}

			s.files["app_2.bin"] = two
			s.put("app_2.bin", two)
			if c.digests {
				s.sign(s.manifest())
			}
			if got := newest(t, f); got.Version != "2" {
				t.Errorf("newest is %+v after 2 was published", got)
			}
		})
	}
}

// TestFetchGoesOn cuts a transfer, and lets another Fetcher, as after a restart
// of the process, bring the rest.
func TestFetchGoesOn(t *testing.T) {
	s := newShop(t)
	whole := noise(t, 5<<20)
	s.release("app_1.bin", whole)
	digest := sha256.Sum256(whole)
	part := hex.EncodeToString(digest[:6]) + ".part"
	server := s.serve()
	cut := func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/app_1.bin" {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
		w.Header().Set("ETag", `"one"`)
		w.Write(whole[:3<<20])
		panic(http.ErrAbortHandler)
	}
	withTag := func(w http.ResponseWriter, r *http.Request) bool { w.Header().Set("ETag", `"one"`); return false }
	o := s.options()
	o.Path = server.URL

	for _, c := range []struct {
		name string
		then func(w http.ResponseWriter, r *http.Request) bool
		harm func(t *testing.T, part string)
		want []string // the requests for the artifact after the cut
	}{
		{"from where it was", withTag, nil, []string{"/app_1.bin bytes=3145728- 206"}},
		{"another file at the server", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("ETag", `"two"`)
			return false
		}, nil, []string{"/app_1.bin bytes=3145728- 200"}},
		{"a part damaged by a power cut", withTag, func(t *testing.T, part string) {
			f, err := os.OpenFile(part, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			f.WriteAt(make([]byte, 4096), 1<<20)
		}, []string{"/app_1.bin bytes=3145728- 206", "/app_1.bin  200"}},
		{"a part that is longer than the file", withTag, func(t *testing.T, part string) {
			os.Truncate(part, 9<<20)
		}, []string{"/app_1.bin bytes=9437184- 416", "/app_1.bin  200"}},
		{"a part that is whole", withTag, func(t *testing.T, part string) {
			os.WriteFile(part, whole, 0o600)
		}, nil},
		{"a mark of garbage", withTag, func(t *testing.T, part string) {
			os.WriteFile(part+".mark", []byte("x\r\nHost: evil\x00"), 0o600)
		}, []string{"/app_1.bin bytes=3145728- 206"}},
		{"no mark", withTag, func(t *testing.T, part string) { os.Remove(part + ".mark") }, []string{"/app_1.bin bytes=3145728- 206"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			into := t.TempDir()
			leaks(t)
			server.before(cut)
			f := mustNew(t, o)
			_, err := f.Fetch(context.Background(), newest(t, f), into, nil)
			wantCode(t, err, fault.Size)
			if got := names(t, into); !slices.Equal(got, []string{part, part + ".mark"}) {
				t.Fatalf("directory holds %q after the cut", got)
			}
			if c.harm != nil {
				c.harm(t, filepath.Join(into, part))
			}
			server.before(c.then)
			again := mustNew(t, o)
			candidate := newest(t, again)
			server.asked()
			v := mustFetch(t, again, candidate, into)
			if got := server.asked(); !slices.Equal(got, c.want) {
				t.Errorf("asked %q, want %q", got, c.want)
			}
			if !bytes.Equal(content(t, v), whole) {
				t.Error("the artifact is not what was published")
			}
			if got := names(t, into); !slices.Equal(got, []string{"app_1.bin"}) {
				t.Errorf("directory holds %q", got)
			}
			server.asked()
			mustFetch(t, again, candidate, into)
			if got := server.asked(); len(got) != 0 {
				t.Errorf("asked %q for what is there", got)
			}
		})
	}
}

// TestFetchFailsClean runs through what a source can do wrong with an artifact,
// and looks at what is left.
func TestFetchFailsClean(t *testing.T) {
	const max = 1 << 20
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		code   fault.Code
		kept   bool
	}{
		{"other bytes", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("EVIL..")) }, fault.ArtifactDigest, false},
		{"fewer bytes", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("goo")) }, fault.ArtifactDigest, false},
		{"more bytes", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("good!!!")) }, fault.ArtifactDigest, false},
		{"no bytes", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) }, fault.ArtifactEmpty, false},
		{"announced too large", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(max+1))
			io.CopyN(w, zeros{}, max+1)
		}, fault.TooLarge, false},
		{"endless", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, zeros{}) }, fault.TooLarge, false},
		{"cut", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "6")
			w.Write([]byte("goo"))
		}, fault.Size, true},
		{"cut before the first byte", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "6") }, fault.Size, false},
		{"gone", http.NotFound, fault.NotFound, false},
		{"login page", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>log in</html>") }, fault.ArtifactDigest, false},
		{"another encoding", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write([]byte("\x1f\x8b"))
		}, fault.ArtifactDigest, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaks(t)
			s := newShop(t)
			s.release("app_1.bin", []byte("good!!"))
			server := s.serve()
			server.before(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/app_1.bin" {
					c.answer(w, r)
					return true
				}
				return false
			})
			o := s.options()
			o.Path, o.SizeMax = server.URL, max
			f := mustNew(t, o)
			into := t.TempDir()
			v, err := f.Fetch(context.Background(), newest(t, f), into, nil)
			if v != nil {
				t.Fatal("got a verified artifact")
			}
			e := wantCode(t, err, c.code)
			for _, part := range []string{"app: fetch app_1.bin from " + server.URL, e.Err.Error()} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if got := names(t, into); (len(got) == 2) != c.kept || !c.kept && len(got) != 0 {
				t.Errorf("directory holds %q", got)
			}
			server.before(nil)
			if v := mustFetch(t, f, newest(t, f), into); string(content(t, v)) != "good!!" {
				t.Error("the source was mended, but the artifact is wrong")
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestFetchStopsOneByteBeyondTheLimit counts what an endless answer writes.
func TestFetchStopsOneByteBeyondTheLimit(t *testing.T) {
	s := newShop(t)
	s.release("app_1.bin", make([]byte, 1000))
	for _, max := range []int64{999, 1000} {
		o := s.options()
		o.SizeMax = max
		f := mustNew(t, o)
		_, err := f.Fetch(context.Background(), newest(t, f), t.TempDir(), nil)
		if max == 1000 && err != nil {
			t.Errorf("a file of exactly the limit: %v", err)
		}
		if max == 999 {
			wantCode(t, err, fault.TooLarge)
		}
	}
}

// TestFetchIsNotLedAstray finds things in the staging directory that are not
// ours.
func TestFetchIsNotLedAstray(t *testing.T) {
	s := newShop(t)
	whole := noise(t, 1<<20)
	s.release("app_1.bin", whole)
	digest := sha256.Sum256(whole)
	part := hex.EncodeToString(digest[:6]) + ".part"
	outside := filepath.Join(t.TempDir(), "outside")
	for _, c := range []struct {
		name string
		put  func(dir string) error
	}{
		{"link as part", func(dir string) error { return os.Symlink(outside, filepath.Join(dir, part)) }},
		{"link as mark", func(dir string) error { return os.Symlink(outside, filepath.Join(dir, part+".mark")) }},
		{"link as artifact", func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "app_1.bin")) }},
		{"directory as part", func(dir string) error { return os.MkdirAll(filepath.Join(dir, part, "x"), 0o700) }},
		{"FIFO as part", func(dir string) error { return mkfifo(filepath.Join(dir, part)) }},
		{"FIFO as artifact", func(dir string) error { return mkfifo(filepath.Join(dir, "app_1.bin")) }},
		{"old artifact of that name", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "app_1.bin"), []byte("other"), 0o400)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(outside, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			into := t.TempDir()
			if err := c.put(into); err != nil {
				t.Fatal(err)
			}
			f := mustNew(t, s.options())
			v := mustFetch(t, f, newest(t, f), into)
			if !bytes.Equal(content(t, v), whole) {
				t.Error("the artifact is not what was published")
			}
			if got, err := os.ReadFile(outside); err != nil || string(got) != "mine" {
				t.Errorf("a file outside was changed: %q, %v", got, err)
			}
			if st, err := os.Lstat(filepath.Join(into, "app_1.bin")); err != nil || !st.Mode().IsRegular() {
				t.Errorf("the artifact is %v, %v", st, err)
			}
		})
	}
}

func TestFetchTakesOnlyWhatWasListed(t *testing.T) {
	s := newShop(t)
	s.release("app_1.bin", []byte("one"))
	f := mustNew(t, s.options())
	made := Candidate{Version: "1", Name: "app_1.bin", Digest: sha256.Sum256([]byte("one")), Size: -1}
	_, err := f.Fetch(context.Background(), made, t.TempDir(), nil)
	wantCode(t, err, fault.MetaUnlisted)
	c := newest(t, f)
	for _, change := range []func(c *Candidate){
		func(c *Candidate) { c.Digest[0]++ },
		func(c *Candidate) { c.Digest = [32]byte{} },
		func(c *Candidate) { c.Name = "../" + c.Name },
		func(c *Candidate) { c.Version = "2" },
	} {
		other := c
		change(&other)
		_, err := f.Fetch(context.Background(), other, t.TempDir(), nil)
		wantCode(t, err, fault.MetaUnlisted)
	}
	mustFetch(t, f, c, t.TempDir())
}

func TestFetchCanceled(t *testing.T) {
	leaks(t)
	s := newShop(t)
	s.release("app_1.bin", make([]byte, 8<<20))
	server := s.serve()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first := true
	server.before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/app_1.bin" || !first {
			return false
		}
		first = false
		w.Header().Set("Content-Length", fmt.Sprint(8<<20))
		w.Write(make([]byte, 1<<20))
		http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
		return true
	})
	o := s.options()
	o.Path = server.URL
	f := mustNew(t, o)
	into := t.TempDir()
	c := newest(t, f)
	_, err := f.Fetch(ctx, c, into, nil)
	wantCode(t, err, fault.Canceled)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not context.Canceled", err)
	}
	if _, err := f.Fetch(ctx, c, into, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is over: %v", err)
	}
	mustFetch(t, f, c, into)
}

// TestFetchDirectoryFaults are directories that cannot be fetched into.
func TestFetchDirectoryFaults(t *testing.T) {
	s := newShop(t)
	s.release("app_1.bin", []byte("one"))
	f := mustNew(t, s.options())
	c := newest(t, f)
	for _, dir := range []string{filepath.Join(t.TempDir(), "none"), "/dev/null", "/proc"} {
		_, err := f.Fetch(context.Background(), c, dir, nil)
		wantCode(t, err, fault.IO)
	}
}

// TestVerifiedIsTheFileThatWasHashed puts another file under the path.
func TestVerifiedIsTheFileThatWasHashed(t *testing.T) {
	s := newShop(t)
	s.release("app_1.bin", []byte("good"))
	f := mustNew(t, s.options())
	v := mustFetch(t, f, newest(t, f), t.TempDir())
	if err := os.Rename(v.Path(), v.Path()+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.Path(), []byte("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := content(t, v); string(got) != "good" {
		t.Errorf("read %q through the verified file", got)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestFetchMemoryDoesNotGrow counts every byte allocated, so no collection can
// hide one.
func TestFetchMemoryDoesNotGrow(t *testing.T) {
	allocated := func(size int) uint64 {
		s := newShop(t)
		s.release("app_1.bin", make([]byte, size))
		f := mustNew(t, s.options())
		c, into := newest(t, f), t.TempDir()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		v, err := f.Fetch(context.Background(), c, into, nil)
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		v.Close()
		return after.TotalAlloc - before.TotalAlloc
	}
	small, large := allocated(4<<20), allocated(256<<20)
	if large > small+1<<20 || small > 8<<20 {
		t.Errorf("4 MiB needed %d bytes of memory, 256 MiB %d", small, large)
	}
}
