package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/upgraderd/upgraderd/fetcher"
)

// How long each role counts from its signing on. The timestamp is what tells a
// host that it is not kept on something old: whoever publishes signs it again by
// [AddToRepository] without artifacts, at least this often.
const (
	rootFor      = 365 * 24 * time.Hour
	targetsFor   = 365 * 24 * time.Hour
	snapshotFor  = 90 * 24 * time.Hour
	timestampFor = 7 * 24 * time.Hour
)

// RepositoryOptions say what to publish in a repository of The Update Framework.
type RepositoryOptions struct {
	// Dir holds the repository: metadata/ and targets/. It must exist.
	Dir string
	// Artifacts and Version are as in [Options].
	Artifacts []string
	Version   string
	// Keys sign; those that no role of this run needs may be missing, so that
	// the root's can stay in a safe.
	Keys RoleKeys
}

// AddToRepository publishes artifacts as targets of a repository that these keys
// keep, and makes one where there is none. Each run signs the timestamp anew; the
// other roles where they change, or have used up half of their time.
//
// It promises what [Add] does: hosts find the old state or the new one, since the
// timestamp comes last; nothing appears that a host with the repository's first
// root would refuse; what is there already has to be signed by these keys.
func AddToRepository(ctx context.Context, o RepositoryOptions) (Result, error) {
	if _, err := fetcher.ParseVersion(o.Version); err != nil && len(o.Artifacts) > 0 {
		return Result{}, err
	}
	s, err := openStaging(o.Dir)
	if err != nil {
		return Result{}, err
	}
	defer s.Close()
	for _, part := range []string{"metadata", "targets"} {
		for _, at := range []string{s.path, o.Dir} {
			if err := os.Mkdir(filepath.Join(at, part), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return Result{}, err
			}
		}
	}
	r := repository{o: o, staging: s, now: time.Now().UTC().Truncate(time.Second)}
	return r.run(ctx)
}

