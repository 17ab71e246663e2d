package upgrader

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

// Forgive lets the known bad releases of a target be tried again, and returns those
// that were. It needs no daemon; the next look at the source takes them.
func Forgive(stateDir, target string) ([]KnownBad, error) {
	s, err := store.View(filepath.Join(stateDir, target))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	digests, err := s.KnownBad()
	if err != nil {
		return nil, err
	}
	var forgiven []KnownBad
	for _, d := range digests {
		bad, _, err := s.Bad(d)
		if err != nil {
			return forgiven, err
		}
		if err := s.Forgive(d); err != nil {
			return forgiven, err
		}
		forgiven = append(forgiven, KnownBad{Digest: d.String(), Version: bad.Version, Reason: bad.Reason, When: bad.When})
	}
	return forgiven, nil
}
