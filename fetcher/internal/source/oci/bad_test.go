package oci

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest/registry"
)

// wantRefused asks a in each way there is, and wants the same of all.
func wantRefused(t *testing.T, a *Artifact, code fault.Code, temporary bool, says ...string) {
	t.Helper()
	before := sourcetest.OpenFiles(t)
	_, look := a.Look(context.Background())
	_, _, read := a.Read(context.Background(), "SHA256SUMS", 100, "")
	_, open := a.Open(context.Background(), "SHA256SUMS", source.Position{})
	_, list := a.List(context.Background(), 100)
	for _, err := range []error{look, read, open, list} {
		sourcetest.WantCode(t, err, code, temporary)
		for _, s := range says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%v; want it to say %q", err, s)
			}
		}
		if len(err.Error()) > 600 || !strings.Contains(err.Error(), "; ") {
			t.Errorf("an error of %d bytes, or without a hint: %v", len(err.Error()), err)
		}
	}
	sourcetest.Settled(t, before)
}

// TestNew is a table of what cannot be followed, found before anything is asked.
func TestNew(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, c := range []struct{ path, endpoint, want, says string }{
		{"oci://registry.example.com/app:1", "", "https://registry.example.com/v2/app 1", ""},
		{"oci://registry.example.com:5000/acme/team/app:v1.4_2-rc.1", "", "https://registry.example.com:5000/v2/acme/team/app v1.4_2-rc.1", ""},
		{"oci://registry.example.com/app@" + digest, "", "https://registry.example.com/v2/app " + digest, ""},
		{"oci://registry.example.com/app:stable@" + digest, "", "https://registry.example.com/v2/app " + digest, ""},
		{"oci://docker.io/app:1", "", "https://registry-1.docker.io/v2/library/app 1", ""},
		{"oci://docker.io/acme/app:1", "", "https://registry-1.docker.io/v2/acme/app 1", ""},
		{"oci://registry.example.com/app:1", "http://127.0.0.1:5000/mirror/", "http://127.0.0.1:5000/mirror/v2/app 1", ""},
		{"oci:///app:1", "", "", "no registry"},
		{"oci://" + canary + "@registry.example.com/app:1", "", "", "holds a user"},
		{"oci://registry.example.com/app:1?x=" + canary, "", "", "holds a user or a query"},
		{"oci://registry.example.com/app", "", "", "neither a tag nor a digest"},
		{"oci://registry.example.com/app:", "", "", "neither a tag nor a digest"},
		{"oci://registry.example.com/", "", "", "no repository"},
		{"oci://registry.example.com/App:1", "", "", "no repository"},
		{"oci://registry.example.com/a//b:1", "", "", "no repository"},
		{"oci://registry.example.com/../v2/x:1", "", "", "no repository"},
		{"oci://registry.example.com/a:1/metadata", "", "", "no repository"},
		{"oci://registry.example.com/app:a b", "", "", "neither a tag nor a sha256 digest"},
		{"oci://registry.example.com/app:.1", "", "", "neither a tag nor a sha256 digest"},
		{"oci://registry.example.com/app@sha256:00", "", "", "neither a tag nor a sha256 digest"},
		{"oci://registry.example.com/app@sha512:" + strings.Repeat("0", 128), "", "", "neither a tag nor a sha256 digest"},
		{"oci://registry.example.com/app:1", "registry.example.com", "", "Endpoint="},
		{"oci://registry.example.com/app:1", "https://u:" + canary + "@example.com", "", "Endpoint="},
	} {
		u, err := url.Parse(c.path)
		if err != nil {
			t.Fatal(err)
		}
		a, err := New(u, Options{Endpoint: c.endpoint})
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", c.path, err)
				continue
			}
			a.Close()
			if got := a.base.String() + " " + a.reference; got != c.want {
				t.Errorf("%s: %s, want %s", c.path, got, c.want)
			}
			continue
		}
		sourcetest.WantCode(t, err, fault.ConfigSource, false)
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want it to say %q", c.path, err, c.says)
		}
	}
}

// TestMissing is what a real registry says to what is not there.
func TestMissing(t *testing.T) {
	r := registry.Start(t, "")
	r.Artifact("acme/app", "stable", map[string][]byte{"SHA256SUMS": []byte("hello")}, nil)
	wantRefused(t, follow(t, r, "acme/app:none"), fault.SourceMissing, true, "404", "MANIFEST_UNKNOWN")
	wantRefused(t, follow(t, r, "acme/none:stable"), fault.SourceMissing, true, "404", "MANIFEST_UNKNOWN")
	wantRefused(t, follow(t, r, "acme/app@"+registry.Digest([]byte("none"))), fault.SourceMissing, true, "404")

	// A tag that is gone leaves what was found.
	a := follow(t, r, "acme/app:stable")
	view := look(t, a)
	r.Do("DELETE", "/v2/acme/app/manifests/"+string(view.Mark), "", nil)
	_, err := a.Look(context.Background())
	sourcetest.WantCode(t, err, fault.SourceMissing, true)
	if got := read(t, a, "SHA256SUMS"); got != "hello" {
		t.Errorf("read %q", got)
	}
	// So does a layer that is gone, but it can be read no more.
	r.Do("DELETE", "/v2/acme/app/blobs/"+registry.Digest([]byte("hello")), "", nil)
	_, _, err = a.Read(context.Background(), "SHA256SUMS", 10, "")
	sourcetest.WantCode(t, err, fault.SourceChanged, true)
	_, err = a.Open(context.Background(), "SHA256SUMS", source.Position{})
	sourcetest.WantCode(t, err, fault.SourceChanged, true)
}

