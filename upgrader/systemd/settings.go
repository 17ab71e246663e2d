package systemd

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

const sockFace = "org.freedesktop.systemd1.Socket"

// Settings are what systemd has loaded of a service's files, defaults filled in,
// and [Facts] beside them. Specifiers are replaced in them, variables are not.
type Settings struct {
	Facts
	// FragmentPath is the unit's file, DropIns are those beside it, in order.
	FragmentPath string
	DropIns      []string
	ControlGroup string
	// Commands are ExecStart= with its prefixes.
	Commands []Command
	// Stops tells that there is an ExecStop=.
	Stops   bool
	PIDFile string
	User    string
	// DynamicUser, Restart and the like are the settings of these names.
	DynamicUser              bool
	Restart                  string
	RestartDelay             time.Duration
	StartLimitInterval       time.Duration
	StartLimitBurst          uint32
	KillMode                 string
	KillSignal               int32
	NotifyAccess             string
	FileDescriptorStoreMax   uint32
	OOMPolicy                string
	RuntimeDirectory         []string
	RuntimeDirectoryPreserve string
	SyslogIdentifier         string
	ProtectSystem            string
	RootDirectory, RootImage string
	NoExecPaths              []string
	OnFailure                []string
	// Families are those that RestrictAddressFamilies= allows, nil where it allows
	// all or names what it forbids.
	Families []string
}

// Command is one line of ExecStart=.
type Command struct {
	// Path is executed, Args[0] is what it is called.
	Path string
	Args []string
	// Prefix are the special characters before it, see systemd.service(5), but for
	// the @ that tells the two above apart.
	Prefix string
}

// Listener is a .socket unit.
type Listener struct {
	Unit         string
	FragmentPath string
	LoadState    string
	ActiveState  string
	Accept       bool
	// Listens are its addresses, each with its kind: Stream, Datagram…
	Listens         [][2]string
	Backlog         uint32
	TriggerInterval time.Duration
	FlushPending    bool
}

// Settings reads what is loaded of a service. Like [Client.Facts] it loads the
// unit's files if nothing has yet, and "not-found" is no error.
func (c *Client) Settings(ctx context.Context, unit string) (Settings, error) {
	props, err := c.properties(ctx, unit, unitFace, svcFace)
	if err != nil {
		return Settings{}, err
	}
	u, s := props[0], props[1]
	set := Settings{
		Facts:                    parseFacts(u, s),
		FragmentPath:             value[string](u, "FragmentPath"),
		DropIns:                  value[[]string](u, "DropInPaths"),
		ControlGroup:             value[string](s, "ControlGroup"),
		Commands:                 started(s),
		Stops:                    len(commands(s["ExecStop"])) > 0,
		PIDFile:                  value[string](s, "PIDFile"),
		User:                     value[string](s, "User"),
		DynamicUser:              value[bool](s, "DynamicUser"),
		Restart:                  value[string](s, "Restart"),
		RestartDelay:             span(value[uint64](s, "RestartUSec")),
		StartLimitInterval:       span(value[uint64](u, "StartLimitIntervalUSec")),
		StartLimitBurst:          value[uint32](u, "StartLimitBurst"),
		KillMode:                 value[string](s, "KillMode"),
		KillSignal:               value[int32](s, "KillSignal"),
		NotifyAccess:             value[string](s, "NotifyAccess"),
		FileDescriptorStoreMax:   value[uint32](s, "FileDescriptorStoreMax"),
		OOMPolicy:                value[string](s, "OOMPolicy"),
		RuntimeDirectory:         value[[]string](s, "RuntimeDirectory"),
		RuntimeDirectoryPreserve: value[string](s, "RuntimeDirectoryPreserve"),
		SyslogIdentifier:         value[string](s, "SyslogIdentifier"),
		ProtectSystem:            value[string](s, "ProtectSystem"),
		RootDirectory:            value[string](s, "RootDirectory"),
		RootImage:                value[string](s, "RootImage"),
		NoExecPaths:              value[[]string](s, "NoExecPaths"),
		OnFailure:                value[[]string](u, "OnFailure"),
	}
	if f := value[[]any](s, "RestrictAddressFamilies"); len(f) == 2 { // (bas)
		if allow, _ := f[0].(bool); allow {
			set.Families, _ = f[1].([]string)
		}
	}
	return set, nil
}

