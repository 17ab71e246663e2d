package config

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/realm"
)

// Reader reads the .upgrade files of one realm: what the functions of the
// same names do for the system.
type Reader struct{ tree tree }

// At gives the system's below a root directory.
func At(root string) Reader { return Reader{treeAt(root)} }

// Of gives those of a realm of the running system.
func Of(r realm.Realm) Reader { return Reader{treeOf(r)} }

// Sandboxed is for a process in a user's sandbox, which is a user namespace that maps
// the user alone: files of root's seem to be nobody's there, as do those of others.
// The daemon has refused the latter, before it started the sandbox.
func (f Reader) Sandboxed() Reader {
	if f.tree.user {
		f.tree.owners = append(slices.Clone(f.tree.owners), nobody)
	}
	return f
}

// LoadAll reads every target, see [LoadAll].
func (f Reader) LoadAll() ([]*upgrader.Target, Diagnostics) { return all(f.tree, false) }

// PeekAll reads every target, and nothing that it trusts, see [PeekAll].
func (f Reader) PeekAll() ([]*upgrader.Target, Diagnostics) { return all(f.tree, true) }

// Load reads one target, see [Load].
func (f Reader) Load(name string) (*upgrader.Target, Diagnostics) {
	return loadOne(f.tree, name, false)
}

// Peek reads one target, and nothing that it trusts, see [Peek].
func (f Reader) Peek(name string) (*upgrader.Target, Diagnostics) { return loadOne(f.tree, name, true) }

// Has tells whether there is a file for a target, see [Has].
func (f Reader) Has(name string) bool { return f.tree.hasTarget(name) }

// Lint checks targets, see [Lint].
func (f Reader) Lint(args ...string) ([]*upgrader.Target, Diagnostics) { return lintAll(f.tree, args) }

// LoadAll reads every target of the tree below root ("" or "/" for the running
// system). It gives the targets that are whole, sorted by name, and the
// diagnostics of all others; masked ones and templates are neither. Two targets
// that name one unit are both refused, since nothing says which is meant.
func LoadAll(root string) ([]*upgrader.Target, Diagnostics) {
	return all(treeAt(root), false)
}

// PeekAll is LoadAll for those who obey targets and need not decide whom to
// trust: it opens .upgrade files and drop-ins, but no file of keys or
// certificates, which a sandbox or another user may be unable to read.
func PeekAll(root string) ([]*upgrader.Target, Diagnostics) {
	return all(treeAt(root), true)
}

func all(t tree, peek bool) ([]*upgrader.Target, Diagnostics) {
	readings, ds := loadAll(t, peek)
	clash(readings)
	for _, r := range readings {
		ds = append(ds, r.diagnostics()...)
	}
	return whole(readings), ds
}

// Load reads one target of the tree below root by its name. The target is nil
// if a diagnostic is an error. Other targets are not looked at, so it does not
// find two that name one unit.
func Load(root, name string) (*upgrader.Target, Diagnostics) {
	return loadOne(treeAt(root), name, false)
}

// Peek is to PeekAll what Load is to LoadAll.
func Peek(root, name string) (*upgrader.Target, Diagnostics) {
	return loadOne(treeAt(root), name, true)
}

// Has tells whether root has a .upgrade file of this name in the tree below root
// that is not masked and that nobody else could have written. Whether it is in
// order is another question: one that is being edited is there all the same.
func Has(root, name string) bool { return treeAt(root).hasTarget(name) }

func (t tree) hasTarget(name string) bool {
	file, ok := t.mainFile(name)
	if !ok || t.masked(file) {
		return false
	}
	_, err := t.read(file, unitfile.MaxSize)
	return err == nil
}

func loadOne(t tree, name string, peek bool) (*upgrader.Target, Diagnostics) {
	r, d := load(t, name, peek)
	if r == nil {
		return nil, Diagnostics{d}
	}
	if !r.ok() {
		return nil, r.diagnostics()
	}
	return &r.target, r.diagnostics()
}

