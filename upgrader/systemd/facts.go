package systemd

import (
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Facts are what systemd knows of a service at one moment, named as in
// org.freedesktop.systemd1(5). Text in it comes from units and services:
// clean it before printing.
type Facts struct {
	// ID is the unit's primary name; aliases are resolved.
	ID string
	// LoadState is loaded, not-found, masked, bad-setting or error.
	LoadState string
	// LoadError is systemd's reason where LoadState is an error.
	LoadError string
	// ActiveState is active, reloading, inactive, failed, activating,
	// deactivating, maintenance or refreshing.
	ActiveState string
	SubState    string
	// InvocationID changes with every start of the unit, in hex.
	InvocationID string
	// NeedDaemonReload tells that the unit's files changed since they were
	// read.
	NeedDaemonReload bool
	// ActiveEnter is when the unit became active last, on CLOCK_MONOTONIC; 0 if
	// it never did.
	ActiveEnter time.Duration
	// ActiveExit is when it left that state last, likewise.
	ActiveExit time.Duration
	// Job is the job that is queued or runs for the unit, 0 if none.
	Job uint32
	// JobsEnded counts the jobs on the unit that ended since this client
	// first read its facts, over the connection numbered Watch. See
	// [Facts.Undisturbed].
	JobsEnded, Watch uint64
	// LastJob is how the last of those jobs ended, "" if there was none.
	LastJob Result
	// Failures counts how often the unit was seen to fail by itself, and not in
	// a job, over the same connection. See [Facts.FailedSince].
	Failures uint64
	// TriggeredBy are the sockets, timers and paths that start it.
	TriggeredBy []string
	// Dependents are the units that systemd stops with it, by Requires=,
	// Requisite=, BindsTo=, PartOf= or StopPropagatedFrom= of theirs, as far as
	// they are loaded: what is active is.
	Dependents []string

	// The rest is empty for a unit that is not a service.

	// Type is simple, exec, forking, oneshot, notify, notify-reload…
	Type string
	// Result is success, or why the last run ended: exit-code, signal,
	// core-dump, watchdog, timeout, oom-kill, start-limit-hit, protocol…
	Result string
	// MainPID is 0 where nothing runs.
	MainPID uint32
	// NRestarts counts the starts that Restart= caused since the last
	// start by hand.
	NRestarts uint32
	// StatusText is the service's STATUS=.
	StatusText string
	// StatusErrno is the service's ERRNO=, 0 where it said none.
	StatusErrno int32
	// ExecMainCode is CLD_EXITED (1), CLD_KILLED (2) or CLD_DUMPED (3) once
	// the main process ended; ExecMainStatus its exit status or signal.
	ExecMainCode, ExecMainStatus int32
	// EndedItself tells that the main process ended before anybody stopped the
	// unit, which does not run any more. It is false for a unit that nothing
	// refers to, which systemd forgets as soon as it is inactive.
	EndedItself bool
	// NeverActive tells that the last run was over before systemd took the unit for
	// active, so that nobody can say whether it ended or was stopped.
	NeverActive bool
	// CanReload tells that a reload means something to the unit.
	CanReload bool
	// ExecStart and ExecReload are the argument vectors, specifiers and
	// variables as systemd resolved them.
	ExecStart, ExecReload [][]string
	// TimeoutStart and TimeoutStop bound a start (a reload too) and a stop.
	// Negative: no bound.
	TimeoutStart, TimeoutStop time.Duration
}

// Running reports whether a main process should be there: active, or on its
// way between two such states.
func (f Facts) Running() bool {
	switch f.ActiveState {
	case "active", "reloading", "refreshing":
		return true
	}
	return false
}

// Undisturbed reports that nobody's job on the unit ended between since and f,
// but for own jobs of ours: what happened to the unit, it did itself. Without
// an unbroken connection nobody can say so, and the answer is no.
//
// See [Facts.EndedItself] for what systemd remembers by itself.
func (f Facts) Undisturbed(since Facts, own uint64) bool {
	return f.Watch != 0 && f.Watch == since.Watch && f.JobsEnded == since.JobsEnded+own
}

// FailedSince reports that the unit failed by itself between since and f, though
// it may run again: its socket starts it anew before anybody looks. Without an
// unbroken connection nobody can say so, and the answer is no.
func (f Facts) FailedSince(since Facts) bool {
	return f.Watch != 0 && f.Watch == since.Watch && f.Failures > since.Failures
}

// Exit describes how the main process ended, "" if it never did.
func (f Facts) Exit() string {
	switch f.ExecMainCode {
	case 1:
		return "exit status " + itoa(f.ExecMainStatus)
	case 2:
		return "killed by signal " + itoa(f.ExecMainStatus)
	case 3:
		return "dumped core on signal " + itoa(f.ExecMainStatus)
	}
	return ""
}

// parseFacts reads two property maps. A property that is missing or of
// another type stays zero: versions of systemd differ.
func parseFacts(unit, service map[string]dbus.Variant) Facts {
	f := Facts{
		ID:               value[string](unit, "Id"),
		LoadState:        value[string](unit, "LoadState"),
		ActiveState:      value[string](unit, "ActiveState"),
		SubState:         value[string](unit, "SubState"),
		InvocationID:     hex.EncodeToString(value[[]byte](unit, "InvocationID")),
		NeedDaemonReload: value[bool](unit, "NeedDaemonReload"),
		ActiveEnter:      span(value[uint64](unit, "ActiveEnterTimestampMonotonic")),
		ActiveExit:       span(value[uint64](unit, "ActiveExitTimestampMonotonic")),
		TriggeredBy:      value[[]string](unit, "TriggeredBy"),
		Dependents:       dependents(unit),
		Type:             value[string](service, "Type"),
		Result:           value[string](service, "Result"),
		MainPID:          value[uint32](service, "MainPID"),
		NRestarts:        value[uint32](service, "NRestarts"),
		StatusText:       value[string](service, "StatusText"),
		StatusErrno:      value[int32](service, "StatusErrno"),
		ExecMainCode:     value[int32](service, "ExecMainCode"),
		ExecMainStatus:   value[int32](service, "ExecMainStatus"),
		ExecStart:        commands(service["ExecStart"]),
		ExecReload:       commands(service["ExecReload"]),
		CanReload:        value[bool](unit, "CanReload"),
		TimeoutStart:     span(value[uint64](service, "TimeoutStartUSec")),
		TimeoutStop:      span(value[uint64](service, "TimeoutStopUSec")),
		Job:              jobOf(unit),
	}
	// Of a stop, systemd notes first that the unit is not active any more; of an
	// end, that of the process. Tried on 252, 257 and 262.
	ended, left := value[uint64](service, "ExecMainExitTimestampMonotonic"), value[uint64](unit, "ActiveExitTimestampMonotonic")
	over := !f.Running() && f.MainPID == 0 && ended > 0
	f.EndedItself = over && ended < left
	f.NeverActive = over && left < value[uint64](unit, "InactiveExitTimestampMonotonic")
	if le := value[[]any](unit, "LoadError"); len(le) > 1 {
		f.LoadError, _ = le[1].(string)
	}
	return f
}

// dependents reads the names that systemd keeps of the settings the other way
// round (org.freedesktop.systemd1(5)).
func dependents(unit map[string]dbus.Variant) []string {
	var all []string
	for _, relation := range []string{"RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo"} {
		all = append(all, value[[]string](unit, relation)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// jobOf reads (uo): a job's number and path.
func jobOf(unit map[string]dbus.Variant) (id uint32) {
	if job := value[[]any](unit, "Job"); len(job) > 0 {
		id, _ = job[0].(uint32)
	}
	return id
}

func value[T any](props map[string]dbus.Variant, name string) T {
	v, _ := props[name].Value().(T)
	return v
}

// span reads microseconds; systemd's infinity is the largest number.
func span(usec uint64) time.Duration {
	if usec > math.MaxInt64/uint64(time.Microsecond) {
		return -1
	}
	return time.Duration(usec) * time.Microsecond
}

// commands reads a(sasbttttuii): path, argument vector, and how it went.
func commands(v dbus.Variant) [][]string {
	rows, _ := v.Value().([][]any)
	var all [][]string
	for _, row := range rows {
		if len(row) < 2 {
			continue
		}
		if argv, ok := row[1].([]string); ok {
			all = append(all, argv)
		}
	}
	return all
}

// unitPath is the object path of a unit: every byte that is no letter or
// digit is written as _xx (sd_bus_path_encode(3)).
func unitPath(name string) dbus.ObjectPath {
	const hexDigits = "0123456789abcdef"
	var b strings.Builder
	b.WriteString("/org/freedesktop/systemd1/unit/")
	if name == "" {
		b.WriteByte('_')
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		if letter || digit && i > 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('_')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return dbus.ObjectPath(b.String())
}
