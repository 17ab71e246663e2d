package fetcher

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/delta"
)

// patcher publishes versions of a program, compressed, with patches that stock
// tools made.
type patcher struct {
	*shop
	content map[string][]byte // by version
	index   delta.Index       // grows with each version
}

func newPatcher(t *testing.T) *patcher {
	p := &patcher{shop: newShop(t), content: map[string][]byte{}}
	program := noise(t, 100_000)
	for _, version := range []string{"1", "2", "3", "4"} {
		p.content[version] = bytes.Clone(program)
		copy(program[len(program)/2:], "this is what the next version says")
		program = append(program, noise(t, 500)...)
	}
	return p
}

func zstdOf(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

func fileOf(b []byte) delta.File { return delta.File{Digest: sha256.Sum256(b), Size: int64(len(b))} }

// publish lists a version, and the patches from those named.
func (p *patcher) publish(version string, format delta.Format, from ...string) {
	p.t.Helper()
	name, content := "app_"+version+".zst", p.content[version]
	whole := zstdOf(p.t, content)
	p.index.Artifact, p.index.ArtifactSize = name, int64(len(whole))
	p.index.Content, p.index.ContentName = fileOf(content), "app_"+version
	for _, base := range from {
		patch := p.diff(format, p.content[base], content)
		end := map[delta.Format]string{delta.BSDiff: delta.BSDiffEnd, delta.Zstd: delta.ZstdEnd}[format]
		at := name + ".from-" + base + end
		p.index.Patches = append(p.index.Patches, delta.Patch{Format: format, Base: sha256.Sum256(p.content[base]), Result: p.index.Content, Size: int64(len(patch)), Name: at})
		p.release(at, patch)
	}
	p.release(name+delta.IndexEnd, p.index.Bytes())
	p.release(name, whole)
}

func (p *patcher) diff(format delta.Format, old, new []byte) []byte {
	p.t.Helper()
	dir := p.t.TempDir()
	a, b, c := filepath.Join(dir, "old"), filepath.Join(dir, "new"), filepath.Join(dir, "patch")
	if err := errors.Join(os.WriteFile(a, old, 0o600), os.WriteFile(b, new, 0o600)); err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command("bsdiff", a, b, c)
	if format == delta.Zstd {
		cmd = exec.Command("zstd", "-q", "--patch-from="+a, b, "-o", c)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	patch, err := os.ReadFile(c)
	if err != nil {
		p.t.Fatal(err)
	}
	return patch
}

// bases is a host that has these versions, as plain programs.
func (p *patcher) bases(versions ...string) Bases {
	dir := p.t.TempDir()
	here := map[[32]byte]string{}
	for _, version := range versions {
		name := filepath.Join(dir, version)
		if err := os.WriteFile(name, p.content[version], 0o555); err != nil {
			p.t.Fatal(err)
		}
		here[sha256.Sum256(p.content[version])] = name
	}
	return func(_ context.Context, wanted [][32]byte) (map[[32]byte]string, error) {
		found := map[[32]byte]string{}
		for _, digest := range wanted {
			if name, ok := here[digest]; ok {
				found[digest] = name
			}
		}
		return found, nil
	}
}

func (p *patcher) options() Options {
	o := p.shop.options()
	o.Patterns = []string{"app_@v.zst"}
	return o
}

// said follows what a Fetcher logs.
func said(t *testing.T, o Options) (*Fetcher, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	f, err := New(o, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	t.Cleanup(func() { t.Log(log.String()) })
	return f, &log
}

// TestPatched comes to a release by patches, as a chain, by a copy, or whole where
// that is cheaper.
func TestPatched(t *testing.T) {
	for _, c := range []struct {
		name    string
		format  delta.Format
		here    []string
		patches int
		asked   []string // beside the lists
		copied  bool
	}{
		{"bsdiff", delta.BSDiff, []string{"3"}, 1, []string{"app_4.zst.deltas", "app_4.zst.from-3.bsdiff"}, false},
		{"zstd", delta.Zstd, []string{"3"}, 1, []string{"app_4.zst.deltas", "app_4.zst.from-3.zstd-patch"}, false},
		{"chain, bsdiff", delta.BSDiff, []string{"1"}, 3, []string{"app_4.zst.deltas", "app_2.zst.from-1.bsdiff", "app_3.zst.from-2.bsdiff", "app_4.zst.from-3.bsdiff"}, false},
		{"chain, zstd", delta.Zstd, []string{"1"}, 3, []string{"app_4.zst.deltas", "app_2.zst.from-1.zstd-patch", "app_3.zst.from-2.zstd-patch", "app_4.zst.from-3.zstd-patch"}, false},
		{"nearest of several", delta.BSDiff, []string{"1", "2", "3"}, 1, []string{"app_4.zst.deltas", "app_4.zst.from-3.bsdiff"}, false},
		{"the program is here", delta.BSDiff, []string{"2", "4"}, 0, []string{"app_4.zst.deltas"}, true},
		{"nothing is here", delta.BSDiff, nil, 0, []string{"app_4.zst.deltas", "app_4.zst"}, false},
	} {
		for _, kind := range []string{"http", "directory", "unsigned"} {
			t.Run(c.name+", "+kind, func(t *testing.T) {
				leaks(t)
				p := newPatcher(t)
				for i, version := range []string{"1", "2", "3", "4"} {
					if i == 0 {
						p.publish(version, c.format)
						continue
					}
					p.publish(version, c.format, fmt.Sprint(i))
				}
				server := p.serve()
				o := p.options()
				o.Bases = p.bases(c.here...)
				if kind != "directory" {
					o.Path = server.URL
				}
				if kind == "unsigned" {
					o.Verify, o.Keys = VerifyNo, nil
				}
				f, log := said(t, o)
				listing := mustCheck(t, f)
				if len(listing.Candidates) != 4 {
					t.Fatalf("%d candidates, want the releases alone: %v", len(listing.Candidates), listing.Candidates)
				}
				server.asked()
				into := t.TempDir()
				candidate := listing.Candidates[0]
				var shown []int64
				v, err := f.Fetch(t.Context(), candidate, into, func(done, total int64) { shown = append(shown, done) })
				if err != nil {
					t.Fatal(err)
				}
				defer v.Close()

				want := p.content["4"]
				built := c.patches > 0 || c.copied
				if !built {
					want = p.files["app_4.zst"]
				}
				if !bytes.Equal(content(t, v), want) {
					t.Error("it is not what was published")
				}
				if got := v.Candidate(); got.Digest != candidate.Digest || got.Name != "app_4.zst" || got.Version != "4" || got.Size != int64(len(p.files["app_4.zst"])) {
					t.Errorf("verified %+v", got)
				}
				if v.Patches() != c.patches || v.Name() != map[bool]string{true: "app_4", false: "app_4.zst"}[built] {
					t.Errorf("%q by %d patches, want %d", v.Name(), v.Patches(), c.patches)
				}
				var bytes int64
				for _, name := range c.asked {
					bytes += int64(len(p.files[name]))
				}
				if v.Received() != bytes {
					t.Errorf("received %d bytes, want %d", v.Received(), bytes)
				}
				if kind != "directory" {
					for i, a := range server.asked() {
						if i >= len(c.asked) || !strings.HasPrefix(a, "/"+c.asked[i]+" ") {
							t.Errorf("asked for %q, want %q", a, c.asked)
						}
					}
				}
				if !slices.IsSorted(shown) || !c.copied && len(shown) == 0 {
					t.Errorf("progress %v, want it to rise", shown)
				}
				if got := names(t, into); len(got) != 1 || filepath.Join(into, got[0]) != v.Path() {
					t.Errorf("directory holds %q, want %s alone", got, v.Path())
				}
				if st, err := v.File().Stat(); err != nil || st.Mode().Perm() != 0o400 {
					t.Errorf("mode %v, %v", st.Mode(), err)
				}
				if text := log.String(); strings.Contains(text, "of no use") || strings.Contains(text, "msg=patched") != built {
					t.Errorf("it said %s", text)
				}
			})
		}
	}
}

// TestFallsBack has everything about patches go wrong, and the whole file come
// within the same Fetch, with one line about it.
func TestFallsBack(t *testing.T) {
	const patch, index = "app_2.zst.from-1.bsdiff", "app_2.zst.deltas"
	relist := func(p *patcher, name string, content []byte) { p.release(name, content) }
	reindex := func(p *patcher, change func(*delta.Index)) {
		change(&p.index)
		relist(p, index, p.index.Bytes())
	}
	for _, c := range []struct {
		name string
		harm func(t *testing.T, p *patcher, o *Options)
		says string // "" for no line
	}{
		{"patch missing", func(_ *testing.T, p *patcher, _ *Options) { p.drop(patch) }, "FETCH_NOT_FOUND"},
		{"patch with other bytes", func(_ *testing.T, p *patcher, _ *Options) { p.put(patch, noise(p.t, len(p.files[patch]))) }, "ARTIFACT_DIGEST"},
		{"patch cut short", func(_ *testing.T, p *patcher, _ *Options) { p.put(patch, p.files[patch][:100]) }, "ARTIFACT_DIGEST"},
		{"patch longer than the index says", func(_ *testing.T, p *patcher, _ *Options) { relist(p, patch, append(p.files[patch], 0)) }, "ARTIFACT_DIGEST"},
		{"patch that is none", func(_ *testing.T, p *patcher, _ *Options) { relist(p, patch, noise(p.t, len(p.files[patch]))) }, "damaged"},
		{"patch of something else", func(t *testing.T, p *patcher, _ *Options) {
			other := p.diff(delta.BSDiff, p.content["1"], p.content["3"])
			relist(p, patch, other)
			reindex(p, func(x *delta.Index) { x.Patches[0].Size = int64(len(other)) })
		}, "damaged"},
		{"patch that is not listed", func(_ *testing.T, p *patcher, _ *Options) { delete(p.files, patch); p.sign(p.manifest()) }, ""},
		{"patch of a format to come", func(_ *testing.T, p *patcher, _ *Options) {
			relist(p, index, bytes.Replace(p.index.Bytes(), []byte("bsdiff "), []byte("xdelta "), 1))
		}, ""},
		{"patch with the name of something else", func(_ *testing.T, p *patcher, _ *Options) {
			reindex(p, func(x *delta.Index) { x.Patches[0].Name = "app_1.zst" })
		}, ""},
		{"patch larger than the file", func(_ *testing.T, p *patcher, _ *Options) {
			reindex(p, func(x *delta.Index) { x.Patches[0].Size = x.ArtifactSize })
		}, ""},
		{"index missing", func(_ *testing.T, p *patcher, _ *Options) { p.drop(index) }, "FETCH_NOT_FOUND"},
		{"index with other bytes", func(_ *testing.T, p *patcher, _ *Options) { p.put(index, []byte("artifact 1 x\n")) }, "ARTIFACT_DIGEST"},
		{"index not listed", func(_ *testing.T, p *patcher, _ *Options) { delete(p.files, index); p.sign(p.manifest()) }, ""},
		{"index that is none", func(_ *testing.T, p *patcher, _ *Options) { relist(p, index, []byte("<html>")) }, "names the artifact"},
		{"index of gigantic size", func(_ *testing.T, p *patcher, _ *Options) {
			relist(p, index, bytes.Repeat([]byte("x\n"), delta.IndexMax))
		}, "FETCH_TOO_LARGE"},
		{"index of another release", func(_ *testing.T, p *patcher, _ *Options) {
			reindex(p, func(x *delta.Index) { x.Artifact = "app_3.zst" })
		}, "is about"},
		{"index with a path for a name", func(_ *testing.T, p *patcher, _ *Options) {
			reindex(p, func(x *delta.Index) { x.ContentName = "../../etc/passwd" })
		}, "holds a '/'"},
		{"index with an escape for a name", func(_ *testing.T, p *patcher, _ *Options) {
			reindex(p, func(x *delta.Index) { x.ContentName = "app\x1b[2J" })
		}, "does not print"},
		{"index that promises another content", func(_ *testing.T, p *patcher, _ *Options) {
			reindex(p, func(x *delta.Index) {
				x.Content.Digest = sha256.Sum256(nil)
				x.Patches[0].Result = x.Content
			})
		}, "want e3b0c44"},
		{"content beyond SizeMax=", func(_ *testing.T, p *patcher, o *Options) { p.small(); o.SizeMax = int64(len(p.content["2"])) - 1 }, "raise SizeMax="},
		{"base with other bytes", func(t *testing.T, p *patcher, o *Options) { p.harmBases(o, os.WriteFile) }, "the base is of no use: it has SHA-256"},
		{"base is empty", func(t *testing.T, p *patcher, o *Options) {
			p.harmBases(o, func(name string, _ []byte, _ os.FileMode) error { return os.Truncate(name, 0) })
		}, "the base is of no use"},
		{"base is gone", func(t *testing.T, p *patcher, o *Options) {
			p.harmBases(o, func(name string, _ []byte, _ os.FileMode) error { return os.Remove(name) })
		}, "no such file"},
		{"base is a FIFO", func(t *testing.T, p *patcher, o *Options) {
			p.harmBases(o, func(name string, _ []byte, _ os.FileMode) error { return errors.Join(os.Remove(name), mkfifo(name)) })
		}, "not a regular file"},
		{"base is a link", func(t *testing.T, p *patcher, o *Options) {
			p.harmBases(o, func(name string, _ []byte, _ os.FileMode) error {
				return errors.Join(os.Rename(name, name+".moved"), os.Symlink(name+".moved", name))
			})
		}, "the base is of no use"},
		{"bases cannot be told", func(_ *testing.T, _ *patcher, o *Options) {
			o.Bases = func(context.Context, [][32]byte) (map[[32]byte]string, error) {
				return nil, errors.New("store is locked")
			}
		}, "store is locked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaks(t)
			p := newPatcher(t)
			p.publish("2", delta.BSDiff, "1")
			o := p.options()
			o.Bases = p.bases("1")
			c.harm(t, p, &o)
			f, log := said(t, o)
			into := t.TempDir()
			v := mustFetch(t, f, newest(t, f), into)
			if !bytes.Equal(content(t, v), p.files["app_2.zst"]) || v.Name() != "app_2.zst" || v.Patches() != 0 {
				t.Error("it is not what was published")
			}
			if got := names(t, into); !slices.Equal(got, []string{"app_2.zst"}) {
				t.Errorf("directory holds %q", got)
			}
			lines := strings.Count(log.String(), "of no use, fetching the whole file")
			if c.says == "" && log.Len() > 0 && lines > 0 || c.says != "" && (lines != 1 || !strings.Contains(log.String(), c.says)) {
				t.Errorf("it said %q, want one line with %q", log, c.says)
			}
		})
	}
}

// small publishes the release anew as something that compresses well.
func (p *patcher) small() {
	p.content["2"] = append(bytes.Repeat([]byte("0123456789"), 20_000), p.content["2"][:1000]...)
	p.index = delta.Index{}
	p.publish("2", delta.BSDiff, "1")
}

// harmBases does something to what the host has.
func (p *patcher) harmBases(o *Options, harm func(name string, content []byte, mode os.FileMode) error) {
	bases := o.Bases
	o.Bases = func(ctx context.Context, wanted [][32]byte) (map[[32]byte]string, error) {
		found, err := bases(ctx, wanted)
		for _, name := range found {
			if err := os.Chmod(name, 0o644); err != nil {
				return nil, err
			}
			err = errors.Join(err, harm(name, noise(p.t, len(p.content["1"])), 0o644))
		}
		return found, err
	}
}

// TestNextBase goes on with another base where the cheapest turns out wrong.
func TestNextBase(t *testing.T) {
	p := newPatcher(t)
	p.publish("3", delta.BSDiff, "1", "2")
	o := p.options()
	good, bad := p.bases("1"), p.bases("2")
	var wrong Options
	wrong.Bases = bad
	p.harmBases(&wrong, os.WriteFile)
	o.Bases = func(ctx context.Context, wanted [][32]byte) (map[[32]byte]string, error) {
		a, err := good(ctx, wanted)
		if err != nil {
			return nil, err
		}
		b, err := wrong.Bases(ctx, wanted)
		maps.Copy(a, b)
		return a, err
	}
	f, _ := said(t, o)
	v := mustFetch(t, f, newest(t, f), t.TempDir())
	if v.Patches() != 1 || !bytes.Equal(content(t, v), p.content["3"]) {
		t.Errorf("%d patches", v.Patches())
	}
	if got, want := v.Received(), int64(len(p.files["app_3.zst.deltas"])+len(p.files["app_3.zst.from-1.bsdiff"])+len(p.files["app_3.zst.from-2.bsdiff"])); got != want {
		t.Errorf("received %d bytes, want both patches: %d", got, want)
	}
}

// TestPatchFromAMirror takes a patch that one mirror lacks from the next.
func TestPatchFromAMirror(t *testing.T) {
	p := newPatcher(t)
	p.publish("2", delta.BSDiff, "1")
	const patch = "/app_2.zst.from-1.bsdiff"
	poor, rich := p.serve(), p.serve()
	poor.before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != patch {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	o := p.options()
	o.Path, o.Mirrors, o.Bases = poor.URL, []string{rich.URL}, p.bases("1")
	f, _ := said(t, o)
	v := mustFetch(t, f, newest(t, f), t.TempDir())
	if v.Patches() != 1 || !bytes.Equal(content(t, v), p.content["2"]) {
		t.Errorf("%d patches", v.Patches())
	}
	if asked := rich.asked(); len(asked) != 1 || asked[0] != patch+"  200" {
		t.Errorf("asked the second mirror for %q", asked)
	}
}

// TestPatchOfLessThanIsLeft does not throw away most of an artifact for a patch.
func TestPatchOfLessThanIsLeft(t *testing.T) {
	p := newPatcher(t)
	p.publish("2", delta.BSDiff, "1")
	o := p.options()
	o.Bases = p.bases("1")
	f, _ := said(t, o)
	c := newest(t, f)
	into := t.TempDir()
	whole := p.files["app_2.zst"]
	here := len(whole) - len(p.files["app_2.zst.from-1.bsdiff"]) + 1
	if err := os.WriteFile(filepath.Join(into, partName(c)), whole[:here], 0o600); err != nil {
		t.Fatal(err)
	}
	v := mustFetch(t, f, c, into)
	if v.Patches() != 0 || !bytes.Equal(content(t, v), whole) {
		t.Errorf("%d patches", v.Patches())
	}
	if got := names(t, into); !slices.Equal(got, []string{"app_2.zst"}) {
		t.Errorf("directory holds %q", got)
	}
}

// TestPatchLeavesThePart has a patch of a plain program fail after a part of the
// program itself came: the rest of it is all that comes.
func TestPatchLeavesThePart(t *testing.T) {
	p := newPatcher(t)
	p.content["1"] = append(noise(t, 200_000), p.content["1"]...)
	p.content["2"] = append(bytes.Clone(p.content["1"][:300_000]), "the end is another"...)
	whole := p.content["2"]
	patch := p.diff(delta.BSDiff, p.content["1"], append(bytes.Clone(whole), "and more"...))
	p.index = delta.Index{
		Artifact: "app_2.bin", ArtifactSize: int64(len(whole)), Content: fileOf(whole), ContentName: "app_2.bin",
		Patches: []delta.Patch{{Format: delta.BSDiff, Base: sha256.Sum256(p.content["1"]), Result: fileOf(whole), Size: int64(len(patch)), Name: "app_2.bin.from-1.bsdiff"}},
	}
	p.release("app_2.bin.from-1.bsdiff", patch)
	p.release("app_2.bin.deltas", p.index.Bytes())
	p.release("app_2.bin", whole)
	server := p.serve()
	o := p.options()
	o.Path, o.Patterns, o.Bases = server.URL, []string{"app_@v.bin"}, p.bases("1")
	f, log := said(t, o)
	c := newest(t, f)
	into := t.TempDir()
	if err := os.WriteFile(filepath.Join(into, partName(c)), whole[:100_000], 0o600); err != nil {
		t.Fatal(err)
	}
	server.asked()
	v := mustFetch(t, f, c, into)
	if !bytes.Equal(content(t, v), whole) || v.Patches() != 0 || !strings.Contains(log.String(), "of no use") {
		t.Errorf("%d patches", v.Patches())
	}
	if asked := server.asked(); len(asked) != 3 || asked[2] != "/app_2.bin bytes=100000- 206" {
		t.Errorf("asked %q, want the rest", asked)
	}
	if got := names(t, into); !slices.Equal(got, []string{"app_2.bin"}) {
		t.Errorf("directory holds %q", got)
	}
}

// TestPatchGoesOn ends a Fetch after each request and each file that it made, and
// lets another one bring the rest: nothing comes twice.
func TestPatchGoesOn(t *testing.T) {
	p := newPatcher(t)
	p.publish("2", delta.BSDiff, "1")
	p.publish("3", delta.Zstd, "2")
	p.publish("4", delta.BSDiff, "3")
	server := p.serve()
	o := p.options()
	o.Path, o.Bases = server.URL, p.bases("1")
	into := t.TempDir()
	requests := []string{"app_4.zst.deltas", "app_2.zst.from-1.bsdiff", "app_3.zst.from-2.zstd-patch", "app_4.zst.from-3.bsdiff"}
	for i := range requests {
		f, log := said(t, o)
		c := newest(t, f)
		ctx, cancel := context.WithCancel(t.Context())
		server.before(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/"+requests[i] {
				cancel()
				<-r.Context().Done()
				return true
			}
			return false
		})
		server.asked()
		_, err := f.Fetch(ctx, c, into, nil)
		cancel()
		wantCode(t, err, fault.Canceled)
		if asked := server.asked(); i > 0 && (len(asked) < 1 || !strings.HasPrefix(asked[0], "/"+requests[i-1])) {
			t.Errorf("before %s it asked %q", requests[i], asked)
		}
		if strings.Contains(log.String(), "of no use") {
			t.Errorf("it said %s", log)
		}
	}
	server.before(nil)
	// As if it had been killed once the first two were applied.
	kept := []string{"2", "3"}
	for _, version := range kept {
		if err := os.WriteFile(filepath.Join(into, builtName(sha256.Sum256(p.content[version]))), p.content[version], 0o400); err != nil {
			t.Fatal(err)
		}
	}
	f, _ := said(t, o)
	c := newest(t, f)
	server.asked()
	v := mustFetch(t, f, c, into)
	if v.Patches() != 1 || !bytes.Equal(content(t, v), p.content["4"]) {
		t.Errorf("%d patches, want one from what was made before", v.Patches())
	}
	if asked := server.asked(); len(asked) != 1 || !strings.HasPrefix(asked[0], "/"+requests[3]) {
		t.Errorf("asked %q", asked)
	}
	if got := names(t, into); len(got) != 1 {
		t.Errorf("directory holds %q", got)
	}
	// And once all was done, but nobody had taken it.
	f, _ = said(t, o)
	server.asked()
	c = newest(t, f)
	server.asked()
	v = mustFetch(t, f, c, into)
	if !bytes.Equal(content(t, v), p.content["4"]) || v.Name() != "app_4" {
		t.Errorf("%s", v.Name())
	}
	if asked := server.asked(); len(asked) != 1 || !strings.HasPrefix(asked[0], "/"+requests[0]) {
		t.Errorf("asked %q, want the index alone", asked)
	}
}

// TestPatchGoesOnAfterAKill ends the process with SIGKILL between two patches.
func TestPatchGoesOnAfterAKill(t *testing.T) {
	p := newPatcher(t)
	p.publish("2", delta.BSDiff, "1")
	p.publish("3", delta.Zstd, "2")
	base := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(base, p.content["1"], 0o600); err != nil {
		t.Fatal(err)
	}
	server := p.serve()
	reached := make(chan struct{}, 1)
	server.before(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/app_3.zst.from-2.zstd-patch" {
			return false
		}
		reached <- struct{}{}
		<-r.Context().Done()
		return true
	})
	o := p.options()
	o.Path = server.URL
	into := t.TempDir()
	task, err := json.Marshal(errand{Options: o, Base: base, Into: into})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), errandEnv+"="+string(task))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-reached
	cmd.Process.Kill()
	cmd.Wait()
	server.before(nil)

	o.Bases = p.bases("1")
	f, log := said(t, o)
	c := newest(t, f)
	server.asked()
	v := mustFetch(t, f, c, into)
	if v.Patches() != 2 || !bytes.Equal(content(t, v), p.content["3"]) {
		t.Errorf("%d patches; it said %s", v.Patches(), log)
	}
	if asked := server.asked(); len(asked) != 1 || !strings.HasPrefix(asked[0], "/app_3.zst.from-2.zstd-patch ") {
		t.Errorf("asked %q, want the second patch alone", asked)
	}
	if got := names(t, into); len(got) != 1 {
		t.Errorf("directory holds %q", got)
	}
}

