package systemd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
)

func itoa(n int32) string { return strconv.Itoa(int(n)) }

// Codes of an [Error], stable for scripts and alerts.
const (
	CodeBusDown     = "BUS_DOWN"       // nobody answers at the bus address
	CodeBusTimeout  = "BUS_TIMEOUT"    // the bus or systemd did not answer in time
	CodeDenied      = "AUTH_DENIED"    // polkit refused the verb on this unit
	CodeNotFound    = "UNIT_NOT_FOUND" // no such unit
	CodeMasked      = "UNIT_MASKED"    // the unit is masked
	CodeBadUnit     = "UNIT_BAD"       // systemd cannot read the unit
	CodeNoReload    = "UNIT_NO_RELOAD" // the unit has no ExecReload=, or is not active
	CodeJobConflict = "JOB_CONFLICT"   // another job for the unit is in the way
	CodeRefused     = "JOB_REFUSED"    // systemd refused for another reason
)

// Error is a call that systemd, polkit or the bus did not carry out.
type Error struct {
	Code string
	// Verb is what was asked: "reload", "restart", "start", "reset-failed",
	// "read".
	Verb string
	Unit string
	// Hint says what a person can do, "" if nothing.
	Hint string
	Err  error
}

func (e *Error) Error() string {
	// systemd writes whole sentences.
	s := strings.TrimSuffix(fmt.Sprintf("[%s] %s %s: %v", e.Code, e.Verb, e.Unit, e.Err), ".")
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Advice is the hint.
func (e *Error) Advice() string { return e.Hint }

// HasCode reports whether err is an [*Error] with one of these codes.
func HasCode(err error, codes ...string) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

// classify makes an Error of what a call returned.
func classify(verb, unit string, err error) error {
	e := &Error{Code: CodeRefused, Verb: verb, Unit: unit, Err: err}
	var de dbus.Error
	var dp *dbus.Error
	if errors.As(err, &dp) {
		de = *dp
	} else if !errors.As(err, &de) {
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			e.Code = CodeBusTimeout
			e.Hint = "see whether the bus and polkit answer: systemctl status dbus polkit"
		default:
			e.Code = CodeBusDown
			e.Hint = "see: systemctl status dbus"
		}
		return e
	}
	if verb != "read" && polkitsOwn(unit, de) {
		e.Code = CodeDenied
		e.Hint = "without polkit upgraderd may do nothing; see: systemctl status polkit.service"
		return e
	}
	switch de.Name {
	case "org.freedesktop.systemd1.NoSuchUnit":
		e.Code = CodeNotFound
		e.Hint = "install the unit, or name the right one in Unit="
	case "org.freedesktop.systemd1.UnitMasked":
		e.Code = CodeMasked
		e.Hint = "unmask it with: systemctl unmask " + unit
	case "org.freedesktop.systemd1.BadUnitSetting", "org.freedesktop.systemd1.LoadFailed":
		e.Code = CodeBadUnit
		e.Hint = "find the line with: systemd-analyze verify " + unit
	case "org.freedesktop.systemd1.JobTypeNotApplicable":
		e.Code = CodeNoReload
		e.Hint = "a handover needs ExecReload=/usr/bin/upgraderd handover and an active unit"
	case "org.freedesktop.systemd1.TransactionIsDestructive":
		e.Code = CodeJobConflict
		e.Hint = "another job for the unit is queued; see: systemctl list-jobs"
	case "org.freedesktop.DBus.Error.AccessDenied",
		"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
		"org.freedesktop.DBus.Error.AuthFailed":
		e.Code = CodeDenied
		e.Hint = fmt.Sprintf("polkit has to allow the verb %q on %s to upgraderd; run: upgraderd install", verb, unit)
	case "org.freedesktop.DBus.Error.NoReply",
		"org.freedesktop.DBus.Error.Timeout",
		"org.freedesktop.DBus.Error.TimedOut":
		e.Code = CodeBusTimeout
		e.Hint = "see whether the bus and polkit answer: systemctl status dbus polkit"
	case "org.freedesktop.DBus.Error.ServiceUnknown",
		"org.freedesktop.DBus.Error.NameHasNoOwner",
		"org.freedesktop.DBus.Error.Disconnected":
		e.Code = CodeBusDown
		e.Hint = "systemd is not on the bus"
	}
	return e
}

// polkitsOwn tells an error about the unit of polkit, which the bus starts to
// ask it. systemd hands it on as if it were about the unit that was meant.
func polkitsOwn(unit string, de dbus.Error) bool {
	text := de.Error()
	return !strings.Contains(text, unit) && strings.Contains(text, "polkit.service")
}
