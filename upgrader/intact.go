package upgrader

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

// Damage is something of a target on disk that is not as it was installed.
type Damage struct {
	Path string
	Err  error
}

// Intact reads the releases that a target's links name back from the disk, every
// byte, and tells what is not as it was installed.
func Intact(ctx context.Context, stateDir, target string) []Damage {
	dir := filepath.Join(stateDir, target)
	s, err := store.View(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has no release yet
	}
	if err != nil {
		return []Damage{{dir, err}}
	}
	var all []Damage
	seen := map[string]bool{}
	for _, which := range store.LinkNames() {
		r, ok, err := s.Link(which)
		switch {
		case err != nil:
			all = append(all, Damage{filepath.Join(s.Path(), string(which)), err})
		case ok && !seen[r.Name]:
			seen[r.Name] = true
			if err := s.Verify(ctx, r); err != nil {
				all = append(all, Damage{s.Dir(r), err})
			}
		}
	}
	return all
}
