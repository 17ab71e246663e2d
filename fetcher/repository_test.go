package fetcher

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// repository is a TUF repository that a publisher keeps with go-tuf's own tools.
type repository struct {
	t         testing.TB
	dir       string
	keys      map[string][]ed25519.PrivateKey // by role, those that sign
	root      *metadata.Metadata[metadata.RootType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	targets   map[string]*metadata.Metadata[metadata.TargetsType] // "targets", and delegated ones
}

// newRepository has two of three keys sign the root, and one each other role.
func newRepository(t testing.TB) *repository {
	t.Helper()
	soon, late := time.Now().Add(24*time.Hour), time.Now().Add(300*24*time.Hour)
	r := &repository{
		t: t, dir: t.TempDir(), keys: map[string][]ed25519.PrivateKey{},
		root: metadata.Root(late), timestamp: metadata.Timestamp(soon), snapshot: metadata.Snapshot(late),
		targets: map[string]*metadata.Metadata[metadata.TargetsType]{"targets": metadata.Targets(late)},
	}
	for _, dir := range []string{"metadata", "targets"} {
		if err := os.Mkdir(filepath.Join(r.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		r.addKey("root")
	}
	r.root.Signed.Roles["root"].Threshold = 2
	for _, role := range []string{"timestamp", "snapshot", "targets"} {
		r.addKey(role)
	}
	r.signRoot(r.keys["root"]...)
	r.timestamp.Signed.Version, r.snapshot.Signed.Version, r.targets["targets"].Signed.Version = 0, 0, 0
	return r
}

func (r *repository) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func newRoleKey(t testing.TB) (ed25519.PrivateKey, *metadata.Key) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := metadata.KeyFromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return private, key
}

// addKey has one more key count for a role at the top.
func (r *repository) addKey(role string) {
	r.t.Helper()
	private, key := newRoleKey(r.t)
	r.ok(r.root.Signed.AddKey(key, role))
	r.keys[role] = append(r.keys[role], private)
}

// changeKeys gives a role at the top another key, and publishes the root that
// says so.
func (r *repository) changeKeys(roles ...string) {
	r.t.Helper()
	for _, role := range roles {
		for _, id := range append([]string{}, r.root.Signed.Roles[role].KeyIDs...) {
			r.ok(r.root.Signed.RevokeKey(id, role))
		}
		r.keys[role] = nil
		r.addKey(role)
	}
	r.root.Signed.Version++
	r.signRoot(r.keys["root"]...)
}

// delegate has a role of its own list what paths cover.
func (r *repository) delegate(parent, role string, terminating bool, paths ...string) {
	r.t.Helper()
	private, key := newRoleKey(r.t)
	id, err := key.ID()
	r.ok(err)
	signed := &r.targets[parent].Signed
	if signed.Delegations == nil {
		signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	}
	signed.Delegations.Keys[id] = key
	signed.Delegations.Roles = append(signed.Delegations.Roles, metadata.DelegatedRole{Name: role, KeyIDs: []string{id}, Threshold: 1, Terminating: terminating, Paths: paths})
	r.keys[role] = []ed25519.PrivateKey{private}
	r.targets[role] = metadata.Targets(time.Now().Add(300 * 24 * time.Hour))
	r.targets[role].Signed.Version = 0
}

// list has a role list a file, and puts it beside the others.
func (r *repository) list(role, path string, content []byte) {
	r.t.Helper()
	target, err := metadata.TargetFile().FromBytes(path, content, "sha256")
	r.ok(err)
	r.targets[role].Signed.Targets[path] = target
	dir, name := filepath.Split(path)
	r.put(filepath.Join("targets", dir, fmt.Sprintf("%x.%s", sha256.Sum256(content), name)), content)
}

// publish makes and signs the next version of all roles but the root.
func (r *repository) publish() {
	r.t.Helper()
	for _, role := range r.targets {
		role.Signed.Version++
	}
	r.signTargets()
	r.signSnapshot()
	r.signTimestamp()
}

// release publishes a program, as the role at the top.
func (r *repository) release(version string) {
	r.t.Helper()
	r.list("targets", "app_"+version+".bin", []byte("program "+version))
	r.publish()
}

func (r *repository) signRoot(keys ...ed25519.PrivateKey) {
	r.t.Helper()
	signRole(r, r.root, keys...)
	r.write(fmt.Sprintf("%d.root.json", r.root.Signed.Version), r.root)
}

func (r *repository) signTargets() {
	r.t.Helper()
	for name, role := range r.targets {
		signRole(r, role, r.keys[name]...)
		r.write(fmt.Sprintf("%d.%s.json", role.Signed.Version, name), role)
	}
}

// signSnapshot names the roles as they are.
func (r *repository) signSnapshot() {
	r.t.Helper()
	r.snapshot.Signed.Version++
	r.snapshot.Signed.Meta = map[string]*metadata.MetaFiles{}
	for name, role := range r.targets {
		r.snapshot.Signed.Meta[name+".json"] = metadata.MetaFile(role.Signed.Version)
	}
	signRole(r, r.snapshot, r.keys["snapshot"]...)
	r.write(fmt.Sprintf("%d.snapshot.json", r.snapshot.Signed.Version), r.snapshot)
}

// signTimestamp names the snapshot as it is.
func (r *repository) signTimestamp() {
	r.t.Helper()
	r.timestamp.Signed.Version++
	r.timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(r.snapshot.Signed.Version)
	r.putTimestamp()
}

func (r *repository) putTimestamp() {
	r.t.Helper()
	signRole(r, r.timestamp, r.keys["timestamp"]...)
	r.write("timestamp.json", r.timestamp)
}

func signRole[T metadata.Roles](r *repository, m *metadata.Metadata[T], keys ...ed25519.PrivateKey) {
	r.t.Helper()
	m.ClearSignatures()
	for _, key := range keys {
		signer, err := signature.LoadSigner(key, crypto.Hash(0))
		r.ok(err)
		_, err = m.Sign(signer)
		r.ok(err)
	}
}

func (r *repository) write(name string, m interface{ ToBytes(bool) ([]byte, error) }) {
	r.t.Helper()
	raw, err := m.ToBytes(true)
	r.ok(err)
	r.put("metadata/"+name, raw)
}

func (r *repository) put(name string, content []byte) {
	r.t.Helper()
	at := filepath.Join(r.dir, name)
	r.ok(os.MkdirAll(filepath.Dir(at), 0o755))
	r.ok(os.WriteFile(at+".new", content, 0o644))
	r.ok(os.Rename(at+".new", at))
}

func (r *repository) get(name string) []byte {
	r.t.Helper()
	raw, err := os.ReadFile(filepath.Join(r.dir, name))
	r.ok(err)
	return raw
}

// copy keeps the repository as it is now, as an attacker or a stale mirror does.
func (r *repository) copy() *repository {
	r.t.Helper()
	old := *r
	old.dir = r.t.TempDir()
	r.ok(os.RemoveAll(old.dir))
	r.ok(os.CopyFS(old.dir, os.DirFS(r.dir)))
	return &old
}

// become shows what another repository has, and it alone.
func (r *repository) become(other *repository) {
	r.t.Helper()
	r.ok(os.RemoveAll(r.dir))
	r.ok(os.CopyFS(r.dir, os.DirFS(other.dir)))
}

// options follow the repository from its first root on.
func (r *repository) options() Options {
	r.t.Helper()
	state := r.t.TempDir()
	root := filepath.Join(state, "root.json")
	r.ok(os.WriteFile(root, r.get("metadata/1.root.json"), 0o644))
	return Options{
		Target: "app", Path: r.dir, Patterns: []string{"app_@v.bin"}, Verify: VerifyTUF, Root: root,
		StateDir: filepath.Join(state, "tuf"),
	}
}

// trusted reads what a host keeps.
func trusted(t *testing.T, o Options) map[string]string {
	t.Helper()
	got := map[string]string{}
	base := filepath.Join(o.StateDir, "trusted")
	for _, glob := range []string{"*.json", "SHA256SUMS", "*/*.json"} {
		matches, err := filepath.Glob(filepath.Join(base, glob))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range matches {
			raw, err := os.ReadFile(m)
			if err != nil {
				t.Fatal(err)
			}
			got[m[len(base)+1:]] = string(raw)
		}
	}
	if len(got) == 0 {
		t.Fatal("nothing is kept")
	}
	return got
}
