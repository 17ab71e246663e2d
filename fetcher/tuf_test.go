package fetcher

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/local"
	"github.com/upgraderd/upgraderd/fetcher/internal/tuf"
)

// follower is a host that follows a repository, with a clock that can be moved.
func follower(t *testing.T, o Options) (*Fetcher, *time.Duration) {
	t.Helper()
	f := mustNew(t, o)
	var ahead time.Duration
	f.now = func() time.Time { return time.Now().Add(ahead) }
	return f, &ahead
}

func offered(t *testing.T, f *Fetcher) []string {
	t.Helper()
	var names []string
	for _, c := range mustCheck(t, f).Candidates {
		names = append(names, c.Name)
	}
	return names
}

func wantRefused(t *testing.T, f *Fetcher, code fault.Code, says string) {
	t.Helper()
	_, err := f.Check(context.Background())
	wantCode(t, err, code)
	if !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %q", err, says)
	}
}

func TestTUF(t *testing.T) {
	leaks(t)
	r := newRepository(t)
	r.list("targets", "README", []byte("not a release"))
	r.release("1.0")
	r.release("1.1")
	server := httptest.NewServer(http.FileServer(http.Dir(r.dir)))
	defer server.Close()
	for name, path := range map[string]string{"directory": r.dir, "http": server.URL} {
		t.Run(name, func(t *testing.T) {
			o := r.options()
			o.Path = path
			f := mustNew(t, o)
			listing := mustCheck(t, f)
			if diff := cmp.Diff([]string{"root 1", "timestamp 2", "snapshot 2", "targets 2"}, listing.Signers); diff != "" {
				t.Error(diff)
			}
			if listing.Files != 3 || listing.Unchanged || len(listing.Candidates) != 2 || !listing.Until.Equal(r.timestamp.Signed.Expires) {
				t.Errorf("got %+v", listing)
			}
			v := mustFetch(t, f, listing.Candidates[0], t.TempDir())
			if got := string(content(t, v)); got != "program 1.1" || v.Candidate().Name != "app_1.1.bin" {
				t.Errorf("%s holds %q", v.Candidate().Name, got)
			}
			before := trusted(t, o)
			again := mustCheck(t, mustNew(t, o)) // a daemon that starts anew
			if diff := cmp.Diff(listing, again); diff != "" {
				t.Error(diff)
			}
			if !mustCheck(t, f).Unchanged {
				t.Error("not seen to be as it was")
			}
			if diff := cmp.Diff(before, trusted(t, o)); diff != "" {
				t.Error(diff)
			}
			if left := names(t, o.StateDir); len(left) != 2 {
				t.Errorf("kept %q, want a set and its link", left)
			}
		})
	}
}

