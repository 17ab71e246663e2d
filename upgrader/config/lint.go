package config

import (
	"io"
	"os"
	"slices"
	"strings"
)

// Lint checks targets and prints what there is to say, nothing if all is well.
// Each argument is the name of a target of the tree below root, or a file (it
// has a slash in it), which need not be installed: it is read as if it were,
// without drop-ins, and for root "/" its keys are looked for on this system.
// Without arguments every target is checked.
//
// It is true if no diagnostic is an error. The error is that of writing to w.
func Lint(w io.Writer, root string, args ...string) (bool, error) {
	t := treeAt(root)
	readings, ds := loadAll(t, false)
	if len(args) == 0 {
		clash(readings)
		for _, r := range readings {
			ds = append(ds, r.diagnostics()...)
		}
		ds = append(ds, t.orphans()...)
		if len(readings) == 0 && len(ds) == 0 {
			ds = append(ds, Diagnostic{
				File: t.real(SearchPath()[0]), Code: CodeFile, Warning: true,
				Message: "there is no NAME" + suffix + " here, nor in " + strings.Join(SearchPath()[1:], ", "),
			})
		}
		return len(ds.Errors()) == 0, ds.Print(w)
	}
	var said Diagnostics
	for _, arg := range args {
		said = append(said, lint(t, readings, arg)...)
	}
	return len(said.Errors()) == 0, said.Print(w)
}

// lint checks one argument beside the targets that are installed.
func lint(t tree, installed []*reading, arg string) Diagnostics {
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
		return Diagnostics{d}
	}
	// It takes the place of the installed target of its name.
	others := slices.DeleteFunc(slices.Clone(installed), func(o *reading) bool { return o.name == r.name })
	for _, o := range others {
		if o.ok() && o.target.Unit != "" && o.target.Unit == r.target.Unit {
			r.clashes(o)
			break
		}
	}
	return r.diagnostics()
}
