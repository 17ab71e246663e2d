package store

import (
	"context"
	"fmt"
	"os"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// Copy installs a release that another store has: the same artifact, fetched,
// verified and unpacked there. It reads what it copies, compares that with
// what was installed there, and is as durable as Install; a release that rotted
// there is an error with CodeReleaseCorrupt and does not come here.
func (s *Store) Copy(ctx context.Context, from *Store, r Release, d Digest) error {
	op := fmt.Sprintf("copy release %s from %s", r.Name, from.dir)
	has, manifest, err := from.readManifest(r)
	if err != nil {
		return reason.FS(op, err)
	}
	if has != d {
		return fmt.Errorf("%s: got artifact %s there, want %s", op, has, d)
	}
	tree, err := s.IncomingTree(d)
	if err != nil {
		return err
	}
	// Links and exec bits are copied; whatever else is odd, Install refuses.
	if err := os.CopyFS(tree, os.DirFS(from.Dir(r))); err != nil {
		return reason.FS(op, err)
	}
	return reason.FS(op, s.install(ctx, tree, r, d, manifest))
}
