package realm

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// environment is all that a realm of a user is made from.
func environment(t *testing.T, set map[string]string) {
	t.Helper()
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"} {
		t.Setenv(name, set[name])
	}
}

func TestUser(t *testing.T) {
	session := "/run/user/" + strconv.Itoa(os.Geteuid())
	tests := []struct {
		name                   string
		set                    map[string]string
		config, state, bus, at string
	}{
		{"nothing but HOME", map[string]string{"HOME": "/home/ann"},
			"/home/ann/.config/upgraderd", "/home/ann/.local/state/upgraderd", "unix:path=" + session + "/bus", session + "/upgraderd"},
		{"all of it", map[string]string{"HOME": "/home/ann", "XDG_CONFIG_HOME": "/c/", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/no/such/runtime", "DBUS_SESSION_BUS_ADDRESS": "tcp:x"},
			"/c/upgraderd", "/s/upgraderd", "tcp:x", "/no/such/runtime/upgraderd"},
		{"what is not absolute does not count", map[string]string{"HOME": "/home/ann", "XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": "./s", "XDG_RUNTIME_DIR": "r"},
			"/home/ann/.config/upgraderd", "/home/ann/.local/state/upgraderd", "unix:path=" + session + "/bus", session + "/upgraderd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			environment(t, tt.set)
			r, err := User()
			if err != nil {
				t.Fatal(err)
			}
			if want := []string{tt.config, tt.at}; !slices.Equal(r.Config, want) {
				t.Errorf("configuration: got %v, want %v", r.Config, want)
			}
			if r.State != tt.state || r.Bus != tt.bus || !r.User {
				t.Errorf("got %s and %s, want %s and %s", r.State, r.Bus, tt.state, tt.bus)
			}
			for _, dir := range slices.Concat(r.Config, r.Units, r.Defaults, []string{r.SourceSocket, r.Credentials}) {
				if !filepath.IsAbs(dir) || strings.HasPrefix(dir, "/etc/systemd/system") {
					t.Errorf("%s is no user's", dir)
				}
			}
		})
	}
}

// The environment of another user, as after sudo, is not taken for one's own.
func TestUserOfAnother(t *testing.T) {
	dir := t.TempDir()
	other := os.Geteuid() + 1
	if err := os.Chown(dir, other, -1); err != nil {
		t.Logf("%v: /proc/1 is somebody else's, then", err)
		dir = "/proc/1"
	}
	environment(t, map[string]string{"HOME": "/home/ann", "XDG_RUNTIME_DIR": dir})
	if r, err := User(); err == nil || !strings.Contains(err.Error(), "machinectl shell") {
		t.Errorf("got %v, %v, want a refusal that says what to do", r.State, err)
	}
	for _, home := range []string{"", "home"} {
		environment(t, map[string]string{"HOME": home})
		if _, err := User(); err == nil {
			t.Errorf("HOME=%q: got no error", home)
		}
	}
}

func TestMakeState(t *testing.T) {
	r := Realm{User: true, State: filepath.Join(t.TempDir(), "a", "b")}
	for range 2 {
		if err := r.MakeState(); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(r.State); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v, want mode 0700", info, err)
	}
	system := Realm{State: filepath.Join(t.TempDir(), "never")}
	if err := system.MakeState(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(system.State); err == nil {
		t.Error("the system's state directory was made")
	}
}