// TestTUFAttacks plays the attacks of the TUF specification, section 1.5.2, on a
// host that has followed the repository before.
func TestTUFAttacks(t *testing.T) {
	for _, c := range []struct {
		name string
		play func(t *testing.T, r *repository, f *Fetcher, ahead *time.Duration)
	}{
		{"arbitrary software: a list that nobody signed", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			stranger, _ := newRoleKey(t)
			r.keys["targets"] = []ed25519.PrivateKey{stranger}
			r.release("6.6")
			wantRefused(t, f, fault.TUFThreshold, "targets")
		}},
		{"arbitrary software: other bytes", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.release("2.0")
			c := newest(t, f)
			r.put(fmt.Sprintf("targets/%x.%s", c.Digest, c.Name), []byte("program 6.6"))
			_, err := f.Fetch(context.Background(), c, t.TempDir(), nil)
			wantCode(t, err, fault.ArtifactDigest)
		}},
		{"rollback of the timestamp", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			old := r.get("metadata/timestamp.json")
			r.release("2.0")
			mustCheck(t, f)
			r.put("metadata/timestamp.json", old)
			wantRefused(t, f, fault.TUFRollback, "must be >= 2")
		}},
		{"rollback of the snapshot, by the timestamp's key", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.release("2.0")
			mustCheck(t, f)
			r.timestamp.Signed.Version++
			r.timestamp.Signed.Meta["snapshot.json"].Version = 1
			r.putTimestamp()
			wantRefused(t, f, fault.TUFRollback, "snapshot version 1")
		}},
		{"rollback of the targets, by the keys of snapshot and timestamp", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.release("2.0")
			mustCheck(t, f)
			r.targets["targets"].Signed.Version = 1
			r.signSnapshot()
			r.signTimestamp()
			wantRefused(t, f, fault.TUFRollback, "targets.json")
		}},
		{"rollback by leaving a role out of the snapshot", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.delegate("targets", "more", false, "*")
			r.release("2.0")
			mustCheck(t, f)
			delete(r.targets, "more")
			r.signSnapshot()
			r.signTimestamp()
			wantRefused(t, f, fault.TUFRollback, "more.json")
		}},
		{"fast-forward, and recovery by other keys", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			good := r.copy()
			timestamp, snapshot := *r.timestamp, *r.snapshot
			const far = 1 << 52
			r.targets["targets"].Signed.Version++
			r.signTargets()
			r.snapshot.Signed.Version = far
			r.signSnapshot()
			r.timestamp.Signed.Version = far
			r.signTimestamp()
			mustCheck(t, f)
			r.become(good)
			wantRefused(t, f, fault.TUFRollback, "must be >=")
			r.timestamp, r.snapshot = &timestamp, &snapshot
			r.timestamp.Signed.Meta = map[string]*metadata.MetaFiles{}
			r.changeKeys("timestamp", "snapshot")
			r.release("2.0")
			if got := offered(t, f); len(got) != 2 || got[0] != "app_2.0.bin" {
				t.Errorf("after the keys were changed: %q", got)
			}
		}},
		{"indefinite freeze", func(t *testing.T, r *repository, f *Fetcher, ahead *time.Duration) {
			*ahead = 23 * time.Hour
			mustCheck(t, f)
			*ahead = 25 * time.Hour
			wantRefused(t, f, fault.TUFExpired, "timestamp.json counted until")
			r.timestamp.Signed.Expires = time.Now().Add(72 * time.Hour)
			r.release("2.0")
			if got := offered(t, f); got[0] != "app_2.0.bin" {
				t.Errorf("after a new timestamp: %q", got)
			}
		}},
		{"freeze of the snapshot", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.snapshot.Signed.Expires = time.Now().Add(-time.Hour)
			r.release("2.0")
			wantRefused(t, f, fault.TUFExpired, "snapshot.json counted until")
		}},
		{"freeze of the targets", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.targets["targets"].Signed.Expires = time.Now().Add(-time.Hour)
			r.release("2.0")
			wantRefused(t, f, fault.TUFExpired, "2.targets.json counted until")
		}},
		{"freeze of the root", func(t *testing.T, r *repository, f *Fetcher, ahead *time.Duration) {
			*ahead = 301 * 24 * time.Hour
			wantRefused(t, f, fault.TUFExpired, "1.root.json counted until")
		}},
		{"endless data: metadata", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.put("metadata/timestamp.json", bytes.Repeat([]byte(" "), 1<<20))
			wantRefused(t, f, fault.TUFTooLarge, "16384")
		}},
		{"endless data: a length that another role promises", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.snapshot.Signed.Version++
			r.timestamp.Signed.Version++
			r.timestamp.Signed.Meta["snapshot.json"] = &metadata.MetaFiles{Version: r.snapshot.Signed.Version, Length: 1 << 50}
			r.putTimestamp()
			wantRefused(t, f, fault.TUFTooLarge, "shall have")
		}},
		{"endless data: the artifact", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			c := newest(t, f)
			r.put(fmt.Sprintf("targets/%x.%s", c.Digest, c.Name), make([]byte, 1<<20))
			_, err := f.Fetch(context.Background(), c, t.TempDir(), nil)
			wantCode(t, err, fault.ArtifactDigest)
			if !strings.Contains(err.Error(), "1048576 bytes, want 11") {
				t.Error(err)
			}
		}},
		{"extraneous dependencies: a role lists what it may not", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.delegate("targets", "fonts", false, "app_fonts*")
			r.list("fonts", "app_6.6.bin", []byte("a program"))
			r.publish()
			listing := mustCheck(t, f)
			if len(listing.Candidates) != 1 || listing.Candidates[0].Name != "app_1.0.bin" || len(listing.Signers) != 5 {
				t.Errorf("got %+v", listing)
			}
		}},
		{"mix-and-match: the snapshot of another day", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.release("2.0")
			r.put("metadata/2.snapshot.json", r.get("metadata/1.snapshot.json"))
			wantRefused(t, f, fault.TUFMixed, "expected 2, got 1")
		}},
		{"mix-and-match: the targets of another day", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.release("2.0")
			r.put("metadata/2.targets.json", r.get("metadata/1.targets.json"))
			wantRefused(t, f, fault.TUFMixed, "targets version 2, got 1")
		}},
		{"mix-and-match: one role in the place of another", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.put("metadata/timestamp.json", r.get("metadata/1.targets.json"))
			wantRefused(t, f, fault.TUFSyntax, "timestamp.json")
		}},
		{"wrong software: another repository", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			other := newRepository(t)
			other.release("2.0")
			other.release("3.0")
			r.become(other)
			wantRefused(t, f, fault.TUFThreshold, "timestamp")
		}},
		{"wrong software: another program of the repository", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.delegate("targets", "staging", true, "staging/*")
			r.list("staging", "staging/app_6.6.bin", []byte("another program"))
			r.list("targets", "tool_6.6.bin", []byte("another program"))
			r.publish()
			if got := offered(t, f); len(got) != 1 || got[0] != "app_1.0.bin" {
				t.Errorf("got %q", got)
			}
		}},
		{"malicious mirror: nothing there", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.release("2.0")
			r.ok(os.Remove(filepath.Join(r.dir, "metadata/2.targets.json")))
			wantRefused(t, f, fault.TUFMissing, "2.targets.json")
		}},
		{"malicious mirror: no artifact", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			c := newest(t, f)
			r.ok(os.RemoveAll(filepath.Join(r.dir, "targets")))
			r.ok(os.Mkdir(filepath.Join(r.dir, "targets"), 0o755))
			_, err := f.Fetch(context.Background(), c, t.TempDir(), nil)
			wantCode(t, err, fault.NotFound)
		}},
		{"malicious mirror: a web page", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.put("metadata/2.root.json", []byte("<html>login</html>"))
			wantRefused(t, f, fault.MetaNotSigned, "2.root.json")
		}},
		{"malicious mirror: not metadata", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.put("metadata/timestamp.json", []byte(`{"signed": {"_type": "timestamp"`))
			wantRefused(t, f, fault.TUFSyntax, "timestamp.json")
		}},
		{"fewer keys than the root's threshold", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.addKey("targets")
			r.root.Signed.Version++
			r.signRoot(r.keys["root"][0])
			wantRefused(t, f, fault.TUFThreshold, "2.root.json")
		}},
		{"a root whose old keys did not sign", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			old := r.keys["root"]
			r.changeKeys("root")
			r.root.Signed.Roles["root"].Threshold = 1
			r.signRoot(r.keys["root"]...)
			wantRefused(t, f, fault.TUFThreshold, "2.root.json")
			r.signRoot(append(old[:2:2], r.keys["root"]...)...)
			mustCheck(t, f)
		}},
		{"one key that signs twice", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.root.Signed.Version++
			r.signRoot(r.keys["root"][0], r.keys["root"][0])
			wantRefused(t, f, fault.TUFSyntax, "2.root.json")
		}},
		{"the keys of timestamp and snapshot list nothing", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.keys["targets"] = r.keys["snapshot"]
			r.release("6.6")
			wantRefused(t, f, fault.TUFThreshold, "2.targets.json")
		}},
		{"a timestamp that names no snapshot", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			r.timestamp.Signed.Version++
			r.timestamp.Signed.Meta = map[string]*metadata.MetaFiles{}
			r.putTimestamp()
			wantRefused(t, f, fault.TUFSyntax, "lacks")
		}},
		{"a role that would replace the timestamp", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			keys := r.keys["timestamp"]
			r.delegate("targets", "timestamp", false, "*")
			r.keys["timestamp"] = keys
			r.publish()
			wantRefused(t, f, fault.TUFSyntax, "role named \"timestamp\"")
		}},
		{"very many roles", func(t *testing.T, r *repository, f *Fetcher, _ *time.Duration) {
			for i := range 40 {
				r.delegate("targets", fmt.Sprint("role", i), false, "app*")
			}
			r.release("2.0")
			wantRefused(t, f, fault.TUFTooLarge, "more than 32 roles")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRepository(t)
			r.release("1.0")
			o := r.options()
			f, ahead := follower(t, o)
			if got := offered(t, f); len(got) != 1 {
				t.Fatal(got)
			}
			c.play(t, r, f, ahead)
		})
	}
}

