package upgrader

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// Parcel is a release of a target in files, as somebody deploys it.
type Parcel struct {
	Target  *Target
	Version string
	// files are for Import, and as is what the artifact is called in its list.
	files  []string
	as     string
	digest store.Digest // of the artifact; zero with Verify=tuf
}

// Pack finds the release that is meant by a file and a version. The file is an
// artifact of any name, or a directory of them with their list; the version may be
// left out where the artifact's name says it, and is the newest then.
func Pack(ctx context.Context, t *Target, file, version string) (Parcel, error) {
	p := Parcel{Target: t, Version: version, files: []string{file}}
	if version != "" {
		if _, err := fetcher.ParseVersion(version); err != nil {
			return p, err
		}
	}
	if t.Source.NoManifest {
		return p, errNoList
	}
	patterns, err := patternsOf(t)
	if err != nil {
		return p, err
	}
	if t.Source.Verify == fetcher.VerifyTUF {
		return p, p.repository(patterns)
	}
	isDir, err := isDirectory(file)
	if err != nil {
		return p, err
	}
	if isDir {
		if file, err = artifactOf(file, patterns, version); err != nil {
			return p, err
		}
		p.files = []string{file}
	}
	if err := p.name(patterns, file); err != nil {
		return p, err
	}
	p.digest, err = digestOf(ctx, file)
	return p, err
}

// repository tells the version that a TUF repository is imported as.
func (p *Parcel) repository(patterns []fetcher.Pattern) error {
	l := &luggage{}
	defer l.close()
	if err := l.repository(p.Target, patterns, p.files); err != nil {
		return err
	}
	v, _, _ := match(patterns, l.artifact)
	return p.agree(string(v), l.artifact)
}

// agree has the version be that which a name says.
func (p *Parcel) agree(found, name string) error {
	if p.Version != "" && p.Version != found {
		return unimportable("name the version that it is", "%s is %s by its name, and not %s", name, found, p.Version)
	}
	p.Version = found
	return nil
}

// name tells what the artifact is called.
func (p *Parcel) name(patterns []fetcher.Pattern, file string) error {
	if v, _, ok := match(patterns, filepath.Base(file)); ok {
		return p.agree(string(v), file)
	}
	if p.Version == "" {
		return unimportable("say it: --version=VERSION", "the name of %s does not tell its version", file)
	}
	for _, pattern := range patterns {
		if name, ok := pattern.Name(fetcher.Version(p.Version)); ok {
			p.as = path.Base(name)
			return nil
		}
	}
	return unimportable("call the file as MatchPattern= wants it", "%s does not match %s, which says more than a version", file, patterns)
}

// artifactOf names the file of a directory that is of a version, or the newest.
func artifactOf(dir string, patterns []fetcher.Pattern, version string) (string, error) {
	if version == "" {
		return newestOf(dir, patterns)
	}
	names, err := entriesOf(dir)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if v, _, ok := match(patterns, name); ok && string(v) == version {
			return filepath.Join(dir, name), nil
		}
	}
	return "", unimportable("name the artifact, or correct MatchPattern=", "%s holds no file of %s that matches %s", dir, version, patterns)
}

// digestOf reads a regular file. What it is beyond that, Import finds out.
func digestOf(ctx context.Context, name string) (d store.Digest, err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return d, &ImportError{Err: err}
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > fetcher.SizeMaxDefault {
		return d, err // too large to be read twice
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, &stoppable{ctx, f}); err != nil {
		return d, &ImportError{Err: err}
	}
	return store.Digest(sum.Sum(nil)), nil
}

// stoppable is a reader that ends with ctx.
type stoppable struct {
	ctx context.Context
	io.Reader
}

func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}

// Installed tells whether the parcel is the release that is installed, and its name.
func (p Parcel) Installed(stateDir string) (string, bool, error) {
	s, err := store.View(filepath.Join(stateDir, p.Target.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	current, ok, err := s.Link(store.Current)
	if err != nil || !ok || p.digest == (store.Digest{}) {
		return "", false, err
	}
	have, err := s.Digest(current)
	if err != nil {
		return "", false, err
	}
	if have == p.digest && current.Version != p.Version {
		return "", false, advice.Give(fmt.Errorf("these are the bytes of %s, which is installed, and not of %s", current.Version, p.Version), "build it anew, or deploy it as %s", current.Version)
	}
	return current.Name, have == p.digest, nil
}

// Trial is what the daemon does with the parcel now, "" if nothing; and how the last
// attempt ended, if it was of this parcel.
func (p Parcel) Trial(stateDir string) (State, *Outcome) {
	st := readStatus(stateDir, p.Target)
	if p.digest == (store.Digest{}) {
		return "", nil
	}
	if to, ok := release(st.To); ok && to.Digest12 == p.digest.Short() && st.State != Held {
		return st.State, nil
	}
	if st.Last != nil && st.Last.Digest == p.digest.String() {
		return "", st.Last
	}
	return "", nil
}

// DeployTurn takes the turn of those who deploy to a target, which has to have a store,
// until release is called. Where another process has it, the error is a
// [store.ErrLocked].
func DeployTurn(stateDir, target string) (release func(), err error) {
	s, err := viewForOrder(stateDir, target)
	if err != nil {
		return nil, err
	}
	return s.LockDeploy()
}

// Import has the daemon stage the parcel, see [Import].
func (p Parcel) Import(ctx context.Context, stateDir string, ready func() error, progress func(done, total int64)) (string, Order, error) {
	return importAs(ctx, stateDir, p.Target, p.files, p.as, ready, progress)
}
