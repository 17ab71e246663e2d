package bus

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// read reads a file of the repository.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Each verb that polkit is asked about has an action, its owner may tell what it is
// about, and there is no other.
func TestActions(t *testing.T) {
	policy := read(t, "units/polkit-1/actions/"+Name+".policy")
	verbs := []string{"check", "fetch", "upgrade", "downgrade", "confirm", "rollback", "verify", "forgive", "cancel", "reload", "hold", "pin", "skip"}
	var actions []string
	for _, part := range strings.Split(policy, `<action id="`)[1:] {
		id, rest, _ := strings.Cut(part, `"`)
		actions = append(actions, strings.TrimPrefix(id, Name+"."))
		if !strings.Contains(rest, `<annotate key="org.freedesktop.policykit.owner">unix-user:upgraderd</annotate>`) {
			t.Errorf("%s has no owner", id)
		}
		if strings.Contains(rest, "<allow_any>yes") || strings.Contains(rest, "<allow_inactive>yes") {
			t.Errorf("%s is free for all", id)
		}
	}
	if !slices.Equal(actions, verbs) {
		t.Errorf("actions: %v, want %v", actions, verbs)
	}
	var source strings.Builder
	for _, file := range []string{"target.go", "job.go", "manager.go", "wishes.go"} {
		source.WriteString(read(t, "upgrader/bus/"+file))
	}
	for _, verb := range verbs {
		if !strings.Contains(source.String(), `"`+verb+`"`) {
			t.Errorf("nobody asks for %s", verb)
		}
	}
	if text := read(t, "units/dbus-1/system.d/"+Name+".conf"); !strings.Contains(text, `<policy user="upgraderd">`) || strings.Count(text, "own=") != 1 {
		t.Errorf("others than the daemon's user may own the name:\n%s", text)
	}
	if !strings.Contains(read(t, "units/systemd/upgraderd.service"), "\nBusName="+Name+"\n") {
		t.Error("upgraderd.service has another name")
	}
}

// The page tells of every member that there is.
func TestDocumented(t *testing.T) {
	page := read(t, "docs/dbus.md")
	l := &link{Server: New(Options{})}
	for _, f := range []face{l.managerFace(), l.targetFace(), l.jobFace(), l.logFace()} {
		if !strings.Contains(page, "`"+f.name+"`") {
			t.Errorf("%s is not in docs/dbus.md", f.name)
		}
		if f.name == logFace {
			continue
		}
		var names []string
		for _, m := range f.methods {
			names = append(names, m.name)
		}
		for _, s := range f.signals {
			names = append(names, s.name)
		}
		for _, p := range f.props {
			names = append(names, p.name)
		}
		for _, name := range names {
			if !strings.Contains(page, "`"+name+"`") && !strings.Contains(page, "`"+name+"(") {
				t.Errorf("%s.%s is not in docs/dbus.md", f.name, name)
			}
		}
	}
}
