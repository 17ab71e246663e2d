package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// verifyStores reads the releases that the targets' links name back from the
// disk, every byte, and tells which are not what was installed.
func verifyStores(ctx context.Context, root string, targets []*upgrader.Target) config.Diagnostics {
	var ds config.Diagnostics
	for _, t := range targets {
		s, err := store.View(filepath.Join(root, stateDir, t.Name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has no release yet
		}
		found := func(where string, err error) {
			d := config.Diagnostic{Target: t.Name, File: where, Message: err.Error()}
			var e *store.Error
			if errors.As(err, &e) {
				d.Message, d.Code, d.Hint = e.Err.Error(), config.Code(e.Code), e.Hint
			}
			ds = append(ds, d)
		}
		if err != nil {
			found(filepath.Join(root, stateDir, t.Name), err)
			continue
		}
		seen := map[string]bool{}
		for _, which := range store.LinkNames() {
			r, ok, err := s.Link(which)
			switch {
			case err != nil:
				found(filepath.Join(s.Path(), string(which)), err)
			case ok && !seen[r.Name]:
				seen[r.Name] = true
				if err := s.Verify(ctx, r); err != nil {
					found(s.Dir(r), err)
				}
			}
		}
	}
	return ds
}
