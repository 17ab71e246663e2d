package supervisor

import (
	"errors"
	"os"

	"github.com/upgraderd/upgraderd/activation"
)

// keep puts a duplicate of f into systemd's fd store. Outside systemd there
// is none, and nothing that could restart us: that is no error.
func keep(name string, f *os.File) error {
	return unlessAlone(activation.StoreFile(name, f))
}

// unkeep takes what has this name out of it.
func unkeep(name string) error {
	return unlessAlone(activation.RemoveStored(name))
}

func unlessAlone(err error) error {
	if errors.Is(err, activation.ErrNoManager) {
		return nil
	}
	return err
}
