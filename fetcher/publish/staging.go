package publish

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// stagingName begins the name of a directory in which a release is prepared.
const stagingName = ".publishing-"

// staging is where a release is prepared, inside the directory in which it will
// appear, whose lock it holds.
type staging struct {
	dir  *os.File // where it will appear
	path string   // where it is prepared
}

// openStaging locks dir, removes what killed runs left there, and makes a place
// to prepare in. The caller closes it.
func openStaging(dir string) (*staging, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	s := &staging{dir: f}
	if err := s.begin(); err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func (s *staging) begin() error {
	if err := unix.Flock(int(s.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s: somebody else is publishing here: %w", s.dir.Name(), err)
	}
	left, err := filepath.Glob(filepath.Join(s.dir.Name(), stagingName+"*"))
	for _, name := range left {
		err = errors.Join(err, os.RemoveAll(name))
	}
	if err == nil {
		s.path, err = os.MkdirTemp(s.dir.Name(), stagingName)
	}
	return err
}

// Close removes what did not appear, and gives the lock back.
func (s *staging) Close() {
	os.RemoveAll(s.path)
	s.dir.Close()
}

// appear moves a prepared file, durable and readable by everybody, to where it is
// looked for. That its name lasts is the caller's.
func (s *staging) appear(name string) error {
	from := filepath.Join(s.path, name)
	if err := os.Chmod(from, 0o644); err != nil {
		return err
	}
	if err := syncFile(from); err != nil {
		return err
	}
	return os.Rename(from, filepath.Join(s.dir.Name(), name))
}
