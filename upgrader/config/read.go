package config

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

const readable = "the daemon runs as the user upgraderd, who must be able to read it"

// origin is where something was written.
type origin struct {
	file int // index in reading.files
	line int
}

// assignment is a value and where it stands.
type assignment struct {
	value string
	at    origin
}

// reading is one target in the making.
type reading struct {
	scope
	keys   []Key
	files  []string // as the running system names them; the first is the main file
	target upgrader.Target
	// headers tells where each section begins first, given what was assigned
	// to each key (SECTION.NAME) and not taken back.
	headers map[string]origin
	given   map[string][]assignment
	found   []located
	// torn is set where a line could not be read: a key that seems to be
	// missing may have stood there.
	torn bool
	// errors and warnings count what was reported, kept or not.
	errors, warnings int
}

// located is a diagnostic that knows its place in the order of reading.
type located struct {
	at origin
	Diagnostic
}

func newReading(t tree, name string) *reading {
	return &reading{
		scope:   scope{tree: t, name: name, known: &known{}},
		keys:    Keys(),
		headers: map[string]origin{},
		given:   map[string][]assignment{},
	}
}

// maxFound bounds what one target can make anybody print, of errors and of
// warnings.
const maxFound = 50

func (r *reading) report(at origin, d Diagnostic) {
	n := &r.errors
	if d.Warning {
		n = &r.warnings
	}
	*n++
	switch {
	case *n == maxFound+1:
		d.Message, d.Hint = "more like this follows; the rest is not reported", ""
	case *n > maxFound:
		return
	}
	d.Target, d.File, d.Line = r.name, r.files[at.file], at.line
	r.found = append(r.found, located{at, d})
}

// reportErr makes a diagnostic of an error; what stands before it names the
// key or the file.
func (r *reading) reportErr(at origin, code Code, before string, err error) {
	var h *hinted
	if errors.As(err, &h) && h.code != "" {
		code = h.code
	}
	r.report(at, Diagnostic{Code: code, Host: ofHost(err), Message: oneLine(before + err.Error()), Hint: oneLine(hintOf(err))})
}

// oneLine keeps whatever stands in an error from making a second line.
func oneLine(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, s)
	return strings.ToValidUTF8(s, "?")
}

// diagnostics gives what was found in the order of files and lines.
func (r *reading) diagnostics() Diagnostics {
	slices.SortStableFunc(r.found, func(a, b located) int {
		if a.at.file != b.at.file {
			return a.at.file - b.at.file
		}
		return a.at.line - b.at.line
	})
	var ds Diagnostics
	for _, l := range r.found {
		ds = append(ds, l.Diagnostic)
	}
	return ds
}

// ok tells whether nothing but warnings was found.
func (r *reading) ok() bool { return r.errors == 0 }

// read takes in one file: the main file first, then the drop-ins in order.
func (r *reading) read(t tree, name string) {
	r.files = append(r.files, t.real(name))
	file := len(r.files) - 1
	text, err := t.read(name, unitfile.MaxSize)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = withHint(err, readable)
		}
		r.reportErr(origin{file, 0}, CodeFile, "", bare(err))
		return
	}
	parsed, problems := unitfile.Parse(text)
	for _, p := range problems {
		r.torn = true
		r.report(origin{file, p.Line}, Diagnostic{Code: CodeSyntax, Message: p.Message, Hint: p.Hint})
	}
	seen := map[string]int{} // keys that take one value → line
	for _, s := range parsed.Sections {
		r.section(file, s, seen)
	}
}

