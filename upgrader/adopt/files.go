package adopt

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

// ErrAdopted is a unit that was adopted before.
var ErrAdopted = errors.New("adopted already")

// ErrNotAdopted is a unit of which nothing is to be undone.
var ErrNotAdopted = errors.New("not adopted")

// A record's lines name what was made with a drop-in; a directory ends in a slash.
const recordPrefix = "# Made with it: "

func recordLine(name string) string { return recordPrefix + name + "\n" }

// Disk is where files are, below a root directory: "/", but in tests.
type Disk struct {
	Root string
	At   Place
}

func (d Disk) real(name string) string { return filepath.Join(d.Root, name) }

// ours tells whether a file was written by us for this unit, and gives its text.
func (d Disk) ours(name, unit string) (text []byte, ok bool, err error) {
	text, err = os.ReadFile(d.real(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return text, bytes.HasPrefix(text, []byte(d.At.marker(unit)+"\n")), nil
}

// Adopted tells whether a unit is adopted: nil if it is not, [ErrAdopted] if it is
// and whole, and what is missing otherwise.
func (d Disk) Adopted(unit string) error {
	text, ok, err := d.ours(d.At.dropInName(unit), unit)
	switch {
	case err != nil:
		return err
	case text != nil && !ok:
		return hint("move it away, or rename it", "%s is there, and was not written by upgraderd adopt", d.At.dropInName(unit))
	case !ok:
		return nil
	}
	for _, name := range d.At.made(text) {
		if _, err := os.Lstat(d.real(name)); errors.Is(err, fs.ErrNotExist) {
			return hint("begin anew: upgraderd adopt --undo "+unit+", then adopt it again", "%s was adopted, but %s is gone", unit, name)
		} else if err != nil {
			return err
		}
	}
	return ErrAdopted
}

// made reads the record in the head of a drop-in. Nothing is taken from it that
// adopting could not have made.
func (p Place) made(text []byte) []string {
	var names []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			break
		}
		name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), recordPrefix)
		dir := path.Dir(strings.TrimSuffix(name, "/"))
		inPlace := dir == p.Units || dir == p.Config || path.Dir(dir) == p.Units && strings.HasSuffix(dir, ".d")
		if ok && inPlace && path.Clean(name) == strings.TrimSuffix(name, "/") {
			names = append(names, name)
		}
	}
	return names
}

// Fit completes an adoption by what is on disk: the directories to be made, which
// the record names too. Nothing that is there may be in the way, but for what an
// adoption that was cut off has left.
func (d Disk) Fit(a *Adoption) error {
	for i, f := range a.Files {
		_, ok, err := d.ours(f.Name, a.Unit)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(d.real(f.Name)); err == nil && !ok {
			return hint("move it away, or choose another name with --name=", "%s exists already", f.Name)
		}
		if dir := path.Dir(f.Name); path.Dir(dir) == d.At.Units {
			if _, err := os.Lstat(d.real(dir)); errors.Is(err, fs.ErrNotExist) {
				a.Dirs = append(a.Dirs, dir)
			}
		}
		if f.Name == d.At.dropInName(a.Unit) { // it follows the drop-ins of sockets
			a.Files[i].Text = withDirs(f.Text, a.Dirs)
		}
	}
	return nil
}

// withDirs adds directories to the record, after its first line.
func withDirs(text string, dirs []string) string {
	first, rest, _ := strings.Cut(text, "\n")
	for _, dir := range slices.Backward(dirs) {
		rest = recordLine(dir+"/") + rest
	}
	return first + "\n" + rest
}

