package upgrader

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher"
)

// What an import takes along. The daemon judges it; the limits are for the disk.
const (
	listName     = "SHA256SUMS"
	listMax      = 4 << 20 // as a source's
	metadataMax  = 16 << 20
	importFiles  = 1024  // of lists, signatures and metadata
	importLookAt = 32768 // entries of a directory
	importFactor = 3     // the copy, the artifact, and what is unpacked of it
)

// signatureTails are those of the files that may hold signatures of the list.
var signatureTails = []string{".minisig", ".gpg", ".asc", ".sshsig", ".sig"}

// ImportError is what is wrong with the files that were given, seen before the
// daemon was asked.
type ImportError struct {
	Err  error
	Hint string
}

func (e *ImportError) Error() string {
	if e.Hint == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + "; " + e.Hint
}

func (e *ImportError) Unwrap() error { return e.Err }

// Advice is the hint.
func (e *ImportError) Advice() string { return e.Hint }

var errNoList = errors.New("with Manifest=no there is no list that could say which release the files are")

func unimportable(hint, format string, a ...any) error {
	return &ImportError{fmt.Errorf(format, a...), hint}
}

// Import has the daemon stage a release from files, instead of from the target's
// source, and returns the ID of the order, and the order. The files are an
// artifact, or a directory of which the newest that matches is taken; SHA256SUMS
// and its signatures are looked for beside it where they are not among the files.
// With Verify=tuf it is one directory, a repository.
//
// The files are copied first: the daemon may not read where they are, and need
// not wait for who pulls the stick out. Whatever is copied is judged by the daemon
// alone, as if it had come from the source. ready is asked when the files are
// found to be in order, before the first is copied; its error ends it. progress,
// unless nil, gets the bytes copied so far and their total.
func Import(ctx context.Context, stateDir string, t *Target, files []string, ready func() error, progress func(done, total int64)) (string, Order, error) {
	return importAs(ctx, stateDir, t, files, "", ready, progress)
}

// importAs is Import of an artifact that is called otherwise in its list, unless as
// is empty.
func importAs(ctx context.Context, stateDir string, t *Target, files []string, as string, ready func() error, progress func(done, total int64)) (string, Order, error) {
	o := Order{ID: rand.Text(), Verb: OrderImport}
	s, err := viewForOrder(stateDir, t.Name)
	if err != nil {
		return "", o, err
	}
	l, err := gather(t, files, as)
	defer l.close()
	if err != nil {
		return "", o, err
	}
	o.File = path.Base(l.artifact)
	if err := o.check(); err != nil {
		return "", o, err
	}
	if err := ready(); err != nil {
		return "", o, err
	}
	total := l.size()
	if err := s.Room(importFactor*total + roomSpare); err != nil {
		return "", o, err
	}
	spool, err := s.NewSpool(o.ID)
	if err != nil {
		return "", o, err
	}
	done := int64(0)
	for _, p := range l.parts {
		from := io.Reader(p.file)
		if progress != nil {
			from = &counting{p.file, &done, total, progress}
		}
		if err := spool.Add(ctx, p.name, from, p.max); err != nil {
			return "", o, errors.Join(err, spool.Discard())
		}
	}
	err = spool.Sync()
	if err == nil {
		err = o.place(s)
	}
	if err != nil {
		return "", o, errors.Join(err, spool.Discard())
	}
	spool.Close()
	return o.ID, o, nil
}

// luggage is what is to be copied.
type luggage struct {
	parts    []part
	artifact string // the name of one of them
}

// part is an open file, and what it is called from then on.
type part struct {
	name string
	file *os.File
	size int64
	max  int64
}

func (l *luggage) close() {
	for _, p := range l.parts {
		p.file.Close()
	}
}

func (l *luggage) size() (n int64) {
	for _, p := range l.parts {
		n += p.size
	}
	return n
}

