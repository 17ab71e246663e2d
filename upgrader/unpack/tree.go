package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxName      = 1024 // bytes; PATH_MAX less a generous state directory
	maxComponent = 255  // NAME_MAX
	maxDepth     = 64
)

// entryKind is what a name in the tree is.
type entryKind uint8

const (
	absent  entryKind = iota
	implied           // a directory no entry has named yet
	named             // a directory with an entry of its own
	regular
	symlink
)

// tree unpacks a tar archive.
func (u *unpacking) tree(data io.Reader) error {
	in := &counter{r: data}
	archive := tar.NewReader(in)
	t := newTree(u)
	for {
		before := in.n
		h, err := archive.Next()
		if err == io.EOF {
			// A tar archive ends in two blocks of zeros; without them it
			// was cut between two entries.
			if in.n-before < 2*512 {
				return corrupt(errors.New("it ends before its end-of-archive mark"))
			}
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return u.readError(err)
		}
		if err := t.add(h, archive); err != nil {
			return err
		}
		// What Next would skip is read here, so that the padding alone
		// is left for it, and the test above can count.
		if err := u.copy(io.Discard, archive); err != nil {
			return err
		}
	}
	if err := u.padding(data); err != nil {
		return err
	}
	if t.files == 0 {
		return corrupt(errors.New("there is no file in it"))
	}
	return t.link()
}

// padding reads what follows the archive, which also makes the decompressor
// check its sums, and lets only zeros pass: tar fills up its last record.
func (u *unpacking) padding(data io.Reader) error {
	const most = 1 << 20 // tar's largest usual record is 10 KiB
	var n int
	for {
		k, err := data.Read(u.buf)
		if n += k; n > most || slices.ContainsFunc(u.buf[:k], func(b byte) bool { return b != 0 }) {
			return corrupt(errors.New("something follows the end of the archive"))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return u.readError(err)
		}
		if err := u.ctx.Err(); err != nil {
			return err
		}
	}
}

// tree is the directory in the making.
type tree struct {
	u     *unpacking
	seen  map[string]entryKind
	links []link
	files int
}

type link struct{ name, target string }

func newTree(u *unpacking) *tree {
	return &tree{u: u, seen: map[string]entryKind{".": implied}}
}

func (t *tree) add(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return t.u.count() // git archive puts its commit here
	}
	if err := checkHeader(h); err != nil {
		return err
	}
	name, err := cleanName(h.Name, h.Typeflag == tar.TypeDir)
	if err != nil {
		return &Error{Code: CodePath, Err: err, Hint: "publish it under another name"}
	}
	if name == "." {
		if h.Typeflag != tar.TypeDir || t.seen[name] == named {
			return twice(name)
		}
		t.seen[name] = named
		return nil
	}
	if err := t.parents(path.Dir(name)); err != nil {
		return err
	}
	switch have := t.seen[name]; {
	case have == implied && h.Typeflag == tar.TypeDir:
		t.seen[name] = named
		return nil
	case have != absent:
		return twice(name)
	}
	if err := t.u.count(); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		t.seen[name] = named
		return t.mkdir(name)
	case tar.TypeSymlink:
		t.seen[name] = symlink
		t.links = append(t.links, link{name, h.Linkname})
		return nil
	}
	t.seen[name] = regular
	t.files++
	perm := fs.FileMode(0o644)
	if h.Mode&0o100 != 0 {
		perm = 0o755
	}
	return t.u.write(name, perm, content)
}

// parents makes the directories above a name, and refuses to go through
// anything that is not one.
func (t *tree) parents(dir string) error {
	switch t.seen[dir] {
	case implied, named:
		return nil
	case regular, symlink:
		return &Error{Code: CodePath, Err: fmt.Errorf("%q is no directory, but an entry lies below it", clip(dir)), Hint: "pack the files under the names they really have"}
	}
	if err := t.parents(path.Dir(dir)); err != nil {
		return err
	}
	if err := t.u.count(); err != nil {
		return err
	}
	t.seen[dir] = implied
	return t.mkdir(dir)
}

func (t *tree) mkdir(name string) error {
	if err := t.u.root.Mkdir(name, 0o755); err != nil {
		return err
	}
	return t.u.root.Chmod(name, 0o755)
}

