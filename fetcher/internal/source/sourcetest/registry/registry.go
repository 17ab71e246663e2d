// Package registry runs Debian's docker-registry for the tests of one process,
// and pushes artifacts to it with plain requests.
package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// Registry is a running server.
type Registry struct {
	t testing.TB
	// Address is where it listens.
	Address string
	// Authorize adds what a request needs to be let in. Nil: nothing.
	Authorize func(r *http.Request)
}

// Start runs a registry until the test ends. auth is the section of its
// configuration that says who is let in, "" for everybody.
func Start(t testing.TB, auth string) *Registry {
	t.Helper()
	program := sourcetest.Program(t, "docker-registry")
	dir := t.TempDir()
	r := &Registry{t: t}
	r.Address = sourcetest.Serve(t, func(address string) *exec.Cmd {
		config := filepath.Join(dir, "config.yml")
		text := fmt.Sprintf("version: 0.1\nlog:\n  level: warn\nstorage:\n  inmemory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: %s\n%s", address, auth)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "serve", config)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"}
		return cmd
	})
	return r
}

// Descriptor names what was pushed.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    map[string]string `json:"platform,omitempty"`
}

// Types of what is pushed.
const (
	TypeManifest = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex    = "application/vnd.oci.image.index.v1+json"
	typeEmpty    = "application/vnd.oci.empty.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// Digest is how a registry names content.
func Digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

// Blob pushes content, in one piece.
func (r *Registry) Blob(repository string, content []byte) Descriptor {
	r.t.Helper()
	location := r.Do(http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil).Get("Location")
	u, err := url.Parse(location)
	if err != nil {
		r.t.Fatal(err)
	}
	query := u.Query()
	query.Set("digest", Digest(content))
	u.RawQuery = query.Encode()
	r.Do(http.MethodPut, u.RequestURI(), "application/octet-stream", content)
	return Descriptor{MediaType: typeLayer, Digest: Digest(content), Size: len(content)}
}

// Manifest pushes a manifest or an index under a tag.
func (r *Registry) Manifest(repository, tag, kind string, content []byte) Descriptor {
	r.t.Helper()
	r.Do(http.MethodPut, "/v2/"+repository+"/manifests/"+tag, kind, content)
	return Descriptor{MediaType: kind, Digest: Digest(content), Size: len(content)}
}

// Artifact pushes files as oras push does, and has the tag name them.
func (r *Registry) Artifact(repository, tag string, files map[string][]byte, annotations map[string]string) Descriptor {
	r.t.Helper()
	config := r.Blob(repository, []byte("{}"))
	config.MediaType = typeEmpty
	layers := []Descriptor{}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		layer := r.Blob(repository, files[name])
		layer.Annotations = map[string]string{"org.opencontainers.image.title": name}
		layers = append(layers, layer)
	}
	return r.Manifest(repository, tag, TypeManifest, r.JSON(map[string]any{
		"schemaVersion": 2, "mediaType": TypeManifest, "artifactType": "application/vnd.example.release",
		"config": config, "layers": layers, "annotations": annotations,
	}))
}

// Index pushes an index of manifests that are there.
func (r *Registry) Index(repository, tag string, manifests ...Descriptor) Descriptor {
	r.t.Helper()
	return r.Manifest(repository, tag, TypeIndex, r.JSON(map[string]any{"schemaVersion": 2, "mediaType": TypeIndex, "manifests": manifests}))
}

// JSON writes a document.
func (r *Registry) JSON(v any) []byte {
	r.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		r.t.Fatal(err)
	}
	return raw
}

// Do sends a request and gives the header of the answer.
func (r *Registry) Do(method, path, kind string, body []byte) http.Header {
	r.t.Helper()
	request, err := http.NewRequest(method, "http://"+r.Address+path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	if r.Authorize != nil {
		r.Authorize(request)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		r.t.Fatalf("%s %s: %s: %s, %v", method, path, resp.Status, answer, err)
	}
	return resp.Header
}