// repository is one run of AddToRepository.
type repository struct {
	o       RepositoryOptions
	staging *staging
	now     time.Time

	root      *metadata.Metadata[metadata.RootType]
	targets   *metadata.Metadata[metadata.TargetsType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	timestamp *metadata.Metadata[metadata.TimestampType]

	files  []string // new ones, below Dir, in the order in which they appear
	result Result
}

func (r *repository) run(ctx context.Context) (Result, error) {
	if err := r.load(); err != nil {
		return Result{}, err
	}
	changed := false
	for _, artifact := range r.o.Artifacts {
		added, err := r.take(ctx, artifact)
		if err != nil {
			return Result{}, fmt.Errorf("publish %s: %w", artifact, err)
		}
		changed = changed || added
	}
	if err := r.sign(changed); err != nil {
		return Result{}, err
	}
	if err := r.rehearse(ctx); err != nil {
		return Result{}, fmt.Errorf("not published, a host would refuse it: %w", err)
	}
	return r.result, r.appear()
}

// load reads the repository, trusting what these keys signed, or begins one.
func (r *repository) load() error {
	newest, err := r.newestRoot()
	if err != nil {
		return err
	}
	if newest == 0 {
		return r.begin()
	}
	r.root, err = load[metadata.RootType](r, fmt.Sprintf("%d.root.json", newest))
	if err != nil {
		return err
	}
	if err := r.o.Keys.keep(r.root); err != nil {
		return fmt.Errorf("%s: %w", r.o.Dir, err)
	}
	if r.timestamp, err = load[metadata.TimestampType](r, "timestamp.json"); err != nil {
		return err
	}
	if err := r.root.VerifyDelegate(metadata.TIMESTAMP, r.timestamp); err != nil {
		return fmt.Errorf("timestamp.json: %w", err)
	}
	version := func(meta map[string]*metadata.MetaFiles, name string) int64 {
		if m := meta[name]; m != nil {
			return m.Version
		}
		return 0
	}
	if r.snapshot, err = load[metadata.SnapshotType](r, fmt.Sprintf("%d.snapshot.json", version(r.timestamp.Signed.Meta, "snapshot.json"))); err != nil {
		return err
	}
	if err := r.root.VerifyDelegate(metadata.SNAPSHOT, r.snapshot); err != nil {
		return fmt.Errorf("snapshot.json: %w", err)
	}
	if r.targets, err = load[metadata.TargetsType](r, fmt.Sprintf("%d.targets.json", version(r.snapshot.Signed.Meta, "targets.json"))); err != nil {
		return err
	}
	if err := r.root.VerifyDelegate(metadata.TARGETS, r.targets); err != nil {
		return fmt.Errorf("targets.json: %w", err)
	}
	return nil
}

// newestRoot is the version of the newest root, 0 for none.
func (r *repository) newestRoot() (newest int64, err error) {
	entries, err := os.ReadDir(filepath.Join(r.o.Dir, "metadata"))
	for _, e := range entries {
		number, ok := strings.CutSuffix(e.Name(), ".root.json")
		if n, err := strconv.ParseInt(number, 10, 64); ok && err == nil {
			newest = max(newest, n)
		}
	}
	return newest, err
}

func load[T metadata.Roles](r *repository, name string) (*metadata.Metadata[T], error) {
	raw, err := readSmall(filepath.Join(r.o.Dir, "metadata", name), manifestMax)
	if err != nil {
		return nil, err
	}
	m, err := new(metadata.Metadata[T]).FromBytes(raw)
	if err != nil {
		return nil, fmt.Errorf("metadata/%s: %w", name, err)
	}
	return m, nil
}

// begin makes a repository without targets.
func (r *repository) begin() error {
	r.root = metadata.Root(r.now.Add(rootFor))
	for _, role := range roles() {
		key, err := r.o.Keys.public(role)
		if err != nil {
			return err
		}
		if err := r.root.Signed.AddKey(key, role); err != nil {
			return err
		}
	}
	r.root.Signed.Version = 0 // sign makes it the first
	r.targets, r.snapshot, r.timestamp = metadata.Targets(), metadata.Snapshot(), metadata.Timestamp()
	r.targets.Signed.Version, r.snapshot.Signed.Version, r.timestamp.Signed.Version = 0, 0, 0
	return nil
}

// take lists one artifact and copies it to where it is prepared, unless it is
// there, and reports whether it is new.
func (r *repository) take(ctx context.Context, artifact string) (bool, error) {
	name, pattern, err := Name(filepath.Base(artifact), r.o.Version)
	if err != nil {
		return false, err
	}
	r.result.Patterns = append(r.result.Patterns, pattern)
	partial := filepath.Join(r.staging.path, "targets", name)
	digest, err := copyFile(ctx, artifact, partial)
	if err != nil {
		return false, err
	}
	target, err := metadata.TargetFile().FromFile(partial, "sha256")
	if err != nil {
		return false, err
	}
	target.Path = name
	at := "targets/" + digest + "." + name
	if err := os.Rename(partial, filepath.Join(r.staging.path, at)); err != nil {
		return false, err
	}
	was := r.targets.Signed.Targets[name]
	if was != nil && !was.Equal(*target) {
		return false, &advised{fmt.Errorf("%s is published with other bytes", name), "a version names one set of bytes, so raise the version"}
	}
	if have, err := digestOf(ctx, filepath.Join(r.o.Dir, at)); was != nil && err == nil && have == digest {
		return false, nil
	}
	r.targets.Signed.Targets[name] = target
	r.files = append(r.files, at)
	r.result.Added = append(r.result.Added, name)
	return was == nil, nil
}

// sign makes the next version of each role that needs one.
func (r *repository) sign(changed bool) error {
	old := func(expires time.Time, life time.Duration) bool { return expires.Sub(r.now) < life/2 }
	if r.root.Signed.Version == 0 || old(r.root.Signed.Expires, rootFor) && r.o.Keys.has(metadata.ROOT) {
		r.root.Signed.Version++
		r.root.Signed.Expires = r.now.Add(rootFor)
		if err := signRole(r, metadata.ROOT, fmt.Sprintf("%d.root.json", r.root.Signed.Version), r.root); err != nil {
			return err
		}
	}
	if changed || old(r.targets.Signed.Expires, targetsFor) {
		r.targets.Signed.Version++
		r.targets.Signed.Expires = r.now.Add(targetsFor)
		if err := signRole(r, metadata.TARGETS, fmt.Sprintf("%d.targets.json", r.targets.Signed.Version), r.targets); err != nil {
			return err
		}
		changed = true
	}
	if changed || old(r.snapshot.Signed.Expires, snapshotFor) {
		r.snapshot.Signed.Version++
		r.snapshot.Signed.Expires = r.now.Add(snapshotFor)
		r.snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(r.targets.Signed.Version)
		if err := signRole(r, metadata.SNAPSHOT, fmt.Sprintf("%d.snapshot.json", r.snapshot.Signed.Version), r.snapshot); err != nil {
			return err
		}
	}
	r.timestamp.Signed.Version++
	r.timestamp.Signed.Expires = r.now.Add(timestampFor)
	r.timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(r.snapshot.Signed.Version)
	return signRole(r, metadata.TIMESTAMP, "timestamp.json", r.timestamp)
}

func signRole[T metadata.Roles](r *repository, role, name string, m *metadata.Metadata[T]) error {
	signer, err := r.o.Keys.signer(role)
	if err != nil {
		return err
	}
	m.ClearSignatures()
	if _, err := m.Sign(signer); err != nil {
		return fmt.Errorf("sign %s: %w", name, err)
	}
	raw, err := m.ToBytes(true)
	if err != nil {
		return err
	}
	at := "metadata/" + name
	r.files = append(r.files, at)
	return writeFile(filepath.Join(r.staging.path, at), bytes.NewReader(raw))
}

// rehearse is a host that knows the first root and follows what is prepared.
func (r *repository) rehearse(ctx context.Context) error {
	for _, part := range []string{"metadata", "targets"} {
		entries, err := os.ReadDir(filepath.Join(r.o.Dir, part))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !e.Type().IsRegular() {
				continue
			}
			err := os.Link(filepath.Join(r.o.Dir, part, e.Name()), filepath.Join(r.staging.path, part, e.Name()))
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	patterns := r.result.Patterns
	if len(patterns) == 0 {
		patterns = []string{"@v"}
	}
	staging, err := filepath.Abs(r.staging.path)
	if err != nil {
		return err
	}
	f, err := fetcher.New(fetcher.Options{
		Target: "publish", Path: staging, Patterns: patterns, Verify: fetcher.VerifyTUF,
		Root: filepath.Join(staging, "metadata", "1.root.json"), StateDir: filepath.Join(staging, "state"),
	}, nil)
	if err != nil {
		return err
	}
	defer f.Close()
	listing, err := f.Check(ctx)
	if err != nil {
		return err
	}
	into := filepath.Join(staging, "fetched")
	if err := os.Mkdir(into, 0o700); err != nil {
		return err
	}
	for _, name := range r.result.Added {
		i := slices.IndexFunc(listing.Candidates, func(c fetcher.Candidate) bool { return c.Name == name })
		if i < 0 {
			return fmt.Errorf("%s is not found by MatchPattern=%s", name, strings.Join(patterns, " "))
		}
		v, err := f.Fetch(ctx, listing.Candidates[i], into, nil)
		if err != nil {
			return err
		}
		if err := v.Close(); err != nil {
			return err
		}
	}
	return nil
}

// appear moves all of it to where hosts look, the timestamp last.
func (r *repository) appear() error {
	for _, name := range r.files {
		if err := r.staging.appear(name); err != nil {
			return err
		}
		if err := syncFile(filepath.Dir(filepath.Join(r.o.Dir, name))); err != nil {
			return err
		}
	}
	return nil
}
