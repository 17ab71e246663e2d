package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// These are for whoever watches, and say nothing that anything is decided by. They
// are written up to once a second, so nothing waits for the disk, and a crash may
// leave an old one.
const (
	progressName = "progress.json"
	lookName     = "look.json"
)

// SaveProgress writes v, as JSON, for others to see.
func (s *Store) SaveProgress(v any) error {
	return s.saveUnsynced("save progress", progressName, v)
}

// Progress reads into v what SaveProgress wrote last, and reports false where
// there is nothing.
func (s *Store) Progress(v any) (bool, error) {
	return s.readUnsynced("read progress", progressName, v)
}

// SaveLook writes v, as JSON: how the last look at the source went.
func (s *Store) SaveLook(v any) error {
	return s.saveUnsynced("save look", lookName, v)
}

// Look reads into v what SaveLook wrote last, and reports false where there is
// nothing.
func (s *Store) Look(v any) (bool, error) {
	return s.readUnsynced("read look", lookName, v)
}

func (s *Store) saveUnsynced(op, file string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	name := s.path(file)
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

func (s *Store) readUnsynced(op, file string, v any) (bool, error) {
	data, err := s.readFile(s.path(file), reserveSize)
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
