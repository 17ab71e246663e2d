package unitlint

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/upgraderd/upgraderd/units"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config"
)

var update = flag.Bool("update", false, "write docs/unit-checks.md anew")

// plant makes a root directory of the files of an archive. A name such as
// "a -> b" is a symbolic link; files of units may leave their directory out.
func plant(t testing.TB, text string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range txtar.Parse([]byte(text)).Files {
		name, to, link := strings.Cut(f.Name, " -> ")
		if !strings.HasPrefix(name, "/") {
			name = "/etc/systemd/system/" + name
		}
		name = filepath.Join(root, name)
		check(t, os.MkdirAll(filepath.Dir(name), 0o755))
		if link {
			check(t, os.Symlink(to, name))
		} else {
			check(t, os.WriteFile(name, f.Data, 0o644))
		}
	}
	return root
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func target(name, unit string, swap upgrader.Swap) *upgrader.Target {
	return &upgrader.Target{Name: name, File: "app.upgrade", Unit: unit, Swap: swap, Program: "bin/" + name}
}

// brief is a diagnostic as the tables have it: FILE:LINE CODE, the file without
// the usual directory, and a ! behind an error.
func brief(root string, ds config.Diagnostics) []string {
	var lines []string
	for _, d := range ds {
		file := strings.TrimPrefix(strings.TrimPrefix(d.File, root), "/etc/systemd/system/")
		line := fmt.Sprintf("%s:%d %s", file, d.Line, d.Code)
		if !d.Warning {
			line += "!"
		}
		lines = append(lines, line)
	}
	return lines
}

// whole is a pair of units in which nothing is found. A test replaces a line.
const whole = `
-- app.service --
[Unit]
StartLimitIntervalSec=0
OnFailure=upgraderd-failed@app.service
[Service]
Type=notify
ExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/app -- bin/app
ExecReload=/usr/bin/upgraderd handover
User=app
RuntimeDirectory=%N
RuntimeDirectoryPreserve=restart
FileDescriptorStoreMax=64
KillMode=process
TimeoutStopSec=120s
Restart=on-failure
OOMPolicy=continue
-- app.socket --
[Socket]
ListenStream=8080
TriggerLimitIntervalSec=0
`

// The daemon's own unit, as it is shipped, has nothing to be said about.
func TestOwnUnit(t *testing.T) {
	shipped, err := os.ReadFile("../../units/systemd/upgraderd.service")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		swap upgrader.Swap
		want []string
	}{
		"shipped":                       {string(shipped), upgrader.SwapAuto, nil},
		"another program":               {strings.Replace(string(shipped), "upgraderd launch", "upgraderd daemon", 1), upgrader.SwapRestart, []string{"upgraderd.service:24 UNIT_NO_LAUNCH!"}},
		"another program, not upgraded": {strings.Replace(string(shipped), "upgraderd launch", "upgraderd daemon", 1), upgrader.SwapNone, nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := plant(t, "-- upgraderd.service --\n"+c.text)
			ds := Check(root, target("upgraderd", upgrader.OwnUnit, c.swap))
			if diff := cmp.Diff(c.want, brief(root, ds)); diff != "" {
				t.Errorf("-want +got\n%s\n%v", diff, ds)
			}
		})
	}
}

