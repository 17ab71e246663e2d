package bus

import (
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

// Name is the daemon's on the bus, and what its interfaces and polkit's actions begin
// with.
const Name = "io.github.upgraderd.upgraderd1"

const (
	basePath   = dbus.ObjectPath("/io/github/upgraderd/upgraderd1")
	targetRoot = basePath + "/target"
	jobRoot    = basePath + "/job"
	logPath    = dbus.ObjectPath("/org/freedesktop/LogControl1")

	managerFace = Name + ".Manager"
	targetFace  = Name + ".Target"
	jobFace     = Name + ".Job"
	logFace     = "org.freedesktop.LogControl1"

	propsFace      = "org.freedesktop.DBus.Properties"
	introspectFace = "org.freedesktop.DBus.Introspectable"
	busFace        = "org.freedesktop.DBus"
)

func targetPath(name string) dbus.ObjectPath {
	return targetRoot + "/" + dbus.ObjectPath(escape(name))
}

func jobPath(id uint32) dbus.ObjectPath {
	return jobRoot + "/" + dbus.ObjectPath(fmt.Sprint(id))
}

// escape makes any name an element of an object path, as systemd does: what is not a
// letter or a digit is written as _XX, and so is a digit in front.
func escape(name string) string {
	if name == "" {
		return "_"
	}
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}