// add opens a file; anything else that has a name could block, or be endless.
func (l *luggage) add(name, from string, max int64) error {
	if len(l.parts) >= importFiles {
		return unimportable("", "more than %d files", importFiles)
	}
	if slices.ContainsFunc(l.parts, func(p part) bool { return p.name == name }) {
		return unimportable("name each once", "%s is given twice", from)
	}
	f, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ELOOP) {
		return unimportable("name the file that it leads to", "%s is a symbolic link, want a regular file", from)
	}
	if errors.Is(err, unix.ENXIO) {
		return unimportable("", "%s is a socket, want a regular file", from)
	}
	if err != nil {
		return &ImportError{Err: err}
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = unimportable("", "%s is a %s, want a regular file", from, kindOf(info.Mode()))
	}
	if err == nil && info.Size() > max {
		hint := "is that the right file?"
		if !strings.HasPrefix(name, listName) && !strings.HasPrefix(name, "metadata/") {
			hint = "raise SizeMax= if it is meant to be that large"
		}
		err = unimportable(hint, "%s has %d bytes, at most %d are taken", from, info.Size(), max)
	}
	if err != nil {
		f.Close()
		return err
	}
	l.parts = append(l.parts, part{name, f, info.Size(), max})
	return nil
}

func kindOf(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&fs.ModeNamedPipe != 0:
		return "FIFO"
	}
	return "device"
}

// gather opens what the files name. The caller closes it, whatever the error.
func gather(t *Target, files []string, as string) (*luggage, error) {
	l := &luggage{}
	if t.Source.NoManifest {
		return l, errNoList
	}
	if slices.ContainsFunc(t.Source.Patterns, func(p string) bool { return strings.Contains(path.Dir(p), "@v") }) {
		return l, unimportable("have the names of the files hold the version", "of a release of %s only a tag tells its version, and files have none", t.Name)
	}
	patterns, err := patternsOf(t)
	if err != nil {
		return l, err
	}
	if t.Source.Verify == fetcher.VerifyTUF {
		return l, l.repository(t, patterns, files)
	}
	var lists []string
	for _, file := range files {
		isDir, err := isDirectory(file)
		if err != nil {
			return l, err
		}
		if !isDir && strings.HasPrefix(filepath.Base(file), listName) {
			lists = append(lists, file)
			continue
		}
		if l.artifact != "" {
			return l, unimportable("import one after the other", "%s is one artifact more than %s", file, l.artifact)
		}
		if isDir {
			if file, err = newestOf(file, patterns); err != nil {
				return l, err
			}
		}
		l.artifact = cmp.Or(as, filepath.Base(file))
		if _, _, ok := match(patterns, l.artifact); !ok {
			return l, unimportable("name an artifact of "+t.Name+", or correct MatchPattern=", "%s does not match %s", file, strings.Join(t.Source.Patterns, " "))
		}
		if err := l.add(l.artifact, file, cmp.Or(t.Source.SizeMax, fetcher.SizeMaxDefault)); err != nil {
			return l, err
		}
		lists = append(lists, beside(filepath.Dir(file), files)...)
	}
	if l.artifact == "" {
		return l, unimportable("name the artifact, too", "none of the files is an artifact")
	}
	for _, list := range lists {
		if err := l.add(filepath.Base(list), list, listMax); err != nil {
			return l, err
		}
	}
	if t.Source.Verify != fetcher.VerifyNo && !slices.ContainsFunc(l.parts, func(p part) bool { return p.name == listName }) {
		return l, unimportable("copy it, and its signature, from where the artifact was published", "no %s beside %s", listName, l.artifact)
	}
	return l, nil
}

// beside names the list and its signatures in a directory, but for those that are
// given by name.
func beside(dir string, given []string) []string {
	var names []string
	for _, tail := range append([]string{""}, signatureTails...) {
		name := listName + tail
		if slices.ContainsFunc(given, func(f string) bool { return filepath.Base(f) == name }) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			names = append(names, filepath.Join(dir, name))
		}
	}
	return names
}