// TestPatchOntoDamage finds what is left of an earlier Fetch damaged.
func TestPatchOntoDamage(t *testing.T) {
	p := newPatcher(t)
	p.publish("2", delta.BSDiff, "1")
	p.publish("3", delta.BSDiff, "2")
	o := p.options()
	o.Bases = p.bases("1")
	into := t.TempDir()
	for _, name := range []string{"app_3.zst.deltas", "app_3.zst.from-2.bsdiff", "app_2.zst.from-1.bsdiff",
		builtName(sha256.Sum256(p.content["2"])), builtName(sha256.Sum256(p.content["3"]))} {
		if err := os.WriteFile(filepath.Join(into, name), noise(t, 3000), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	f, log := said(t, o)
	v := mustFetch(t, f, newest(t, f), into)
	if v.Patches() != 2 || !bytes.Equal(content(t, v), p.content["3"]) {
		t.Errorf("%d patches; it said %s", v.Patches(), log)
	}
	if got := names(t, into); len(got) != 1 {
		t.Errorf("directory holds %q", got)
	}
}

// TestPatchIsNoRelease keeps every pattern from taking a patch for one.
func TestPatchIsNoRelease(t *testing.T) {
	p := newPatcher(t)
	p.publish("2", delta.BSDiff, "1")
	p.publish("3", delta.Zstd, "2")
	for _, verify := range []Verify{VerifySigned, VerifyNo} {
		o := p.options()
		o.Patterns = []string{"app_@v", "@v"}
		if o.Verify = verify; verify == VerifyNo {
			o.Keys = nil
			p.drop(manifestName)
		}
		for _, c := range mustCheck(t, mustNew(t, o)).Candidates {
			if delta.IsName(c.Name) {
				t.Errorf("%s: %s is a candidate", verify, c)
			}
		}
	}
	for _, end := range []string{delta.IndexEnd, delta.BSDiffEnd, delta.ZstdEnd} {
		if _, err := ParsePattern("app_@v" + end); err == nil {
			t.Errorf("a pattern that ends in %s is taken", end)
		}
	}
}

// TestPatchOntoAFullDisk has room for the compressed file, not for what is in it
// beside it: unpacking will say so with better reason, or more room by then.
func TestPatchOntoAFullDisk(t *testing.T) {
	p := newPatcher(t)
	p.content["2"] = append(make([]byte, 20<<20), p.content["1"]...)
	p.publish("2", delta.Zstd, "1")
	base := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(base, p.content["1"], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mebibytes int
		left      string
	}{
		{90, "app_2.zst"},
		{110, builtName(sha256.Sum256(p.content["2"]))},
	} {
		got := errand{Options: p.options(), Base: base, Into: t.TempDir(), TmpfsMiB: c.mebibytes}.run(t)
		if got.Code != "" || !slices.Equal(got.Left, []string{c.left}) {
			t.Errorf("with %d MiB: %s, %q is left, want %s", c.mebibytes, got.Error, got.Left, c.left)
		}
	}
	if got := (errand{Options: p.options(), Base: base, Into: t.TempDir(), TmpfsMiB: 60}).run(t); got.Code != fault.NoSpace || len(got.Left) != 0 {
		t.Errorf("with room for neither: %+v", got)
	}
}