// Listener reads what is loaded of a .socket unit.
func (c *Client) Listener(ctx context.Context, unit string) (Listener, error) {
	props, err := c.properties(ctx, unit, unitFace, sockFace)
	if err != nil {
		return Listener{}, err
	}
	u, s := props[0], props[1]
	l := Listener{
		Unit:            value[string](u, "Id"),
		FragmentPath:    value[string](u, "FragmentPath"),
		LoadState:       value[string](u, "LoadState"),
		ActiveState:     value[string](u, "ActiveState"),
		Accept:          value[bool](s, "Accept"),
		Backlog:         value[uint32](s, "Backlog"),
		TriggerInterval: span(value[uint64](s, "TriggerLimitIntervalUSec")),
		FlushPending:    value[bool](s, "FlushPending"),
	}
	rows, _ := s["Listen"].Value().([][]any) // a(ss)
	for _, row := range rows {
		if len(row) == 2 {
			kind, _ := row[0].(string)
			address, _ := row[1].(string)
			l.Listens = append(l.Listens, [2]string{kind, address})
		}
	}
	return l, nil
}

// properties reads interfaces of a unit. One that the unit does not have gives
// none.
func (c *Client) properties(ctx context.Context, unit string, faces ...string) ([]map[string]dbus.Variant, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	l, err := c.connect(ctx)
	if err != nil {
		return nil, classify("read", unit, err)
	}
	all := make([]map[string]dbus.Variant, len(faces))
	for i, face := range faces {
		err := l.conn.Object(busName, unitPath(unit)).CallWithContext(ctx, propsFace+".GetAll", 0, face).Store(&all[i])
		var de dbus.Error
		if errors.As(err, &de) && de.Name == "org.freedesktop.DBus.Error.UnknownInterface" {
			err = nil
		}
		if err != nil {
			return nil, classify("read", unit, err)
		}
	}
	return all, nil
}

// started reads ExecStartEx, a(sasasttttuii): path, argument vector, flags.
func started(service map[string]dbus.Variant) []Command {
	prefixes := []struct{ flag, prefix string }{
		{"ignore-failure", "-"}, {"no-env-expand", ":"}, {"privileged", "+"}, {"no-setuid", "!"}, {"ambient", "!!"},
	}
	rows, _ := service["ExecStartEx"].Value().([][]any)
	var all []Command
	for _, row := range rows {
		if len(row) < 3 {
			continue
		}
		var c Command
		c.Path, _ = row[0].(string)
		c.Args, _ = row[1].([]string)
		flags, _ := row[2].([]string)
		given := " " + strings.Join(flags, " ") + " "
		for _, p := range prefixes {
			if strings.Contains(given, " "+p.flag+" ") {
				c.Prefix += p.prefix
			}
		}
		if len(c.Args) > 0 {
			all = append(all, c)
		}
	}
	return all
}

// ReloadFiles has systemd read all unit files anew (daemon-reload). Other than
// the verbs it is for root alone.
func (c *Client) ReloadFiles(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, verbTimeout+defaultReload)
	defer cancel()
	l, err := c.connect(ctx)
	if err != nil {
		return classify("daemon-reload", "systemd", err)
	}
	if err := l.conn.Object(busName, busPath).CallWithContext(ctx, manager+".Reload", 0).Err; err != nil {
		return classify("daemon-reload", "systemd", err)
	}
	return nil
}

// defaultReload is how long generators may take, each for itself.
const defaultReload = 90 * time.Second

// KillAll ends what is left of a unit that does not run. There may be nothing.
func (c *Client) KillAll(ctx context.Context, unit string) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if l, err := c.connect(ctx); err == nil {
		const sigkill = int32(9)
		_ = l.conn.Object(busName, busPath).CallWithContext(ctx, manager+".KillUnit", 0, unit, "all", sigkill).Err
	}
}