// TestLiars is a table of registries that do not keep their word.
func TestLiars(t *testing.T) {
	layer := func(title, content string) string {
		return fmt.Sprintf(`{"mediaType": "x", "digest": "%s", "size": %d, "annotations": {"org.opencontainers.image.title": "%s"}}`,
			registry.Digest([]byte(content)), len(content), title)
	}
	manifest := func(layers ...string) string {
		return `{"schemaVersion": 2, "mediaType": "` + typeManifest + `", "layers": [` + strings.Join(layers, ", ") + `]}`
	}
	index := func(raw string) string {
		return fmt.Sprintf(`{"mediaType": "%s", "manifests": [{"mediaType": "%s", "digest": "%s", "size": %d, "platform": {"os": "linux", "architecture": "%s"}}]}`,
			typeIndex, typeManifest, registry.Digest([]byte(raw)), len(raw), here().Architecture)
	}
	good := manifest(layer("SHA256SUMS", "hello"))
	for _, c := range []struct {
		name     string
		kind     string
		manifest string
		header   string // Docker-Content-Digest
		child    string // what any digest leads to
		blob     string
		code     fault.Code // "" where hello must be read
		says     string
	}{
		{name: "honest", manifest: good, blob: "hello"},
		{name: "of one type for all", kind: "application/json", manifest: good, blob: "hello"},
		{name: "with a character set", kind: typeManifest + "; charset=utf-8", manifest: good, blob: "hello"},
		{name: "Docker's manifest", kind: typeDockerManifest, manifest: strings.Replace(good, typeManifest, typeDockerManifest, 1), blob: "hello"},
		{name: "index", kind: typeIndex, manifest: index(good), child: good, blob: "hello"},
		{name: "another digest than it says", manifest: good, header: registry.Digest([]byte("x")), code: fault.ArtifactDigest, says: "manifest: got sha256:"},
		{name: "a digest that is none", manifest: good, header: "x", blob: "hello"},
		{name: "another child", kind: typeIndex, manifest: index(good), child: good + " ", code: fault.ArtifactDigest, says: "manifest: got"},
		{name: "an index of an index", kind: typeIndex, manifest: index(index(good)), child: index(good), code: fault.MetaSyntax, says: "another index"},
		{name: "an index for others", kind: typeIndex, manifest: strings.Replace(index(good), "linux", "plan9", 1), code: fault.SourceMissing, says: "but for plan9/"},
		{name: "an index for nobody", kind: typeIndex, manifest: `{"manifests": []}`, code: fault.SourceMissing, says: "no manifest for linux/"},
		{name: "an index of control characters", kind: typeIndex, manifest: strings.Replace(index(good), "linux", `\u001b[31m`, 1), code: fault.SourceMissing, says: "no manifest for linux/"},
		{name: "an index that names no digest", kind: typeIndex, manifest: strings.Replace(index(good), "sha256:", "sha256:../", 1), code: fault.MetaSyntax, says: "no sha256 digest"},
		{name: "an index and a manifest", manifest: strings.Replace(good, `"layers"`, `"manifests": [{}], "layers"`, 1), code: fault.MetaSyntax, says: "is an index, too"},
		{name: "two types", kind: typeIndex, manifest: good, code: fault.MetaSyntax, says: "the registry that it is"},
		{name: "no type", kind: "text/html", manifest: "{}", code: fault.MetaSyntax, says: "no type of a manifest"},
		{name: "old type", kind: "application/vnd.docker.distribution.manifest.v1+json", manifest: `{"schemaVersion": 1}`, code: fault.MetaSyntax, says: "no type of a manifest"},
		{name: "no JSON", manifest: canary, code: fault.MetaSyntax, says: "no JSON"},
		{name: "a page for people", kind: "text/html", manifest: "<html>" + canary, code: fault.MetaSyntax, says: "no JSON"},
		{name: "nothing", manifest: "", code: fault.MetaSyntax, says: "no JSON"},
		{name: "too large", manifest: strings.Repeat(" ", manifestMax+1), code: fault.MetaTooLarge, says: "more than the 4194304 bytes"},
		{name: "too many layers", manifest: manifest(strings.Repeat("{}, ", layersMax) + "{}"), code: fault.MetaTooLarge, says: "layers"},
		{name: "two layers of a title", manifest: manifest(layer("SHA256SUMS", "hello"), layer("SHA256SUMS", "x")), code: fault.MetaSyntax, says: "two layers"},
		{name: "a digest of another kind", manifest: strings.Replace(good, "sha256:", "sha512:", 1), code: fault.MetaSyntax, says: "no sha256 digest"},
		{name: "a digest that leads elsewhere", manifest: strings.Replace(good, "sha256:", "sha256:../../", 1), code: fault.MetaSyntax, says: "no sha256 digest"},
		{name: "a size below zero", manifest: strings.Replace(good, `"size": 5`, `"size": -5`, 1), code: fault.MetaSyntax, says: "bytes"},
		{name: "a size that is no number", manifest: strings.Replace(good, `"size": 5`, `"size": 1e99`, 1), code: fault.MetaSyntax, says: "no JSON"},
		{name: "a larger layer than is read", manifest: strings.Replace(good, `"size": 5`, `"size": 500`, 1), code: fault.MetaTooLarge, says: "500 bytes"},
		{name: "titles that lead elsewhere", manifest: manifest(layer("../SHA256SUMS", "x"), layer("", "x"), layer("SHA256SUMS", "hello"), `{"mediaType": "x"}`), blob: "hello"},
		{name: "another layer", manifest: good, blob: "hallo", code: fault.ArtifactDigest, says: "SHA256SUMS: got SHA-256"},
		{name: "a longer layer", manifest: good, blob: "hello and more", code: fault.ArtifactDigest, says: "14 bytes"},
		{name: "a shorter layer", manifest: good, blob: "hell", code: fault.ArtifactDigest, says: "4 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.Contains(r.URL.Path, "/blobs/"):
					io.WriteString(w, c.blob)
				case strings.Contains(r.URL.Path, "/manifests/sha256:"):
					w.Header().Set("Content-Type", typeManifest)
					if strings.Contains(c.child, typeIndex) {
						w.Header().Set("Content-Type", typeIndex)
					}
					io.WriteString(w, c.child)
				default:
					w.Header().Set("Content-Type", cmp.Or(c.kind, typeManifest))
					if c.header != "" {
						w.Header().Set("Docker-Content-Digest", c.header)
					}
					io.WriteString(w, c.manifest)
				}
			}))
			defer server.Close()
			a := open(t, "oci://registry.example.com/app:stable", Options{Endpoint: server.URL})
			raw, _, err := a.Read(context.Background(), "SHA256SUMS", 100, "")
			if c.code == "" {
				if err != nil || string(raw) != "hello" {
					t.Errorf("read %q, %v", raw, err)
				}
				return
			}
			sourcetest.WantCode(t, err, c.code, c.code != fault.MetaTooLarge)
			if !strings.Contains(err.Error(), c.says) || raw != nil {
				t.Errorf("%q, %v; want it to say %q", raw, err, c.says)
			}
		})
	}
}

