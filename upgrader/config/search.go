package config

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader/realm"
)

const (
	suffix = ".upgrade"

	maxTargets = 1000
	maxDropIns = 100 // of one target
	maxName    = 128 // of a target: its name becomes part of unit names, which have 255
)

// SearchPath gives the directories that hold .upgrade files of the system, the
// first overriding the next.
func SearchPath() []string { return realm.System().Config }

// checkName refuses what cannot name a target. The name becomes a directory of
// the store and part of unit names, so it is plainer than a file name: no ":"
// (it parts the two sides of BindPaths=), nothing that needs escaping.
func checkName(name string) error {
	const hint = "name the file with letters, digits and _ . - @, beginning with a letter or digit"
	switch {
	case name == "":
		return refuse(hint, "the file has no name before %s", suffix)
	case len(name) > maxName:
		return refuse("", "the name has %d bytes, a target's has at most %d", len(name), maxName)
	case !alphanumeric(name[0]):
		return refuse(hint, "a target's name cannot begin with %q", name[0])
	}
	for i := range len(name) {
		if !alphanumeric(name[i]) && strings.IndexByte("_.-@", name[i]) < 0 {
			return refuse(hint, "a target's name cannot hold %q", name[i])
		}
	}
	return nil
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// instance cuts PREFIX@INSTANCE; at is false for a plain name.
func instance(name string) (prefix, instance string, at bool) {
	return strings.Cut(name, "@")
}

// template tells a name that only its instances make a target of.
func template(name string) bool {
	_, instance, at := instance(name)
	return at && instance == ""
}

// mainFile finds the file that defines a target: the first on the search path.
func (t tree) mainFile(name string) (string, bool) {
	for _, dir := range t.at.Config {
		if file := path.Join(dir, name+suffix); t.has(file) {
			return file, true
		}
	}
	return "", false
}

// names lists what could be targets, sorted, each once. Files whose names begin
// with a dot are editors'; templates are no targets. A directory that cannot or
// must not be read adds none; what it has for a target named elsewhere still
// stops that target, since it may be there to.
func (t tree) names() ([]string, Diagnostics) {
	var names []string
	var ds Diagnostics
	for _, dir := range t.at.Config {
		entries, err := t.list(dir)
		if err != nil {
			ds = append(ds, Diagnostic{File: t.real(dir), Code: CodeFile, Host: ofHost(err), Message: oneLine(bare(err).Error()), Hint: oneLine(hintOf(err))})
		}
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e, suffix); ok && !strings.HasPrefix(e, ".") && !template(name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxTargets {
		ds = append(ds, Diagnostic{
			File: t.real(t.at.Config[0]), Code: CodeFile,
			Message: fmt.Sprintf("%d targets, at most %d are read; the rest, from %s on, is left out", len(names), maxTargets, printable(names[maxTargets])),
		})
		names = names[:maxTargets]
	}
	return names, ds
}

// orphans warns of drop-ins that nothing reads. A package may ship them for a
// target of another, so only what is local is looked at.
func (t tree) orphans() Diagnostics {
	var ds Diagnostics
	for _, dir := range t.at.Config[:2] {
		entries, err := t.list(dir)
		if err != nil {
			continue // names has said so
		}
		for _, e := range entries {
			name, ok := strings.CutSuffix(e, suffix+".d")
			if !ok {
				continue
			}
			if _, ok := t.mainFile(name); !ok {
				ds = append(ds, Diagnostic{
					Target: name, File: t.real(path.Join(dir, e)), Code: CodeFile, Warning: true,
					Message: "these drop-ins are not read: there is no " + printable(name+suffix),
				})
			}
		}
	}
	return ds
}

// dropIns lists the drop-in files of a target in the order in which they
// apply: by file name, whatever their directory. Of two with one name that of
// the earlier directory counts, and the instance's before the template's.
func (t tree) dropIns(name string) ([]string, error) {
	owners := []string{name}
	if prefix, _, at := instance(name); at {
		owners = append(owners, prefix+"@")
	}
	found := map[string]string{} // file name → file
	for _, owner := range owners {
		for _, dir := range t.at.Config {
			dir = path.Join(dir, owner+suffix+".d")
			entries, err := t.list(dir)
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				if _, taken := found[e]; !taken && strings.HasSuffix(e, ".conf") && !strings.HasPrefix(e, ".") {
					found[e] = path.Join(dir, e)
				}
			}
		}
	}
	var files []string
	for _, e := range slices.Sorted(maps.Keys(found)) {
		if !t.masked(found[e]) {
			files = append(files, found[e])
		}
	}
	if len(files) > maxDropIns {
		return nil, fmt.Errorf("%d drop-ins, at most %d are read", len(files), maxDropIns)
	}
	return files, nil
}
