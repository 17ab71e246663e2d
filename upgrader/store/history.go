package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// historyName is the file of what happened before. Nothing is decided by it, so
// it is the one file of the state that may be lost or removed.
const historyName = "history.json"

// historyMax bounds it, in bytes.
const historyMax = 512 << 10

// SaveHistory writes v, as JSON, to history.json. It takes nothing from the
// reserve: on a full disk it fails, and what was written before stays.
func (s *Store) SaveHistory(v any) error {
	const op = "save history"
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if len(data) >= historyMax {
		return &Error{Op: op, Code: CodeRecordTooLarge, Err: fmt.Errorf("history has %d bytes, want less than %d", len(data), historyMax)}
	}
	return reason.FS(op, s.replaceFresh(s.path(historyName), append(data, '\n')))
}

// LoadHistory reads history.json into v. It reports false where there is none.
func (s *Store) LoadHistory(v any) (bool, error) {
	const op = "load history"
	data, err := s.readFile(s.path(historyName), historyMax)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, reason.FS(op, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, &Error{Op: op, Code: CodeRecordCorrupt, Err: fmt.Errorf("%s: %w", s.path(historyName), err), Hint: "nothing depends on it; remove it"}
	}
	return true, nil
}
