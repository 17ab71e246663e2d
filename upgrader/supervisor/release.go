package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

// release is what a worker runs.
type release struct {
	store.Release        // zero without a release store
	program       string // absolute, inside the release directory itself, not through a link
}

// name is how the release is called in status, logs and the environment.
func (r release) name() string {
	if r.Name != "" {
		return r.Name
	}
	return r.program
}

// releaseWord stands for the release's directory in the worker's arguments. systemd
// leaves it alone, where it would expand a variable or a specifier.
const releaseWord = "{release}"

// arguments are those of a worker that runs this release.
func (o Options) arguments(r release) []string {
	dir := strings.TrimSuffix(r.program, string(filepath.Separator)+filepath.Clean(o.Program))
	args := make([]string, len(o.Args))
	for i, arg := range o.Args {
		args[i] = strings.ReplaceAll(arg, releaseWord, dir)
	}
	return args
}

// errNoRelease says that there is nothing to run yet.
var errNoRelease = errors.New("no release is installed yet")

// trial is the link that names the release on trial; without it, current
// says what to run. See the store's on-disk layout.
const (
	trial   = "next"
	abreast = "beside" // in place of next while the operator holds two
	settled = "current"
)

// pickTrial resolves the release that a handover is about: next, or where there is
// none the one that is to serve beside, or current.
func (o Options) pickTrial() (rel release, beside bool, err error) {
	if o.Choose == nil && o.Root != "" {
		if _, err := o.resolve(trial); errors.Is(err, errNoRelease) {
			if r, err := o.resolve(abreast); !errors.Is(err, errNoRelease) {
				return r, true, err
			}
		}
	}
	rel, err = o.pick(true)
	return rel, false, err
}

// pick resolves the release to run: next where it exists and try is true,
// else current. The link is followed once, here, so that a worker never
// runs half of one release and half of another.
func (o Options) pick(try bool) (release, error) {
	if o.Choose != nil {
		name, path := o.Choose()
		return release{Release: store.Release{Name: name}, program: path}, nil
	}
	if o.Root == "" {
		return release{program: o.Program}, nil
	}
	if try {
		r, err := o.resolve(trial)
		if !errors.Is(err, errNoRelease) {
			return r, err
		}
	}
	return o.resolve(settled)
}

// resolve follows one link of the store.
func (o Options) resolve(link string) (release, error) {
	path := filepath.Join(o.Root, link)
	dest, err := os.Readlink(path)
	if errors.Is(err, fs.ErrNotExist) {
		return release{}, fmt.Errorf("%w: %s does not exist", errNoRelease, path)
	}
	if err != nil {
		return release{}, fmt.Errorf("resolve %s: %w", link, err)
	}
	r, err := store.ParseRelease(filepath.Base(dest))
	if err != nil {
		return release{}, fmt.Errorf("resolve %s: %w", path, err)
	}
	if !filepath.IsAbs(dest) {
		dest = filepath.Join(o.Root, dest)
	}
	return release{Release: r, program: filepath.Join(dest, o.Program)}, nil
}