// TestTUFSlowRetrieval has a server send a byte now and then.
func TestTUFSlowRetrieval(t *testing.T) {
	r := newRepository(t)
	r.release("1.0")
	files := http.FileServer(http.Dir(r.dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/metadata/timestamp.json" {
			files.ServeHTTP(w, q)
			return
		}
		w.Write([]byte("{"))
		http.NewResponseController(w).Flush()
		<-q.Context().Done()
	}))
	defer server.Close()
	o := r.options()
	o.Path, o.StallTimeout = server.URL, 50*time.Millisecond
	wantRefused(t, mustNew(t, o), fault.Stalled, "timestamp.json")
}

// TestTUFRootRotation goes many steps at once, some of them expired.
func TestTUFRootRotation(t *testing.T) {
	r := newRepository(t)
	r.release("1.0")
	o := r.options()
	step := func() {
		t.Helper()
		old := r.keys["root"]
		r.changeKeys("root")
		r.root.Signed.Roles["root"].Threshold = 1
		r.signRoot(append(old[:min(2, len(old)):min(2, len(old))], r.keys["root"]...)...)
	}
	root := func(f *Fetcher) string {
		t.Helper()
		return mustCheck(t, f).Signers[0]
	}
	end := r.root.Signed.Expires
	for i := range 5 {
		r.root.Signed.Expires = end
		if i == 2 {
			r.root.Signed.Expires = time.Now().Add(-time.Hour)
		}
		step()
	}
	r.changeKeys("timestamp", "snapshot", "targets")
	r.release("2.0")
	f := mustNew(t, o)
	if got := root(f); got != "root 7" {
		t.Fatalf("got %s", got)
	}
	kept := trusted(t, o)
	for i := 1; i <= 7; i++ {
		if kept[fmt.Sprintf("roots/%d.root.json", i)] != string(r.get(fmt.Sprintf("metadata/%d.root.json", i))) {
			t.Errorf("root %d is not kept", i)
		}
	}

	// A gap ends the chain: what is beyond cannot be trusted.
	gone := r.get("metadata/6.root.json")
	r.ok(os.Remove(filepath.Join(r.dir, "metadata/6.root.json")))
	late := r.options()
	wantRefused(t, mustNew(t, late), fault.TUFThreshold, "timestamp")
	r.put("metadata/6.root.json", gone)
	if got := root(mustNew(t, late)); got != "root 7" {
		t.Errorf("after the gap was filled: %s", got)
	}

	// An operator who ships a root that the host has seen changes nothing.
	r.ok(os.WriteFile(o.Root, r.get("metadata/4.root.json"), 0o644))
	r.ok(os.Rename(filepath.Join(r.dir, "metadata"), filepath.Join(r.dir, "hidden")))
	r.ok(os.Mkdir(filepath.Join(r.dir, "metadata"), 0o755))
	r.put("metadata/timestamp.json", bytes.Clone([]byte(kept["metadata/timestamp.json"])))
	if got := root(mustNew(t, o)); got != "root 7" {
		t.Errorf("with a root on the way: %s", got)
	}

	// One who ships another begins a chain there.
	other := newRepository(t)
	other.release("3.0")
	r.ok(os.WriteFile(o.Root, other.get("metadata/1.root.json"), 0o644))
	r.become(other)
	if got := root(mustNew(t, o)); got != "root 1" {
		t.Errorf("with another root: %s", got)
	}

	// The last root must not be expired.
	other.root.Signed.Expires, other.root.Signed.Version = time.Now().Add(-time.Hour), 2
	other.signRoot(other.keys["root"]...)
	r.become(other)
	wantRefused(t, mustNew(t, o), fault.TUFExpired, "2.root.json counted until")

	// What was verified is kept, also of a look that failed: the chain does not
	// begin at the first root again.
	if _, ok := trusted(t, o)["roots/2.root.json"]; !ok {
		t.Error("the expired root is forgotten")
	}
}

