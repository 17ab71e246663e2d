package config

import (
	"os"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader"
)

// Lint checks targets and says what there is to say, nothing if all is well.
// Each argument is the name of a target of the tree below root, or a file (it
// has a slash in it), which need not be installed: it is read as if it were,
// without drop-ins, and for root "/" its keys are looked for on this system.
// Without arguments every target is checked.
//
// It gives the targets that are whole, too, for whoever has more to ask of
// them.
func Lint(root string, args ...string) ([]*upgrader.Target, Diagnostics) {
	return lintAll(treeAt(root), args)
}

func lintAll(t tree, args []string) ([]*upgrader.Target, Diagnostics) {
	readings, ds := loadAll(t, false)
	if len(args) == 0 {
		clash(readings)
		for _, r := range readings {
			ds = append(ds, r.diagnostics()...)
		}
		ds = append(ds, t.orphans()...)
		if len(readings) == 0 && len(ds) == 0 {
			ds = append(ds, Diagnostic{
				File: t.real(t.at.Config[0]), Code: CodeFile, Warning: true,
				Message: "there is no NAME" + suffix + " here, nor in " + strings.Join(t.at.Config[1:], ", "),
			})
		}
		return whole(readings), ds
	}
	var named []*reading
	var said Diagnostics
	for _, arg := range args {
		r, ds := lint(t, readings, arg)
		if r != nil {
			named = append(named, r)
		}
		said = append(said, ds...)
	}
	return whole(named), said
}

// whole gives the targets in which no error was found.
func whole(readings []*reading) []*upgrader.Target {
	var targets []*upgrader.Target
	for _, r := range readings {
		if r.ok() {
			targets = append(targets, &r.target)
		}
	}
	return targets
}

// lint checks one argument beside the targets that are installed.
func lint(t tree, installed []*reading, arg string) (*reading, Diagnostics) {
	var (
		r *reading
		d Diagnostic
	)
	if strings.Contains(arg, "/") {
		r, d = loadFile(t, arg)
	} else {
		r, d = load(t, strings.TrimSuffix(arg, suffix), false)
	}
	if r == nil {
		if _, err := os.Stat(arg); err == nil && d.Hint == "" {
			d.Hint = "for the file in this directory write ./" + printable(arg)
		}
		return nil, Diagnostics{d}
	}
	// It takes the place of the installed target of its name.
	others := slices.DeleteFunc(slices.Clone(installed), func(o *reading) bool { return o.name == r.name })
	for _, o := range others {
		if o.ok() && o.target.Unit != "" && o.target.Unit == r.target.Unit && o.target.Config == "" && r.target.Config == "" {
			r.clashes(o)
			break
		}
	}
	return r, r.diagnostics()
}
