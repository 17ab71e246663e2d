//go:build integration

// Package bus tests the daemon on the system bus: what anybody may read, what polkit
// lets whom do, what is told while an upgrade goes on, and what is left of it all when
// the bus or the daemon goes away.
package bus

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/lab"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	name    = "io.github.upgraderd.upgraderd1"
	base    = "/io/github/upgraderd/upgraderd1"
	hello   = base + "/target/hello"
	unit    = "live@hello.service"
	server  = "127.0.0.1:8443"
	service = "upgraderd.service"
)

// call is busctl call, as root.
func call(path, face, member string, args ...string) []string {
	return append([]string{"busctl", "call", name, path, name + "." + face, member}, args...)
}

// get reads a property.
func get(m *kit.Machine, path, face, property string) string {
	return m.Run("busctl", "get-property", name, path, name+"."+face, property)
}

func TestBus(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Run("useradd", "--system", "alice")
		m.Run("useradd", "--system", "mallory")
		m.Run("useradd", "--system", "bob")
		m.Run("useradd", "--system", "carol")
		source, authority := m.HTTPSSource(server, nil)
		m.Write("/etc/upgraderd/ca.pem", string(authority))
		m.Write("/etc/upgraderd/hello.upgrade", fmt.Sprintf(`[Upgrade]
Unit=%s
[Source]
Path=https://%s/
MatchPattern=hello-@v
Key=%s
CAFile=/etc/upgraderd/ca.pem
PollIntervalSec=1y
[Confirm]
WindowSec=1s
`, unit, server, source.Key))
		m.Write("/etc/systemd/system/live@hello.socket.d/address.conf", "[Socket]\nListenStream=127.0.0.1:8080\n")
		source.Publish("hello-1.0.0", kit.Hello(t, "1.0.0", ""))
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "enable", "--now", "live@hello.socket", unit, service)
		serves := func(version string) func() bool {
			return func() bool {
				return strings.Contains(get(m, hello, "Target", "Current"), `"`+version+"-") && get(m, hello, "Target", "State") == `s "idle"`
			}
		}
		m.Eventually("it is on the bus", func() bool {
			_, err := m.Machine.Run(t.Context(), call(base, "Manager", "GetTarget", "s", "hello")...)
			return err == nil
		})
		m.Eventually("1.0.0 serves", serves("1.0.0"))

		t.Run("introspection", func(t *testing.T) { introspected(t, m.In(t)) })
		t.Run("refusals", func(t *testing.T) { refused(t, m.In(t)) })
		t.Run("upgrade", func(t *testing.T) {
			m := m.In(t)
			source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
			upgraded(t, m)
			m.Eventually("2.0.0 serves", serves("2.0.0"))
		})
		t.Run("rule", func(t *testing.T) { ruled(t, m.In(t), source) })
		t.Run("wishes", func(t *testing.T) { wished(t, m.In(t)) })
		t.Run("cancel", func(t *testing.T) { cancelled(t, m.In(t), source) })
		t.Run("log level", func(t *testing.T) { logs(t, m.In(t)) })
		t.Run("away", func(t *testing.T) { away(t, m.In(t)) })
	})
}