// newestOf names the file of a directory that matches with the newest version.
func newestOf(dir string, patterns []fetcher.Pattern) (string, error) {
	names, err := entriesOf(dir)
	if err != nil {
		return "", err
	}
	best, version, rank := "", fetcher.Version(""), 0
	for _, name := range names {
		v, i, ok := match(patterns, name)
		if !ok {
			continue
		}
		if order := v.Compare(version); best == "" || order > 0 || order == 0 && i < rank {
			best, version, rank = name, v, i
		}
	}
	if best == "" {
		return "", unimportable("name the artifact, or correct MatchPattern=", "%s holds no file that matches %s", dir, patterns)
	}
	return filepath.Join(dir, best), nil
}

// entriesOf lists the names in a directory, sorted.
func entriesOf(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, &ImportError{Err: err}
	}
	defer d.Close()
	names, err := d.Readdirnames(importLookAt + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, &ImportError{Err: err}
	}
	if len(names) > importLookAt {
		return nil, unimportable("name the artifact", "%s holds more than %d files", dir, importLookAt)
	}
	slices.Sort(names)
	return names, nil
}

// hashed is how TUF names a target's file with consistent snapshots.
var hashed = regexp.MustCompile(`^[0-9a-f]{64}\.`)

// repository gathers the metadata of a TUF repository, and of its targets the
// newest that matches.
func (l *luggage) repository(t *Target, patterns []fetcher.Pattern, files []string) error {
	if isDir, err := isDirectory(files[0]); err != nil || !isDir || len(files) > 1 {
		if err != nil {
			return err
		}
		return unimportable("name the directory that holds metadata/ and targets/", "Verify=tuf wants one directory, a repository")
	}
	metadata, err := entriesOf(filepath.Join(files[0], "metadata"))
	if err != nil {
		return err
	}
	for _, name := range metadata {
		if strings.HasSuffix(name, ".json") {
			if err := l.add("metadata/"+name, filepath.Join(files[0], "metadata", name), metadataMax); err != nil {
				return err
			}
		}
	}
	targets, found, version, seen := filepath.Join(files[0], "targets"), "", fetcher.Version(""), 0
	err = filepath.WalkDir(targets, func(file string, d fs.DirEntry, err error) error {
		if seen++; err == nil && seen > importLookAt {
			err = unimportable("", "%s holds more than %d files", targets, importLookAt)
		}
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(targets, file)
		if err != nil {
			return err
		}
		plain := path.Join(path.Dir(name), hashed.ReplaceAllString(path.Base(name), ""))
		if v, _, ok := match(patterns, plain); ok && (found == "" || v.Compare(version) > 0) {
			found, version, l.artifact = name, v, plain
		}
		return nil
	})
	if err != nil {
		return &ImportError{Err: err}
	}
	if found == "" {
		return unimportable("correct MatchPattern=, or copy the repository again", "%s holds no file that matches %s", targets, patterns)
	}
	return l.add("targets/"+found, filepath.Join(targets, found), cmp.Or(t.Source.SizeMax, fetcher.SizeMaxDefault))
}

func patternsOf(t *Target) ([]fetcher.Pattern, error) {
	var patterns []fetcher.Pattern
	for _, text := range t.Source.Patterns {
		p, err := fetcher.ParsePattern(text)
		if err != nil {
			return nil, err
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

// match tells the version in a name, and which pattern found it.
func match(patterns []fetcher.Pattern, name string) (fetcher.Version, int, bool) {
	for i, p := range patterns {
		if v, ok := p.Match(name); ok {
			return v, i, true
		}
	}
	return "", 0, false
}

// isDirectory follows links: where something is mounted is the operator's to say.
func isDirectory(name string) (bool, error) {
	info, err := os.Stat(name)
	if err != nil {
		return false, &ImportError{Err: err}
	}
	return info.IsDir(), nil
}

// counting tells how much was read.
type counting struct {
	io.Reader
	done     *int64
	total    int64
	progress func(done, total int64)
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	*c.done += int64(n)
	c.progress(*c.done, c.total)
	return n, err
}