// Write puts the files of an adoption that fits in place, each whole and on disk
// before the next. Nothing is overwritten. After an error what was written is
// removed again.
func (d Disk) Write(a Adoption) (err error) {
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for _, u := range slices.Backward(undo) {
			err = errors.Join(err, u())
		}
	}()
	for _, dir := range a.Dirs {
		if err := os.Mkdir(d.real(dir), 0o755); err != nil {
			return err
		}
		undo = append(undo, func() error { return os.Remove(d.real(dir)) })
		if err := syncDir(d.real(path.Dir(dir))); err != nil {
			return err
		}
	}
	for _, f := range a.Files {
		if _, ok, err := d.ours(f.Name, a.Unit); err != nil {
			return err
		} else if ok {
			if err := os.Remove(d.real(f.Name)); err != nil {
				return err
			}
		}
		if err := writeFile(d.real(f.Name), f.Text); err != nil {
			return err
		}
		undo = append(undo, func() error { return os.Remove(d.real(f.Name)) })
	}
	return nil
}

// writeFile makes a file appear whole by a rename, and on disk.
func writeFile(name, text string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".upgraderd-adopt-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), name) // other than a rename it replaces nothing
	}
	err = errors.Join(err, os.Remove(f.Name()))
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Undoing is what would be removed.
type Undoing struct {
	Unit   string
	Target string // "" where its .upgrade was not ours
	Socket string // the .socket unit that goes, "" if none does
	Proxy  string // the .service unit of a proxy, likewise
	Files  []File
	Dirs   []string
	// Kept are files that adopting wrote, and that are somebody else's by now.
	Kept []string
}

// Undo finds what adopting a unit has written. The drop-in comes last.
func (d Disk) Undo(unit string) (Undoing, error) {
	u := Undoing{Unit: unit}
	record, ok, err := d.ours(d.At.dropInName(unit), unit)
	if err != nil {
		return u, err
	}
	// Of an adoption that was cut off.
	names := []string{d.At.Units + "/" + ownSocket(unit), d.At.Units + "/" + proxySocket(unit), d.At.Units + "/" + proxyService(unit)}
	if ok {
		names = append(names, d.At.made(record)...)
	}
	slices.Sort(names)
	for _, name := range append(slices.Compact(names), d.At.dropInName(unit)) {
		if dir, isDir := strings.CutSuffix(name, "/"); isDir {
			u.Dirs = append(u.Dirs, dir)
			continue
		}
		text, ok, err := d.ours(name, unit)
		switch {
		case err != nil:
			return u, err
		case text == nil:
			continue
		case !ok && slices.Contains(d.At.made(record), name):
			u.Kept = append(u.Kept, name)
			continue
		case !ok:
			continue
		}
		u.Files = append(u.Files, File{name, string(text)})
		switch {
		case path.Dir(name) == d.At.Config:
			u.Target = strings.TrimSuffix(path.Base(name), ".upgrade")
		case path.Dir(name) == d.At.Units && path.Ext(name) == ".socket":
			u.Socket = path.Base(name)
		case name == d.At.Units+"/"+proxyService(unit):
			u.Proxy = path.Base(name)
		}
	}
	if len(u.Files) == 0 {
		return u, fmt.Errorf("%s: %w", unit, ErrNotAdopted)
	}
	return u, nil
}

// Remove removes what was found. A directory that somebody else uses by now stays.
func (d Disk) Remove(u Undoing) error {
	for _, f := range u.Files {
		if err := os.Remove(d.real(f.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := syncDir(d.real(path.Dir(f.Name))); err != nil {
			return err
		}
	}
	for _, dir := range u.Dirs {
		_ = os.Remove(d.real(dir)) // fails where something is in it
	}
	return nil
}

// Diff shows what would be written.
func (a Adoption) Diff() string {
	var b strings.Builder
	for _, f := range a.Files {
		b.WriteString(unified("/dev/null", "", f.Name, f.Text))
	}
	return b.String()
}

// Diff shows what would be removed.
func (u Undoing) Diff() string {
	var b strings.Builder
	for _, f := range u.Files {
		b.WriteString(unified(f.Name, f.Text, "/dev/null", ""))
	}
	return b.String()
}

// unified is what diff -u prints, without the line that git and diff -r begin with.
func unified(oldName, before, newName, after string) string {
	text := string(diff.Diff(oldName, []byte(before), newName, []byte(after)))
	if _, rest, ok := strings.Cut(text, "\n"); ok && strings.HasPrefix(text, "diff ") {
		return rest
	}
	return text
}
