package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

// scope is what the value of a key may depend on: the target's name, and the
// host whose files are being read.
type scope struct {
	tree tree
	name string
	// peek is set where files that a value names are not opened.
	peek  bool
	known *known
}

// specifier is what may follow a percent sign in a value.
type specifier struct {
	name    string
	meaning string
	value   func(scope) (string, error)
}

// specifiers have the letters and meanings of systemd.unit(5); what systemd has
// no word for has a name in braces. It is a function since nothing in this package
// is changeable and global.
func specifiers() []specifier {
	constant := func(s string) func(scope) (string, error) {
		return func(scope) (string, error) { return s, nil }
	}
	osRelease := func(field string) func(scope) (string, error) {
		return func(s scope) (string, error) { return s.osRelease(field) }
	}
	return []specifier{
		{"a", "architecture as systemd names it: `x86-64`, `arm64`, …", func(scope) (string, error) { return architecture(runtime.GOARCH), nil }},
		{"A", "`IMAGE_VERSION=` of os-release(5)", osRelease("IMAGE_VERSION")},
		{"B", "`BUILD_ID=` of os-release(5)", osRelease("BUILD_ID")},
		{"d", "directory of the daemon's credentials, see systemd.exec(5)", func(s scope) (string, error) { return s.tree.credentials, nil }},
		{"E", "`/etc`; of a user, `$XDG_CONFIG_HOME`", func(s scope) (string, error) { return s.tree.at.ConfigHome, nil }},
		{"h", "home directory: of a user, theirs; of the system, root's", func(s scope) (string, error) { return cmp.Or(s.tree.at.Home, "/root"), nil }},
		{"H", "host name", func(scope) (string, error) { return os.Hostname() }},
		{"i", "instance: what stands between @ and `.upgrade` in the file's name", func(s scope) (string, error) { _, i, _ := instance(s.name); return i, nil }},
		{"l", "host name up to its first dot", func(scope) (string, error) { h, err := os.Hostname(); h, _, _ = strings.Cut(h, "."); return h, err }},
		{"m", "machine id", scope.machineID},
		{"M", "`IMAGE_ID=` of os-release(5)", osRelease("IMAGE_ID")},
		{"n", "the file's name: `app.upgrade`", func(s scope) (string, error) { return s.name + suffix, nil }},
		{"N", "the target's name: `app`", func(s scope) (string, error) { return s.name, nil }},
		{"o", "`ID=` of os-release(5), such as `debian`", osRelease("ID")},
		{"p", "the target's name up to its @, all of it where there is none", func(s scope) (string, error) { p, _, _ := instance(s.name); return p, nil }},
		{"S", "`/var/lib`; of a user, `$XDG_STATE_HOME`", func(s scope) (string, error) { return s.tree.at.StateHome, nil }},
		{"t", "`/run`; of a user, `$XDG_RUNTIME_DIR`", func(s scope) (string, error) { return s.tree.at.Runtime, nil }},
		{"v", "kernel release, as of `uname -r`", func(scope) (string, error) { return kernelRelease() }},
		{"w", "`VERSION_ID=` of os-release(5)", osRelease("VERSION_ID")},
		{"W", "`VARIANT_ID=` of os-release(5)", osRelease("VARIANT_ID")},
		{"{goarch}", "architecture as Go and many releases name it: `amd64`, `arm64`, …", constant(runtime.GOARCH)},
		{"{goos}", "operating system as Go names it: `linux`", constant(runtime.GOOS)},
		{"{machine}", "machine, as of `uname -m`: `x86_64`, `aarch64`, …", func(scope) (string, error) { return machine() }},
	}
}

// expand replaces the specifiers of a value.
func (s scope) expand(text string) (string, error) {
	return unitfile.Expand(text, func(name string) (string, error) {
		for _, sp := range specifiers() {
			if sp.name != name {
				continue
			}
			v, err := sp.value(s)
			if err != nil {
				return "", fmt.Errorf("resolve %%%s: %w", name, err)
			}
			return v, nil
		}
		return "", refuse("a percent sign itself is written %%", "%%%s is no specifier", cut(oneLine(name)))
	})
}

// architecture gives systemd's name of the architecture upgraderd was built
// for: what it can run, it can upgrade.
func architecture(goarch string) string {
	names := map[string]string{
		"386": "x86", "amd64": "x86-64", "loong64": "loongarch64", "mipsle": "mips-le",
		"mips64le": "mips64-le", "ppc64le": "ppc64-le",
	}
	if name, ok := names[goarch]; ok {
		return name
	}
	return goarch // arm, arm64, riscv64, s390x, … are the same in both
}

func machine() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Machine[:]), nil
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

const factMax = 64 << 10 // bytes of os-release and machine-id

func (s scope) machineID() (string, error) {
	raw, err := s.tree.read("/etc/machine-id", factMax)
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(raw))
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return "", errors.New("/etc/machine-id holds no machine id")
	}
	return id, nil
}

// osRelease reads a field of os-release(5); one that is not set is empty.
func (s scope) osRelease(field string) (string, error) {
	raw, err := s.tree.read("/etc/os-release", factMax)
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = s.tree.read("/usr/lib/os-release", factMax)
	}
	if err != nil {
		return "", err
	}
	value := ""
	for _, line := range strings.Split(string(raw), "\n") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), field+"="); ok {
			words, err := unitfile.Words(v)
			if err != nil {
				return "", fmt.Errorf("os-release: %s: %w", field, err)
			}
			value = strings.Join(words, " ")
		}
	}
	return value, nil
}