func TestRules(t *testing.T) {
	for _, c := range []struct {
		name string
		old  string // a line of whole
		text string // what stands in its place
		swap upgrader.Swap
		want []string
	}{
		{name: "whole"},
		{name: "syntax", old: "Type=notify\n", text: "Type=notify\nOops\n", want: []string{"app.service:6 UNIT_BAD"}},
		{name: "start limit missing", old: "StartLimitIntervalSec=0\n", want: []string{"app.service:1 UNIT_START_LIMIT"}},
		{name: "start limit", old: "StartLimitIntervalSec=0\n", text: "StartLimitIntervalSec=1min\n", want: []string{"app.service:2 UNIT_START_LIMIT"}},
		{name: "start limit without burst", old: "StartLimitIntervalSec=0\n", text: "StartLimitBurst=0\n"},
		{name: "start limit in [Service]", old: "StartLimitIntervalSec=0\nOnFailure=upgraderd-failed@app.service\n[Service]\n",
			text: "OnFailure=upgraderd-failed@app.service\n[Service]\nStartLimitIntervalSec=0\n",
			want: []string{"app.service:1 UNIT_START_LIMIT", "app.service:4 UNIT_SECTION"}},
		{name: "start limit by its old name in [Service]", old: "StartLimitIntervalSec=0\nOnFailure=upgraderd-failed@app.service\n[Service]\n",
			text: "OnFailure=upgraderd-failed@app.service\n[Service]\nStartLimitInterval=0\n"},
		{name: "start limit in [Socket]", old: "[Socket]\n", text: "[Socket]\nStartLimitIntervalSec=0\n", want: []string{"app.socket:2 UNIT_SECTION"}},
		{name: "trigger limit in [Service]", old: "User=app\n", text: "User=app\nTriggerLimitIntervalSec=0\n", want: []string{"app.service:9 UNIT_SECTION"}},
		{name: "type in [Unit]", old: "[Unit]\n", text: "[Unit]\nType=notify\nX-Type=1\n", want: []string{"app.service:2 UNIT_SECTION"}},

		{name: "restart missing", old: "Restart=on-failure\n", want: []string{"app.service:4 UNIT_RESTART"}},
		{name: "restart no", old: "on-failure\n", text: "no\n", want: []string{"app.service:14 UNIT_RESTART"}},
		{name: "restart on success", old: "on-failure\n", text: "on-success\n", want: []string{"app.service:14 UNIT_RESTART"}},
		{name: "restart always", old: "on-failure\n", text: "always\n"},
		{name: "restart delay", old: "Restart=", text: "RestartSec=5\nRestart=", want: []string{"app.service:14 UNIT_RESTART_DELAY"}},
		{name: "restart delay of a second", old: "Restart=", text: "RestartSec=1\nRestart="},

		{name: "on failure missing", old: "OnFailure=upgraderd-failed@app.service\n", want: []string{"app.service:1 UNIT_ON_FAILURE"}},
		{name: "on failure missing, no swap", swap: upgrader.SwapNone, old: "OnFailure=upgraderd-failed@app.service\n"},
		{name: "on failure of another", old: "failed@app", text: "failed@web", want: []string{"app.service:3 UNIT_ON_FAILURE"}},
		{name: "on failure among others", old: "OnFailure=", text: "OnFailure=alarm.service upgraderd-failed@web.service "},

		{name: "user upgraderd", old: "User=app\n", text: "User=upgraderd\n", want: []string{"app.service:8 UNIT_USER!"}},
		{name: "user root", old: "User=app\n", text: "User=root\n", want: []string{"app.service:8 UNIT_USER"}},
		{name: "user missing", old: "User=app\n", want: []string{"app.service:4 UNIT_USER"}},
		{name: "user dynamic", old: "User=app\n", text: "DynamicUser=yes\n"},
		{name: "user root, strict", old: "User=app\n", text: "ProtectSystem=strict\n"},
		{name: "user root, read-only store", old: "User=app\n", text: "ReadOnlyPaths=/opt -/var/lib/upgraderd\n"},
		{name: "user root, read-only target", old: "User=app\n", text: "ReadOnlyPaths=/var/lib/upgraderd/app\n"},
		{name: "user root, other target read-only", old: "User=app\n", text: "ReadOnlyPaths=/var/lib/upgraderd/other\n", want: []string{"app.service:4 UNIT_USER"}},
		{name: "state directory is the store", old: "User=app\n", text: "User=app\nStateDirectory=app upgraderd/app\n", want: []string{"app.service:9 UNIT_STORE_WRITABLE!"}},
		{name: "state directory of its own", old: "User=app\n", text: "User=app\nStateDirectory=app\n"},
		{name: "state directory of another target", old: "User=app\n", text: "User=app\nStateDirectory=upgraderd/app2\n"},
		{name: "paths", old: "User=app\n", text: "User=app\nReadWritePaths=-/var/lib /srv\nBindPaths=/srv /var/lib/upgraderd/app/releases:/data:rbind\nReadWritePaths=/var/lib/app\n",
			want: []string{"app.service:9 UNIT_STORE_WRITABLE", "app.service:10 UNIT_STORE_WRITABLE"}},

		{name: "handover without supervise", swap: upgrader.SwapHandover, old: "/usr/bin/upgraderd supervise --root=%S/upgraderd/app -- bin/app", text: "/usr/bin/app",
			want: []string{"app.service:6 UNIT_NO_HANDOVER!"}},
		{name: "auto without supervise", old: "/usr/bin/upgraderd supervise --root=%S/upgraderd/app -- bin/app", text: "/usr/bin/app"},
		{name: "root missing", old: " --root=%S/upgraderd/app -- bin/app", text: " -- /srv/app --root=x", want: []string{"app.service:6 UNIT_STORE"}},
		{name: "root missing, handover", swap: upgrader.SwapHandover, old: " --root=%S/upgraderd/app", want: []string{"app.service:6 UNIT_STORE!"}},
		{name: "root differs", old: "upgraderd/app --", text: "upgraderd/web --", want: []string{"app.service:6 UNIT_STORE!"}},
		{name: "root apart", old: "--root=%S/upgraderd/app", text: "--root /var/lib/upgraderd//app/"},
		{name: "root unknown", old: "--root=%S/upgraderd/app", text: "--root=${ROOT}"},
		{name: "root of a specifier unknown", old: "--root=%S/upgraderd/app", text: "--root=%h/app"},
		{name: "reload missing", old: "ExecReload=/usr/bin/upgraderd handover\n", want: []string{"app.service:4 UNIT_RELOAD"}},
		{name: "reload missing, handover", swap: upgrader.SwapHandover, old: "ExecReload=/usr/bin/upgraderd handover\n", want: []string{"app.service:4 UNIT_RELOAD!"}},
		{name: "reload by a signal", old: "/usr/bin/upgraderd handover", text: "/bin/kill -HUP $MAINPID", want: []string{"app.service:7 UNIT_RELOAD"}},

		{name: "type missing", old: "Type=notify\n", want: []string{"app.service:4 UNIT_TYPE"}},
		{name: "type simple", old: "Type=notify\n", text: "Type=simple\n", want: []string{"app.service:5 UNIT_TYPE"}},
		{name: "type forking", old: "Type=notify\n", text: "Type=forking\n", want: []string{"app.service:5 UNIT_TYPE!"}},
		{name: "type oneshot", old: "Type=notify\n", text: "Type=oneshot\n", want: []string{"app.service:5 UNIT_TYPE!"}},
		{name: "type notify-reload", old: "Type=notify\n", text: "Type=notify-reload\n", want: []string{"app.service:5 UNIT_TYPE"}},
		{name: "notify access none", old: "User=app\n", text: "User=app\nNotifyAccess=none\n", want: []string{"app.service:9 UNIT_NOTIFY_ACCESS!"}},
		{name: "notify access all", old: "User=app\n", text: "User=app\nNotifyAccess=all\n", want: []string{"app.service:9 UNIT_NOTIFY_ACCESS"}},
		{name: "notify access exec", old: "User=app\n", text: "User=app\nNotifyAccess=exec\n", want: []string{"app.service:9 UNIT_NOTIFY_ACCESS"}},
		{name: "kill mode missing", old: "KillMode=process\n", want: []string{"app.service:4 UNIT_KILL_MODE"}},
		{name: "kill mode mixed", old: "=process\n", text: "=mixed\n", want: []string{"app.service:12 UNIT_KILL_MODE"}},
		{name: "kill mode none", old: "=process\n", text: "=none\n", want: []string{"app.service:12 UNIT_KILL_MODE"}},
		{name: "memory missing", old: "OOMPolicy=continue\n", want: []string{"app.service:4 UNIT_OOM_POLICY"}},
		{name: "memory", old: "=continue\n", text: "=kill\n", want: []string{"app.service:15 UNIT_OOM_POLICY"}},
		{name: "fd store missing", old: "FileDescriptorStoreMax=64\n", want: []string{"app.service:4 UNIT_FD_STORE"}},
		{name: "fd store small", old: "Max=64\n", text: "Max=7\n", want: []string{"app.service:11 UNIT_FD_STORE"}},
		{name: "fd store just enough", old: "Max=64\n", text: "Max=8\n"},
		{name: "stop limit missing", old: "TimeoutStopSec=120s\n", want: []string{"app.service:4 UNIT_STOP_TIMEOUT"}},
		{name: "stop limit", old: "=120s\n", text: "=1min 30s\n", want: []string{"app.service:13 UNIT_STOP_TIMEOUT"}},
		{name: "stop limit none", old: "=120s\n", text: "=0\n"},
		{name: "stop limit for both", old: "TimeoutStopSec=120s\n", text: "TimeoutStopSec=120s\nTimeoutSec=10\n",
			want: []string{"app.service:14 UNIT_STOP_TIMEOUT", "app.service:14 UNIT_START_TIMEOUT"}},
		{name: "drain limit", old: "supervise", text: "supervise --drain-timeout 5m", want: []string{"app.service:13 UNIT_STOP_TIMEOUT"}},
		{name: "drain limit short", old: "supervise", text: "supervise --drain-timeout=5s"},
		{name: "start limit of the supervisor", old: "supervise", text: "supervise --start-timeout=2m", want: []string{"app.service:4 UNIT_START_TIMEOUT"}},
		{name: "start time-out", old: "User=app\n", text: "User=app\nTimeoutStartSec=60\n", want: []string{"app.service:9 UNIT_START_TIMEOUT"}},
		{name: "runtime directory missing", old: "RuntimeDirectory=%N\n", want: []string{"app.service:4 UNIT_RUNTIME_DIR!"}},
		{name: "runtime directory in the flags", old: "RuntimeDirectory=%N\nRuntimeDirectoryPreserve=restart\n", text: "Environment=A=b\n"},
		{name: "runtime directory not kept", old: "RuntimeDirectoryPreserve=restart\n", want: []string{"app.service:4 UNIT_RUNTIME_PRESERVE"}},
		{name: "runtime directory kept for ever", old: "=restart\n", text: "=yes\n"},

		{name: "listen", old: "-- app.socket --", text: "-- other.socket --", want: []string{"app.service:6 SOCKET_NONE"}},
		{name: "backlog", old: "[Socket]\n", text: "[Socket]\nBacklog=128\n", want: []string{"app.socket:2 SOCKET_BACKLOG"}},
		{name: "backlog of a datagram socket", old: "ListenStream=8080\n", text: "ListenDatagram=8080\nBacklog=1\n"},
		{name: "trigger limit missing", old: "TriggerLimitIntervalSec=0\n", want: []string{"app.socket:1 SOCKET_TRIGGER_LIMIT"}},
		{name: "trigger limit", old: "TriggerLimitIntervalSec=0\n", text: "TriggerLimitIntervalSec=10s\n", want: []string{"app.socket:3 SOCKET_TRIGGER_LIMIT"}},
		{name: "trigger limit without burst", old: "TriggerLimitIntervalSec=0\n", text: "TriggerLimitBurst=0\n"},
		{name: "accept", old: "[Socket]\n", text: "[Socket]\nAccept=yes\n", want: []string{"app.socket:2 SOCKET_ACCEPT"}},
		{name: "flush", old: "[Socket]\n", text: "[Socket]\nFlushPending=true\n", want: []string{"app.socket:2 SOCKET_FLUSH"}},
		{name: "flush, restart", swap: upgrader.SwapRestart, old: "[Socket]\n", text: "[Socket]\nFlushPending=true\n", want: []string{"app.socket:2 SOCKET_FLUSH!"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Count(whole, c.old) != 1 && c.old != "" {
				t.Fatalf("%q is %d times in whole", c.old, strings.Count(whole, c.old))
			}
			text := whole
			if c.old != "" {
				text = strings.Replace(whole, c.old, c.text, 1)
			}
			if c.name == "runtime directory in the flags" {
				text = strings.Replace(text, "supervise", "supervise --runtime-dir=/run/app", 1)
			}
			root := plant(t, text)
			ds := Check(root, target("app", "app.service", c.swap))
			if diff := cmp.Diff(c.want, brief(root, ds)); diff != "" {
				t.Errorf("-want +got\n%s\n%v", diff, ds)
			}
			for _, d := range ds {
				if d.Hint == "" && d.Code != "UNIT_BAD" || d.Target != "app" || strings.HasSuffix(d.Message, ".") {
					t.Errorf("%+v", d)
				}
			}
		})
	}
}

