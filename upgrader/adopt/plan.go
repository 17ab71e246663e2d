package adopt

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/supervisor"
)

// InstalledVersion is that of the release which is made of the program that is
// installed: older than any that a publisher would choose.
const InstalledVersion = "0-installed"

// Wishes are what the operator said. Whatever is empty is decided.
type Wishes struct {
	// Target is the name of the .upgrade file.
	Target string
	// Source, Patterns and Keys are Path=, MatchPattern= and Key= of it; Unsigned is
	// Verify=no.
	Source   string
	Patterns []string
	Keys     []string
	Unsigned bool
	// Given is the target that the unit has already; no .upgrade is written then.
	Given *upgrader.Target
	Swap  upgrader.Swap
	// Listen are values of ListenStream=.
	Listen []string
	// Program is the file of ExecStart= that releases replace.
	Program string
	// Ready and StopSignal are flags of upgraderd supervise.
	Ready, StopSignal string
	// Args come after the program's own.
	Args []string
	// Env are assignments NAME=VALUE for its environment.
	Env []string
	// Proxy is where the service is to listen behind a proxy, IP:PORT.
	Proxy string
}

// Check refuses wishes that could not stand on a line of a file.
func (w Wishes) Check() error {
	for flag, values := range map[string][]string{
		"source": {w.Source}, "key": w.Keys, "pattern": w.Patterns, "listen": w.Listen, "program": {w.Program}, "env": w.Env, "proxy": {w.Proxy}, "": w.Args,
	} {
		for _, v := range values {
			if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) || !utf8.ValidString(v) {
				return fmt.Errorf("--%s %q: a line of a file cannot hold that", flag, v)
			}
		}
	}
	switch {
	case w.Unsigned && len(w.Keys) > 0:
		return errors.New("--unsigned and --key=: which of them is meant?")
	case w.Program != "" && !filepath.IsAbs(w.Program):
		return fmt.Errorf("--program=%q: want an absolute path, as it stands in ExecStart=", w.Program)
	}
	for _, e := range w.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || !variable.MatchString(name) {
			return advice.Give(fmt.Errorf("--env=%q: no assignment", e), "give NAME=VALUE")
		}
	}
	if w.Proxy != "" {
		if _, err := parseBehind(w.Proxy); err != nil {
			return err
		}
	}
	if w.Ready != "" {
		if _, err := supervisor.ParseReady(w.Ready); err != nil {
			return err
		}
	}
	if w.StopSignal != "" && unix.SignalNum("SIG"+strings.TrimPrefix(strings.ToUpper(w.StopSignal), "SIG")) == 0 {
		return advice.Give(fmt.Errorf("--stop-signal=%q: not a signal", w.StopSignal), "give a name such as SIGQUIT")
	}
	return nil
}

// variable is a name that Environment= takes.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Adoption is what would be done.
type Adoption struct {
	Unit, Target string
	// Swap is handover or restart, Why says why.
	Swap upgrader.Swap
	Why  string
	// Source is where releases will be looked for, Key the file of the key that
	// does not exist yet, if it was not named.
	Source string
	// Installed is the program that becomes the first release, and Inside where it
	// is in it.
	Installed, Inside string

	source source
	// Socket is the unit that is new, "" if none is.
	Socket string
	// Proxy is where the service listens behind Socket and a proxy, if it does.
	Proxy netip.AddrPort
	// Files are in the order in which they are written, Dirs what has to be made for
	// them; see [Disk.Fit].
	Files []File
	Dirs  []string
	// Remarks are for the operator, one line each.
	Remarks []string

	at Place
}

// File is what is to be written.
type File struct {
	Name string
	Text string
}

// Plan decides what to write, and where. The error says what is in the way.
func Plan(s Service, w Wishes, at Place) (Adoption, error) {
	if err := adoptable(s); err != nil {
		return Adoption{}, err
	}
	p, err := findProgram(s.Commands[0], w.Program)
	if err != nil {
		return Adoption{}, err
	}
	a := Adoption{
		at:   at,
		Unit: s.ID, Target: w.Target, Source: w.Source,
		Installed: p.file, Inside: "bin/" + filepath.Base(p.file),
	}
	switch {
	case w.Given != nil:
		a.Target, a.Inside, a.Source = w.Given.Name, w.Given.Program, w.Given.Source.Path
	case a.Target == "":
		a.Target = strings.TrimSuffix(s.ID, ".service")
	}
	if a.Source == "" && w.Given == nil && s.Origin != nil {
		a.source = a.fetches(*s.Origin)
		a.Source = a.source.path
	}
	if a.Source == "" {
		a.Source = a.at.Releases + "/" + a.Target
	}
	if err := a.decide(s, w, p); err != nil {
		return Adoption{}, err
	}
	a.write(s, w, p)
	return a, nil
}