// TestTUFManyRoots goes as far as one look goes, and on with the next.
func TestTUFManyRoots(t *testing.T) {
	r := newRepository(t)
	r.release("1.0")
	o := r.options()
	for range 299 {
		r.root.Signed.Version++
		r.signRoot(r.keys["root"]...)
	}
	for _, want := range []string{"root 257", "root 300", "root 300"} {
		if got := mustCheck(t, mustNew(t, o)).Signers[0]; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestTUFBins finds targets in roles that are chosen by a hash of their path.
func TestTUFBins(t *testing.T) {
	r := newRepository(t)
	private, key := newRoleKey(t)
	id, err := key.ID()
	r.ok(err)
	bins := &metadata.SuccinctRoles{KeyIDs: []string{id}, Threshold: 1, BitLength: 2, NamePrefix: "bin"}
	r.targets["targets"].Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{id: key}, SuccinctRoles: bins}
	for _, role := range bins.GetRoles() {
		r.keys[role] = []ed25519.PrivateKey{private}
		r.targets[role] = metadata.Targets(time.Now().Add(time.Hour))
		r.targets[role].Signed.Version = 0
		r.list(role, "app_6."+strings.TrimPrefix(role, "bin-")+".bin", []byte("perhaps in the wrong bin"))
	}
	want := map[string]bool{}
	for i := range 8 {
		name := fmt.Sprintf("app_1.%d.bin", i)
		r.list(bins.GetRolesForTarget(name)[0].Name, name, []byte(name))
		want[name] = true
	}
	for _, role := range bins.GetRoles() {
		if name := "app_6." + strings.TrimPrefix(role, "bin-") + ".bin"; bins.GetRolesForTarget(name)[0].Name == role {
			want[name] = true
		}
	}
	r.publish()
	got := map[string]bool{}
	for _, name := range offered(t, mustNew(t, r.options())) {
		got[name] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	bins.BitLength = 14
	r.publish()
	wantRefused(t, mustNew(t, r.options()), fault.TUFTooLarge, "2^14 roles")
}

// FuzzTUF has a mirror answer anything in the place of one file.
func FuzzTUF(f *testing.F) {
	names := []string{"metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json", "metadata/1.more.json", "metadata/2.root.json"}
	for i := range names {
		for _, seed := range []string{"", "{}", "null", `{"signed":null,"signatures":null}`, `{"signatures":[],"signed":{"_type":"timestamp","spec_version":"1.0.31","version":1,"expires":"2126-01-01T00:00:00Z","meta":null}}`, `{"signatures":[{"keyid":"","sig":""}],"signed":{"_type":"root","version":2,"keys":{"":null},"roles":{"root":null}}}`} {
			f.Add(i, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, which int, answer []byte) {
		r := newRepository(t)
		r.delegate("targets", "more", false, "app_2*")
		r.list("more", "app_2.bin", []byte("two"))
		r.release("1.0")
		o := r.options()
		name := names[uint(which)%uint(len(names))]
		if name == "metadata/2.root.json" || !bytes.Equal(answer, r.get(name)) {
			r.put(name, answer)
		}
		look := tuf.Repository{Root: r.get("metadata/1.root.json"), Dir: o.StateDir, Source: local.New(filepath.Join(r.dir, "metadata")), Now: time.Now, Log: slog.New(slog.DiscardHandler)}
		view, err := look.Look(context.Background(), tuf.Wanted{Prefixes: []string{"app_"}, Match: func(string) bool { return true }})
		if err == nil || fault.CodeOf(err) == "" || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, %v", name, view, err)
		}
	})
}

// TestTUFDelegations picks each target from the first role that may list it.
func TestTUFDelegations(t *testing.T) {
	r := newRepository(t)
	r.delegate("targets", "lts", true, "app_1.*", "lts/app_*")
	r.delegate("targets", "any", false, "app_*")
	r.delegate("targets", "docs", false, "docs/*")
	r.delegate("any", "deeper", false, "app_3*")
	r.list("lts", "app_1.1.bin", []byte("of lts"))
	r.list("any", "app_1.1.bin", []byte("of any"))
	r.list("any", "app_1.2.bin", []byte("lts is asked, and ends it"))
	r.list("any", "app_2.0.bin", []byte("of any"))
	r.list("deeper", "app_3.0.bin", []byte("of deeper"))
	r.list("deeper", "app_4.0.bin", []byte("not covered"))
	r.list("lts", "lts/app_9.bin", []byte("in a directory"))
	r.publish()
	// A role that cannot list what is wanted is not read.
	r.ok(os.Remove(filepath.Join(r.dir, "metadata/1.docs.json")))

	f := mustNew(t, r.options())
	into := t.TempDir()
	var got []string
	for _, c := range mustCheck(t, f).Candidates {
		v := mustFetch(t, f, c, into)
		got = append(got, c.Name+" "+string(content(t, v)))
	}
	if diff := cmp.Diff([]string{"app_3.0.bin of deeper", "app_2.0.bin of any", "app_1.1.bin of lts"}, got); diff != "" {
		t.Error(diff)
	}
	o := r.options()
	o.Patterns = []string{"lts/app_@v.bin"}
	f = mustNew(t, o)
	if v := mustFetch(t, f, newest(t, f), into); string(content(t, v)) != "in a directory" {
		t.Errorf("%s holds %q", v.Path(), content(t, v))
	}

	// A delegated role has its own keys, and what it signed ends, too.
	r.keys["any"] = r.keys["lts"]
	r.publish()
	wantRefused(t, mustNew(t, r.options()), fault.TUFThreshold, "2.any.json")
}

// TestTUFDamagedState has a host find its trusted metadata changed, in each file.
func TestTUFDamagedState(t *testing.T) {
	r := newRepository(t)
	r.delegate("targets", "more", false, "app_2*")
	r.list("more", "app_2.0.bin", []byte("two"))
	r.release("1.0")
	o := r.options()
	mustCheck(t, mustNew(t, o))
	whole := trusted(t, o)
	check := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
	check.Dir = filepath.Join(o.StateDir, "trusted")
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v: %s", err, out)
	}
	for name, text := range whole {
		for _, how := range []string{"flipped", "empty", "gone"} {
			t.Run(name+" "+how, func(t *testing.T) {
				at := filepath.Join(o.StateDir, "trusted", name)
				damaged := []byte(text)
				damaged[len(damaged)/2] ^= 1
				switch how {
				case "empty":
					damaged = nil
					fallthrough
				case "flipped":
					r.ok(os.WriteFile(at, damaged, 0o600))
				case "gone":
					r.ok(os.Remove(at))
				}
				var told bytes.Buffer
				f, err := New(o, slog.New(slog.NewTextHandler(&told, nil)))
				r.ok(err)
				if got := offered(t, f); len(got) != 2 {
					t.Errorf("got %q", got)
				}
				if !strings.Contains(told.String(), "level=ERROR") || !strings.Contains(told.String(), "damaged") {
					t.Errorf("told\n%s", told.String())
				}
				if diff := cmp.Diff(whole, trusted(t, o)); diff != "" {
					t.Errorf("not begun anew:\n%s", diff)
				}
			})
		}
	}
	for _, planted := range []string{"set-0/metadata/timestamp.json", "trusted.new", "other"} {
		r.ok(os.MkdirAll(filepath.Join(o.StateDir, planted), 0o700))
	}
	mustCheck(t, mustNew(t, o))
	if left := names(t, o.StateDir); len(left) != 2 {
		t.Errorf("left %q", left)
	}
}

// TestTUFForgetsRoles keeps the disk free of roles that nobody delegates to.
func TestTUFForgetsRoles(t *testing.T) {
	r := newRepository(t)
	r.delegate("targets", "more", false, "app_2*")
	r.release("1.0")
	o := r.options()
	mustCheck(t, mustNew(t, o))
	if trusted(t, o)["metadata/more.json"] == "" {
		t.Error("a role that was read is not kept")
	}
	r.targets["targets"].Signed.Delegations = nil
	r.publish()
	mustCheck(t, mustNew(t, o))
	if _, left := trusted(t, o)["metadata/more.json"]; left {
		t.Error("a role that is gone is still kept")
	}
}

// TestTUFKilled kills a host at each call that changes its trusted metadata. The
// set that counts is the old one or the new one, whole.
func TestTUFKilled(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is missing: install it")
	}
	r := newRepository(t)
	r.release("1.0")
	o := r.options()
	mustCheck(t, mustNew(t, o))
	old := trusted(t, o)
	before := t.TempDir()
	r.ok(os.CopyFS(filepath.Join(before, "set"), os.DirFS(filepath.Join(o.StateDir, "trusted"))))
	r.changeKeys("timestamp")
	r.release("2.0")
	task, err := json.Marshal(errand{Options: o})
	r.ok(err)

	kept := map[bool]int{} // by whether it is the new set
	for _, call := range []string{"mkdirat", "linkat", "renameat", "symlinkat", "fsync", "unlinkat"} {
		for n := 1; ; n++ {
			r.ok(os.RemoveAll(o.StateDir))
			r.ok(os.CopyFS(filepath.Join(o.StateDir, "set-0"), os.DirFS(filepath.Join(before, "set"))))
			r.ok(os.Symlink("set-0", filepath.Join(o.StateDir, "trusted")))
			cmd := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), os.Args[0])
			cmd.Env = append(os.Environ(), errandEnv+"="+string(task), "GOMAXPROCS=1")
			killed := cmd.Run() != nil
			var told bytes.Buffer
			now := trusted(t, o)
			updated := now["metadata/timestamp.json"] != old["metadata/timestamp.json"]
			if kept[updated]++; !updated {
				if diff := cmp.Diff(old, now); diff != "" {
					t.Fatalf("killed at %s %d: neither the old set nor the new one:\n%s", call, n, diff)
				}
			}
			f, err := New(o, slog.New(slog.NewTextHandler(&told, nil)))
			r.ok(err)
			if got := offered(t, f); len(got) != 2 || strings.Contains(told.String(), "damaged") {
				t.Fatalf("killed at %s %d: got %q, told\n%s", call, n, got, told.String())
			}
			if left := names(t, o.StateDir); len(left) != 2 {
				t.Fatalf("killed at %s %d: left %q", call, n, left)
			}
			if !killed {
				break
			}
		}
	}
	t.Logf("killed with the old set %d times, with the new one %d times", kept[false], kept[true])
	if kept[false] < 10 || kept[true] < 6 {
		t.Error("that is not at each call")
	}
}