// TestStream has a registry send layers of other sizes than their manifest says.
func TestStream(t *testing.T) {
	r := registry.Start(t, "")
	r.Artifact("app", "stable", map[string][]byte{"app_1": []byte("hello")}, nil)
	a := follow(t, r, "app:stable")
	look(t, a)
	l := a.found.layers["app_1"]
	l.Size = 6
	a.found.layers["app_1"] = l
	before := sourcetest.OpenFiles(t)
	_, err := a.Open(context.Background(), "app_1", source.Position{})
	sourcetest.WantCode(t, err, fault.Size, true)
	sourcetest.Settled(t, before)
}

// TestNoHead has a registry that does not say where a tag leads: it is asked for
// the manifest each time.
func TestNoHead(t *testing.T) {
	content := `{"mediaType": "` + typeManifest + `", "layers": []}`
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method)
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		io.WriteString(w, content)
	}))
	defer server.Close()
	a := open(t, "oci://registry.example.com/app:stable", Options{Endpoint: server.URL})
	first := look(t, a)
	if second := look(t, a); second != first {
		t.Errorf("%v, then %v", first, second)
	}
	content += " "
	if third := look(t, a); third == first || fmt.Sprint(asked) != "[GET HEAD GET HEAD GET]" {
		t.Errorf("%v, then %v; asked %v", first, third, asked)
	}
}

// FuzzParse: whatever a manifest holds, it is refused or has layers that can be
// asked for, and no error shows it.
func FuzzParse(f *testing.F) {
	f.Add(`{"mediaType": "`+typeManifest+`", "layers": [{"digest": "sha256:`+strings.Repeat("0", 64)+`", "size": 5, "annotations": {"`+titleKey+`": "a"}}]}`, "")
	f.Add(`{"manifests": [{"digest": "x", "platform": {"os": "linux", "architecture": "amd64"}}]}`, typeIndex)
	f.Add(canary, typeManifest)
	f.Fuzz(func(t *testing.T, raw, kind string) {
		doc, index, err := parse([]byte(raw), kind)
		if err != nil {
			return
		}
		if index {
			if d, err := (Platform{"linux", "amd64", ""}).choose(doc.Manifests); err == nil && !isDigest(d.Digest) {
				t.Errorf("chose %q", d.Digest)
			}
			return
		}
		layers, err := titled(doc.Layers)
		for title, l := range layers {
			if err != nil || source.CheckName(title) != nil || !isDigest(l.Digest) || l.Size < 0 {
				t.Errorf("layer %q, %v, %v", title, l, err)
			}
		}
	})
}