// adoptable refuses what no release could be put into.
func adoptable(s Service) error {
	unit := s.ID
	switch s.LoadState {
	case "loaded", "merged":
	case "not-found":
		return hint("see: systemctl list-units --type=service", "%s does not exist", unit)
	case "masked":
		return hint("unmask it first: systemctl unmask "+unit, "%s is masked", unit)
	default:
		return hint("find the line with: systemd-analyze verify "+unit, "%s is in load state %s: %s", unit, s.LoadState, s.LoadError)
	}
	accepts := slices.IndexFunc(s.Sockets, func(l listener) bool { return l.Accept })
	switch {
	case strings.HasPrefix(unit, "upgraderd"):
		return hint("upgraderd follows its own releases by a target of its own: docs/own-upgrade.md", "%s is a unit of upgraderd itself", unit)
	case s.FragmentPath == "" || strings.HasPrefix(s.FragmentPath, "/run/systemd/transient/"):
		return hint("write a unit file for it", "%s has no unit file", unit)
	case supervised(s):
		return hint("write a .upgrade file for it, as in /usr/share/doc/upgraderd/examples", "%s runs under upgraderd supervise already", unit)
	case s.Type == "oneshot":
		return hint("a new program is what its next start runs", "%s is Type=oneshot: it ends by itself, and serves nothing meanwhile", unit)
	case len(s.Commands) != 1:
		return hint("look at it: systemctl cat "+unit, "%s has %d lines of ExecStart=, want 1", unit, len(s.Commands))
	case s.RootDirectory != "" || s.RootImage != "":
		return hint("releases of it have to be images: see portablectl(1)", "%s runs in a root directory of its own, where the releases are not", unit)
	case s.User == "upgraderd":
		return hint("give it a user of its own: systemctl edit "+unit, "%s runs as upgraderd, who owns the releases", unit)
	case accepts >= 0:
		return hint("a new program is what the next connection gets", "%s has Accept=yes: systemd starts a process for each connection", s.Sockets[accepts].Unit)
	}
	return nil
}

func supervised(s Service) bool {
	return slices.ContainsFunc(s.ExecStart, func(argv []string) bool { return slices.Contains(argv, "supervise") })
}

// decide finds out which swap it can be.
func (a *Adoption) decide(s Service, w Wishes, p program) error {
	wanted := w.Swap
	if w.Given != nil && wanted == "" && (w.Given.Swap == upgrader.SwapHandover || w.Given.Swap == upgrader.SwapRestart) {
		wanted = w.Given.Swap
	}
	obstacle := cannot(s, p, len(w.Args) > 0)
	if w.Proxy != "" {
		return a.behind(s, w, obstacle)
	}
	listens := len(s.Sockets) > 0 || len(w.Listen) > 0 || len(s.Listening) > 0
	switch {
	case wanted == upgrader.SwapRestart:
		a.Swap, a.Why = upgrader.SwapRestart, "you said so"
	case wanted == upgrader.SwapHandover && obstacle != "":
		return hint("leave --swap=handover out", "%s cannot hand over: %s", s.ID, obstacle)
	case wanted == upgrader.SwapHandover && !listens:
		return hint("start it first, or say with --listen=ADDRESS where it listens", "%s does not listen on anything now", s.ID)
	case wanted == upgrader.SwapHandover:
		a.Swap, a.Why = upgrader.SwapHandover, "you said so"
	case obstacle != "":
		a.Swap, a.Why = upgrader.SwapRestart, obstacle
	case len(s.Sockets) > 0:
		a.Swap, a.Why = upgrader.SwapHandover, "it gets its sockets from "+s.Sockets[0].Unit
	case p.mentions == "":
		a.Swap, a.Why = upgrader.SwapRestart, "nothing in "+p.file+" says that it takes sockets from systemd (--swap=handover if it does)"
	case !listens:
		a.Swap, a.Why = upgrader.SwapRestart, "it does not listen on anything now (start it first, or say --listen=ADDRESS)"
	default:
		a.Swap, a.Why = upgrader.SwapHandover, p.file+" mentions "+p.mentions
		if len(w.Args) == 0 {
			a.remark("if it takes sockets only when it is told to, set that up first, or give the arguments after --")
		}
	}
	if a.Swap == upgrader.SwapHandover && len(s.Sockets) == 0 {
		a.Socket = ownSocket(s.ID)
	}
	return nil
}

