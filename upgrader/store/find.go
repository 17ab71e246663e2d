package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"path/filepath"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// Find tells where files with these SHA-256 lie, by their absolute names, one for
// each that a release has. It goes by what was installed: what the disk holds now,
// whoever reads a file has to see for themselves. A release that is damaged in its
// manifest is passed over.
func (s *Store) Find(ctx context.Context, wanted [][32]byte) (map[[32]byte]string, error) {
	const op = "find files"
	want := make(map[[32]byte]bool, len(wanted))
	for _, digest := range wanted {
		want[digest] = true
	}
	releases, err := s.Releases()
	if err != nil {
		return nil, err
	}
	found := map[[32]byte]string{}
	for _, r := range releases {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		_, text, err := s.readManifest(r)
		if reason.Of(err) == CodeReleaseCorrupt {
			continue
		}
		if err != nil {
			return nil, reason.FS(op, err)
		}
		for line := range bytes.Lines(text) {
			digest, name, ok := manifestFile(line)
			if ok && want[digest] {
				found[digest] = filepath.Join(s.Dir(r), name)
			}
		}
	}
	return found, nil
}

// manifestFile reads the line of a manifest that is about a file.
func manifestFile(line []byte) (digest [32]byte, name string, ok bool) {
	const digits = 2 * len(digest)
	line = bytes.TrimSuffix(line, []byte("\n"))
	if len(line) <= digits+2 || line[0] == '#' {
		return digest, "", false
	}
	if _, err := hex.Decode(digest[:], line[:digits]); err != nil {
		return digest, "", false
	}
	return digest, string(line[digits+2:]), true
}