func loadAll(t tree, peek bool) ([]*reading, Diagnostics) {
	names, ds := t.names()
	var readings []*reading
	for _, name := range names {
		if file, ok := t.mainFile(name); !ok || t.masked(file) {
			continue
		}
		r, d := load(t, name, peek)
		if r == nil {
			ds = append(ds, d)
			continue
		}
		readings = append(readings, r)
	}
	return readings, ds
}

// load reads a target with its drop-ins, or says why there is none of that
// name.
func load(t tree, name string, peek bool) (*reading, Diagnostic) {
	file, ok := t.mainFile(name)
	d := Diagnostic{Target: name, File: t.real(path.Join(t.at.Config[0], name+suffix)), Code: CodeFile}
	switch err := checkName(name); {
	case err != nil:
		d.Message, d.Hint = oneLine(err.Error()), hintOf(err)
		if ok {
			d.File = t.real(file)
		}
		return nil, d
	case template(name):
		d.Message = "this is a template, which follows nothing by itself"
		d.Hint = fmt.Sprintf("make a symlink %s1%s to it", name, suffix)
		return nil, d
	case !ok:
		d.Message = "there is no such file, nor in " + strings.Join(t.at.Config[1:], ", ")
		names, _ := t.names()
		if n := nearest(name, names); n != "" {
			d.Hint = "did you mean " + n + "?"
		}
		return nil, d
	case t.masked(file):
		d.File, d.Message = t.real(file), "the target is masked"
		d.Hint = "remove the link or the empty file to have it back"
		return nil, d
	}
	r := newReading(t, name)
	r.peek = peek
	r.read(t, file)
	drops, err := t.dropIns(name)
	if err != nil {
		r.reportErr(origin{0, 0}, CodeFile, "", err)
	}
	for _, drop := range drops {
		r.read(t, drop)
	}
	r.judge()
	return r, Diagnostic{}
}

// judge says all that is to be said once every file is read. A target whose
// files could not be read would only seem to lack keys.
func (r *reading) judge() {
	for _, l := range r.found {
		if l.Code == CodeFile {
			return
		}
	}
	r.fill()
	r.cross()
}

// loadFile reads a file from anywhere as a target of the tree, without
// drop-ins.
func loadFile(t tree, file string) (*reading, Diagnostic) {
	d := Diagnostic{File: file, Code: CodeFile}
	name, ok := strings.CutSuffix(filepath.Base(file), suffix)
	if !ok {
		d.Message, d.Hint = "the name does not end in "+suffix, "rename it to NAME"+suffix
		return nil, d
	}
	d.Target = name
	if err := checkName(name); err != nil {
		d.Message, d.Hint = oneLine(err.Error()), hintOf(err)
		return nil, d
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		d.Message = oneLine(err.Error())
		return nil, d
	}
	if template(name) {
		name += "instance" // so that %i has something to stand for
	}
	r := newReading(t, name)
	own := tree{root: "/", at: t.at, guard: t.guard}
	if !t.at.User {
		own = treeAt("/")
	}
	own.off = !slices.Contains(t.at.Config, filepath.Dir(abs)) // not where the daemon would read it
	r.read(own, abs)
	r.files[0] = file
	for i := range r.found {
		r.found[i].File = file
	}
	r.judge()
	return r, Diagnostic{}
}

// clash refuses targets that name the unit of another, but for configurations. One that is broken
// anyway is told, but does not stop the other.
func clash(readings []*reading) {
	owners := map[string][]*reading{}
	for _, r := range readings {
		if r.ok() && r.target.Unit != "" && r.target.Config == "" {
			owners[r.target.Unit] = append(owners[r.target.Unit], r)
		}
	}
	for _, r := range readings {
		for _, other := range owners[r.target.Unit] {
			if other != r && r.target.Config == "" {
				r.clashes(other)
				break
			}
		}
	}
}

func (r *reading) clashes(other *reading) {
	at := other.where("Upgrade", "Unit")
	r.report(r.where("Upgrade", "Unit"), Diagnostic{
		Code:    CodeConflict,
		Message: fmt.Sprintf("Unit=: %s is the unit of the target %s too (%s:%d)", r.target.Unit, other.name, printable(other.files[at.file]), at.line),
		Hint:    "remove or mask one of them; until then neither is followed",
	})
}
