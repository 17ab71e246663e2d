// Package units holds the files that go onto a host beside the program, laid
// out as they install, and puts them there. [Install] leaves each file whole,
// old or new, and never replaces one that somebody else changed.
//
//	systemd/    /usr/lib/systemd/system          daemon, check, source, guard and metrics, the template pair live@
//	  user/     /usr/lib/systemd/user            the same, for the managers of users
//	polkit-1/   /usr/share/polkit-1              what the daemon may ask of systemd, and others of it
//	dbus-1/     /usr/share/dbus-1                who is the daemon on the bus
//	sysusers.d/ /usr/lib/sysusers.d              the daemon's user
//	tmpfiles.d/ /usr/lib/tmpfiles.d              directories
//	catalog/    /usr/lib/systemd/catalog         what journalctl -x explains
//	man/        /usr/share/man                   man pages, compressed there
//	bash-completion/, fish/, zsh/                what shells complete arguments by
//	examples/   /usr/share/doc/upgraderd/examples
//
// The way of an operator to change one is the usual one, a drop-in or a file
// of the same name below /etc.
package units

import (
	"embed"
	"path"
	"strings"
)

// userUnits are for the managers of users; a user can have them for themselves, see
// [InstallUser].
const userUnits = "systemd/user"

//go:embed systemd polkit-1 dbus-1 sysusers.d tmpfiles.d catalog man bash-completion fish all:zsh examples
var files embed.FS

const manDir = "usr/share/man"

// destinations says where each directory goes, relative to the root.
var destinations = map[string]string{
	"systemd":         "usr/lib/systemd/system",
	userUnits:         "usr/lib/systemd/user",
	"polkit-1":        "usr/share/polkit-1",
	"dbus-1":          "usr/share/dbus-1",
	"sysusers.d":      "usr/lib/sysusers.d",
	"tmpfiles.d":      "usr/lib/tmpfiles.d",
	"catalog":         "usr/lib/systemd/catalog",
	"man":             manDir,
	"bash-completion": "usr/share/bash-completion",
	"fish":            "usr/share/fish",
	"zsh":             "usr/share/zsh",
	"examples":        "usr/share/doc/upgraderd/examples",
}

// destination is where a file goes.
func destination(name string) string {
	dir := path.Dir(name)
	if to, ok := destinations[dir]; ok {
		return path.Join(to, path.Base(name))
	}
	top, rest, _ := strings.Cut(name, "/")
	return path.Join(destinations[top], rest)
}
