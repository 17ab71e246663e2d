package tuf

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

const (
	// RootMax bounds a root.json, in bytes.
	RootMax      = 512_000
	timestampMax = 16 << 10
	snapshotMax  = 2_000_000
	targetsMax   = 5_000_000
	// rolesMax bounds the roles that list targets, the top one among them.
	rolesMax = 32
	// rotationsMax bounds the roots that one look follows; the next goes on.
	rotationsMax = 256
	roleNameMax  = 128
)

// Repository is what a host knows of a repository. Its methods are for one
// goroutine.
type Repository struct {
	// Root is the root.json that the operator trusts.
	Root []byte
	// Dir is where the trusted metadata is kept: a directory that is made if
	// it is missing, in one that exists, and is this Repository's alone.
	Dir string
	// Source holds the metadata.
	Source source.Source
	// Now is the clock that tells what is expired.
	Now func() time.Time
	Log *slog.Logger
}

// Wanted says which targets are looked for.
type Wanted struct {
	// Prefixes are how their paths begin, each of them in one of these ways.
	// Roles that cannot list such paths are not read.
	Prefixes []string
	// Match tells whether a path is wanted.
	Match func(path string) bool
}

// View is what a repository offers, at one moment.
type View struct {
	// Roles are those that were verified, with their versions: "root 3".
	Roles []string
	// Until is when the first of them expires.
	Until time.Time
	// Targets are the wanted ones, by path.
	Targets []Target
	// Files counts all targets of the roles that were read.
	Files int
	// Prefixed tells that files bear their digest in front of their name.
	Prefixed bool
}

// Target is a file that a role lists.
type Target struct {
	Path   string
	Digest [32]byte
	Length int64
	// Role lists it.
	Role string
}

// File is where a target lies below targets/: its directory, "" for none, and
// its name there.
func (v View) File(t Target) (dir, name string) {
	dir, name = path.Split(t.Path)
	if v.Prefixed {
		name = hex.EncodeToString(t.Digest[:]) + "." + name
	}
	return strings.TrimSuffix(dir, "/"), name
}

// CheckRoot tells whether raw can be the root of trust.
func CheckRoot(raw []byte) error {
	err := guard(func() error {
		_, err := trustedmetadata.New(raw)
		return err
	})
	if err != nil {
		return errors.New(plain(err))
	}
	return nil
}

// Look brings the trusted metadata up to date and lists the wanted targets. What
// was verified before a step failed is trusted from then on: a new root counts,
// also if the mirror has nothing good that goes with it.
func (r *Repository) Look(ctx context.Context, w Wanted) (View, error) {
	set, err := r.open()
	if err != nil {
		return View{}, err
	}
	defer set.drop()
	l := &look{Repository: r, set: set, get: &download{ctx: ctx, source: r.Source, roots: map[string][]byte{}}}
	view, err := l.all(w)
	if err == nil {
		err = l.forget()
	}
	if kept := l.keep(); kept != nil {
		return View{}, kept
	}
	return view, err
}

// look is one Look.
type look struct {
	*Repository
	set     *set
	get     *download
	updater *updater.Updater
}

func (l *look) all(w Wanted) (view View, err error) {
	err = guard(func() error {
		if err := l.refresh(); err != nil {
			return l.explain(err)
		}
		view, err = l.view(w)
		return l.explain(err)
	})
	return view, err
}

// guard turns a panic of the library into an error: of what a publisher signed
// it takes some for granted, e.g. that a timestamp names a snapshot.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.TUFSyntax, fmt.Errorf("the metadata lacks what it must have (%v)", p), hintSyntax)
		}
	}()
	return f()
}

// refresh is the client workflow for the four roles at the top.
func (l *look) refresh() error {
	c, err := config.New("metadata/", l.set.root)
	if err != nil {
		return err
	}
	c.Fetcher = l.get
	c.LocalMetadataDir = l.set.metadata()
	c.LocalTargetsDir = l.set.metadata() // nothing is put there, but it must be somewhere
	c.RootMaxLength, c.TimestampMaxLength, c.SnapshotMaxLength, c.TargetsMaxLength = RootMax, timestampMax, snapshotMax, targetsMax
	c.MaxRootRotations, c.MaxDelegations = rotationsMax, rolesMax
	l.updater, err = updater.New(c)
	if err != nil {
		return err
	}
	// The library means it for tests. It is how all of a look has one time.
	l.updater.UnsafeSetRefTime(l.Now().UTC())
	return l.updater.Refresh()
}

// keep puts the set in place of the one before it. Roots that were verified on
// the way stay in it, so that an operator's later root is known to be one of them.
func (l *look) keep() error {
	if l.updater == nil {
		return nil
	}
	trusted := l.updater.GetTrustedMetadataSet()
	for name, raw := range l.get.roots {
		var version int64
		if _, err := fmt.Sscanf(name, "%d.root.json", &version); err != nil || version > trusted.Root.Signed.Version {
			continue
		}
		if err := l.set.write("roots/"+name, raw); err != nil {
			return fault.Local(err)
		}
	}
	if err := l.set.keep(); err != nil {
		return fault.Local(fmt.Errorf("keep the trusted metadata in %s: %w", l.Dir, err))
	}
	return nil
}

