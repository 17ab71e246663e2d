package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// wishesName is the file of what an operator forbids. Like an order it is written
// without the target's lock, by whoever may be root, in turn with others; unlike
// one it stays until somebody takes it back.
const wishesName = "wishes.json"

// Wishes reads what is forbidden into v, and reports false where nothing is. A file
// that cannot be read is an error: what it forbids is then not known. v is untouched.
func (s *Store) Wishes(v any) (bool, error) {
	const op = "read wishes"
	data, err := s.wishes()
	if err != nil || data == nil {
		return false, reason.FS(op, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, &Error{Op: op, Code: CodeRecordCorrupt, Err: fmt.Errorf("%s: %w", s.path(wishesName), err), Hint: "remove it, then hold, pin and skip again what shall be"}
	}
	return true, nil
}

// ChangeWishes replaces the wishes by what change makes of their bytes, which are nil
// where there are none; nil takes them away, and an error leaves them. Nobody else changes them meanwhile. It needs no Lock, and returns when the
// change will survive a power cut. Root does it with the rights of the store's owner.
func (s *Store) ChangeWishes(change func(data []byte) ([]byte, error)) error {
	const tries = 10 // without Lock, the daemon may take what is being written for a leftover
	var err error
	for range tries {
		err = s.asOwner(func() error { return s.inTurn(func() error { return s.changeWishes(change) }) })
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return reason.FS("change wishes", err)
}

func (s *Store) changeWishes(change func(data []byte) ([]byte, error)) error {
	before, err := s.wishes()
	if err != nil {
		return err
	}
	after, err := change(before)
	if err != nil {
		return err
	}
	if len(after) > reserveSize { // or nobody could read it, nor take it back
		return &Error{Code: CodeRecordTooLarge, Err: fmt.Errorf("%d bytes of wishes, want at most %d", len(after), reserveSize), Hint: "take some back, or give shorter reasons"}
	}
	if after == nil {
		return s.vanish(s.path(wishesName), tempPre)
	}
	return s.replaceFresh(s.path(wishesName), after)
}

// wishes are the bytes of the file, nil where there is none.
func (s *Store) wishes() ([]byte, error) {
	data, err := s.readFile(s.path(wishesName), reserveSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && data == nil {
		data = []byte{}
	}
	return data, err
}
