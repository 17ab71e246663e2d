package unitlint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/realm"
)

const (
	maxEntries = 4096 // of one directory
	maxLinks   = 40   // on one way, as in the kernel
)

// tree reads files below a root directory as if it were "/": no symbolic link
// leads out of it. Whose files they are does not matter here: systemd reads
// them all.
type tree struct {
	root string
	at   realm.Realm // whose units
}

func treeAt(root string) tree {
	if root == "" {
		root = "/"
	}
	if abs, err := filepath.Abs(root); err == nil {
		root = abs
	}
	return tree{root, realm.System()}
}

// real gives the name by which the running system knows a file of the tree.
func (t tree) real(name string) string { return path.Join(t.root, name) }

// follow gives the file that a name leads to in the end, there or not.
func (t tree) follow(name string) (string, error) {
	at, links := "/", 0
	rest := strings.Split(path.Clean("/"+name), "/")
	for len(rest) > 0 {
		next := path.Join(at, rest[0]) // ".." of "/" is "/"
		rest = rest[1:]
		link, err := os.Readlink(t.real(next))
		if err != nil { // no link, or nothing there
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: t.real(name), Err: syscall.ELOOP}
		}
		if path.IsAbs(link) {
			at = "/"
		}
		rest = append(strings.Split(link, "/"), rest...)
	}
	return at, nil
}

// read gives a regular file's bytes, of at most unitfile.MaxSize.
func (t tree) read(name string) ([]byte, error) {
	to, err := t.follow(name)
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK: a FIFO must not hold anybody up.
	f, err := os.OpenFile(t.real(to), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, unitfile.MaxSize+1))
	if err == nil && len(text) > unitfile.MaxSize {
		err = fmt.Errorf("more than %d bytes", unitfile.MaxSize)
	}
	return text, err
}

// list gives the names in a directory, sorted; none where there is nothing to
// read.
func (t tree) list(dir string) []string {
	to, err := t.follow(dir)
	if err != nil {
		return nil
	}
	f, err := os.OpenFile(t.real(to), os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxEntries)
	slices.Sort(names)
	return names
}

// masks tells whether a file stands for "nothing": a link to /dev/null, or an
// empty file.
func (t tree) masks(name string) bool {
	to, err := t.follow(name)
	if err != nil {
		return false
	}
	if to == os.DevNull {
		return true
	}
	st, err := os.Stat(t.real(to))
	return err == nil && st.Mode().IsRegular() && st.Size() == 0
}

// bare drops the file's name from an error of package os: a message has it
// already.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
