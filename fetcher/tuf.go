package fetcher

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/tuf"
)

// place is where a target lies below targets/.
type place struct{ dir, name string }

// RootMax bounds a root.json, in bytes.
const RootMax = tuf.RootMax

// loadRoot reads Root=.
func loadRoot(name string) ([]byte, error) {
	const hint = "name a root.json of the repository, in a file that only root can write"
	if !filepath.IsAbs(name) {
		return nil, fault.New(fault.ConfigTrust, errors.New("no absolute file name of a root.json"), "set Root=")
	}
	raw, err := readTrustFile(name, RootMax)
	if err == nil {
		err = CheckRoot(raw)
	}
	if err != nil {
		return nil, fault.New(fault.ConfigTrust, fmt.Errorf("root %s: %w", name, err), hint)
	}
	return raw, nil
}

// CheckRoot tells whether raw, the bytes of a root.json, can be what Root= names.
func CheckRoot(raw []byte) error {
	if len(raw) > RootMax {
		return fmt.Errorf("more than %d bytes", RootMax)
	}
	if err := tuf.CheckRoot(raw); err != nil {
		return fmt.Errorf("no root.json of a TUF repository: %w", err)
	}
	return nil
}

// lookAtTargets brings the metadata up to date, and gives the targets that match.
func (f *Fetcher) lookAtTargets(ctx context.Context, m *mirror, old cache) (cache, error) {
	r := tuf.Repository{Root: f.root, Dir: f.o.StateDir, Source: m.lists, Now: f.now, Log: f.log}
	wanted := tuf.Wanted{Match: func(name string) bool { _, ok := f.rank("", name); return ok && checkName(path.Base(name)) == nil }}
	for _, p := range f.patterns {
		wanted.Prefixes = append(wanted.Prefixes, p.begins())
	}
	view, err := r.Look(ctx, wanted)
	if err != nil {
		return cache{}, err
	}
	now := cache{places: map[Candidate]place{}}
	now.listing.Files, now.listing.Until, now.listing.Signers = view.Files, view.Until, view.Roles
	var found []ranked
	for _, t := range view.Targets {
		c, _ := f.rank("", t.Path)
		c.Name, c.Digest, c.Size = path.Base(t.Path), t.Digest, t.Length
		dir, name := view.File(t)
		now.places[c.Candidate] = place{dir, name}
		found = append(found, c)
	}
	now.listing.Candidates = newestFirst(found)
	now.listing.Unchanged = old.filled && slices.Equal(old.listing.Signers, now.listing.Signers)
	if !now.listing.Unchanged {
		f.log.InfoContext(ctx, "verified by TUF", "roles", strings.Join(view.Roles, ", "), "until", view.Until)
	}
	return now, nil
}

// holder tells where m has the bytes of c. The caller closes the source.
func (f *Fetcher) holder(m *mirror, c Candidate) (from source.Source, name string, done func(), err error) {
	f.mu.Lock()
	at, ok := f.listed.cache.places[c]
	f.mu.Unlock()
	if f.o.NoManifest {
		return m.source, m.file, func() {}, nil
	}
	if !ok {
		return m.source, c.Name, func() {}, nil
	}
	elem := []string{"targets"}
	if at.dir != "" {
		elem = append(elem, strings.Split(at.dir, "/")...)
	}
	from, err = openPart(m.o, elem...)
	return from, at.name, func() { closeSource(from) }, err
}
