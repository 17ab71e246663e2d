package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

const (
	// manifestMax is what the distribution specification has registries take
	// at least, and few take more.
	manifestMax = 4 << 20
	layersMax   = 4096
	versionMax  = 128
)

const (
	typeManifest       = "application/vnd.oci.image.manifest.v1+json"
	typeIndex          = "application/vnd.oci.image.index.v1+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"

	accepted = typeManifest + ", " + typeIndex + ", " + typeDockerManifest + ", " + typeDockerList

	titleKey   = "org.opencontainers.image.title"
	versionKey = "org.opencontainers.image.version"
)

// descriptor names bytes by their digest. See the OCI image specification,
// descriptor.md; what is of no use here is left out.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
	Platform    *Platform         `json:"platform"`
}

// sum is the digest of a descriptor that has been checked.
func (d descriptor) sum() (sum [32]byte) {
	raw, err := hex.DecodeString(strings.TrimPrefix(d.Digest, digestPrefix))
	if err == nil {
		copy(sum[:], raw)
	}
	return sum
}

func (d descriptor) check() error {
	switch {
	case !isDigest(d.Digest):
		return fmt.Errorf("%.80q is no sha256 digest", d.Digest)
	case d.Size < 0:
		return fmt.Errorf("%s has %d bytes", d.Digest, d.Size)
	}
	return nil
}

const digestPrefix = "sha256:"

func isDigest(s string) bool {
	digits, ok := strings.CutPrefix(s, digestPrefix)
	return ok && len(digits) == 64 && strings.Trim(digits, "0123456789abcdef") == ""
}

func digestOf(raw []byte) string { return fmt.Sprintf("%s%x", digestPrefix, sha256.Sum256(raw)) }

// manifest is an artifact as a look found it.
type manifest struct {
	digest  string                // of what the reference leads to, perhaps an index
	version string                // by the publisher's annotation
	layers  map[string]descriptor // by title
}

// document is a manifest or an index as it is written.
type document struct {
	MediaType   string            `json:"mediaType"`
	Manifests   []descriptor      `json:"manifests"`
	Layers      []descriptor      `json:"layers"`
	Annotations map[string]string `json:"annotations"`
}

// look finds what the reference leads to now; old is what it led to before, nil
// if that is not known.
func (a *Artifact) look(ctx context.Context, old *manifest) (*manifest, error) {
	if old != nil {
		if now, err := a.resolve(ctx); err != nil || now == old.digest {
			return old, err
		}
	}
	raw, kind, err := a.manifest(ctx, a.reference)
	if err != nil {
		return nil, err
	}
	m := &manifest{digest: digestOf(raw)}
	doc, index, err := parse(raw, kind)
	if err != nil {
		return nil, err
	}
	m.version = version(doc)
	if index {
		d, err := a.platform.choose(doc.Manifests)
		if err != nil {
			return nil, err
		}
		if raw, kind, err = a.manifest(ctx, d.Digest); err != nil {
			return nil, err
		}
		if err := d.holds("manifest", raw); err != nil {
			return nil, err
		}
		if doc, index, err = parse(raw, kind); err != nil {
			return nil, err
		}
		if index {
			return nil, notAnArtifact(errors.New("the index leads to another index"))
		}
		if v := version(doc); v != "" {
			m.version = v
		}
	}
	m.layers, err = titled(doc.Layers)
	return m, err
}

// version is what the publisher calls the release. It is text of somebody's.
func version(doc document) string {
	v := doc.Annotations[versionKey]
	if len(v) > versionMax || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return v
}