// cannot says what keeps a unit from running under a supervisor. Arguments that the
// operator adds may keep a daemon in the foreground.
func cannot(s Service, p program, told bool) string {
	switch {
	case s.Type == "forking" && !told:
		return "with Type=forking it goes to the background, where no supervisor can be its parent (give the arguments that keep it in the foreground after --)"
	case s.Type == "dbus":
		return "with Type=dbus it is ready when it has its name on the bus, which two workers cannot have"
	case !p.startable && p.at > 0:
		return p.file + " cannot be started by its own name: a release of it needs #! and no options before it in ExecStart="
	case !p.startable:
		return "it is started under another name than its own (@ in ExecStart=)"
	}
	return ""
}

func (a *Adoption) remark(format string, args ...any) {
	a.Remarks = append(a.Remarks, fmt.Sprintf(format, args...))
}

// write makes the files.
func (a *Adoption) write(s Service, w Wishes, p program) {
	upgrade := File{a.at.Config + "/" + a.Target + ".upgrade", ""}
	if w.Given == nil {
		upgrade.Text = a.upgrade(w)
	}
	var before []File
	if a.Proxy.IsValid() {
		before = append(before, File{a.at.Units + "/" + proxyService(a.Unit), a.proxy()})
	}
	if a.Socket != "" {
		before = append(before, File{a.at.Units + "/" + a.Socket, a.socket(s, w)})
	}
	for _, l := range s.Sockets {
		if text := a.tuned(l); text != "" {
			before = append(before, File{a.at.dropInName(l.Unit), text})
		}
	}
	lines := a.restartDropIn(s, w, p)
	if a.Swap == upgrader.SwapHandover {
		lines = a.handoverDropIn(s, w, p)
	}
	files := append(before, File{a.at.dropInName(a.Unit), lines})
	if upgrade.Text != "" {
		files = append(files, upgrade)
	}
	a.Files = files
}

// head is the first lines of every file: whose it is.
func (a *Adoption) head() string { return a.at.marker(a.Unit) + "\n" }

func (a *Adoption) upgrade(w Wishes) string {
	var b strings.Builder
	b.WriteString(a.head())
	user := ""
	if a.at.User {
		user = "--user "
	}
	b.WriteString("# What else can stand here: docs/upgrade-keys.md. After a change: systemctl " + user + "reload upgraderd\n\n")
	fmt.Fprintf(&b, "[Upgrade]\nUnit=%s\nProgram=%s\n", a.Unit, escape(a.Inside))
	if a.Swap == upgrader.SwapRestart {
		b.WriteString("Swap=restart\n")
	}
	fmt.Fprintf(&b, "\n[Source]\nPath=%s\n", a.Source)
	patterns := w.Patterns
	switch {
	case len(patterns) > 0:
	case a.source.oneFile:
		b.WriteString("Manifest=no\n")
	case len(a.source.patterns) > 0:
		patterns = a.source.patterns
	default:
		patterns = []string{escape(a.Target) + "_@v"}
	}
	if len(patterns) > 0 {
		fmt.Fprintf(&b, "MatchPattern=%s\n", strings.Join(patterns, " "))
	}
	for _, line := range a.source.more {
		b.WriteString(line + "\n")
	}
	switch {
	case w.Unsigned:
		b.WriteString("Verify=no\n")
	case len(w.Keys) == 0:
		fmt.Fprintf(&b, "Key=%s\n", a.DefaultKey())
	}
	for _, key := range w.Keys {
		fmt.Fprintf(&b, "Key=%s\n", unitfile.QuoteWord(key))
	}
	b.WriteString("\n[Confirm]\nWindowSec=1min\n# A question that the service answers while it is well:\n# Probe=http://127.0.0.1:8080/\n")
	return b.String()
}

// DefaultKey is the file of the key where the operator named none.
func (a *Adoption) DefaultKey() string { return a.at.Config + "/" + a.Target + ".pub" }

func escape(text string) string { return strings.ReplaceAll(text, "%", "%%") }
