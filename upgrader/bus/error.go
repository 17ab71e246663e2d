package bus

import (
	"errors"
	"fmt"

	"github.com/godbus/dbus/v5"

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

// failure is that of something that was tried.
func failure(err error) *dbus.Error { return refusal(errorFailed, "%v", err) }

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