// titled gives the layers that are files.
func titled(layers []descriptor) (map[string]descriptor, error) {
	if len(layers) > layersMax {
		return nil, fault.New(fault.MetaTooLarge, fmt.Errorf("the manifest has %d layers, at most %d are read", len(layers), layersMax), "remove old releases from the artifact")
	}
	files := map[string]descriptor{}
	for _, l := range layers {
		title, ok := l.Annotations[titleKey]
		if !ok || source.CheckName(title) != nil {
			continue // a layer of an image, or a file that was pushed with its directory
		}
		if err := l.check(); err != nil {
			return nil, notAnArtifact(fmt.Errorf("layer %.80q: %w", title, err))
		}
		if _, twice := files[title]; twice {
			return nil, notAnArtifact(fmt.Errorf("two layers have the title %.80q", title))
		}
		l.Annotations, l.Platform = nil, nil
		files[title] = l
	}
	return files, nil
}

func notAnArtifact(err error) error {
	return fault.Passing(fault.MetaSyntax, err, "push the artifact anew, as docs/sources.md has it")
}

// parse reads a manifest or an index. What is neither by its type is not read by
// its looks: the two can be made to look like each other.
func parse(raw []byte, kind string) (doc document, index bool, err error) {
	// Its error would show what was read.
	if json.Unmarshal(raw, &doc) != nil {
		return doc, false, notAnArtifact(errors.New("the manifest is no JSON that can be read"))
	}
	if doc.MediaType != "" && kind != "" && doc.MediaType != kind {
		return doc, false, notAnArtifact(fmt.Errorf("the manifest says that it is %.80q, and the registry that it is %.80q", doc.MediaType, kind))
	}
	if kind == "" {
		kind = doc.MediaType
	}
	index = kind == typeIndex || kind == typeDockerList
	switch {
	case !index && kind != typeManifest && kind != typeDockerManifest:
		return doc, false, notAnArtifact(fmt.Errorf("%.80q is no type of a manifest that is read", kind))
	case index && len(doc.Layers) > 0, !index && len(doc.Manifests) > 0:
		return doc, false, notAnArtifact(errors.New("the manifest is an index, too"))
	}
	return doc, index, nil
}

// resolve asks where the reference leads, "" where the registry does not say.
func (a *Artifact) resolve(ctx context.Context) (digest string, err error) {
	if isDigest(a.reference) {
		return a.reference, nil
	}
	err = a.ask(ctx, a.base.JoinPath("manifests", a.reference), a.reference, accepted, func(r client.Request) error {
		r.Method = http.MethodHead
		answer, err := a.client.Do(ctx, r)
		if err != nil {
			return err
		}
		defer answer.Close()
		if answer.Response.StatusCode != http.StatusOK {
			return answer.Status()
		}
		digest = answer.Response.Header.Get("Docker-Content-Digest")
		return nil
	})
	if fault.CodeOf(err) == fault.Status { // the request is not known there
		return "", nil
	}
	return digest, a.missing(err)
}

// manifest gets a manifest or an index, with its type.
func (a *Artifact) manifest(ctx context.Context, reference string) (raw []byte, kind string, err error) {
	var said string
	err = a.ask(ctx, a.base.JoinPath("manifests", reference), reference, accepted, func(r client.Request) (err error) {
		r.Mark = func(h http.Header) source.Mark {
			said = h.Get("Docker-Content-Digest")
			kind, _, _ = strings.Cut(h.Get("Content-Type"), ";")
			return ""
		}
		raw, _, err = a.client.Read(ctx, r, manifestMax, "")
		return err
	})
	if err != nil {
		return nil, "", a.missing(err)
	}
	for _, want := range []string{said, reference} {
		if got := digestOf(raw); isDigest(want) && got != want {
			return nil, "", fault.Passing(fault.ArtifactDigest, fmt.Errorf("manifest: got %s, want %s", got, want), "check the registry, and any proxy before it")
		}
	}
	if !slices.Contains(strings.Split(accepted, ", "), kind) {
		kind = "" // some say application/json of all; the manifest knows
	}
	return raw, kind, nil
}

// missing tells an artifact that is not there from a file that is not in it.
func (a *Artifact) missing(err error) error {
	if fault.CodeOf(err) != fault.NotFound {
		return err
	}
	f := *fault.Bare(err, fault.Local)
	f.Code, f.Hint = fault.SourceMissing, "push the artifact, or correct Path="
	return &f
}
