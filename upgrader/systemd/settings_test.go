package systemd

import (
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
)

func TestStarted(t *testing.T) {
	row := func(path string, flags []string, argv ...string) []any {
		return []any{path, argv, flags, uint64(0), uint64(0), uint64(0), uint64(0), uint32(0), int32(0), int32(0)}
	}
	props := map[string]dbus.Variant{"ExecStartEx": dbus.MakeVariant([][]any{
		row("/bin/a", nil, "/bin/a", "-v"),
		row("/bin/b", []string{"no-setuid", "ignore-failure", "no-env-expand"}, "b"),
		row("/bin/c", []string{"privileged", "of a later version"}, "/bin/c"),
		row("/bin/none", nil),
		{"/bin/short"},
	})}
	want := []Command{
		{Path: "/bin/a", Args: []string{"/bin/a", "-v"}},
		{Path: "/bin/b", Args: []string{"b"}, Prefix: "-:!"},
		{Path: "/bin/c", Args: []string{"/bin/c"}, Prefix: "+"},
	}
	if diff := cmp.Diff(want, started(props)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, v := range []any{"text", [][]string{{"a"}}, []any{}} {
		if got := started(map[string]dbus.Variant{"ExecStartEx": dbus.MakeVariant(v)}); got != nil {
			t.Errorf("of %v it made %v", v, got)
		}
	}
}
