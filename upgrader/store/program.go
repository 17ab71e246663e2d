package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// Program is the path of the executable rel inside release r: the release's
// own directory, not a link to it, so that what is started does not change
// with the next swap. Symlinks on the way have to stay inside the release, and
// the program itself may not be one.
func (s *Store) Program(r Release, rel string) (string, error) {
	op := fmt.Sprintf("find program %q in release %s", clip(rel), r)
	if !filepath.IsLocal(rel) {
		return "", &Error{Op: op, Code: CodeProgram, Err: errors.New("want a relative path that stays inside"), Hint: "set Program= to a path inside the release"}
	}
	if err := s.present(r); err != nil {
		return "", reason.FS(op, err)
	}
	root, err := os.OpenRoot(s.Dir(r))
	if err != nil {
		return "", reason.FS(op, err)
	}
	info, err := root.Lstat(rel)
	err = errors.Join(err, root.Close())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &Error{Op: op, Code: CodeProgram, Err: fs.ErrNotExist, Hint: "set Program= to a path inside the release"}
	case err != nil:
		return "", reason.FS(op, err)
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return "", &Error{Op: op, Code: CodeProgram, Err: fmt.Errorf("it is %s with mode %04o, want an executable file", kind(info.Mode()), info.Mode().Perm()), Hint: "publish it executable, or set Program= to what is"}
	}
	return filepath.Join(s.Dir(r), rel), nil
}
