package unitlint

import (
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

// index knows which file has each name, and which names are another's.
type index struct {
	tree
	files   map[string]string // unit name → the file that counts
	aliases map[string]string // unit name → the name its link leads to
}

// scan makes the index of the services and sockets of a tree.
func scan(t tree) index {
	x := index{t, map[string]string{}, map[string]string{}}
	for _, dir := range t.at.Units {
		for _, name := range t.list(dir) {
			u, err := unitfile.ParseUnitName(name)
			if _, taken := x.files[name]; taken || err != nil || u.Type != "service" && u.Type != "socket" {
				continue
			}
			file := path.Join(dir, name)
			x.files[name] = file
			if to, ok := x.alias(u, file); ok {
				x.aliases[name] = to
			}
		}
	}
	return x
}

// alias tells which unit a link makes its name stand for. A link out of the
// search path, or to a file of its own name, is the unit itself.
func (x index) alias(u unitfile.UnitName, file string) (string, bool) {
	link, err := os.Readlink(x.real(file))
	if err != nil || x.masks(file) {
		return "", false
	}
	if !path.IsAbs(link) {
		link = path.Join(path.Dir(file), link)
	}
	to, err := unitfile.ParseUnitName(path.Base(link))
	if err != nil || to.Type != u.Type || path.Base(link) == path.Base(file) {
		return "", false
	}
	dir, err := x.follow(path.Dir(link))
	if err != nil {
		return "", false
	}
	for _, d := range x.at.Units {
		if at, err := x.follow(d); err == nil && at == dir {
			return path.Base(link), true
		}
	}
	return "", false
}

// resolve gives the unit that a name stands for and its file, "" if there is
// none.
func (x index) resolve(name string) (id, file string) {
	for range maxLinks {
		u, err := unitfile.ParseUnitName(name)
		if err != nil {
			return name, ""
		}
		key := name
		if _, ok := x.files[key]; !ok && u.Instance != "" {
			key = template(u)
		}
		to, ok := x.aliases[key]
		if !ok {
			return name, x.files[key]
		}
		if v, err := unitfile.ParseUnitName(to); err == nil && v.Template() {
			to = instantiate(v, u.Instance)
		}
		if to == name {
			return name, ""
		}
		name = to
	}
	return name, ""
}

// names gives the unit's name and then, sorted, the others it goes by.
func (x index) names(id string) []string {
	u, err := unitfile.ParseUnitName(id)
	if err != nil {
		return []string{id}
	}
	var others []string
	for _, alias := range slices.Sorted(maps.Keys(x.aliases)) {
		if a, err := unitfile.ParseUnitName(alias); err == nil && a.Template() {
			if u.Instance == "" {
				continue
			}
			alias = instantiate(a, u.Instance)
		}
		if to, _ := x.resolve(alias); to == id && alias != id {
			others = append(others, alias)
		}
	}
	return append([]string{id}, others...)
}

// dropIns lists the drop-in files of a unit in the order in which they apply.
func (x index) dropIns(id string) []string {
	var dirs []string
	add := func(names []string) {
		for _, dir := range x.at.Units {
			for _, name := range names {
				dirs = append(dirs, path.Join(dir, name+".d"))
			}
		}
	}
	for _, name := range x.names(id) {
		add(owners(name))
	}
	add([]string{strings.TrimPrefix(path.Ext(id), ".")})
	return x.confFiles(dirs)
}

// confFiles lists *.conf in directories, by file name; of two with one name
// the earlier directory's counts.
func (t tree) confFiles(dirs []string) []string {
	found := map[string]string{}
	for _, dir := range dirs {
		for _, e := range t.list(dir) {
			if _, taken := found[e]; !taken && strings.HasSuffix(e, ".conf") && !strings.HasPrefix(e, ".") {
				found[e] = path.Join(dir, e)
			}
		}
	}
	var files []string
	for _, e := range slices.Sorted(maps.Keys(found)) {
		if !t.masks(found[e]) {
			files = append(files, found[e])
		}
	}
	return files
}

// owners are the names whose drop-ins apply to a unit: its own, its
// template's, and each cut behind a dash.
func owners(name string) []string {
	u, err := unitfile.ParseUnitName(name)
	if err != nil {
		return nil
	}
	names := []string{name}
	if u.Instance != "" {
		names = append(names, owners(template(u))...)
	}
	if dash := strings.LastIndexByte(strings.TrimSuffix(u.Prefix, "-"), '-'); dash >= 0 {
		u.Prefix = u.Prefix[:dash+1]
		u.At = u.Instance != "" // a template is cut to a plain name
		names = append(names, owners(join(u))...)
	}
	return names
}

func join(u unitfile.UnitName) string {
	if u.At {
		return u.Prefix + "@" + u.Instance + "." + u.Type
	}
	return u.Prefix + "." + u.Type
}

func template(u unitfile.UnitName) string {
	return instantiate(u, "")
}

func instantiate(u unitfile.UnitName, instance string) string {
	u.At, u.Instance = true, instance
	return join(u)
}
