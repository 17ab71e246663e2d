// Package publish makes what a publisher of releases puts online: artifacts, a
// SHA256SUMS that lists them, and a minisign signature over its bytes. It can
// lie, too, in the ways that a daemon has to see through.
package publish

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"aead.dev/minisign"
)

// Names of what stands beside the artifacts.
const (
	ManifestName  = "SHA256SUMS"
	SignatureName = "SHA256SUMS.minisig"
)

// Publisher has a key and a list of artifacts. It is not for concurrent use.
type Publisher struct {
	// Key is the public key, as Key= takes it.
	Key string

	secret  minisign.PrivateKey
	digests map[string][sha256.Size]byte
}

// New makes a publisher with a fresh key and no artifacts.
func New() (*Publisher, error) {
	p := &Publisher{digests: make(map[string][sha256.Size]byte)}
	return p, p.NewKey()
}

// NewKey has the publisher sign with a fresh key from now on.
func (p *Publisher) NewKey() error {
	public, secret, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	p.Key, p.secret = public.String(), secret
	return nil
}

// Add lists an artifact; an older one of that name is forgotten.
func (p *Publisher) Add(name string, artifact []byte) { p.digests[name] = sha256.Sum256(artifact) }

// Remove takes an artifact off the list.
func (p *Publisher) Remove(name string) { delete(p.digests, name) }

// Manifest is SHA256SUMS as sha256sum(1) writes it.
func (p *Publisher) Manifest() []byte {
	var text bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(p.digests)) {
		fmt.Fprintf(&text, "%x *%s\n", p.digests[name], name)
	}
	return text.Bytes()
}

// Sign signs these bytes with the publisher's key.
func (p *Publisher) Sign(manifest []byte) []byte { return minisign.Sign(p.secret, manifest) }
