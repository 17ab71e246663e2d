package bus

import (
	"errors"
	"fmt"

	"github.com/godbus/dbus/v5"

	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// Names of the errors that a client can tell apart. Others are those of D-Bus itself.
const (
	errorNoTarget   = Name + ".Error.NoSuchTarget"
	errorNoJob      = Name + ".Error.NoSuchJob"
	errorTargetBusy = Name + ".Error.TargetBusy" // another order waits or is carried out
	errorTooLate    = Name + ".Error.TooLate"    // a job that cannot be cancelled any more

	errorFailed          = "org.freedesktop.DBus.Error.Failed"
	errorInvalidArgs     = "org.freedesktop.DBus.Error.InvalidArgs"
	errorAccessDenied    = "org.freedesktop.DBus.Error.AccessDenied"
	errorInteractive     = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
	errorLimits          = "org.freedesktop.DBus.Error.LimitsExceeded"
	errorUnknownObject   = "org.freedesktop.DBus.Error.UnknownObject"
	errorUnknownFace     = "org.freedesktop.DBus.Error.UnknownInterface"
	errorUnknownProperty = "org.freedesktop.DBus.Error.UnknownProperty"
	errorReadOnly        = "org.freedesktop.DBus.Error.PropertyReadOnly"
	errorNoReply         = "org.freedesktop.DBus.Error.NoReply"
	errorServiceUnknown  = "org.freedesktop.DBus.Error.ServiceUnknown"
)

func refusal(name, format string, args ...any) *dbus.Error {
	return dbus.NewError(name, []any{journal.Clean(fmt.Sprintf(format, args...))})
}

// refuse is the refusal that err is. What can be done about it stands in its text, for
// any client, and once more behind it, for ours.
func refuse(name string, err error) *dbus.Error {
	body := []any{journal.Clean(err.Error())}
	for _, a := range advice.Of(err) {
		body = append(body, journal.Clean(a))
	}
	return dbus.NewError(name, body)
}

// failure is that of something that was tried.
func failure(err error) *dbus.Error { return refuse(errorFailed, err) }

// told is an error that came from the daemon, with what can be done about it.
type told struct {
	err    dbus.Error
	advice string
}

func (t told) Error() string  { return t.err.Error() }
func (t told) Unwrap() error  { return t.err }
func (t told) Advice() string { return t.advice }

// understood finds in an error that came over the bus what can be done about it. Of
// several, the first is.
func understood(err error) error {
	var e dbus.Error
	if !errors.As(err, &e) || len(e.Body) < 2 {
		return err
	}
	a, ok := e.Body[1].(string)
	if !ok {
		return err
	}
	return told{e, a}
}

// called gives the name of an error that came over the bus, "" where it did not.
func called(err error) string {
	var e dbus.Error
	var p *dbus.Error
	switch {
	case errors.As(err, &p):
		return p.Name
	case errors.As(err, &e):
		return e.Name
	}
	return ""
}
