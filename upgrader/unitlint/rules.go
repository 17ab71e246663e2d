package unitlint

import (
	"slices"

	"github.com/upgraderd/upgraderd/upgrader/config"
)

// Rule is one thing that is looked for, as documentation needs it.
type Rule struct {
	Code config.Code
	// Of says which units it concerns.
	Of Scope
	// Error is set where a finding can be an error; else it is a warning.
	Error bool
	// Help says in Markdown what it means, Fix what to write.
	Help, Fix string

	check func(*view) []finding
}

// Scope is the kind of unit that a rule concerns.
type Scope string

const (
	Any        Scope = "Every unit of a target"
	Supervised Scope = "Units that run under upgraderd supervise"
	Sockets    Scope = "Sockets"
	Own        Scope = "upgraderd itself"
)

// Rules gives every rule, in the order in which they are checked.
func Rules() []Rule {
	return []Rule{
		{
			Code: "UNIT_NOT_FOUND", Of: Any, check: notFound,
			Help: "There is no unit file of the name in `Unit=`. It may be written after the `.upgrade` file; until then nothing can be swapped.",
			Fix:  "Install the unit and run `systemctl daemon-reload`, or name another in `Unit=`.",
		},
		{
			Code: "UNIT_MASKED", Of: Any, Error: true, check: masked,
			Help: "The file that counts is a link to `/dev/null`, or empty: systemd refuses to start the unit, and so every swap.",
			Fix:  "`systemctl unmask UNIT`",
		},
		{
			Code: "UNIT_BAD", Of: Any, check: unreadable,
			Help: "A file of the unit cannot be read, or has a line that is not unit syntax, which systemd ignores.",
			Fix:  "Correct the line.",
		},
		{
			Code: "UNIT_SECTION", Of: Any, check: wrongSection,
			Help: "A setting stands in a section where systemd does not read it, so that its default holds: `StartLimitIntervalSec=` in `[Service]` is the usual case.",
			Fix:  "Move the line to the section that the hint names.",
		},
		{
			Code: "UNIT_EMPTY", Of: Any, check: emptyValue,
			Help: "An empty value takes back what was said before of a list such as `ExecStart=`, but systemd ignores it in settings such as `Restart=` or `TimeoutStopSec=`: what was said before goes on to count.",
			Fix:  "Write the value that is meant, or remove the line.",
		},
		{
			Code: "UNIT_START_LIMIT", Of: Any, check: startLimit,
			Help: "A service that is started too often (5 times in 10 s by default) is not started again, and systemd fails its sockets along with it: connections are refused until somebody acts.",
			Fix:  "`StartLimitIntervalSec=0` in `[Unit]`",
		},
		{
			Code: "UNIT_RESTART", Of: Any, check: restart,
			Help: "A service that crashes is not started again.",
			Fix:  "`Restart=on-failure` in `[Service]`",
		},
		{
			Code: "UNIT_ON_FAILURE", Of: Any, check: onFailure,
			Help: "When a release on trial fails while the daemon is not there, nothing undoes the upgrade until the guard's timer is due. The instance is the target's name, plain or escaped as by `systemd-escape`.",
			Fix:  "`OnFailure=upgraderd-failed@TARGET.service` in `[Unit]`",
		},
		{
			Code: "UNIT_USER", Of: Any, Error: true, check: user,
			Help: "The service runs as a user who can write the releases: as `upgraderd`, who owns them (an error), or as root, unless `ProtectSystem=strict` or `ReadOnlyPaths=` keeps it off. A worker that was broken into could then change what runs next, past every signature.",
			Fix:  "`User=` with a user of the service's own, or `DynamicUser=yes`, in `[Service]`; where it has to be root, `ReadOnlyPaths=-/var/lib/upgraderd`",
		},
		{
			Code: "UNIT_STORE_WRITABLE", Of: Any, Error: true, check: storeWritable,
			Help: "The unit opens the release store to its service. With `StateDirectory=` systemd gives the directory to the service's user, and the daemon can no longer write there: that is an error. `ReadWritePaths=` and `BindPaths=` take a read-only view away, so that only file modes are left.",
			Fix:  "Name a directory outside `/var/lib/upgraderd`.",
		},
		{
			Code: "UNIT_NO_HANDOVER", Of: Any, Error: true, check: noHandover,
			Help: "`Swap=handover` is demanded of a unit that does not run under `upgraderd supervise`: the daemon refuses it.",
			Fix:  "`ExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/TARGET -- bin/PROGRAM` in `[Service]`, or `Swap=auto`",
		},
		{
			Code: "UNIT_STORE", Of: Supervised, Error: true, check: store,
			Help: "The supervisor's `--root=` is not the target's directory in the release store, so that it never runs what the daemon installs.",
			Fix:  "`--root=%S/upgraderd/TARGET` in `ExecStart=`",
		},
		{
			Code: "UNIT_RELOAD", Of: Supervised, Error: true, check: reload,
			Help: "`ExecReload=` does not run `upgraderd handover`. `Swap=handover` is then refused (an error) and `Swap=auto` restarts. A command that only sends a signal, such as `/bin/kill -HUP`, ends before the new worker is ready and so cannot tell of a handover that failed.",
			Fix:  "`ExecReload=/usr/bin/upgraderd handover` in `[Service]`",
		},
		{
			Code: "UNIT_TYPE", Of: Supervised, Error: true, check: unitType,
			Help: "With `Type=simple`, `exec` or `idle` a start counts as done before any worker is ready; with `forking`, `oneshot` or `dbus` it is never done (an error). With `notify-reload` systemd sends SIGHUP at a reload beside what `ExecReload=` does, and each reload asks for two handovers.",
			Fix:  "`Type=notify` in `[Service]`",
		},
		{
			Code: "UNIT_NOTIFY_ACCESS", Of: Supervised, Error: true, check: notifyAccess,
			Help: "With `all` a worker can speak for the unit, with `exec` its helpers can: stop it, and forge what it says it runs. With `none` systemd does not hear the supervisor, and the daemon cannot see which release serves: no swap succeeds (an error).",
			Fix:  "`NotifyAccess=main` in `[Service]`",
		},
		{
			Code: "UNIT_KILL_MODE", Of: Supervised, check: killMode,
			Help: "With `control-group` (the default) or `mixed` systemd kills the workers once the supervisor is gone, so that a supervisor that is killed takes every connection along. With `none` a stop leaves everything running.",
			Fix:  "`KillMode=process` in `[Service]`",
		},
		{
			Code: "UNIT_OOM_POLICY", Of: Supervised, check: oomPolicy,
			Help: "With `stop` (the default) or `kill` systemd ends the whole unit as soon as the kernel kills one of its processes for want of memory. A new worker that needs too much, or an old one that drains, then takes the one that serves along.",
			Fix:  "`OOMPolicy=continue` in `[Service]`",
		},
		{
			Code: "UNIT_FD_STORE", Of: Supervised, check: fdStore,
			Help: "The fd store is too small for 8 workers and what `--listen` opens; by default nothing is kept. A supervisor that is killed then cannot find its workers again, and the sockets of `--listen` are closed.",
			Fix:  "`FileDescriptorStoreMax=64` in `[Service]`",
		},
		{
			Code: "UNIT_RESTART_DELAY", Of: Supervised, check: restartDelay,
			Help: "A supervisor that died is started again only after this time. Where its worker died too, connections wait so long.",
			Fix:  "`RestartSec=100ms` in `[Service]`, which is systemd's default",
		},
		{
			Code: "UNIT_STOP_TIMEOUT", Of: Supervised, check: stopTimeout,
			Help: "systemd's limit for a stop is not longer than the supervisor's drain limit (`--drain-timeout`, 90 s by default). If the supervisor's own request for more time does not arrive, systemd kills it while connections still drain.",
			Fix:  "`TimeoutStopSec=120s` in `[Service]`, or more than `--drain-timeout`",
		},
		{
			Code: "UNIT_START_TIMEOUT", Of: Supervised, check: startTimeout,
			Help: "systemd's limit for a start or reload is not longer than the supervisor's (`--start-timeout`, 60 s by default), so that it may cut a start or a handover off before the supervisor can say why.",
			Fix:  "`TimeoutStartSec=90s` in `[Service]`, or more than `--start-timeout`",
		},
		{
			Code: "UNIT_RUNTIME_DIR", Of: Supervised, Error: true, check: runtimeDir,
			Help: "The supervisor has no directory for its control and notify sockets, and does not start.",
			Fix:  "`RuntimeDirectory=%N` in `[Service]`",
		},
		{
			Code: "UNIT_RUNTIME_PRESERVE", Of: Supervised, check: runtimePreserve,
			Help: "systemd removes the runtime directory when the supervisor ends, and with it the notify socket of a worker that outlives it.",
			Fix:  "`RuntimeDirectoryPreserve=restart` in `[Service]`",
		},
		{
			Code: "SOCKET_NONE", Of: Sockets, check: noSocket,
			Help: "No `.socket` unit and no `--listen` holds the service's sockets. A service that listens for itself refuses connections while it restarts, and two workers beside each other can share an address by SO_REUSEPORT only.",
			Fix:  "A `.socket` unit of the service's name, as in `units/examples/app.socket`, or `--listen` of `upgraderd supervise`",
		},
		{
			Code: "SOCKET_BACKLOG", Of: Sockets, check: backlog,
			Help: "The queue of connections that wait for a service that starts is short. Once it is full, clients wait for seconds or are refused.",
			Fix:  "`Backlog=4096` in `[Socket]`",
		},
		{
			Code: "SOCKET_SOMAXCONN", Of: Sockets, check: somaxconn,
			Help: "The kernel silently cuts `Backlog=` down to `net.core.somaxconn`. Looked at on the running system only.",
			Fix:  "`net.core.somaxconn=4096`, or as much as `Backlog=`, in a file below `/etc/sysctl.d`",
		},
		{
			Code: "SOCKET_TRIGGER_LIMIT", Of: Sockets, check: triggerLimit,
			Help: "A socket that starts its service too often (20 times in 2 s by default), since the service crashes, fails and refuses connections until it is restarted.",
			Fix:  "`TriggerLimitIntervalSec=0` in `[Socket]`",
		},
		{
			Code: "SOCKET_ACCEPT", Of: Sockets, check: accept,
			Help: "With `Accept=yes` systemd starts an instance of a template for each connection. None reaches the target's unit, so there is nothing to hand over.",
			Fix:  "`Accept=no` in `[Socket]`, which is the default",
		},
		{
			Code: "SOCKET_FLUSH", Of: Sockets, Error: true, check: flushPending,
			Help: "With `FlushPending=yes` systemd throws away the connections that wait when the service ends. A target that is swapped by a restart loses them at each upgrade (an error).",
			Fix:  "`FlushPending=no` in `[Socket]`, which is the default",
		},
		{
			Code: "UNIT_NO_LAUNCH", Of: Own, Error: true, check: noLaunch,
			Help: "`upgraderd.service` does not run `upgraderd launch`, which becomes the release in the store: the daemon does not swap then. Nothing else is asked of the unit that other rules ask, as it has no sockets, and owns the releases.",
			Fix:  "Remove the drop-in that replaces `ExecStart=`, or `ExecStart=/usr/bin/upgraderd launch`",
		},
	}
}

