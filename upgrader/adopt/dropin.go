package adopt

import (
	"fmt"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/supervisor"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

type listener = systemd.Listener

const dropIn = "50-upgraderd-adopt.conf"

// Figures of units/systemd/live@.service, with their reasons there.
const (
	startTimeout = supervisor.DefaultStartTimeout + 30*time.Second
	stopTimeout  = supervisor.DefaultDrainTimeout + 30*time.Second
	storeMax     = 64
	queue        = 4096
)

// lines are a drop-in in the making.
type lines struct{ unit, service []string }

func (l *lines) inUnit(format string, args ...any) {
	l.unit = append(l.unit, fmt.Sprintf(format, args...))
}
func (l *lines) inService(format string, args ...any) {
	l.service = append(l.service, fmt.Sprintf(format, args...))
}

// text is the file; its head is the record of what is made with it.
func (a *Adoption) text(l lines, with []string) string {
	var b strings.Builder
	b.WriteString(a.head())
	for _, name := range with {
		b.WriteString(recordLine(name))
	}
	for _, section := range []struct {
		name  string
		lines []string
	}{{"Unit", l.unit}, {"Service", l.service}} {
		if len(section.lines) > 0 {
			fmt.Fprintf(&b, "\n[%s]\n%s\n", section.name, strings.Join(section.lines, "\n"))
		}
	}
	return b.String()
}

// common is what both swaps ask of a unit.
func (a *Adoption) common(s Service, l *lines) {
	if s.StartLimitInterval != 0 && s.StartLimitBurst != 0 {
		l.inUnit("StartLimitIntervalSec=0")
	}
	if failed := upgrader.FailedUnit(a.Target); !slices.Contains(s.OnFailure, failed) {
		l.inUnit("OnFailure=%s", failed)
	}
	switch s.Restart {
	case "always", "on-failure", "on-abnormal", "on-abort":
	default:
		l.inService("Restart=on-failure")
	}
	if !a.at.User && (s.User == "" || s.User == "root" || s.User == "0") && !s.DynamicUser && s.ProtectSystem != "strict" {
		l.inService("# It runs as root, who could change what runs next.")
		l.inService("ReadOnlyPaths=-%s", a.at.Store)
	}
	if len(s.NoExecPaths) > 0 {
		l.inService("ExecPaths=%s %s", escape(a.at.Program), escape(a.at.Store))
	}
}

// restartDropIn has the unit run the release that current leads to.
func (a *Adoption) restartDropIn(s Service, w Wishes, p program) string {
	var l lines
	if a.Proxy.IsValid() {
		l.inUnit("Wants=%s", a.Socket)
	}
	a.common(s, &l)
	setEnv(&l, w)
	c := s.Commands[0]
	now := path.Join(a.at.Store, a.Target, "current", a.Inside)
	argv := append(slices.Clone(c.Args), w.Args...)
	file := c.Path
	prefix := c.Prefix
	switch {
	case p.at > 0:
		argv[p.at] = now
	case argv[0] == file:
		file, argv[0] = now, now
	default:
		file = now
	}
	if argv[0] != file {
		prefix += "@"
		argv = append([]string{file}, argv...)
	}
	l.inService("ExecStart=\nExecStart=%s%s", prefix, quoted(argv))
	if a.Proxy.IsValid() {
		l.inService("# It is started when the proxy can reach it.\nExecStartPost=%s", awaits(a.Proxy))
	}
	return a.text(l, a.made(s, w))
}

// handoverDropIn puts the supervisor before the program.
func (a *Adoption) handoverDropIn(s Service, w Wishes, p program) string {
	var l lines
	for _, unit := range a.sockets(s) {
		l.inUnit("Requires=%s\nAfter=%s", unit, unit)
	}
	a.common(s, &l)
	setEnv(&l, w)
	if s.Type != "notify" {
		l.inService("Type=notify")
	}
	if s.NotifyAccess != "main" || s.Type != "notify" {
		l.inService("NotifyAccess=main")
	}
	runtime := ""
	if len(s.RuntimeDirectory) > 0 { // one of its own beside what the program has
		runtime = " --runtime-dir=%t/upgraderd-%N"
	}
	supervise := []string{escape(a.at.Program), "supervise", "--root=" + a.at.root(a.Target)}
	var tail []string
	ready := w.Ready
	if ready == "" && !strings.HasPrefix(s.Type, "notify") {
		ready = "accepting"
	}
	if ready != "" && ready != "notify" {
		tail = append(tail, "--ready="+ready)
	}
	stop := w.StopSignal
	if own := unix.SignalName(syscall.Signal(s.KillSignal)); stop == "" && own != "" && own != "SIGTERM" {
		stop = own
	}
	if stop != "" {
		tail = append(tail, "--stop-signal="+stop)
	}
	tail = append(tail, "--", a.Inside)
	tail = append(append(tail, s.Commands[0].Args[p.at+1:]...), w.Args...)
	// A failure has to count as one, or nothing would start the supervisor again.
	prefix := strings.ReplaceAll(s.Commands[0].Prefix, "-", "")
	l.inService("ExecStart=\nExecStart=%s%s%s %s", prefix, strings.Join(supervise, " "), runtime, quoted(tail))
	l.inService("ExecReload=\nExecReload=%s handover%s", escape(a.at.Program), runtime)
	if s.Stops {
		l.inService("# The supervisor ends its workers itself.\nExecStop=")
	}
	if s.PIDFile != "" {
		l.inService("# After a reload systemd would take a worker that it names for the main process.\nPIDFile=")
	}
	if own := unix.SignalName(syscall.Signal(s.KillSignal)); own != "" && own != "SIGTERM" {
		l.inService("KillSignal=SIGTERM")
	}
	if s.SyslogIdentifier == "" {
		l.inService("SyslogIdentifier=%s", escape(filepath.Base(p.file)))
	}
	if s.TimeoutStart >= 0 && s.TimeoutStart <= supervisor.DefaultStartTimeout {
		l.inService("TimeoutStartSec=%s", told(startTimeout))
	}
	if s.TimeoutStop >= 0 && s.TimeoutStop <= supervisor.DefaultDrainTimeout {
		l.inService("TimeoutStopSec=%s", told(stopTimeout))
	}
	if s.KillMode != "process" {
		l.inService("KillMode=process")
	}
	if s.FileDescriptorStoreMax < storeMax {
		l.inService("FileDescriptorStoreMax=%d", storeMax)
	}
	if s.OOMPolicy != "continue" {
		l.inService("OOMPolicy=continue")
	}
	if s.RestartDelay > time.Second || s.RestartDelay < 0 {
		l.inService("RestartSec=100ms")
	}
	l.inService("RuntimeDirectory=upgraderd-%%N")
	if runtime == "" {
		l.inService("RuntimeDirectoryMode=0700")
	}
	if s.RuntimeDirectoryPreserve != "restart" && s.RuntimeDirectoryPreserve != "yes" {
		l.inService("RuntimeDirectoryPreserve=restart")
	}
	if len(s.Families) > 0 && !slices.Contains(s.Families, "AF_UNIX") {
		l.inService("RestrictAddressFamilies=AF_UNIX")
	}
	return a.text(l, a.made(s, w))
}

// setEnv adds to the environment of the program.
func setEnv(l *lines, w Wishes) {
	for _, e := range w.Env {
		l.inService("Environment=%s", unitfile.QuoteWord(escape(e)))
	}
}

// sockets are the units that hold what the service listens on.
func (a *Adoption) sockets(s Service) []string {
	if a.Socket != "" {
		return []string{a.Socket}
	}
	var names []string
	for _, l := range s.Sockets {
		names = append(names, l.Unit)
	}
	return names
}

// made are the other files, for the record.
func (a *Adoption) made(s Service, w Wishes) []string {
	var names []string
	if a.Proxy.IsValid() {
		names = append(names, a.at.Units+"/"+proxyService(a.Unit))
	}
	if a.Socket != "" {
		names = append(names, a.at.Units+"/"+a.Socket)
	}
	for _, l := range s.Sockets {
		if a.tuned(l) != "" {
			names = append(names, a.at.dropInName(l.Unit))
		}
	}
	if w.Given == nil {
		names = append(names, a.at.Config+"/"+a.Target+".upgrade")
	}
	return names
}

// socket is the unit that holds what the service has bound itself.
func (a *Adoption) socket(s Service, w Wishes) string {
	found := s.Listening
	listen := listenLines(found)
	if len(w.Listen) > 0 {
		listen, found = nil, nil
		for _, address := range w.Listen {
			listen = append(listen, "ListenStream="+address)
		}
	}
	var b strings.Builder
	b.WriteString(a.head())
	fmt.Fprintf(&b, "\n[Unit]\nDescription=Sockets of %s\n\n[Socket]\n%s\n", a.Unit, strings.Join(listen, "\n"))
	for _, line := range a.access(found) {
		b.WriteString(line + "\n")
	}
	fmt.Fprintf(&b, "Backlog=%d\nTriggerLimitIntervalSec=0\n", queue)
	return b.String()
}

// access keeps who may connect to a socket in the file system.
func (a *Adoption) access(found []Address) []string {
	for _, at := range found {
		if !filepath.IsAbs(at.Address) {
			continue
		}
		info, err := os.Lstat(at.Address)
		if err != nil {
			continue
		}
		lines := []string{fmt.Sprintf("SocketMode=%04o", info.Mode().Perm())}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !a.at.User { // who has no choice
			lines = append(lines, "SocketUser="+userName(st.Uid), "SocketGroup="+groupName(st.Gid))
		}
		return lines
	}
	return nil
}

func userName(id uint32) string {
	text := strconv.FormatUint(uint64(id), 10)
	if u, err := user.LookupId(text); err == nil {
		return u.Username
	}
	return text
}

func groupName(id uint32) string {
	text := strconv.FormatUint(uint64(id), 10)
	if g, err := user.LookupGroupId(text); err == nil {
		return g.Name
	}
	return text
}

// tuned is a drop-in for a socket that is there, "" if nothing is to be said.
func (a *Adoption) tuned(l listener) string {
	var lines []string
	stream := slices.ContainsFunc(l.Listens, func(at [2]string) bool { return at[0] == "Stream" || at[0] == "SequentialPacket" })
	if stream && l.Backlog < queue {
		lines = append(lines, fmt.Sprintf("Backlog=%d", queue))
	}
	if l.TriggerInterval != 0 {
		lines = append(lines, "TriggerLimitIntervalSec=0")
	}
	if l.FlushPending {
		lines = append(lines, "FlushPending=no")
	}
	if len(lines) == 0 {
		return ""
	}
	return a.head() + "\n[Socket]\n" + strings.Join(lines, "\n") + "\n"
}

// quoted writes words so that systemd reads the same: a specifier that it has
// replaced may have left a percent sign. Variables stay variables.
func quoted(words []string) string {
	var out []string
	for _, w := range words {
		if w == ";" {
			w = `\;`
			out = append(out, w)
			continue
		}
		out = append(out, unitfile.QuoteWord(escape(w)))
	}
	return strings.Join(out, " ")
}

// told writes a time as people write it in units.
func told(d time.Duration) string { return fmt.Sprintf("%ds", d/time.Second) }
