package unitlint

import (
	"fmt"
	"path"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

func onFailure(v *view) []finding {
	u := v.service
	if !u.there() || v.target.Swap == upgrader.SwapNone || v.target.Config != "" { // that is for the program's target
		return nil
	}
	want := upgrader.FailedUnit(v.target.Name)
	var near setting
	for _, s := range u.listed("Unit", "OnFailure") {
		rest, ours := strings.CutPrefix(s.value, "upgraderd-failed@")
		instance, _ := strings.CutSuffix(rest, ".service")
		if !ours {
			continue
		}
		if instance == v.target.Name || unitfile.UnescapeUnit(instance) == v.target.Name {
			return nil
		}
		near = s
	}
	if near.value != "" {
		return []finding{{
			place:   near.place,
			message: fmt.Sprintf("OnFailure=%s is not for the target %s, so only the guard's timer undoes an upgrade that fails without the daemon", near.value, v.target.Name),
			hint:    "write OnFailure=" + want,
		}}
	}
	return []finding{{
		place:   u.place("Unit"),
		message: "OnFailure= does not name " + want + ", so an upgrade that fails without the daemon waits for the guard's timer",
		hint:    write(u, setting{section: "Unit"}, false, "OnFailure="+want),
	}}
}

func noHandover(v *view) []finding {
	u := v.service
	if !u.there() || v.supervise != nil || v.target.Swap != upgrader.SwapHandover {
		return nil
	}
	s, given := u.last("Service", "ExecStart")
	return []finding{{
		place: s.place, fatal: true,
		message: "ExecStart= does not run upgraderd supervise, so the daemon refuses Swap=handover",
		hint: write(u, s, given, "ExecStart=/usr/bin/upgraderd supervise --root=%S/upgraderd/"+v.target.Name+" -- "+v.target.Program) +
			"; or set Swap=auto",
	}}
}

func store(v *view) []finding {
	s := v.supervise
	if s.unsure {
		return nil
	}
	want := "write --root=%S/upgraderd/" + v.target.Name + " before the -- in ExecStart="
	switch {
	case s.root == "":
		return []finding{{
			place: s.place, fatal: v.target.Swap == upgrader.SwapHandover,
			message: "upgraderd supervise has no --root=, so the daemon restarts it instead of handing over",
			hint:    want,
		}}
	case !v.same(s.root, v.store()):
		return []finding{{
			place: s.place, fatal: v.target.Swap != upgrader.SwapNone,
			message: fmt.Sprintf("upgraderd supervise has --root=%s, but the releases of %s are in %s: it never runs them", s.root, v.target.Name, v.store()),
			hint:    want,
		}}
	}
	return nil
}

// same compares two names of a directory, through links if need be.
func (t tree) same(a, b string) bool {
	if path.Clean(a) == path.Clean(b) {
		return true
	}
	ra, err1 := t.follow(a)
	rb, err2 := t.follow(b)
	return err1 == nil && err2 == nil && ra == rb
}

func reload(v *view) []finding {
	u := v.service
	if runsHandover(u) {
		return nil
	}
	s, given := u.last("Service", "ExecReload")
	message := "ExecReload= is missing, so there is no way to ask for a handover"
	line := "ExecReload=/usr/bin/upgraderd handover"
	if given {
		message = "ExecReload= does not run upgraderd handover"
		words, _ := u.words(s.value)
		if len(words) > 0 && strings.HasSuffix(words[0], "kill") {
			message += ": a signal is sent and nobody waits, so that a handover that fails looks like one that did not"
		}
		if !local(s.file) {
			line = "ExecReload= and then " + line // a list: the drop-in takes it back first
		}
	}
	return []finding{{
		place: s.place, fatal: v.target.Swap == upgrader.SwapHandover,
		message: message,
		hint:    write(u, s, given, line),
	}}
}

func unitType(v *view) []finding {
	u := v.service
	s, given := u.last("Service", "Type")
	f := finding{place: s.place, hint: write(u, s, given, "Type=notify")}
	switch s.value {
	case "notify":
		return nil
	case "notify-reload":
		f.message = "with Type=notify-reload systemd sends SIGHUP at a reload beside what ExecReload= does, so each reload asks for two handovers"
	case "forking", "oneshot", "dbus":
		f.fatal = v.target.Swap != upgrader.SwapNone
		f.message = fmt.Sprintf("with Type=%s a start under upgraderd supervise is never done: it ends in a time-out", s.value)
		if s.value == "oneshot" {
			f.message = "with Type=oneshot a start under upgraderd supervise is never done: systemd waits for it to end"
		}
	default:
		if s.value == "" {
			s.value = "simple"
		}
		f.message = fmt.Sprintf("with Type=%s systemd takes the service for started before any worker is ready%s", s.value, assumed(given, "Type="))
	}
	return []finding{f}
}

func notifyAccess(v *view) []finding {
	u := v.service
	s, given := u.last("Service", "NotifyAccess")
	access := s.value
	if access == "" && heard(u) {
		access = "main"
	}
	f := finding{place: s.place, hint: write(u, s, given, "NotifyAccess=main")}
	switch access {
	case "main":
		return nil
	case "all":
		f.message = "with NotifyAccess=all a worker can stop its unit, and forge what systemd and the daemon believe of it"
	case "exec":
		f.message = "with NotifyAccess=exec not the supervisor alone speaks for the unit, but every Exec*= command"
	default:
		f.fatal = v.target.Swap != upgrader.SwapNone
		f.message = "systemd does not hear the supervisor, so the daemon never sees a release serve" + assumed(given, "NotifyAccess=")
	}
	return []finding{f}
}

// heard tells that NotifyAccess= is main without being said.
func heard(u *unit) bool {
	if t, _ := u.last("Service", "Type"); strings.HasPrefix(t.value, "notify") {
		return true
	}
	if s, _ := u.last("Service", "FileDescriptorStoreMax"); s.value != "" && s.value != "0" {
		return true
	}
	w, _ := u.last("Service", "WatchdogSec")
	d, ok := span(w.value)
	return ok && d > 0
}

func killMode(v *view) []finding {
	u := v.service
	s, given := u.last("Service", "KillMode")
	f := finding{place: s.place, hint: write(u, s, given, "KillMode=process")}
	switch s.value {
	case "process":
		return nil
	case "none":
		f.message = "with KillMode=none a stop ends nothing, and the next start finds the old processes in its way"
	case "":
		s.value = "control-group"
		fallthrough
	default:
		f.message = fmt.Sprintf("with KillMode=%s systemd kills the workers of a supervisor that died, and their connections break%s", s.value, assumed(given, "KillMode="))
	}
	return []finding{f}
}

func fdStore(v *view) []finding {
	u := v.service
	least := uint64(8 + v.supervise.listen)
	s, given := u.last("Service", "FileDescriptorStoreMax")
	n, _ := number(s.value)
	if n >= least {
		return nil
	}
	what := fmt.Sprintf("systemd keeps %d file descriptors, but a supervisor may need %d: after a crash it does not find its workers again", n, least)
	if v.supervise.listen > 0 {
		what += ", and its sockets are closed"
	}
	return []finding{{
		place:   s.place,
		message: what + assumed(given, "FileDescriptorStoreMax="),
		hint:    write(u, s, given, fmt.Sprintf("FileDescriptorStoreMax=%d", max(64, least))),
	}}
}

func oomPolicy(v *view) []finding {
	u := v.service
	s, given := u.last("Service", "OOMPolicy")
	if s.value == "" {
		s.value = v.defaults.oomPolicy
	}
	if s.value == "continue" {
		return nil
	}
	return []finding{{
		place:   s.place,
		message: fmt.Sprintf("with OOMPolicy=%s systemd ends the whole unit when one process of it runs out of memory, be it a new worker or one that drains%s", s.value, assumed(given, "OOMPolicy=")),
		hint:    write(u, s, given, "OOMPolicy=continue"),
	}}
}

func runtimeDir(v *view) []finding {
	u := v.service
	if v.supervise.unsure || v.supervise.runtimeDir != "" {
		return nil
	}
	s, given := u.last("Service", "RuntimeDirectory")
	if given {
		return nil
	}
	return []finding{{
		place: s.place, fatal: v.target.Swap != upgrader.SwapNone,
		message: "RuntimeDirectory= is missing, and without it upgraderd supervise does not start",
		hint:    write(u, s, given, "RuntimeDirectory=%N"),
	}}
}

func runtimePreserve(v *view) []finding {
	u := v.service
	if _, given := u.last("Service", "RuntimeDirectory"); !given {
		return nil
	}
	s, given := u.last("Service", "RuntimeDirectoryPreserve")
	if s.value == "restart" {
		return nil
	}
	if _, kept := u.yes("Service", "RuntimeDirectoryPreserve"); kept {
		return nil
	}
	return []finding{{
		place:   s.place,
		message: "systemd removes the runtime directory when the supervisor dies, and with it the notify socket of the worker that outlives it",
		hint:    write(u, s, given, "RuntimeDirectoryPreserve=restart"),
	}}
}