// forget drops the metadata of roles that this look did not need.
func (l *look) forget() error {
	trusted := l.updater.GetTrustedMetadataSet()
	err := l.set.forget(func(role string) bool {
		_, targets := trusted.Targets[role]
		return targets || slices.Contains([]string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT}, role)
	})
	if err != nil {
		return fault.Local(err)
	}
	return nil
}

// view looks through the roles. What it lists, the library has found in the
// first role that may list it, as the order of delegations and their ends say.
func (l *look) view(w Wanted) (View, error) {
	roles, err := l.roles(w)
	if err != nil {
		return View{}, err
	}
	trusted := l.updater.GetTrustedMetadataSet()
	v := View{Prefixed: trusted.Root.Signed.ConsistentSnapshot, Until: trusted.Root.Signed.Expires}
	add := func(role string, version int64, expires time.Time) {
		v.Roles = append(v.Roles, fmt.Sprintf("%s %d", role, version))
		if expires.Before(v.Until) {
			v.Until = expires
		}
	}
	add(metadata.ROOT, trusted.Root.Signed.Version, trusted.Root.Signed.Expires)
	add(metadata.TIMESTAMP, trusted.Timestamp.Signed.Version, trusted.Timestamp.Signed.Expires)
	add(metadata.SNAPSHOT, trusted.Snapshot.Signed.Version, trusted.Snapshot.Signed.Expires)
	listed := map[string]string{} // by path: a role that lists it
	for _, role := range roles {
		signed := trusted.Targets[role].Signed
		add(role, signed.Version, signed.Expires)
		v.Files += len(signed.Targets)
		for path := range signed.Targets {
			if w.Match(path) {
				listed[path] = role
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(listed)) {
		info, err := l.updater.GetTargetInfo(path)
		if err != nil && !known(err) {
			// The one error of the library that has no type: nobody may list it.
			l.Log.Warn("target ignored, its role may not list it", "file", path, "role", listed[path])
			continue
		}
		if err != nil {
			return View{}, err
		}
		t := Target{Path: path, Length: info.Length, Role: l.lister(path, info)}
		digest := info.Hashes["sha256"]
		if len(digest) != len(t.Digest) || info.Length < 0 {
			return View{}, fault.New(fault.TUFSyntax, fmt.Errorf("%s lists %s without its SHA-256 or length", t.Role, path), "list targets with sha256")
		}
		copy(t.Digest[:], digest)
		v.Targets = append(v.Targets, t)
	}
	return v, nil
}

// lister names the role that the library took a target from.
func (l *look) lister(path string, info *metadata.TargetFiles) string {
	for name, role := range l.updater.GetTrustedMetadataSet().Targets {
		if role.Signed.Targets[path] == info {
			return name
		}
	}
	return ""
}

// roles loads the roles that could list what is wanted, the most trusted first,
// and names them.
func (l *look) roles(w Wanted) ([]string, error) {
	type delegation struct{ role, parent string }
	visit := []delegation{{metadata.TARGETS, metadata.ROOT}}
	var roles []string
	for len(visit) > 0 {
		next := visit[0]
		visit = visit[1:]
		if slices.Contains(roles, next.role) {
			continue
		}
		if len(roles) == rolesMax {
			return nil, fault.New(fault.TUFTooLarge, fmt.Errorf("more than %d roles may list what is wanted", rolesMax), "have the delegations say by paths what they may list")
		}
		signed, err := l.load(next.role, next.parent)
		if err != nil {
			return nil, err
		}
		roles = append(roles, next.role)
		if signed.Delegations == nil {
			continue
		}
		var children []delegation
		for _, role := range signed.Delegations.Roles {
			if mayList(role, w.Prefixes) {
				children = append(children, delegation{role.Name, next.role})
			}
		}
		if bins := signed.Delegations.SuccinctRoles; bins != nil {
			if bins.BitLength > 8 {
				return nil, fault.New(fault.TUFTooLarge, fmt.Errorf("%s delegates to 2^%d roles, at most %d are read", next.role, bins.BitLength, rolesMax), "publish releases in a role of their own")
			}
			for _, name := range bins.GetRoles() {
				children = append(children, delegation{name, next.role})
			}
		}
		visit = append(children, visit...)
	}
	return roles, nil
}

// mayList tells whether a delegation could cover a path that begins in one of
// these ways. It errs on the side of yes; what is listed is asked for by its
// whole path later.
func mayList(role metadata.DelegatedRole, prefixes []string) bool {
	if len(role.Paths) == 0 {
		return true // by hashes of paths
	}
	for _, pattern := range role.Paths {
		literal := pattern
		if i := strings.IndexAny(pattern, `*?[\`); i >= 0 {
			literal = pattern[:i]
		}
		for _, prefix := range prefixes {
			if strings.HasPrefix(literal, prefix) || strings.HasPrefix(prefix, literal) {
				return true
			}
		}
	}
	return false
}

// load gives the metadata of a role. For all but the topmost it does what the
// library does when it is asked for a target; it has no way to ask for a role.
func (l *look) load(role, parent string) (*metadata.TargetsType, error) {
	trusted := l.updater.GetTrustedMetadataSet()
	if have := trusted.Targets[role]; have != nil {
		return &have.Signed, nil
	}
	if err := checkRole(role, parent); err != nil {
		return nil, err
	}
	meta := trusted.Snapshot.Signed.Meta[role+".json"]
	if meta == nil {
		return nil, fault.New(fault.TUFMixed, fmt.Errorf("%s delegates to %s, which the snapshot does not name", parent, role), hintMixed)
	}
	file := "metadata/" + role + ".json"
	if raw, err := os.ReadFile(l.set.path(file)); err == nil {
		if have, err := trusted.UpdateDelegatedTargets(raw, role, parent); err == nil {
			return &have.Signed, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	length := meta.Length
	if length == 0 {
		length = targetsMax
	}
	name := role + ".json"
	if trusted.Root.Signed.ConsistentSnapshot {
		name = fmt.Sprintf("%d.%s", meta.Version, name)
	}
	raw, err := l.get.read(name, length, targetsMax)
	if err != nil {
		return nil, err
	}
	have, err := trusted.UpdateDelegatedTargets(raw, role, parent)
	if err != nil {
		return nil, err
	}
	return &have.Signed, l.set.write(file, raw)
}

// checkRole refuses names that would be taken for another file, of the repository
// or of the trusted set: a delegation to "timestamp" must not replace the
// timestamp that guards against rollback.
func checkRole(role, parent string) error {
	bad := role == "" || len(role) > roleNameMax || strings.HasPrefix(role, ".") || strings.Contains(role, "/") ||
		slices.Contains([]string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS}, role)
	for _, c := range []byte(role) {
		bad = bad || c <= ' ' || c > '~'
	}
	if bad {
		return fault.New(fault.TUFSyntax, fmt.Errorf("%s delegates to a role named %.40q, which cannot be a file of its own", parent, role), "name it with letters, digits and dashes")
	}
	return nil
}

// download is how the library reads.
type download struct {
	ctx    context.Context
	source source.Source
	name   string // of the file that was read last
	raw    []byte
	roots  map[string][]byte
}

// DownloadFile reads a file of one of the four roles at the top.
func (d *download) DownloadFile(url string, max int64, _ time.Duration) ([]byte, error) {
	name := strings.TrimPrefix(url, "metadata/")
	_, role, numbered := strings.Cut(strings.TrimSuffix(name, ".json"), ".")
	if !numbered {
		role = strings.TrimSuffix(name, ".json")
	}
	most := map[string]int64{metadata.ROOT: RootMax, metadata.TIMESTAMP: timestampMax, metadata.SNAPSHOT: snapshotMax}[role]
	if most == 0 {
		most = targetsMax
	}
	raw, err := d.read(name, max, most)
	if role != metadata.ROOT {
		return raw, err
	}
	if fault.CodeOf(err) == fault.TUFMissing {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: 404, URL: name} // the end of the chain
	}
	if err == nil {
		d.roots[name] = raw
	}
	return raw, err
}

// read reads a file that shall have at most max bytes, as other metadata says,
// and has at most most, whatever it says.
func (d *download) read(name string, max, most int64) ([]byte, error) {
	d.name, d.raw = name, nil
	if max <= 0 || max > most {
		return nil, fault.New(fault.TUFTooLarge, fmt.Errorf("%s shall have %d bytes, at most %d are read", name, max, most), hintTooLarge)
	}
	raw, _, err := d.source.Read(d.ctx, name, max, "")
	var known *fault.Error
	switch {
	case err == nil:
	case errors.As(err, &known) && known.Code == fault.NotFound:
		return nil, fault.Passing(fault.TUFMissing, fmt.Errorf("no metadata/%s", name), "publish it, and check Path=: it names the directory that holds metadata/ and targets/")
	case errors.As(err, &known) && known.Code == fault.MetaTooLarge:
		return nil, fault.New(fault.TUFTooLarge, known.Err, hintTooLarge)
	case errors.As(err, &known):
		e := *known
		e.Err = fmt.Errorf("metadata/%s: %w", name, known.Err)
		return nil, &e
	default:
		return nil, err
	}
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("<")) {
		return nil, fault.Passing(fault.MetaNotSigned, fmt.Errorf("a web page came instead of metadata/%s", name), "check Path=, and whether a login page or a proxy stands before the source")
	}
	d.raw = raw
	return raw, nil
}