// bare drops the file's name from an error of package os: a message has it
// already.
func bare(err error) error {
	var h *hinted
	if errors.As(err, &h) {
		return &hinted{error: bare(h.error), code: h.code, hint: h.hint}
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (r *reading) section(file int, s unitfile.Section, seen map[string]int) {
	// As in systemd, X- marks what is meant for others.
	if strings.HasPrefix(s.Name, "X-") {
		return
	}
	known := sections(r.keys)
	if !slices.Contains(known, s.Name) {
		r.report(origin{file, s.Line}, Diagnostic{
			Code:    CodeKey,
			Message: fmt.Sprintf("the section [%s] is unknown; what stands in it is not read", oneLine(cut(s.Name))),
			Hint:    didYouMean(s.Name, known),
		})
		return
	}
	if _, ok := r.headers[s.Name]; !ok {
		r.headers[s.Name] = origin{file, s.Line}
	}
	for _, a := range s.Assignments {
		if !strings.HasPrefix(a.Key, "X-") {
			r.assign(file, s.Name, a, seen)
		}
	}
}

// cut keeps a name short enough to print.
func cut(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

func (r *reading) assign(file int, section string, a unitfile.Assignment, seen map[string]int) {
	at := origin{file, a.Line}
	i := slices.IndexFunc(r.keys, func(k Key) bool { return k.Section == section && k.Name == a.Key })
	if i < 0 {
		r.report(at, Diagnostic{
			Code:    CodeKey,
			Message: fmt.Sprintf("%s= is unknown in [%s]", oneLine(cut(a.Key)), section),
			Hint:    r.suggest(section, a.Key),
		})
		return
	}
	id := section + "." + a.Key
	if a.Value == "" {
		r.given[id] = nil
		delete(seen, id)
		return
	}
	if r.keys[i].List {
		r.given[id] = append(r.given[id], assignment{a.Value, at})
		return
	}
	if line, twice := seen[id]; twice {
		r.report(at, Diagnostic{
			Code: CodeConflict, Warning: true,
			Message: fmt.Sprintf("%s= replaces what line %d says", a.Key, line),
			Hint:    "remove one of them",
		})
	}
	seen[id] = a.Line
	r.given[id] = []assignment{{a.Value, at}}
}

// suggest finds what an unknown key may have been meant for.
func (r *reading) suggest(section, name string) string {
	var here []string
	for _, k := range r.keys {
		if k.Section == section {
			here = append(here, k.Name)
		}
	}
	if n := nearest(name, here); n != "" {
		return "did you mean " + n + "=?"
	}
	for _, k := range r.keys {
		if k.Name == name || nearest(name, []string{k.Name}) != "" {
			return fmt.Sprintf("%s= belongs into [%s]", k.Name, k.Section)
		}
	}
	return fmt.Sprintf("[%s] knows %s=; a key that is not for upgraderd begins with X-", section, strings.Join(here, "=, "))
}

// fill sets every key: to what was given, else to its default.
func (r *reading) fill() {
	r.target.Name, r.target.File, r.target.Source.Target = r.name, r.files[0], r.name
	for _, k := range r.keys {
		given := r.given[k.Section+"."+k.Name]
		if len(given) == 0 && k.Required && !r.torn && !r.denied(k.Section, k.Unless) {
			r.report(r.place(k.Section), Diagnostic{
				Code:    CodeMissing,
				Message: fmt.Sprintf("%s= is missing in [%s]", k.Name, k.Section),
				Hint:    fmt.Sprintf("for example %s=%s", k.Name, k.Example),
			})
		}
		if len(given) == 0 && k.Default != "" {
			given = []assignment{{k.Default, r.place(k.Section)}}
		}
		for _, a := range given {
			if err := k.set(r.scope, &r.target, a.value); err != nil {
				r.reportErr(a.at, CodeValue, k.Name+"=: ", err)
			}
		}
	}
}

// denied tells whether a boolean says no.
func (r *reading) denied(section, name string) bool {
	given := r.given[section+"."+name]
	if len(given) == 0 {
		return false
	}
	yes, err := unitfile.Bool(given[len(given)-1].value)
	return err == nil && !yes
}

// place is where a section begins, or the top of the main file where there is
// none.
func (r *reading) place(section string) origin {
	if at, ok := r.headers[section]; ok {
		return at
	}
	return origin{0, 1}
}

// where is the last place that gives a key a value, or its section's.
func (r *reading) where(section, name string) origin {
	if given := r.given[section+"."+name]; len(given) > 0 {
		return given[len(given)-1].at
	}
	return r.place(section)
}
