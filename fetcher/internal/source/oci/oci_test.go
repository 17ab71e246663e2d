package oci

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest/registry"
)

const canary = sourcetest.Canary

func open(t *testing.T, path string, o Options) *Artifact {
	t.Helper()
	u, err := url.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(u, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// follow opens an artifact of a registry that speaks plain HTTP.
func follow(t *testing.T, r *registry.Registry, artifact string) *Artifact {
	t.Helper()
	return open(t, "oci://registry.example.com/"+artifact, Options{Endpoint: "http://" + r.Address})
}

// shelf pushes all its files anew with each change, as one artifact.
type shelf struct {
	r     *registry.Registry
	name  string
	files map[string][]byte
}

func (s shelf) push() { s.r.Artifact(s.name, "stable", s.files, nil) }

func (s shelf) Publish(name string, content []byte) {
	s.files[name] = content
	s.push()
}

func (s shelf) Remove(name string) {
	delete(s.files, name)
	s.push()
}

func TestConforms(t *testing.T) {
	r := registry.Start(t, "")
	n := 0
	sourcetest.Conform(t, func(t *testing.T) (source.Source, sourcetest.Publisher) {
		n++
		s := shelf{r, fmt.Sprintf("acme/app-%d", n), map[string][]byte{"sub/inside": []byte("inside")}}
		s.push()
		return follow(t, r, s.name+":stable"), s
	})
}

func look(t *testing.T, a *Artifact) source.View {
	t.Helper()
	view, err := a.Look(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return view
}

func read(t *testing.T, a *Artifact, name string) string {
	t.Helper()
	raw, _, err := a.Read(context.Background(), name, 1000, "")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestTagMoves moves a tag between look and read: what was found stays.
func TestTagMoves(t *testing.T) {
	r := registry.Start(t, "")
	one := r.Artifact("acme/app", "stable", map[string][]byte{"app_1": []byte("one"), "SHA256SUMS": []byte("1")}, nil)
	a, fixed := follow(t, r, "acme/app:stable"), follow(t, r, "acme/app@"+one.Digest)
	view := look(t, a)
	if view != (source.View{Mark: source.Mark(one.Digest), Tag: "stable"}) {
		t.Errorf("view %+v", view)
	}
	two := r.Artifact("acme/app", "stable", map[string][]byte{"app_2": []byte("two"), "SHA256SUMS": []byte("2")}, map[string]string{"org.opencontainers.image.version": "2"})
	if got := read(t, a, "SHA256SUMS") + read(t, a, "app_1"); got != "1one" {
		t.Errorf("read %q of the artifact that was found", got)
	}
	if view := look(t, a); view != (source.View{Mark: source.Mark(two.Digest), Tag: "2"}) {
		t.Errorf("view %+v", view)
	}
	if got := read(t, a, "SHA256SUMS") + read(t, a, "app_2"); got != "2two" {
		t.Errorf("read %q of the artifact that is there now", got)
	}
	for range 2 {
		if view := look(t, fixed); view != (source.View{Mark: source.Mark(one.Digest)}) {
			t.Errorf("view %+v of a digest", view)
		}
	}
	if got := read(t, fixed, "app_1"); got != "one" {
		t.Errorf("read %q of a digest", got)
	}
	both := follow(t, r, "acme/app:stable@"+one.Digest)
	if got := read(t, both, "app_1"); got != "one" {
		t.Errorf("read %q of a tag and a digest", got)
	}
}

// TestPlatforms chooses of an index.
func TestPlatforms(t *testing.T) {
	r := registry.Start(t, "")
	manifest := func(what, variant, os, arch string) registry.Descriptor {
		d := r.Artifact("acme/app", "x", map[string][]byte{"app_1": []byte(what)}, map[string]string{"org.opencontainers.image.version": what})
		d.Platform = map[string]string{"os": os, "architecture": arch}
		if variant != "" {
			d.Platform["variant"] = variant
		}
		return d
	}
	list := []registry.Descriptor{
		manifest("attestation", "", "unknown", "unknown"), manifest("amd64-v3", "v3", "linux", "amd64"), manifest("amd64", "", "linux", "amd64"),
		manifest("windows", "", "windows", "arm64"), manifest("arm64", "v8", "linux", "arm64"), manifest("armv6", "v6", "linux", "arm"), manifest("armv7", "v7", "linux", "arm"),
	}
	index := r.Index("acme/app", "stable", list...)
	for _, c := range []struct {
		p    Platform
		want string // "" where there is none
	}{
		{Platform{"linux", "amd64", ""}, "amd64"},
		{Platform{"linux", "amd64", "v3"}, "amd64-v3"},
		{Platform{"linux", "arm64", ""}, "arm64"},
		{Platform{"linux", "arm", "v6"}, "armv6"},
		{Platform{"linux", "arm", "v7"}, "armv7"},
		{Platform{"linux", "arm", "v5"}, ""},
		{Platform{"linux", "riscv64", ""}, ""},
		{Platform{"windows", "amd64", ""}, ""},
	} {
		a := open(t, "oci://registry.example.com/acme/app:stable", Options{Endpoint: "http://" + r.Address, Platform: c.p})
		view, err := a.Look(context.Background())
		if c.want == "" {
			wantRefused(t, a, "SOURCE_MISSING", true, c.p.String(), "linux/arm/v7")
			continue
		}
		if err != nil || view.Mark != source.Mark(index.Digest) || view.Tag != c.want {
			t.Errorf("%s: view %+v, %v", c.p, view, err)
			continue
		}
		if got := read(t, a, "app_1"); got != c.want {
			t.Errorf("%s: read %q", c.p, got)
		}
	}
	if p := here(); p.OS != "linux" || p.Architecture == "" {
		t.Errorf("this host is %s", p)
	}
}

// TestList gives digests, which the registry vouches for.
func TestList(t *testing.T) {
	r := registry.Start(t, "")
	files := map[string][]byte{"app_1": []byte("one"), "app_2": []byte("two"), "dir/app_3": []byte("three")}
	r.Artifact("app", "stable", files, nil)
	got, err := follow(t, r, "app:stable").List(context.Background(), 10)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, f := range got {
		listed[f.Name] = fmt.Sprintf("%d sha256:%x", f.Size, f.Digest)
	}
	want := map[string]string{"app_1": "3 " + registry.Digest(files["app_1"]), "app_2": "3 " + registry.Digest(files["app_2"])}
	if !maps.Equal(listed, want) {
		t.Errorf("listed %v, want %v", listed, want)
	}
}