// Where a unit's files are, and which of them count.
func TestReading(t *testing.T) {
	const (
		kill   = "UNIT_KILL_MODE"
		socket = "SOCKET_TRIGGER_LIMIT"
	)
	mixed := "[Service]\nKillMode=mixed\n"
	for _, c := range []struct {
		name, unit, text string
		codes            []string // the only ones that are looked at, all if empty
		want             []string
	}{
		{"not there", "none.service", "", nil, []string{"app.upgrade:0 UNIT_NOT_FOUND"}},
		{"masked in etc", "app.service", "-- app.service -> /dev/null --\n-- /usr/lib/systemd/system/app.service --\n", []string{"UNIT_MASKED"}, []string{"app.service:0 UNIT_MASKED!"}},
		{"mask in run below a file in etc", "app.service", whole + "-- /run/systemd/system/app.service -> /dev/null --\n", nil, nil},
		{"empty", "app.service", "-- app.service --\n", []string{"UNIT_MASKED"}, []string{"app.service:0 UNIT_MASKED!"}},
		{"socket masked", "app.service", strings.Replace(whole, "app.socket", "some.socket", 1) + "-- app.socket -> /dev/null --\n", nil, []string{"app.service:6 SOCKET_NONE", "app.socket:0 UNIT_MASKED"}},
		{"etc before usr", "app.service", whole + "-- /usr/lib/systemd/system/app.service --\n" + mixed, nil, nil},
		{"only in lib", "app.service", "-- /lib/systemd/system/app.service --\n" + mixed + "ExecStart=a supervise\n", []string{kill}, []string{"/lib/systemd/system/app.service:2 " + kill}},

		{"drop-in", "app.service", whole + "-- app.service.d/a.conf --\n" + mixed, nil, []string{"app.service.d/a.conf:2 " + kill}},
		{"drop-in without suffix, or hidden", "app.service", whole + "-- app.service.d/a --\n" + mixed + "-- app.service.d/.a.conf --\n" + mixed, nil, nil},
		{"drop-ins by name, not by directory", "app.service", whole + "-- app.service.d/a.conf --\n" + mixed + "-- /usr/lib/systemd/system/app.service.d/b.conf --\n[Service]\nKillMode=process\n", nil, nil},
		{"drop-in hides its namesake", "app.service", whole + "-- /run/systemd/system/app.service.d/a.conf --\n[Service]\n-- /usr/lib/systemd/system/app.service.d/a.conf --\n" + mixed, nil, nil},
		{"drop-in masked", "app.service", whole + "-- app.service.d/a.conf -> /dev/null --\n-- /usr/lib/systemd/system/app.service.d/a.conf --\n" + mixed, nil, nil},
		{"empty value", "app.service", whole + "-- app.service.d/a.conf --\n[Service]\nKillMode=\n", nil, []string{"app.service:4 " + kill}},
		{"empty value that is ignored", "app.service", whole + "-- app.service.d/a.conf --\n[Service]\nRestart=\n", nil, []string{"app.service.d/a.conf:2 UNIT_EMPTY"}},
		{"list taken back", "app.service", whole + "-- app.service.d/a.conf --\n[Unit]\nOnFailure=\n[Service]\nExecReload=\nExecReload=/bin/kill -HUP $MAINPID\n", nil,
			[]string{"app.service:1 UNIT_ON_FAILURE", "app.service.d/a.conf:5 UNIT_RELOAD"}},
		{"type drop-in", "app.service", whole + "-- service.d/a.conf --\n" + mixed, nil, []string{"service.d/a.conf:2 " + kill}},
		{"type drop-in below the unit's", "app.service", whole + "-- service.d/a.conf --\n" + mixed + "-- /usr/lib/systemd/system/app.service.d/a.conf --\n[Service]\n", nil, nil},
		{"socket drop-in", "app.service", whole + "-- app.socket.d/a.conf --\n[Socket]\nTriggerLimitIntervalSec=2s\n", nil, []string{"app.socket.d/a.conf:2 " + socket}},
		{"unreadable drop-in", "app.service", whole + "-- app.service.d/a.conf -> gone --\n", nil, []string{"app.service.d/a.conf:0 UNIT_BAD"}},

		{"template", "app@1.service", "-- app@.service --\n" + mixed + "ExecStart=a supervise --root=%S/upgraderd/%i\n", []string{kill, "UNIT_STORE"}, []string{"app@.service:2 " + kill, "app@.service:3 UNIT_STORE!"}},
		{"instance before template", "app@1.service", "-- app@.service --\n" + mixed + "ExecStart=a supervise\n-- app@1.service --\n[Service]\n", []string{kill}, nil},
		{"template drop-ins", "app@1.service", "-- app@.service --\n[Service]\nExecStart=a supervise\nKillMode=process\n-- app@.service.d/a.conf --\n" + mixed + "-- app@1.service.d/b.conf --\n" + mixed,
			[]string{kill}, []string{"app@1.service.d/b.conf:2 " + kill}},
		{"prefix drop-ins", "a-b-c.service", "-- a-b-c.service --\n[Service]\nExecStart=a supervise\nKillMode=process\n-- a-.service.d/x.conf --\n[Service]\nKillMode=none\n-- a-b-.service.d/x.conf --\n" + mixed,
			[]string{kill}, []string{"a-b-.service.d/x.conf:2 " + kill}},
		{"template socket", "app@1.service", "-- app@.service --\n[Service]\nExecStart=a\n-- app@.socket --\n[Socket]\n-- app@1.socket.d/a.conf --\n[Socket]\nTriggerLimitIntervalSec=3s\n",
			[]string{socket}, []string{"app@1.socket.d/a.conf:2 " + socket}},

		{"alias", "web.service", whole + "-- web.service -> app.service --\n-- web.service.d/a.conf --\n" + mixed, nil, []string{"web.service.d/a.conf:2 " + kill}},
		{"drop-in of an alias", "app.service", whole + "-- web.service -> /etc/systemd/system/app.service --\n-- web.service.d/a.conf --\n" + mixed, nil, []string{"web.service.d/a.conf:2 " + kill}},
		{"alias of what etc overrides", "web.service", whole + "-- web.service -> /usr/lib/systemd/system/app.service --\n-- /usr/lib/systemd/system/app.service --\n" + mixed, nil, nil},
		{"link to a file elsewhere", "app.service", "-- app.service -> /srv/x.service --\n-- /srv/x.service --\n" + mixed + "ExecStart=a supervise\n", []string{kill}, []string{"app.service:2 " + kill}},
		{"alias of a template", "web@1.service", "-- web@.service -> app@.service --\n-- app@.service --\n[Service]\nExecStart=a supervise\nKillMode=process\n-- app@1.service.d/a.conf --\n" + mixed,
			[]string{kill}, []string{"app@1.service.d/a.conf:2 " + kill}},
		{"aliases in a circle", "a.service", "-- a.service -> b.service --\n-- b.service -> a.service --\n", nil, []string{"app.upgrade:0 UNIT_NOT_FOUND"}},

		{"socket by Service=", "app.service", whole + "-- other.socket --\n[Socket]\nListenStream=81\nService=app.service\n", nil, []string{"other.socket:1 " + socket}},
		{"socket by Sockets=", "app.service", whole + "-- app.service.d/a.conf --\n[Service]\nSockets=other.socket\n-- other.socket --\n[Socket]\nListenStream=81\n", nil, []string{"other.socket:1 " + socket}},
		{"socket of another that is required", "app.service", whole + "-- app.service.d/a.conf --\n[Unit]\nRequires=dbus.socket\n-- dbus.socket --\n[Socket]\nListenStream=/run/dbus\n", nil, nil},
		{"socket of its name for another", "app.service", strings.Replace(whole, "[Socket]\n", "[Socket]\nService=other.service\n", 1), nil, []string{"app.service:6 SOCKET_NONE"}},

		{"manager's defaults", "app.service", strings.NewReplacer("StartLimitIntervalSec=0\n", "", "TimeoutStopSec=120s\n", "").Replace(whole) +
			"-- /usr/lib/systemd/system.conf --\n[Manager]\nDefaultTimeoutStopSec=1s\n-- /etc/systemd/system.conf --\n[Manager]\nDefaultTimeoutStopSec=2min\n-- /etc/systemd/system.conf.d/a.conf --\n[Manager]\nDefaultStartLimitIntervalSec=0\n", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := plant(t, c.text)
			ds := Check(root, target("app", c.unit, ""))
			if len(c.codes) > 0 {
				ds = slices.DeleteFunc(ds, func(d config.Diagnostic) bool { return !slices.Contains(c.codes, string(d.Code)) })
			}
			if diff := cmp.Diff(c.want, brief(root, ds)); diff != "" {
				t.Errorf("-want +got\n%s\n%v", diff, ds)
			}
		})
	}
}

