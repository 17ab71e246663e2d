package adopt

import (
	"path"

	"github.com/upgraderd/upgraderd/upgrader/realm"
)

// Place is where the files of an adoption go, and what they name.
type Place struct {
	// Units and Config are the directories of units and of .upgrade files.
	Units, Config string
	// Store is where releases are, and Releases where they may come from.
	Store, Releases string
	// Program is upgraderd's.
	Program string
	// User tells that it is a user's own.
	User bool
}

// System is the place of the system's services.
func System() Place {
	return Place{
		Units: "/etc/systemd/system", Config: "/etc/upgraderd",
		Store: realm.SystemState, Releases: "/srv", Program: "/usr/bin/upgraderd",
	}
}

// Of is the place of a realm's services, where upgraderd is this program.
func Of(r realm.Realm, program string) Place {
	if !r.User {
		return System()
	}
	return Place{
		Units: path.Join(r.ConfigHome, "systemd/user"), Config: r.Config[0],
		Store: r.State, Releases: path.Join(r.Home, "releases"), Program: program, User: true,
	}
}

func (p Place) dropInName(unit string) string { return path.Join(p.Units, unit+".d", dropIn) }

// marker is the first line of each file that is ours.
func (p Place) marker(unit string) string {
	user := ""
	if p.User {
		user = "--user "
	}
	return "# Written by \"upgraderd adopt\"; to undo it: upgraderd " + user + "adopt --undo " + unit
}

// root is how a unit names the releases of a target. In the units of users %S is not
// the same on all versions of systemd, see package realm.
func (p Place) root(target string) string {
	if p.User {
		return escape(path.Join(p.Store, target))
	}
	return "%S/upgraderd/" + target
}
