// Package realm says where an upgraderd has its things. There are two kinds: the
// system's, and a user's, who runs one under their own service manager. What a
// realm names is all that differs between them; whoever needs a directory of
// configuration, state or units, or the bus, asks a realm for it.
//
//	            system's                    user's
//	.upgrade    /etc/upgraderd, …           $XDG_CONFIG_HOME/upgraderd    ~/.config/upgraderd
//	                                        $XDG_RUNTIME_DIR/upgraderd    /run/user/UID/upgraderd
//	releases    /var/lib/upgraderd          $XDG_STATE_HOME/upgraderd     ~/.local/state/upgraderd
//	sockets     /run                        $XDG_RUNTIME_DIR              /run/user/UID
//	units       /etc/systemd/system, …      $XDG_CONFIG_HOME/systemd/user, …
//	bus         the system's                $DBUS_SESSION_BUS_ADDRESS     /run/user/UID/bus
//
// Which variables hold, and what where they are not set, is the XDG Base Directory
// Specification. StateDirectory= and %S of systemd are not asked: for user units
// they mean ~/.config on systemd 252, and ~/.local/state on 257 and 262.
package realm

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/upgraderd/upgraderd/upgrader/advice"
)

// SystemState is where the system's releases and records are.
const SystemState = "/var/lib/upgraderd"

// Realm is where one upgraderd has its things. All names are absolute.
type Realm struct {
	// User tells that it is a user's.
	User bool
	// Home is the user's, "" for the system.
	Home string
	// ConfigHome, StateHome and Runtime are what systemd.unit(5) calls %E, %S
	// (of versions since 254) and %t.
	ConfigHome, StateHome, Runtime string
	// Config are the directories of .upgrade files, the first overriding the next.
	Config []string
	// State holds a directory for each target.
	State string
	// Units are the directories of unit files, the first overriding the next, as
	// "systemd-analyze unit-paths" has them.
	Units []string
	// Defaults are the files of the manager's defaults, the first of which counts.
	Defaults []string
	// Credentials is where systemd lends credentials to the daemon.
	Credentials string
	// SourceSocket is where upgraderd-source.socket listens.
	SourceSocket string
	// Bus is the D-Bus address of the manager's bus, "" for the system's.
	Bus string
}

// System is the realm of the system's upgraderd.
func System() Realm {
	return Realm{
		ConfigHome: "/etc", StateHome: "/var/lib", Runtime: "/run",
		Config: []string{"/etc/upgraderd", "/run/upgraderd", "/usr/local/lib/upgraderd", "/usr/lib/upgraderd"},
		State:  SystemState,
		Units: []string{
			"/etc/systemd/system.control",
			"/run/systemd/system.control",
			"/run/systemd/transient",
			"/run/systemd/generator.early",
			"/etc/systemd/system",
			"/etc/systemd/system.attached",
			"/run/systemd/system",
			"/run/systemd/system.attached",
			"/run/systemd/generator",
			"/usr/local/lib/systemd/system",
			"/usr/lib/systemd/system",
			"/lib/systemd/system",
			"/run/systemd/generator.late",
		},
		Defaults:     []string{"/etc/systemd/system.conf", "/run/systemd/system.conf", "/usr/local/lib/systemd/system.conf", "/usr/lib/systemd/system.conf"},
		Credentials:  "/run/credentials/upgraderd.service",
		SourceSocket: "/run/upgraderd-source",
	}
}

// User is the realm of the upgraderd of whoever asks. It is an error if the
// environment is another user's, as it can be after sudo.
func User() (Realm, error) {
	home := os.Getenv("HOME")
	if !filepath.IsAbs(home) {
		return Realm{}, errors.New("--user: HOME is not set to an absolute directory, so nobody knows where your files are")
	}
	home = path.Clean(home)
	uid := os.Geteuid()
	runtime := fromEnvironment("XDG_RUNTIME_DIR", "/run/user/"+strconv.Itoa(uid))
	if owner, ok := ownerOf(runtime); ok && owner != uid {
		return Realm{}, advice.Give(fmt.Errorf("--user: %s is the runtime directory of user %d, and you are user %d", runtime, owner, uid), "log in as the user whose services are meant, as with: machinectl shell USER@.host")
	}
	config := fromEnvironment("XDG_CONFIG_HOME", home+"/.config")
	state := fromEnvironment("XDG_STATE_HOME", home+"/.local/state")
	data := fromEnvironment("XDG_DATA_HOME", home+"/.local/share")
	return Realm{
		User: true, Home: home,
		ConfigHome: config, StateHome: state, Runtime: runtime,
		Config: []string{config + "/upgraderd", runtime + "/upgraderd"},
		State:  state + "/upgraderd",
		Units: []string{
			config + "/systemd/user.control",
			runtime + "/systemd/user.control",
			runtime + "/systemd/transient",
			runtime + "/systemd/generator.early",
			config + "/systemd/user",
			"/etc/xdg/systemd/user",
			"/etc/systemd/user",
			runtime + "/systemd/user",
			"/run/systemd/user",
			runtime + "/systemd/generator",
			data + "/systemd/user",
			"/usr/local/share/systemd/user",
			"/usr/share/systemd/user",
			"/usr/local/lib/systemd/user",
			"/usr/lib/systemd/user",
			runtime + "/systemd/generator.late",
		},
		Defaults:     []string{config + "/systemd/user.conf", "/etc/systemd/user.conf", "/run/systemd/user.conf", "/usr/local/lib/systemd/user.conf", "/usr/lib/systemd/user.conf"},
		Credentials:  runtime + "/credentials/upgraderd.service",
		SourceSocket: runtime + "/upgraderd-source",
		Bus:          cmp.Or(os.Getenv("DBUS_SESSION_BUS_ADDRESS"), "unix:path="+runtime+"/bus"),
	}, nil
}

// fromEnvironment is a directory that a variable names. One that is not absolute
// does not count, as the specification says.
func fromEnvironment(variable, otherwise string) string {
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return path.Clean(dir)
	}
	return otherwise
}

func ownerOf(dir string) (uid int, ok bool) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}

// MakeState makes the directory of a user's releases. The system's is made by
// systemd, with another owner than root.
func (r Realm) MakeState() error {
	if !r.User {
		return nil
	}
	if err := os.MkdirAll(r.State, 0o700); err != nil {
		return fmt.Errorf("make the directory of releases: %w", err)
	}
	return nil
}
