package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// orderName is the file in which an operator's order waits. It is the one thing
// that is written without the lock: a rename puts it there whole, over an order
// that was not carried out yet. Whoever writes it may be root, so it is written
// with the daemon's rights, and the reserve, which is the daemon's, is left alone.
const orderName = "order.json"

// PlaceOrder writes v, as JSON, where the daemon looks for orders. It needs no
// lock, and returns when the order will survive a power cut.
func (s *Store) PlaceOrder(v any) error {
	const op = "place order"
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	// Without the lock, the daemon may take what is being written for a leftover.
	const tries = 10
	for range tries {
		err = s.asOwner(func() error { return s.replaceFresh(s.path(orderName), append(data, '\n')) })
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return reason.FS(op, err)
}

// Order reads the order that waits into v, and reports false where there is
// none. One that cannot be read is an error; v is then untouched.
func (s *Store) Order(v any) (bool, error) {
	const op = "read order"
	data, err := s.readFile(s.path(orderName), reserveSize)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, reason.FS(op, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, &Error{Op: op, Code: CodeRecordCorrupt, Err: fmt.Errorf("%s: %w", orderName, err), Hint: "give the order again"}
	}
	return true, nil
}

// ClearOrder removes the order. It is no error where there is none.
func (s *Store) ClearOrder() error {
	return reason.FS("clear order", s.vanish(s.path(orderName), tempPre))
}
