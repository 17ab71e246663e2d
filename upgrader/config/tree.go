package config

import (
	"cmp"
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

	"github.com/upgraderd/upgraderd/upgrader/realm"
)

const (
	maxEntries = 4096 // of one directory
	maxLinks   = 40   // on one way, as in the kernel
)

var errTooLarge = errors.New("too large")

// tree reads files below a root directory, as if it were "/": a symbolic link
// inside it, absolute or not, never leads out. What somebody else could have
// written it does not read; see guard.
type tree struct {
	root string
	at   realm.Realm
	guard
	instead *draft // taken for what is on disk under its name
}

// treeAt gives the tree below a directory, "" for the running system's.
func treeAt(root string) tree {
	if root == "" {
		root = "/"
	}
	if abs, err := filepath.Abs(root); err == nil {
		root = abs
	}
	return tree{root: root, at: realm.System(), guard: guardOf(root, os.Geteuid())}
}

// treeOf gives the running system's tree as a realm sees it.
func treeOf(r realm.Realm) tree {
	if !r.User {
		return treeAt("/")
	}
	return tree{root: "/", at: r, guard: guardOfUser(r, os.Geteuid())}
}

// real gives the name by which the running system knows a file of the tree.
func (t tree) real(name string) string { return path.Join(t.root, name) }

// follow gives the file that a name of the tree leads to in the end. The name
// of a link to /dev/null leads there even if the tree has no such device. It
// refuses a way to a file that is there if somebody else could turn it aside.
// The file itself is for the caller to check, once it is open.
func (t tree) follow(name string) (string, error) {
	var (
		at    = "/"
		links = 0
		rest  = strings.Split(path.Clean("/"+name), "/")
		doubt error // the first on the way
		there = true
	)
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		next := path.Join(at, part) // ".." of "/" is "/"
		if part == ".." {
			if !there {
				return "", &fs.PathError{Op: "open", Path: t.real(name), Err: syscall.ENOENT}
			}
			at = next
			continue
		}
		st, err := os.Lstat(t.real(next))
		switch {
		case err != nil && missing(err):
			there = false
		case err != nil:
			return "", err
		case st.Mode()&(fs.ModeSymlink|fs.ModeDir) != 0:
			doubt = cmp.Or(doubt, t.check(t.real(next), st))
		}
		if err == nil && st.Mode()&fs.ModeSymlink != 0 {
			if links++; links > maxLinks {
				return "", &fs.PathError{Op: "open", Path: t.real(name), Err: syscall.ELOOP}
			}
			link, err := os.Readlink(t.real(next))
			if err != nil {
				return "", err
			}
			if path.IsAbs(link) {
				at = "/"
			}
			rest = append(strings.Split(link, "/"), rest...)
			continue
		}
		at = next
	}
	if there && doubt != nil {
		return "", doubt
	}
	return at, nil
}

// masked tells whether a name stands for "nothing": a link to /dev/null, or an
// empty file.
func (t tree) masked(name string) bool {
	if t.instead.is(name) {
		return len(t.instead.text) == 0
	}
	to, err := t.follow(name)
	if err != nil {
		return false
	}
	if to == os.DevNull {
		return true
	}
	st, err := os.Stat(t.real(to))
	return err == nil && st.Mode().IsRegular() && st.Size() == 0 && t.check(t.real(to), st) == nil
}

// has tells whether a name is in the tree, wherever it leads. One that cannot be
// looked for may be there.
func (t tree) has(name string) bool {
	if t.instead.is(name) {
		return true
	}
	_, err := os.Lstat(t.real(name))
	return err == nil || !missing(err)
}

// missing tells that there is no file of a name. ENOTDIR: nor could there be.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// read gives a regular file's bytes. It refuses one with more than most bytes,
// and one that somebody else could have written.
func (t tree) read(name string, most int64) ([]byte, error) {
	if t.instead.is(name) {
		return t.instead.text, nil
	}
	to, err := t.follow(name)
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK: a FIFO must not hold up the daemon.
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
	if err := t.check(t.real(to), st); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%w: more than %d bytes", errTooLarge, most)
	}
	return text, nil
}

// list gives the names in a directory, sorted; none if there is no such
// directory. It refuses one that somebody else could have put names into.
func (t tree) list(dir string) ([]string, error) {
	names, err := t.entries(dir)
	if err != nil || !t.instead.in(dir) {
		return names, err
	}
	names = append(names, path.Base(t.instead.name))
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (t tree) entries(dir string) ([]string, error) {
	to, err := t.follow(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(t.real(to), os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil && missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := t.check(t.real(to), st); err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(names) > maxEntries {
		return nil, fmt.Errorf("read directory %s: more than %d entries", t.real(dir), maxEntries)
	}
	slices.Sort(names)
	return names, nil
}