// connect is a client outside the machine, which its bus takes for root.
func connect(t *testing.T, m *kit.Machine) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect(m.BusAddress(), dbus.WithAuth(dbus.AuthExternal("0")), dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// called gives the name of an error that came over the bus.
func called(err error) string {
	var e dbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	return ""
}

// introspected compares what introspection says with what can be called.
func introspected(t *testing.T, m *kit.Machine) {
	conn := connect(t, m)
	seen := map[string]bool{}
	var walk func(path string)
	walk = func(path string) {
		var text string
		if err := conn.Object(name, dbus.ObjectPath(path)).Call("org.freedesktop.DBus.Introspectable.Introspect", 0).Store(&text); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		var node introspect.Node
		if err := xml.Unmarshal([]byte(text), &node); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, face := range node.Interfaces {
			seen[path+" "+face.Name] = true
			checkFace(t, conn.Object(name, dbus.ObjectPath(path)), face)
		}
		for _, child := range node.Children {
			walk(strings.TrimSuffix(path, "/") + "/" + child.Name)
		}
	}
	walk("/")
	for _, want := range []string{base + " " + name + ".Manager", hello + " " + name + ".Target", "/org/freedesktop/LogControl1 org.freedesktop.LogControl1"} {
		if !seen[want] {
			t.Errorf("introspection leads to %v, not to %s", slices.Sorted(maps.Keys(seen)), want)
		}
	}
	tree := m.Run("busctl", "tree", "--list", name)
	if !strings.Contains(tree, hello) {
		t.Errorf("busctl tree: %s", tree)
	}
	if out := m.Run(append(lab.As("mallory"), "busctl", "introspect", name, hello)...); !strings.Contains(out, ".Rollback") || !strings.Contains(out, ".KnownBad") {
		t.Errorf("busctl introspect: %s", out)
	}
}

// checkFace calls each method with arguments that it must refuse, and reads each
// property.
func checkFace(t *testing.T, object dbus.BusObject, face introspect.Interface) {
	t.Helper()
	if strings.HasPrefix(face.Name, "org.freedesktop.DBus.") {
		return
	}
	for _, method := range face.Methods {
		// Nothing takes a file descriptor's worth of maps.
		err := object.Call(face.Name+"."+method.Name, 0, map[string]uint64{"no": 1}, "such", "arguments", "anywhere").Err
		if called(err) != "org.freedesktop.DBus.Error.InvalidArgs" {
			t.Errorf("%s.%s with wrong arguments: got %v", face.Name, method.Name, err)
		}
	}
	// What has no method at all is stopped by the bus.
	if err := object.Call(face.Name+".NoSuchMethod", 0).Err; len(face.Methods) > 0 && called(err) != "org.freedesktop.DBus.Error.UnknownMethod" {
		t.Errorf("%s.NoSuchMethod: got %v", face.Name, err)
	}
	var values map[string]dbus.Variant
	if err := object.Call("org.freedesktop.DBus.Properties.GetAll", 0, face.Name).Store(&values); err != nil {
		t.Fatalf("%s: %v", face.Name, err)
	}
	for _, p := range face.Properties {
		v, err := object.GetProperty(face.Name + "." + p.Name)
		if err != nil || v.Signature().String() != p.Type {
			t.Errorf("%s.%s: got %v of type %s, introspection says %s: %v", face.Name, p.Name, v, v.Signature(), p.Type, err)
		}
		if _, ok := values[p.Name]; !ok {
			t.Errorf("%s.%s is not among all of them", face.Name, p.Name)
		}
		delete(values, p.Name)
		if p.Access == "read" {
			if err := object.SetProperty(face.Name+"."+p.Name, dbus.MakeVariant("x")); called(err) != "org.freedesktop.DBus.Error.PropertyReadOnly" {
				t.Errorf("set %s.%s: got %v", face.Name, p.Name, err)
			}
		}
	}
	if len(values) > 0 {
		t.Errorf("%s has properties that introspection does not tell: %v", face.Name, values)
	}
}

// refused has somebody without rights try everything, and root what makes no sense.
func refused(t *testing.T, m *kit.Machine) {
	verbs := [][]string{
		call(hello, "Target", "Check"), call(hello, "Target", "Plan"), call(hello, "Target", "Fetch", "s", ""), call(hello, "Target", "Upgrade", "s", "9.9.9"),
		call(hello, "Target", "Downgrade", "s", "0.1"), call(hello, "Target", "Rollback", "s", ""), call(hello, "Target", "Verify"), call(hello, "Target", "Forgive"),
		call(hello, "Target", "Hold", "ts", "60", ""), call(hello, "Target", "Pin", "ss", "1.0.0", ""), call(hello, "Target", "Skip", "ss", "9.9.9", ""),
		call(hello, "Target", "Unhold"), call(hello, "Target", "Unpin"), call(hello, "Target", "Unskip", "s", "9.9.9"),
		call(base, "Manager", "Reload"),
		{"busctl", "set-property", name, "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1", "LogLevel", "s", "debug"},
		{"upgraderd", "upgrade", "hello"}, {"upgraderd", "fetch", "hello"}, {"upgraderd", "rollback", "hello"}, {"upgraderd", "forgive", "hello"},
		{"upgraderd", "hold", "hello"}, {"upgraderd", "pin", "hello", "1.0.0"}, {"upgraderd", "pin", "hello", "0.9"}, {"upgraderd", "skip", "hello", "9.9.9"},
	}
	for _, argv := range verbs {
		said := m.Fails(append(lab.As("mallory"), argv...)...)
		if !strings.Contains(said, "ccess denied") && !strings.Contains(said, "polkit does not allow") && !strings.Contains(said, "nteractive authentication required") &&
			!strings.Contains(said, "only root may") && !strings.Contains(said, "needs a password") {
			t.Errorf("%v: refused for another reason: %s", argv, said)
		}
	}
	if out := m.Run("busctl", "get-property", name, hello, name+".Target", "Answer"); !strings.Contains(out, `"" "" ""`) {
		t.Errorf("something was done: %s", out)
	}
	// Nobody else can be the daemon.
	for _, user := range []string{"mallory", "root"} {
		said := m.Fails(append(lab.As(user), "busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "su", name, "0")...)
		if !strings.Contains(strings.ToLower(said), "not allowed") && !strings.Contains(said, "ccess denied") {
			t.Errorf("%s takes the name: %s", user, said)
		}
	}
	for _, bad := range []struct {
		argv []string
		want string
	}{
		{call(base, "Manager", "GetTarget", "s", "nobody"), "no target"},
		{call(base, "Manager", "GetTarget", "s", strings.Repeat("x", 5000)), "no target"},
		{call(base, "Manager", "GetJob", "u", "4711"), "no job"},
		{call(hello, "Target", "Fetch", "s", "../../etc"), "starts with"},
		{call(hello, "Target", "Fetch", "s", strings.Repeat("9", 70000)), "characters, at most"},
		{call(hello, "Target", "Downgrade", "s", ""), "to which version"},
		{call(base+"/target/nobody", "Target", "Fetch", "s", ""), "no object"},
		{call(base+"/job/4711", "Job", "Cancel"), "no object"},
		{[]string{"busctl", "set-property", name, "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1", "LogLevel", "s", "loud"}, "is no level"},
		{[]string{"systemctl", "service-log-target", service, "null"}, "goes to journal"},
	} {
		if said := m.Fails(bad.argv...); !strings.Contains(said, bad.want) {
			t.Errorf("%.200v: got %s, want %q", bad.argv, said, bad.want)
		}
	}
	// Reading is open to all.
	if out := m.Run(append(lab.As("mallory"), call(hello, "Target", "Describe")...)...); !strings.Contains(out, "live@hello.service") {
		t.Errorf("describe: %s", out)
	}
	if out := m.Run(append(lab.As("mallory"), call(base, "Manager", "ListTargets")...)...); !strings.Contains(out, hello) {
		t.Errorf("targets: %s", out)
	}
}

// monitor starts upgraderd monitor, whose lines go to a file, and waits until it has
// begun.
func monitor(t *testing.T, m *kit.Machine, user, arguments, file string) *lab.Process {
	t.Helper()
	p, err := m.Start(t.Context(), append(lab.As(user), "sh", "-c", "exec upgraderd monitor "+arguments+" >"+file)...)
	if err != nil {
		t.Fatal(err)
	}
	m.Eventually("monitor has begun", func() bool {
		out, err := m.Machine.Run(t.Context(), "cat", file)
		return err == nil && strings.Contains(out, "hello")
	})
	return p
}

// upgraded has root order an upgrade over the bus, and looks what is told meanwhile.
func upgraded(t *testing.T, m *kit.Machine) {
	conn := connect(t, m)
	if err := conn.AddMatchSignal(dbus.WithMatchSender(name)); err != nil {
		t.Fatal(err)
	}
	signals := make(chan *dbus.Signal, 1000)
	conn.Signal(signals)
	told := "/tmp/told"
	follower := monitor(t, m, "mallory", "hello --json", told)
	target := conn.Object(name, hello)
	var version string
	if err := target.Call(name+".Target.Check", 0).Store(&version); err != nil || version != "2.0.0" {
		t.Errorf("check: got %q, %v", version, err)
	}
	var (
		id    uint32
		job   dbus.ObjectPath
		order string
	)
	if err := target.Call(name+".Target.Upgrade", 0, "2.0.0").Store(&id, &job, &order); err != nil {
		t.Fatal(err)
	}
	if err := target.Call(name+".Target.Fetch", 0, "").Err; called(err) != name+".Error.TargetBusy" {
		// Unless it is over already.
		if answer, _ := target.GetProperty(name + ".Target.Answer"); !strings.Contains(answer.String(), order) {
			t.Errorf("another order meanwhile: got %v", err)
		}
	}
	states := map[string]bool{}
	var removed []any
	limit := time.After(2 * time.Minute)
	for removed == nil {
		select {
		case s := <-signals:
			switch s.Name {
			case "org.freedesktop.DBus.Properties.PropertiesChanged":
				changed := s.Body[1].(map[string]dbus.Variant)
				if state, ok := changed["State"]; ok && s.Path == hello {
					states[state.Value().(string)] = true
				}
			case name + ".Manager.JobRemoved":
				if s.Body[0] == id {
					removed = s.Body
				}
			}
		case <-limit:
			t.Fatalf("the job does not end; states told: %v", states)
		}
	}
	if got := fmt.Sprint(removed[2:]...); got != fmt.Sprint("hello", "done", "good", "") {
		t.Errorf("the job ended with %v", removed)
	}
	for _, want := range []string{"fetching", "swapping", "confirming", "idle"} {
		if !states[want] {
			t.Errorf("states told: %v, want %s, too", states, want)
		}
	}
	answer, err := target.GetProperty(name + ".Target.Answer")
	if err != nil || !strings.Contains(answer.String(), order) || !strings.Contains(answer.String(), "good") {
		t.Errorf("answer: %v, %v; the order is %s", answer, err, order)
	}
	if err := conn.Object(name, job).Call("org.freedesktop.DBus.Properties.GetAll", 0, name+".Job").Err; err == nil {
		t.Errorf("%s is still there", job)
	}
	// Who reads the journal learns who asked.
	if text := m.Journal(service); !strings.Contains(text, "asked over the bus verb=upgrade") {
		t.Error("the journal does not say who asked")
	}

	if err := follower.Signal(2); err != nil {
		t.Fatal(err)
	}
	if _, err := follower.Wait(); err != nil {
		t.Errorf("monitor, interrupted: %v", err)
	}
	out := m.Run("cat", told)
	kinds := map[string]bool{}
	for line := range strings.Lines(out) {
		var e struct{ Event, Target, State, Result, Verdict string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("monitor: %v: %s", err, line)
		}
		kinds[e.Event+" "+e.State+e.Result+e.Verdict] = true
	}
	for _, want := range []string{"followed idle", "job-began ", "state confirming", "verdict good", "release ", "job-ended donegood"} {
		if !kinds[want] {
			t.Errorf("monitor told %v, not %q", slices.Sorted(maps.Keys(kinds)), want)
		}
	}
}

// ruled has a rule let alice roll hello back, and do nothing else.
func ruled(t *testing.T, m *kit.Machine, source *kit.Source) {
	m.Write("/etc/polkit-1/rules.d/10-alice.rules", `polkit.addRule(function(action, subject) {
	if (action.id == "`+name+`.rollback" && subject.user == "alice" && action.lookup("target") == "hello" && action.lookup("version") == "1.0.0")
		return polkit.Result.YES;
});
`)
	alice := func(argv ...string) []string { return append(lab.As("alice"), argv...) }
	var said string
	m.Eventually("polkit has read the rule", func() bool { // it watches the directory
		out, err := m.Machine.Run(t.Context(), alice("upgraderd", "rollback", "hello", "1.0.0")...)
		said = fmt.Sprint(out, err)
		return err == nil
	})
	if !strings.Contains(said, "hello: roll back to 1.0.0: good") {
		t.Errorf("alice rolls back: %s", said)
	}
	if got := get(m, hello, "Target", "Current"); !strings.Contains(got, `"1.0.0-`) {
		t.Errorf("current is %s", got)
	}
	for _, argv := range [][]string{
		alice("upgraderd", "rollback", "hello", "2.0.0"), alice("upgraderd", "rollback", "hello"), alice("upgraderd", "upgrade", "hello", "2.0.0"),
		append(lab.As("mallory"), "upgraderd", "rollback", "hello", "1.0.0"),
	} {
		if said := m.Fails(argv...); !strings.Contains(said, "polkit does not allow") && !strings.Contains(said, "needs a password") {
			t.Errorf("%v: %s", argv, said)
		}
	}
}

// wished has bob hold, pin, skip and forgive by a rule, of a hello that went back from
// 2.0.0 to 1.0.0. To pin 1.0.0 is a downgrade then, which carol may.
func wished(t *testing.T, m *kit.Machine) {
	m.Write("/etc/polkit-1/rules.d/10-bob.rules", `polkit.addRule(function(action, subject) {
	var may = {bob: ["hold", "pin", "skip", "forgive"], carol: ["pin", "downgrade"], alice: ["downgrade"]}[subject.user];
	if (may && may.indexOf(action.id.replace("`+name+`.", "")) >= 0)
		return polkit.Result.YES;
});
`)
	m.Eventually("polkit has read the rule", func() bool {
		_, err := m.Machine.Run(t.Context(), append(lab.As("bob"), "upgraderd", "hold", "hello", "--for=2h", "--reason=fair")...)
		return err == nil
	})
	if out := m.Run("upgraderd", "status", "hello"); !strings.Contains(out, "by bob because fair") {
		t.Errorf("status: %s", out)
	}
	for _, step := range []struct{ user, line, want string }{
		{"bob", "hold hello --reason=longer", "hello: held by bob because longer"},
		{"bob", "unhold hello", "hello: no more held by bob because longer"},
		{"bob", "unhold hello", "hello is not held"},
		{"bob", "skip hello 7.0.0 7.1.0", "hello: skips 7.0.0, 7.1.0"},
		{"bob", "skip hello --none", "hello: does not skip 7.0.0, 7.1.0 any more"},
		{"bob", "pin hello ?.0.0", "hello: pinned to ?.0.0 by bob"},
		{"bob", "pin hello --none", "hello: no more pinned to ?.0.0 by bob"},
		{"bob", "pin hello 2.0.0", "hello: pinned to 2.0.0 by bob"},
		{"bob", "forgive hello", "nothing of hello is known bad"},
		{"carol", "pin hello 1.0.0", "hello: pinned to 1.0.0 by carol"},
		{"carol", "pin hello --none", "hello: no more pinned to 1.0.0 by carol"},
	} {
		if out := m.Run(append(lab.As(step.user), strings.Fields("upgraderd "+step.line)...)...); !strings.Contains(out, step.want) {
			t.Errorf("%s: %s: got %s, want %s", step.user, step.line, out, step.want)
		}
		if got := get(m, hello, "Target", "State"); got != `s "idle"` && step.user == "bob" && !strings.Contains(step.line, "2.0.0") {
			t.Errorf("after %s it is %s", step.line, got)
		}
	}
	for _, step := range []struct{ user, line, want string }{
		{"bob", "pin hello 1.0.0", "to pin hello to 1.0.0 is a downgrade"},
		{"bob", "pin hello 1.*", "to pin hello to 1.* is a downgrade"},
		{"bob", "pin hello *", "a pin to every version is none"},
		{"alice", "pin hello 2.0.0", ".pin"},
		{"alice", "pin hello 1.0.0", ".pin"},
		{"carol", "hold hello", ".hold"},
		{"carol", "skip hello 7.0.0", ".skip"},
		{"carol", "forgive hello", ".forgive"},
		{"bob", "hold nobody", "no target"},
		{"bob", "hold hello --reason=" + strings.Repeat("x", 300), "at most 256"},
	} {
		if out := m.Fails(append(lab.As(step.user), strings.Fields("upgraderd "+step.line)...)...); !strings.Contains(out, step.want) {
			t.Errorf("%s: %s: got %s, want %s", step.user, step.line, out, step.want)
		}
	}
}

// cancelled has a fetch taken back that would take minutes.
func cancelled(t *testing.T, m *kit.Machine, source *kit.Source) {
	m.Write("/etc/upgraderd/hello.upgrade.d/slow.conf", "[Source]\nBandwidthMax=16K\n")
	m.Run("upgraderd", "hold", "hello") // the look of the reload is not to take what is published now
	m.Run(call(base, "Manager", "Reload")...)
	source.Publish("hello-3.0.0", kit.Hello(t, "3.0.0", ""))
	// running gives the job, once bytes of it came.
	running := func() (job string) {
		m.Eventually("the transfer is told", func() bool {
			out, err := m.Machine.Run(t.Context(), "busctl", "get-property", name, hello, name+".Target", "Progress", "Job", "To", "State")
			job = strings.Trim(strings.Split(out+"\n\n", "\n")[1], `o "`)
			return err == nil && job != "/" && !strings.Contains(out, "-1 -1 -1 -1") && strings.Contains(out, `"3.0.0-`) && strings.Contains(out, `"fetching"`)
		})
		return job
	}
	taken := func(job string) {
		m.Run(call(job, "Job", "Cancel")...)
		m.Eventually("the fetch ended", func() bool {
			return strings.Contains(get(m, hello, "Target", "Answer"), `"cancelled"`) && get(m, hello, "Target", "State") == `s "idle"` && get(m, hello, "Target", "Job") == `o "/"`
		})
	}
	m.Run(call(hello, "Target", "Fetch", "s", "3.0.0")...)
	job := running()
	if got := get(m, job, "Job", "State"); got != `s "running"` {
		t.Errorf("the job is %s", got)
	}
	m.Fails(append(lab.As("mallory"), call(job, "Job", "Cancel")...)...)
	taken(job)
	if got := get(m, hello, "Target", "LastVerdict"); got != `s "cancelled"` {
		t.Errorf("last verdict is %s", got)
	}
	if out := m.Run("upgraderd", "history", "hello"); !strings.Contains(out, "cancelled") {
		t.Errorf("history: %s", out)
	}

	// The order outlives the daemon, and so has a job with the next one.
	m.Run(call(hello, "Target", "Fetch", "s", "3.0.0")...)
	running()
	pid := m.Property(service, "MainPID")
	m.Run("systemctl", "kill", "--signal=KILL", service)
	m.Eventually("the daemon is another", func() bool {
		now := m.Property(service, "MainPID")
		return now != "0" && now != pid && m.Property(service, "ActiveState") == "active"
	})
	taken(running())
	m.Run("rm", "/etc/upgraderd/hello.upgrade.d/slow.conf")
	m.Run("upgraderd", "unhold", "hello")
	m.Run(call(base, "Manager", "Reload")...)
}

func logs(t *testing.T, m *kit.Machine) {
	if got := m.Run("systemctl", "service-log-level", service); got != "info" {
		t.Errorf("log level %s", got)
	}
	m.Run("systemctl", "service-log-level", service, "debug")
	if got := m.Run("systemctl", "service-log-level", service); got != "debug" {
		t.Errorf("log level %s", got)
	}
	if got := m.Run("systemctl", "service-log-target", service); got != "journal" {
		t.Errorf("log target %s", got)
	}
	m.Run("systemctl", "service-log-level", service, "info")
}

// away takes polkit, the bus and the daemon away, one after the other.
func away(t *testing.T, m *kit.Machine) {
	pid := m.Property(service, "MainPID")

	// A polkit that is frozen says no in the end, and root needs none. It takes its
	// time, and is the daemon's alone: once is enough.
	polkit := m.Property("polkit.service", "MainPID")
	m.Signal(polkit, "STOP")
	if m.Suite != lab.SelectedSuites()[0] {
		m.Run(call(hello, "Target", "Verify")...)
	} else if said := m.Fails(append(lab.As("alice"), "upgraderd", "rollback", "hello", "1.0.0", "--no-wait")...); !strings.Contains(said, "polkit did not answer within") {
		t.Errorf("with a frozen polkit: %s", said)
	}
	m.Run(call(base, "Manager", "Reload")...)
	m.Signal(polkit, "CONT")

	follower := monitor(t, m, "root", "", "/tmp/told-root")
	m.Run("systemctl", "restart", "dbus.service")
	m.Eventually("it took its name again", func() bool {
		_, err := m.Machine.Run(t.Context(), call(base, "Manager", "GetTarget", "s", "hello")...)
		return err == nil
	})
	if got := m.Property(service, "MainPID"); got != pid {
		t.Errorf("the daemon was restarted with the bus: main PID %s, want %s", got, pid)
	}
	if _, err := follower.Wait(); err == nil || !strings.Contains(err.Error(), "the connection to the bus ended") {
		t.Errorf("monitor, when the bus went: %v", err)
	}
	text := m.Journal(service)
	if lost, back := strings.Count(text, "without the bus, going on all the same"), strings.Count(text, "on the bus again as "+name); lost != 1 || back != 1 {
		t.Errorf("told %d times that the bus was lost, %d times that it returned, want 1 each:\n%s", lost, back, text)
	}
	// Orders of root go without it.
	m.Run("upgraderd", "upgrade", "hello", "2.0.0")

	m.Run("systemctl", "stop", service)
	for _, argv := range [][]string{{"upgraderd", "monitor"}, append(lab.As("alice"), "upgraderd", "rollback", "hello"), append(lab.As("bob"), "upgraderd", "hold", "hello")} {
		if said := m.Fails(argv...); !strings.Contains(said, "systemctl start "+service) {
			t.Errorf("%v without a daemon: %s", argv, said)
		}
	}
	// A question does not start it.
	m.Fails(call(base, "Manager", "ListTargets")...)
	if got := m.Property(service, "ActiveState"); got != "inactive" {
		t.Errorf("the daemon is %s", got)
	}
}
