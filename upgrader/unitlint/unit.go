package unitlint

import (
	"errors"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/realm"
)

// place is where something is written, or would be. line is 0 where the file
// as a whole is meant.
type place struct {
	file string
	line int
}

// setting is an assignment in one of a unit's files.
type setting struct {
	section, key, value string
	place
}

// empty tells an assignment without a value that systemd ignores.
func (s setting) empty() bool { return s.value == "" && keepsEmpty(s.key) }

// problem is something in a unit's files that systemd cannot read.
type problem struct {
	place
	message, hint string
}

// unit is what a unit's files say together.
type unit struct {
	name     string // the one that aliases lead to
	file     string // the fragment, "" where there is none
	masked   bool
	settings []setting
	headers  map[string]int // section → line in the fragment
	problems []problem
	// unread is set where a file could not be read: what seems to be
	// missing may stand there.
	unread bool
	at     realm.Realm
}

// load reads a unit with its drop-ins.
func (x index) load(name string) *unit {
	id, file := x.resolve(name)
	u := &unit{name: id, headers: map[string]int{}, at: x.at}
	if file == "" {
		return u
	}
	u.file = x.real(file)
	if u.masked = x.masks(file); u.masked {
		return u
	}
	u.read(x.tree, file)
	for _, drop := range x.dropIns(id) {
		u.read(x.tree, drop)
	}
	return u
}

// there tells that the unit can be judged by what its files say.
func (u *unit) there() bool { return u.file != "" && !u.masked && !u.unread }

func (u *unit) read(t tree, file string) {
	name := t.real(file)
	text, err := t.read(file)
	if err != nil {
		u.unread = true
		u.problems = append(u.problems, problem{place{name, 0}, "the file cannot be read: " + bare(err).Error(), ""})
		return
	}
	parsed, problems := unitfile.Parse(text)
	for _, p := range problems {
		u.problems = append(u.problems, problem{place{name, p.Line}, p.Message, p.Hint})
	}
	for _, s := range parsed.Sections {
		if _, seen := u.headers[s.Name]; !seen && name == u.file {
			u.headers[s.Name] = s.Line
		}
		for _, a := range s.Assignments {
			u.settings = append(u.settings, setting{s.Name, a.Key, a.Value, place{name, a.Line}})
		}
	}
}

// all gives what was assigned to a key, or to one that means the same, and not
// taken back.
func (u *unit) all(section string, keys ...string) []setting {
	var found []setting
	for _, s := range u.settings {
		for _, key := range keys {
			switch {
			case s.section != section || s.key != key || s.empty():
			case s.value == "":
				found = nil
			default:
				found = append(found, s)
			}
		}
	}
	return found
}

// last gives the assignment that counts of a key that takes one value. Where
// there is none, it gives the place of the section, where it is missing.
func (u *unit) last(section string, keys ...string) (setting, bool) {
	if found := u.all(section, keys...); len(found) > 0 {
		return found[len(found)-1], true
	}
	return setting{section: section, key: keys[0], place: u.place(section)}, false
}

// place is where a section begins in the fragment.
func (u *unit) place(section string) place { return place{u.file, u.headers[section]} }

// yes reads a boolean; one that systemd would ignore is the default.
func (u *unit) yes(section, key string) (setting, bool) {
	s, _ := u.last(section, key)
	v, err := unitfile.Bool(s.value)
	return s, err == nil && v
}

// forever is a time that never ends.
const forever = time.Duration(1<<63 - 1)

// span reads a time span; false where systemd would ignore it.
func span(value string) (time.Duration, bool) {
	d, err := unitfile.TimeSpan(value)
	if errors.Is(err, unitfile.ErrInfinity) {
		return forever, true
	}
	return d, err == nil
}

// limit reads one of a service's time-outs, of which 0 is none.
func (u *unit) limit(assumed time.Duration, keys ...string) (setting, time.Duration) {
	s, given := u.last("Service", keys...)
	if !given {
		return s, assumed
	}
	switch d, ok := span(s.value); {
	case !ok:
		return s, assumed
	case d == 0:
		return s, forever
	default:
		return s, d
	}
}

// number reads an unsigned number.
func number(value string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(value), 0, 32)
	return n, err == nil
}

// words splits a value and replaces the specifiers in it. It is false where a
// word is left as it is, since only the running system knows what it says.
func (u *unit) words(value string) (words []string, sure bool) {
	words, err := unitfile.Words(value)
	if err != nil {
		return strings.Fields(value), false
	}
	sure = true
	for i, w := range words {
		if v, err := unitfile.Expand(w, u.specifier); err == nil {
			words[i] = v
		} else {
			sure = false
		}
	}
	return words, sure
}

// listed gives the words of all assignments to a key, each with its place.
func (u *unit) listed(section, key string) []setting {
	var found []setting
	for _, s := range u.all(section, key) {
		words, _ := u.words(s.value)
		for _, w := range words {
			found = append(found, setting{section, key, w, s.place})
		}
	}
	return found
}

var errUnknown = errors.New("known to the running system only")

func (u *unit) specifier(letter string) (string, error) {
	name, err := unitfile.ParseUnitName(u.name)
	if err != nil {
		return "", err
	}
	switch letter {
	case "i":
		return name.Instance, nil
	case "I":
		return unitfile.UnescapeUnit(name.Instance), nil
	case "p":
		return name.Prefix, nil
	case "P":
		return unitfile.UnescapeUnit(name.Prefix), nil
	case "j", "J":
		last := name.Prefix[strings.LastIndexByte(name.Prefix, '-')+1:]
		if letter == "J" {
			last = unitfile.UnescapeUnit(last)
		}
		return last, nil
	case "n":
		return u.name, nil
	case "N":
		return strings.TrimSuffix(u.name, path.Ext(u.name)), nil
	case "E":
		return u.at.ConfigHome, nil
	case "t":
		return u.at.Runtime, nil
	}
	if u.at.User {
		if letter == "h" {
			return u.at.Home, nil
		}
		return "", errUnknown // %S and others depend on the version
	}
	switch letter {
	case "S":
		return u.at.StateHome, nil
	case "C":
		return "/var/cache", nil
	case "L":
		return "/var/log", nil
	}
	return "", errUnknown
}