// --listen holds sockets as a .socket unit does, in the fd store.
func TestListen(t *testing.T) {
	service, _, _ := strings.Cut(whole, "-- app.socket --")
	service = strings.Replace(service, "supervise", "supervise --listen=a=tcp::1 --listen b=tcp::2", 1)
	root := plant(t, service)
	if ds := Check(root, target("app", "app.service", "")); len(ds) > 0 {
		t.Error(ds)
	}
	root = plant(t, strings.Replace(service, "Max=64", "Max=9", 1))
	if got := brief(root, Check(root, target("app", "app.service", ""))); !slices.Equal(got, []string{"app.service:11 UNIT_FD_STORE"}) {
		t.Error(got)
	}
}

func TestSomaxconn(t *testing.T) {
	for _, c := range []struct {
		backlog string
		most    uint64
		want    int
	}{
		{"", 4096, 0}, {"", 128, 1}, {"4096", 4096, 0}, {"4096", 1024, 1}, {"65535", 4096, 1}, {"4294967295", 4096, 0}, {"65535", 0, 0},
	} {
		root := plant(t, "-- app.socket --\n[Socket]\nListenStream=1\nBacklog="+c.backlog+"\n")
		v := &view{somaxconn: c.most, sockets: []*unit{scan(treeAt(root)).load("app.socket")}}
		if got := somaxconn(v); len(got) != c.want {
			t.Errorf("Backlog=%s, somaxconn %d: %v", c.backlog, c.most, got)
		}
	}
}