// ofSection tells where systemd reads the settings that the rules are about.
// StartLimitInterval= and StartLimitBurst= still count in [Service], where they
// stood before systemd 229.
func ofSection() map[string][]string {
	sections := map[string][]string{
		"StartLimitInterval": {"Unit", "Service"},
		"StartLimitBurst":    {"Unit", "Service"},
	}
	for section, keys := range map[string][]string{
		"Unit": {"StartLimitIntervalSec", "OnFailure"},
		"Service": {
			"Type", "NotifyAccess", "ExecStart", "ExecReload", "Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec",
			"FileDescriptorStoreMax", "Sockets", "OOMPolicy",
		},
		"Socket": {"Backlog", "Accept", "FlushPending", "TriggerLimitIntervalSec", "TriggerLimitBurst"},
	} {
		for _, key := range keys {
			sections[key] = append(sections[key], section)
		}
	}
	for _, key := range []string{"KillMode", "User", "DynamicUser", "RuntimeDirectory", "RuntimeDirectoryPreserve", "StateDirectory", "ReadWritePaths"} {
		sections[key] = []string{"Service", "Socket"}
	}
	return sections
}

// keepsEmpty tells of which settings systemd ignores an empty value.
func keepsEmpty(key string) bool {
	return slices.Contains([]string{
		"StartLimitIntervalSec", "StartLimitInterval", "StartLimitBurst",
		"Type", "NotifyAccess", "Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec", "TimeoutSec", "WatchdogSec",
		"FileDescriptorStoreMax", "RuntimeDirectoryPreserve", "ProtectSystem", "OOMPolicy",
		"Backlog", "TriggerLimitIntervalSec", "TriggerLimitBurst", "Accept", "FlushPending",
	}, key)
}
