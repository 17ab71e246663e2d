package unitlint

import (
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/realm"
)

// Check reads the units of targets below root ("" or "/" for the running
// system), each with its sockets, and says what is wrong with them.
func Check(root string, targets ...*upgrader.Target) config.Diagnostics {
	return checkAll(treeAt(root), targets)
}

// Of reads the units of targets of a realm of the running system.
func Of(r realm.Realm, targets ...*upgrader.Target) config.Diagnostics {
	return checkAll(tree{"/", r}, targets)
}

func checkAll(t tree, targets []*upgrader.Target) config.Diagnostics {
	var (
		x    = scan(t)
		m    = manager(t)
		most = queueMost(t)
		ds   config.Diagnostics
	)
	for _, target := range targets {
		v := &view{target: target, index: x, defaults: m, somaxconn: most}
		v.service = x.load(target.Unit)
		v.supervise = supervised(v.service)
		v.sockets = x.sockets(v.service)
		ds = append(ds, v.check()...)
	}
	return ds
}

// view is what the rules see of one target.
type view struct {
	index
	target    *upgrader.Target
	service   *unit
	supervise *supervise // nil where it does not run under it
	sockets   []*unit
	defaults  defaults
	somaxconn uint64 // 0 where it is not known
}

// finding is what a rule has to say.
type finding struct {
	place
	fatal         bool
	message, hint string
}

func (v *view) check() config.Diagnostics {
	var ds config.Diagnostics
	for _, rule := range Rules() {
		if rule.Of != Any && v.target.Config != "" {
			continue // the unit's own target is held to it
		}
		if rule.Of == Supervised && (v.supervise == nil || !v.service.there()) {
			continue
		}
		for _, f := range rule.check(v) {
			ds = append(ds, config.Diagnostic{
				Target: v.target.Name, File: f.file, Line: f.line, Code: rule.Code, Warning: !f.fatal,
				Message: oneLine(f.message), Hint: oneLine(f.hint),
			})
		}
	}
	// As a person goes through files: the service's first.
	files := []string{v.target.File, v.service.file}
	slices.SortStableFunc(ds, func(a, b config.Diagnostic) int {
		if i, j := rank(files, a.File), rank(files, b.File); i != j {
			return i - j
		}
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return ds
}

func rank(files []string, file string) int {
	if i := slices.Index(files, file); i >= 0 {
		return i
	}
	return len(files)
}

// oneLine keeps what stands in a file from making a second line.
func oneLine(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, s)
	return strings.ToValidUTF8(s, "?")
}

// units are the service and its sockets, as far as they can be judged.
func (v *view) units() []*unit {
	var units []*unit
	for _, u := range append([]*unit{v.service}, v.sockets...) {
		if u.there() {
			units = append(units, u)
		}
	}
	return units
}

// store is the target's directory in the release store.
func (v *view) store() string { return path.Join(v.at.State, v.target.Name) }

// unitDir is where an operator writes units, or a user.
func (v *view) unitDir() string {
	if v.at.User {
		return path.Join(v.at.ConfigHome, "systemd/user")
	}
	return "/etc/systemd/system"
}

// restarts tells that a swap of the target is a restart of its unit.
func (v *view) restarts() bool {
	if v.target.Config != "" {
		return false // or only where it cannot be reloaded
	}
	switch v.target.Swap {
	case upgrader.SwapRestart:
		return true
	case upgrader.SwapAuto, "":
		return v.supervise == nil
	}
	return false
}

// write is the hint to set something: in the line that counts, or where there
// is none, or it is not an administrator's, in a drop-in.
func write(u *unit, s setting, given bool, line string) string {
	if given && local(s.file) {
		return "write " + line + " here"
	}
	return "write " + line + " below [" + s.section + "] in a drop-in: systemctl edit " + u.name
}

// local tells a file that whoever is asked may edit.
func local(file string) bool {
	return strings.Contains(file, "/etc/systemd/system/") || strings.Contains(file, "/.config/systemd/user/")
}

// sockets finds the sockets of a service: of its name, named in Sockets=, or
// with a Service= that names it.
func (x index) sockets(service *unit) []*unit {
	own, err := unitfile.ParseUnitName(service.name)
	if err != nil {
		return nil
	}
	var sockets []*unit
	add := func(u *unit, anyway bool) {
		if u.file == "" || slices.ContainsFunc(sockets, func(o *unit) bool { return o.name == u.name }) {
			return
		}
		if anyway || x.triggers(u) == service.name {
			sockets = append(sockets, u)
		}
	}
	for _, s := range service.listed("Service", "Sockets") {
		if path.Ext(s.value) == ".socket" {
			add(x.load(s.value), true)
		}
	}
	own.Type = "socket"
	add(x.load(join(own)), false)
	for name := range x.files {
		u, err := unitfile.ParseUnitName(name)
		switch {
		case err != nil || u.Type != "socket":
			continue
		case u.Template() && own.Instance == "":
			continue
		case u.Template():
			name = instantiate(u, own.Instance)
		}
		add(x.load(name), false)
	}
	slices.SortFunc(sockets, func(a, b *unit) int { return strings.Compare(a.name, b.name) })
	return sockets
}

// triggers gives the service that a socket starts.
func (x index) triggers(socket *unit) string {
	name := strings.TrimSuffix(socket.name, ".socket") + ".service"
	if s := socket.listed("Socket", "Service"); len(s) > 0 {
		name = s[len(s)-1].value
	}
	id, _ := x.resolve(name)
	return id
}

// defaults are those of the system manager.
type defaults struct {
	start, stop, restart, limitInterval time.Duration
	limitBurst                          uint64
	oomPolicy                           string
}

// manager reads systemd-system.conf(5).
func manager(t tree) defaults {
	u := &unit{headers: map[string]int{}}
	var dirs []string
	for _, file := range t.at.Defaults {
		dirs = append(dirs, file+".d")
		if _, err := os.Stat(t.real(file)); err == nil && u.file == "" && !t.masks(file) {
			u.file = t.real(file)
			u.read(t, file)
		}
	}
	for _, drop := range t.confFiles(dirs) {
		u.read(t, drop)
	}
	limit := func(assumed time.Duration, keys ...string) time.Duration {
		s, _ := u.last("Manager", keys...)
		if d, ok := span(s.value); ok {
			return d
		}
		return assumed
	}
	d := defaults{
		start:         limit(90*time.Second, "DefaultTimeoutStartSec"),
		stop:          limit(90*time.Second, "DefaultTimeoutStopSec"),
		restart:       limit(100*time.Millisecond, "DefaultRestartSec"),
		limitInterval: limit(10*time.Second, "DefaultStartLimitIntervalSec", "DefaultStartLimitInterval"),
		limitBurst:    5,
		oomPolicy:     "stop",
	}
	if s, ok := u.last("Manager", "DefaultOOMPolicy"); ok && s.value != "" {
		d.oomPolicy = s.value
	}
	if s, ok := u.last("Manager", "DefaultStartLimitBurst"); ok {
		if n, ok := number(s.value); ok {
			d.limitBurst = n
		}
	}
	return d
}

// queueMost is what the running kernel cuts a Backlog= to; 0 for another
// system's root directory.
func queueMost(t tree) uint64 {
	if t.root != "/" {
		return 0
	}
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return 0
	}
	n, _ := number(string(text))
	return n
}