// Nothing is wrong with what we ship.
func TestShipped(t *testing.T) {
	root := t.TempDir()
	_, err := units.Install(root, units.Options{})
	check(t, err)
	examples := filepath.Join(root, "usr/share/doc/upgraderd/examples")
	check(t, os.MkdirAll(filepath.Join(root, "etc/systemd"), 0o755))
	check(t, os.Rename(examples, filepath.Join(root, "etc/systemd/system")))
	check(t, os.MkdirAll(filepath.Join(root, "etc/systemd/system/live@hello.socket.d"), 0o755))
	check(t, os.WriteFile(filepath.Join(root, "etc/systemd/system/live@hello.socket.d/address.conf"), []byte("[Socket]\nListenStream=8080\n"), 0o644))
	for _, swap := range []upgrader.Swap{upgrader.SwapAuto, upgrader.SwapHandover, upgrader.SwapRestart} {
		for name, unit := range map[string]string{"app": "app.service", "hello": "live@hello.service"} {
			if ds := Check(root, target(name, unit, swap)); len(ds) > 0 {
				t.Errorf("%s, Swap=%s: %v", unit, swap, ds)
			}
		}
	}
	// The running kernel may have a smaller somaxconn than the units ask for.
	for _, unit := range []string{"app.service", "live@hello.service"} {
		x := scan(treeAt(root))
		if sockets := x.sockets(x.load(unit)); len(sockets) != 1 || len(sockets[0].all("Socket", "ListenStream")) != 1 {
			t.Errorf("the sockets of %s: %v", unit, sockets)
		}
	}
}

func TestReferenceIsCurrent(t *testing.T) {
	const file = "../../docs/unit-checks.md"
	if *update {
		check(t, os.WriteFile(file, []byte(Reference()), 0o644))
	}
	text, err := os.ReadFile(file)
	check(t, err)
	if diff := cmp.Diff(string(text), Reference()); diff != "" {
		t.Errorf("%s is not what the table says (run this test with -update):\n%s", file, diff)
	}
}

// Every row is whole, and its code is its own.
func TestTable(t *testing.T) {
	seen := map[config.Code]bool{}
	for _, r := range Rules() {
		if seen[r.Code] || r.Help == "" || r.Fix == "" || r.check == nil || !strings.Contains(Reference(), "### "+string(r.Code)+"\n") {
			t.Errorf("%+v", r)
		}
		seen[r.Code] = true
	}
}
