package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// Bad says why an artifact is not to be tried again. The JSON names are part
// of what a person may read and write in known-bad/.
type Bad struct {
	Version string    `json:"version,omitempty"`
	Reason  string    `json:"reason"`
	When    time.Time `json:"when"`
	// KnownSec is for how many seconds the daemon knew of it when it noted that
	// last. When says less: the clock may have been wrong then, or is now.
	KnownSec int64 `json:"known_sec,omitempty"`
}

// maxBadReason keeps one entry within the reserve, in bytes.
const maxBadReason = 4 << 10

// MarkBad remembers, across reboots, that these bytes are not to be tried
// again, and replaces what was remembered before. Like SaveRecord it works on
// a full disk.
func (s *Store) MarkBad(d Digest, bad Bad) error {
	bad.Reason = strings.ToValidUTF8(bad.Reason, "?")
	if len(bad.Reason) > maxBadReason {
		bad.Reason = strings.ToValidUTF8(bad.Reason[:maxBadReason], "") + "…"
	}
	data, err := json.Marshal(bad)
	if err != nil {
		return fmt.Errorf("mark %s bad: %w", d.Short(), err)
	}
	return reason.FS("mark "+d.Short()+" bad", s.replace(s.badName(d), append(data, '\n')))
}

// Bad tells whether these bytes are known to be bad, and why. It is the
// entry's being there that counts: one that cannot be read, or that somebody
// made with touch(1), is as good as any.
func (s *Store) Bad(d Digest) (Bad, bool, error) {
	info, err := s.fs.Lstat(s.badName(d))
	if errors.Is(err, fs.ErrNotExist) {
		return Bad{}, false, nil
	}
	if err != nil {
		return Bad{}, false, reason.FS("look whether "+d.Short()+" is known bad", err)
	}
	data, err := s.readFile(s.badName(d), reserveSize)
	var bad Bad
	if err != nil || json.Unmarshal(data, &bad) != nil {
		bad = Bad{Reason: "its entry in " + knownBadDir + " does not say"}
	}
	if bad.When.IsZero() {
		bad.When = info.ModTime()
	}
	return bad, true, nil
}

// Forgive lets these bytes be tried again. Forgiving what is not known to be
// bad is no error. Root does it with the rights of the store's owner.
func (s *Store) Forgive(d Digest) error {
	return reason.FS("forgive "+d.Short(), s.asOwner(func() error { return s.vanish(s.badName(d), tempPre) }))
}

// KnownBad lists the digests that are known to be bad, in no useful order.
// Files with other names are left alone.
func (s *Store) KnownBad() ([]Digest, error) {
	entries, err := s.fs.ReadDir(s.path(knownBadDir))
	if err != nil {
		return nil, reason.FS("list known-bad digests", err)
	}
	var list []Digest
	for _, e := range entries {
		if d, err := ParseDigest(e.Name()); err == nil {
			list = append(list, d)
		}
	}
	return slices.Clip(list), nil
}

func (s *Store) badName(d Digest) string { return s.path(knownBadDir, d.String()) }
