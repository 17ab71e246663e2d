package unitlint

import (
	"slices"

	"github.com/upgraderd/upgraderd/upgrader"
)

// own tells of the daemon's unit: that it is of the user who owns the releases,
// writes them and has no sockets is what it is for.
func (v *view) own() bool { return v.target.Unit == upgrader.OwnUnit }

func noLaunch(v *view) []finding {
	u := v.service
	if !v.own() || !u.there() || v.target.Swap == upgrader.SwapNone {
		return nil
	}
	for _, s := range u.all("Service", "ExecStart") {
		if argv, _ := u.words(s.value); slices.Contains(argv, "launch") {
			return nil
		}
	}
	s, given := u.last("Service", "ExecStart")
	return []finding{{
		place: s.place, fatal: true,
		message: "ExecStart= does not run upgraderd launch: the installed program would be started again, and never a release",
		hint:    write(u, s, given, "ExecStart=/usr/bin/upgraderd launch"),
	}}
}
