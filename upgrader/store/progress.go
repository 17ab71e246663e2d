package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// progressName is for whoever watches a transfer, and says nothing that anything
// is decided by. It is written about once a second, so nothing waits for the disk,
// and a crash may leave an old one.
const progressName = "progress.json"

// SaveProgress writes v, as JSON, for others to see.
func (s *Store) SaveProgress(v any) error {
	const op = "save progress"
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	name := s.path(progressName)
	tmp := s.temp(name)
	err = s.removeAll(tmp)
	if err == nil {
		err = s.writeUnsynced(tmp, append(data, '\n'))
	}
	if err == nil {
		err = s.fs.Rename(tmp, name)
	}
	if err != nil {
		err = errors.Join(err, s.removeAll(tmp))
	}
	return reason.FS(op, err)
}

// Progress reads into v what SaveProgress wrote last, and reports false where
// there is nothing.
func (s *Store) Progress(v any) (bool, error) {
	const op = "read progress"
	data, err := s.readFile(s.path(progressName), reserveSize)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	return err == nil, reason.FS(op, err)
}

// ClearProgress removes it. It is no error where there is none.
func (s *Store) ClearProgress() error {
	err := s.fs.Remove(s.path(progressName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return reason.FS("clear progress", err)
}