func TestNewRefusesRoot(t *testing.T) {
	r := newRepository(t)
	r.release("1.0")
	good := r.options()
	dir := t.TempDir()
	file := func(name string, content []byte, mode os.FileMode) string {
		at := filepath.Join(dir, name)
		r.ok(os.WriteFile(at, content, 0o600))
		r.ok(os.Chmod(at, mode))
		return at
	}
	key := newShop(t).key
	for name, change := range map[string]func(*Options){
		"none":         func(o *Options) { o.Root = "" },
		"relative":     func(o *Options) { o.Root = "root.json" },
		"not there":    func(o *Options) { o.Root = filepath.Join(dir, "none") },
		"for others":   func(o *Options) { o.Root = file("open", r.get("metadata/1.root.json"), 0o666) },
		"another role": func(o *Options) { o.Root = file("targets", r.get("metadata/1.targets.json"), 0o600) },
		"not signed": func(o *Options) {
			o.Root = file("bad", bytes.Replace(r.get("metadata/1.root.json"), []byte(`"version": 1`), []byte(`"version": 2`), 1), 0o600)
		},
		"not metadata":  func(o *Options) { o.Root = file("text", []byte("{}"), 0o600) },
		"with a key":    func(o *Options) { o.Keys = []string{key} },
		"with quorum":   func(o *Options) { o.Threshold = 2 },
		"for no scheme": func(o *Options) { o.Verify = VerifyNo },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			_, err := New(o, nil)
			wantCode(t, err, fault.ConfigTrust)
		})
	}
	o := good
	o.StateDir = ""
	wantRefused(t, mustNew(t, o), fault.ConfigTrust, "directory")
}
