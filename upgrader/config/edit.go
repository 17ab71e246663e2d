package config

import "path"

// Files gives the files that a target is read from, as the running system names
// them: the .upgrade file, then its drop-ins in the order in which they apply. It
// says what is wrong where there is no such target, or it is masked.
func (f Reader) Files(name string) ([]string, error) {
	r, d := load(f.tree, name, true)
	if r == nil {
		return nil, Diagnostics{d}.Err()
	}
	return r.files, nil
}

// Try says what there would be to say of a target if file held text. The file need
// not be there; it has to have a place where a target of that name is looked for.
func (f Reader) Try(name, file string, text []byte) Diagnostics {
	t := f.tree
	t.instead = &draft{file, text}
	r, d := load(t, name, false)
	if r == nil {
		return Diagnostics{d}
	}
	return r.diagnostics()
}

// OwnDropIns is the directory of a target's drop-ins that is the administrator's, or
// the user's.
func (f Reader) OwnDropIns(name string) string {
	return path.Join(f.tree.at.Config[0], name+suffix+".d")
}

// OwnFile is the .upgrade file of a target that is the administrator's, or the user's.
func (f Reader) OwnFile(name string) string { return path.Join(f.tree.at.Config[0], name+suffix) }

// draft is a file as it may come to be.
type draft struct {
	name string
	text []byte
}

// is tells whether a name is the draft's.
func (d *draft) is(name string) bool { return d != nil && d.name == name }

// in tells whether a directory holds the draft.
func (d *draft) in(dir string) bool { return d != nil && path.Dir(d.name) == dir }
