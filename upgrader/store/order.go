package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// orderName is the file in which an operator's order waits. It is the one thing
// that is written without the target's lock: a rename puts it there whole, over an
// order that was not carried out yet. Who places an order and who clears one take
// turns by a flock(2) on the directory, so that none is taken for the one before.
// Whoever writes it may be root, so it is written with the daemon's rights, and the
// reserve, which is the daemon's, is left alone.
const orderName = "order.json"

// PlaceOrder writes v, as JSON, where the daemon looks for orders. It needs no
// Lock, and returns when the order will survive a power cut.
func (s *Store) PlaceOrder(v any) error {
	const op = "place order"
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	// Without Lock, the daemon may take what is being written for a leftover.
	const tries = 10
	for range tries {
		err = s.asOwner(func() error {
			return s.inTurn(func() error { return s.replaceFresh(s.path(orderName), append(data, '\n')) })
		})
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

// ClearOrder removes the order if over tells that it is over, by the bytes that are
// there now, nil where they cannot be read. It is no error where there is none.
func (s *Store) ClearOrder(over func(data []byte) bool) error {
	return reason.FS("clear order", s.inTurn(func() error {
		data, err := s.readFile(s.path(orderName), reserveSize)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			data = nil
		}
		if !over(data) {
			return nil
		}
		return s.vanish(s.path(orderName), tempPre)
	}))
}

// turnPatience bounds how long whoever holds the directory's lock can keep others
// from their order: a turn is a few calls.
const turnPatience = 5 * time.Second

// inTurn has f run while nobody else places or clears an order. Where the file system
// has no locks, or somebody does not let go of it, f runs all the same: what is at
// stake is one order, which its sender is told.
func (s *Store) inTurn(f func() error) error {
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer dir.Close() // gives the lock back
	for until := time.Now().Add(turnPatience); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if err := flock(dir, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
	}
	return f()
}
