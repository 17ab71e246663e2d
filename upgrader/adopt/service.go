package adopt

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/activation/overseer/origin"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// Service is what is known of a service that may be adopted.
type Service struct {
	systemd.Settings
	// Sockets are the .socket units that start it, and that of its own name if
	// there is one.
	Sockets []systemd.Listener
	// Listening is what its processes have bound themselves.
	Listening []Address
	// Origin is where its own fetcher looks, if it is a program of
	// activation/overseer that runs: nil if it is none.
	Origin *origin.Origin
}

// Systemd is who knows units.
type Systemd interface {
	Settings(ctx context.Context, unit string) (systemd.Settings, error)
	Listener(ctx context.Context, unit string) (systemd.Listener, error)
}

var _ Systemd = (*systemd.Client)(nil)

// Look asks systemd and the kernel about a service.
func Look(ctx context.Context, bus Systemd, unit string) (Service, error) {
	set, err := bus.Settings(ctx, unit)
	if err != nil {
		return Service{}, err
	}
	s := Service{Settings: set}
	names := slices.Clone(set.TriggeredBy)
	if own := ownSocket(set.ID); !slices.Contains(names, own) {
		names = append(names, own) // one that is not active may not be loaded yet
	}
	slices.Sort(names)
	for _, name := range names {
		if path.Ext(name) != ".socket" {
			continue
		}
		l, err := bus.Listener(ctx, name)
		if err != nil {
			return Service{}, err
		}
		if l.LoadState == "loaded" {
			s.Sockets = append(s.Sockets, l)
		}
	}
	s.Listening = listening("/proc", "/sys/fs/cgroup", set.ControlGroup)
	s.Origin = originOf("/proc", "/sys/fs/cgroup", set.ControlGroup)
	return s, nil
}

func ownSocket(service string) string {
	return strings.TrimSuffix(service, ".service") + ".socket"
}

// UnitName reads a service's name as systemctl does: ".service" may be left out.
func UnitName(text string) (string, error) {
	name := text
	u, err := unitfile.ParseUnitName(name)
	if err != nil {
		name += ".service"
		u, err = unitfile.ParseUnitName(name)
	}
	switch {
	case err == nil && u.Type != "service":
		return "", hint("name a service, as in: upgraderd adopt app.service", "%s is a %s", name, u.Type)
	case err != nil:
		return "", hint("name a service, as in: upgraderd adopt app.service", "%q: %w", text, err)
	case u.Template():
		return "", hint("name an instance, such as "+u.Prefix+"@NAME.service", "%s is a template, which never runs itself", name)
	}
	return name, nil
}
