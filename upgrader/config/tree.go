package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	maxEntries = 4096 // of one directory
	maxLinks   = 40   // on one way, as in the kernel
)

var errTooLarge = errors.New("too large")

// tree reads files below a root directory, as if it were "/": a symbolic link
// inside it, absolute or not, never leads out.
type tree struct{ root string }

// treeAt gives the tree below a directory, "" for the running system's.
func treeAt(root string) tree {
	if root == "" {
		root = "/"
	}
	if abs, err := filepath.Abs(root); err == nil {
		root = abs
	}
	return tree{root}
}

// real gives the name by which the running system knows a file of the tree.
func (t tree) real(name string) string { return path.Join(t.root, name) }

// follow gives the file that a name of the tree leads to in the end. The name
// of a link to /dev/null leads there even if the tree has no such device.
func (t tree) follow(name string) (string, error) {
	var (
		at    = "/"
		links = 0
		rest  = strings.Split(path.Clean("/"+name), "/")
	)
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		next := path.Join(at, part) // ".." of "/" is "/"
		if part != ".." {
			link, err := os.Readlink(t.real(next))
			switch {
			case err == nil:
				if links++; links > maxLinks {
					return "", &fs.PathError{Op: "open", Path: t.real(name), Err: syscall.ELOOP}
				}
				if path.IsAbs(link) {
					at = "/"
				}
				rest = append(strings.Split(link, "/"), rest...)
				continue
			case !errors.Is(err, syscall.EINVAL) && !errors.Is(err, fs.ErrNotExist):
				return "", err // EINVAL: there, and no link
			}
		}
		at = next
	}
	return at, nil
}

// masked tells whether a name stands for "nothing": a link to /dev/null, or an
// empty file.
func (t tree) masked(name string) bool {
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

// has tells whether a name is in the tree, wherever it leads.
func (t tree) has(name string) bool {
	_, err := os.Lstat(t.real(name))
	return err == nil
}

// Who besides its owner may not be able to write a file.
const (
	notByAll   fs.FileMode = 0o002 // a .upgrade file, as systemd has it
	notByGroup fs.FileMode = 0o022 // a file of keys
)

// read gives a regular file's bytes. It refuses one with more than most bytes,
// and one that others may write.
func (t tree) read(name string, most int64, not fs.FileMode) ([]byte, error) {
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
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case st.Mode().Perm()&not != 0:
		return nil, withHint(fmt.Errorf("mode %04o lets others write it", st.Mode().Perm()), "chmod go-w "+printable(t.real(to)))
	case not == notByGroup && foreign(st):
		return nil, withHint(errors.New("its owner is neither root nor upgraderd"), "chown root "+printable(t.real(to)))
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

// foreign tells a file whose owner could change it behind the back of root and
// of the daemon. Whoever runs this is not asked about their own files.
func foreign(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid == 0 || int(sys.Uid) == os.Geteuid() {
		return false
	}
	owner, err := user.LookupId(strconv.FormatUint(uint64(sys.Uid), 10))
	return err != nil || owner.Username != "upgraderd"
}

// list gives the names in a directory, sorted; none if there is no such
// directory.
func (t tree) list(dir string) ([]string, error) {
	to, err := t.follow(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(t.real(to), os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
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
