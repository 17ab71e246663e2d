package unitlint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

func notFound(v *view) []finding {
	if v.service.file != "" {
		return nil
	}
	return []finding{{
		place:   place{v.target.File, 0},
		message: fmt.Sprintf("%s does not exist yet, so nothing can be swapped", v.service.name),
		hint:    "write " + v.real(v.unitDir()+"/"+v.service.name) + " and run systemctl daemon-reload, or name another in Unit=",
	}}
}

func masked(v *view) []finding {
	var found []finding
	for _, u := range append([]*unit{v.service}, v.sockets...) {
		if u.masked {
			found = append(found, finding{
				place: place{u.file, 0}, fatal: u == v.service && v.target.Swap != upgrader.SwapNone,
				message: u.name + " is masked: systemd refuses to start it",
				hint:    "unmask it with: systemctl unmask " + u.name,
			})
		}
	}
	return found
}

func unreadable(v *view) []finding {
	var found []finding
	for _, u := range append([]*unit{v.service}, v.sockets...) {
		for _, p := range u.problems {
			f := finding{place: p.place, message: p.message, hint: p.hint}
			if p.line > 0 {
				f.message += "; systemd ignores the line"
			} else if u.unread {
				f.message += "; " + u.name + " is not checked"
			}
			found = append(found, f)
		}
	}
	return found
}

func wrongSection(v *view) []finding {
	var found []finding
	known := ofSection()
	for _, u := range v.units() {
		name, err := unitfile.ParseUnitName(u.name)
		if err != nil {
			continue
		}
		for _, s := range u.settings {
			right, ok := known[s.key]
			if !ok || strings.HasPrefix(s.section, "X-") || slices.Contains(right, s.section) {
				continue
			}
			hint := "move the line to [" + right[0] + "]"
			switch {
			case name.Type == "socket" && strings.HasPrefix(s.key, "StartLimit"):
				hint += "; for the socket itself it is TriggerLimitIntervalSec=0 in [Socket]"
			case right[0] == "Socket" && name.Type != "socket":
				hint += " of the .socket unit"
			case right[0] == "Service" && name.Type != "service":
				hint += " of the .service unit"
			}
			found = append(found, finding{
				place:   s.place,
				message: fmt.Sprintf("systemd does not read %s= in [%s], so its default holds", s.key, s.section),
				hint:    hint,
			})
		}
	}
	return found
}

func emptyValue(v *view) []finding {
	var found []finding
	for _, u := range v.units() {
		for _, s := range u.settings {
			if s.empty() && slices.Contains([]string{"Unit", "Service", "Socket"}, s.section) {
				found = append(found, finding{
					place:   s.place,
					message: fmt.Sprintf("systemd ignores the empty %s=: it does not take back what was said before", s.key),
					hint:    "write the value that is meant, or remove the line",
				})
			}
		}
	}
	return found
}
