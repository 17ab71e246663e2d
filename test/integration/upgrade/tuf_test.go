//go:build integration

package upgrade

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// TestTUF follows a repository of The Update Framework: an upgrade, then a mirror
// that shows the timestamp of the day before, also to a daemon that starts anew,
// and a publisher who changes keys.
func TestTUF(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source := m.DirSource(dir)
		m.Run("mkdir", "-p", dir+"/metadata", dir+"/targets")
		r := newTUF(t, source)
		m.Write("/etc/upgraderd/root.json", string(r.last["metadata/1.root.json"]))
		m.Write("/etc/upgraderd/hello.upgrade.d/tuf.conf", "[Source]\nKey=\nVerify=tuf\nRoot=/etc/upgraderd/root.json\n")
		follow(t, m, source, dir, "")

		r.release("1.0.0")
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		pid := m.Property(unit, "MainPID")
		t.Log(m.Run("upgraderd", "verify"))
		confirmed := func(version string) {
			t.Helper()
			m.Served(clients, version, 100)
			confirmed(t, m, version)
		}

		old := r.last["metadata/timestamp.json"]
		r.release("2.0.0")
		confirmed("2.0.0")
		source.Put("metadata/timestamp.json", old)
		refused := func() {
			t.Helper()
			m.Eventually("the old timestamp is refused", func() bool {
				return strings.Contains(fmt.Sprint(target(t, m)), "TUF_ROLLBACK")
			})
			if got := current(m); !strings.HasPrefix(got, "2.0.0-") {
				t.Errorf("current is %s", got)
			}
		}
		refused()
		m.Run("systemctl", "restart", "upgraderd.service")
		refused()

		r.changeTimestampKey()
		r.release("3.0.0")
		confirmed("3.0.0")
		m.NothingLost(clients)
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
		if got := strings.TrimSpace(m.Run("stat", "-c", "%U %a", "/var/lib/upgraderd/hello/tuf")); got != "upgraderd 700" {
			t.Errorf("the trusted metadata is in a directory of %s", got)
		}
		if journal := m.Journal("upgraderd.service"); !strings.Contains(journal, "root 2, timestamp 3, snapshot 3, targets 3") {
			t.Errorf("the journal does not say which roles were verified:\n%s", journal)
		}
	})
}

// tuf is a repository, kept with go-tuf's own tools; one key signs all but the
// timestamp.
type tuf struct {
	t          *testing.T
	source     *kit.Source
	key, clock signature.Signer // clock is the timestamp's
	root       *metadata.Metadata[metadata.RootType]
	targets    *metadata.Metadata[metadata.TargetsType]
	version    int64
	last       map[string][]byte
}

func newTUF(t *testing.T, source *kit.Source) *tuf {
	t.Helper()
	r := &tuf{t: t, source: source, root: metadata.Root(tomorrow()), targets: metadata.Targets(tomorrow()), last: map[string][]byte{}}
	r.root.Signed.ConsistentSnapshot = true
	r.key = r.addKey("root", "snapshot", "targets")
	r.clock = r.addKey("timestamp")
	publishTUF(r, "1.root.json", r.root, r.key)
	return r
}

func tomorrow() time.Time { return time.Now().Add(24 * time.Hour) }

func (r *tuf) addKey(roles ...string) signature.Signer {
	r.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	key, err := metadata.KeyFromPublicKey(public)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, role := range roles {
		if err := r.root.Signed.AddKey(key, role); err != nil {
			r.t.Fatal(err)
		}
	}
	signer, err := signature.LoadSigner(private, crypto.Hash(0))
	if err != nil {
		r.t.Fatal(err)
	}
	return signer
}

func (r *tuf) changeTimestampKey() {
	r.t.Helper()
	if err := r.root.Signed.RevokeKey(r.root.Signed.Roles["timestamp"].KeyIDs[0], "timestamp"); err != nil {
		r.t.Fatal(err)
	}
	r.clock = r.addKey("timestamp")
	r.root.Signed.Version++
	publishTUF(r, fmt.Sprintf("%d.root.json", r.root.Signed.Version), r.root, r.key)
}

// release puts a program beside the others; the timestamp, which makes it count,
// comes last.
func (r *tuf) release(version string) {
	r.t.Helper()
	program, err := os.ReadFile(kit.Hello(r.t, version, ""))
	if err != nil {
		r.t.Fatal(err)
	}
	name := "hello-" + version
	r.source.Put(fmt.Sprintf("targets/%x.%s", sha256.Sum256(program), name), program)
	target, err := metadata.TargetFile().FromBytes(name, program, "sha256")
	if err != nil {
		r.t.Fatal(err)
	}
	r.targets.Signed.Targets[name] = target
	r.version++
	snapshot, timestamp := metadata.Snapshot(tomorrow()), metadata.Timestamp(tomorrow())
	r.targets.Signed.Version, snapshot.Signed.Version, timestamp.Signed.Version = r.version, r.version, r.version
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(r.version)
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(r.version)
	publishTUF(r, fmt.Sprintf("%d.targets.json", r.version), r.targets, r.key)
	publishTUF(r, fmt.Sprintf("%d.snapshot.json", r.version), snapshot, r.key)
	publishTUF(r, "timestamp.json", timestamp, r.clock)
}

func publishTUF[T metadata.Roles](r *tuf, name string, m *metadata.Metadata[T], key signature.Signer) {
	r.t.Helper()
	m.ClearSignatures()
	if _, err := m.Sign(key); err != nil {
		r.t.Fatal(err)
	}
	raw, err := m.ToBytes(true)
	if err != nil {
		r.t.Fatal(err)
	}
	r.last["metadata/"+name] = raw
	r.source.Put("metadata/"+name, raw)
}