// link makes the symlinks, all of them before any is checked: one may lead
// over another.
func (t *tree) link() error {
	for _, l := range t.links {
		if err := checkTarget(l); err != nil {
			return err
		}
		if err := t.u.root.Symlink(l.target, l.name); err != nil {
			return err
		}
	}
	for _, l := range t.links {
		// os.Root follows the links, and refuses to leave. A target that
		// only looks as if it stayed inside ("a/b/../..", where a/b is a
		// link itself) is caught here.
		if _, err := t.u.root.Stat(l.name); err != nil {
			return &Error{Code: CodePath, Err: fmt.Errorf("symlink %q to %q leads to nothing in the archive", clip(l.name), clip(l.target)), Hint: "pack what it points at, or publish without it"}
		}
		if err := t.u.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// checkHeader refuses what is more than a name, an exec bit and bytes.
func checkHeader(h *tar.Header) error {
	kind := ""
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink:
	case tar.TypeLink:
		return &Error{Code: CodeEntryType, Err: fmt.Errorf("%q is a hard link", clip(h.Name)), Hint: "pack with tar --hard-dereference"}
	case tar.TypeChar, tar.TypeBlock:
		kind = "a device"
	case tar.TypeFifo:
		kind = "a FIFO"
	case tar.TypeGNUSparse:
		kind = "a sparse file"
	default:
		kind = fmt.Sprintf("an entry of type %q", h.Typeflag)
	}
	for key := range h.PAXRecords {
		switch {
		case strings.HasPrefix(key, "GNU.sparse."):
			kind = "a sparse file"
		case key == "SCHILY.xattr.security.capability":
			return &Error{Code: CodeEntryType, Err: fmt.Errorf("%q has file capabilities", clip(h.Name)), Hint: "pack it without, and set AmbientCapabilities= in the unit"}
		}
	}
	if kind != "" {
		return &Error{Code: CodeEntryType, Err: fmt.Errorf("%q is %s", clip(h.Name), kind), Hint: "pack only files, directories and symlinks"}
	}
	if h.Mode&0o7000 != 0 {
		return &Error{Code: CodeEntryType, Err: fmt.Errorf("%q has a setuid, setgid or sticky bit (mode %04o)", clip(h.Name), h.Mode&0o7777), Hint: "pack it without; the unit gives the service its rights"}
	}
	return nil
}

// cleanName checks the name of an entry and takes off what tar adds to it: a
// leading "./", and a directory's trailing slash.
func cleanName(name string, dir bool) (string, error) {
	bad := func(why string) (string, error) { return "", fmt.Errorf("name %q %s", clip(name), why) }
	n := name
	for strings.HasPrefix(n, "./") {
		n = strings.TrimLeft(n[2:], "/")
	}
	if dir {
		n = strings.TrimRight(n, "/")
		if n == "" && name != "" && name[0] != '/' {
			n = "."
		}
	}
	switch {
	case name == "":
		return bad("is empty")
	case strings.HasPrefix(name, "/"):
		return bad("is absolute")
	case len(name) > maxName:
		return bad(fmt.Sprintf("has %d bytes, want at most %d", len(name), maxName))
	case !utf8.ValidString(name):
		return bad("is not UTF-8")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }):
		return bad("has a control character or a backslash in it")
	case len(n) >= 2 && n[1] == ':' && (n[0]|0x20) >= 'a' && (n[0]|0x20) <= 'z':
		return bad("begins with a drive letter")
	case n == ".":
		if !dir {
			return bad("is the tree itself")
		}
		return n, nil
	}
	parts := strings.Split(n, "/")
	if len(parts) > maxDepth {
		return bad(fmt.Sprintf("is %d levels deep, want at most %d", len(parts), maxDepth))
	}
	for _, part := range parts {
		switch {
		case part == "..":
			return bad("has a .. in it")
		case part == "" || part == ".":
			return bad("is not in its shortest form")
		case len(part) > maxComponent:
			return bad(fmt.Sprintf("has a component of %d bytes, want at most %d", len(part), maxComponent))
		}
	}
	return n, nil
}

// checkTarget says early and clearly what os.Root would refuse late.
func checkTarget(l link) error {
	why := ""
	switch {
	case l.target == "" || len(l.target) > maxName:
		why = "has an empty or overlong target"
	case strings.HasPrefix(l.target, "/"):
		why = "is absolute"
	case !utf8.ValidString(l.target) || strings.ContainsFunc(l.target, func(r rune) bool { return r < ' ' || r == 0x7f }):
		why = "has a control character in its target"
	case !fs.ValidPath(path.Join(path.Dir(l.name), l.target)):
		why = "leaves the archive"
	default:
		return nil
	}
	return &Error{Code: CodePath, Err: fmt.Errorf("symlink %q to %q %s", clip(l.name), clip(l.target), why), Hint: "pack symlinks that are relative and stay inside"}
}

func twice(name string) error {
	return corrupt(fmt.Errorf("%q is in it twice", clip(name)))
}

// counter counts what the tar reader takes. It hides every other method of
// the reader below, so that nothing is skipped by seeking.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
