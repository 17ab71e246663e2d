package systemd

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upgraderd/upgraderd/test/dbustest"
)

// pid1 is the part of org.freedesktop.systemd1 that we use, on a real bus.
type pid1 struct {
	t    *testing.T
	conn *dbus.Conn

	mu    sync.Mutex
	calls []string
	props map[string]map[string]dbus.Variant // by interface
	jobs  map[uint32]bool
	next  uint32
	// answer decides about a verb: an error, or a func run after the reply.
	answer func(verb string, job uint32) (after func(), err *dbus.Error)
	asked  func() // before a question is answered
	early  bool   // send JobRemoved before the reply
	result string
}

func startPID1(t *testing.T, b *dbustest.Bus) *pid1 {
	t.Helper()
	conn, err := dbus.Connect(b.Address, dbus.WithAuth(dbus.AuthExternal(fmt.Sprint(os.Getuid()))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &pid1{t: t, conn: conn, jobs: map[uint32]bool{}, result: "done", props: map[string]map[string]dbus.Variant{
		unitFace: {
			"Id":           dbus.MakeVariant("app.service"),
			"LoadState":    dbus.MakeVariant("loaded"),
			"ActiveState":  dbus.MakeVariant("active"),
			"SubState":     dbus.MakeVariant("running"),
			"InvocationID": dbus.MakeVariant([]byte{0xab, 0xcd}),
			"TriggeredBy":  dbus.MakeVariant([]string{"app.socket"}),
			"RequiredBy":   dbus.MakeVariant([]string{"needs.service"}),
			"BoundBy":      dbus.MakeVariant([]string{"bound.service", "needs.service"}),
			"WantedBy":     dbus.MakeVariant([]string{"other.service"}),
			"LoadError":    dbus.MakeVariant(struct{ A, B string }{"", ""}),
		},
		svcFace: {
			"Type":             dbus.MakeVariant("notify"),
			"MainPID":          dbus.MakeVariant(uint32(812)),
			"NRestarts":        dbus.MakeVariant(uint32(2)),
			"StatusText":       dbus.MakeVariant("Serving x"),
			"StatusErrno":      dbus.MakeVariant(int32(22)),
			"TimeoutStartUSec": dbus.MakeVariant(uint64(90e6)),
			"TimeoutStopUSec":  dbus.MakeVariant(^uint64(0)),
			"ExecStart": dbus.MakeVariant([]execLine{
				{Path: "/bin/a", Argv: []string{"/bin/a", "supervise"}},
			}),
		},
	}}
	if err := conn.ExportMethodTable(map[string]any{
		"Subscribe":       func() *dbus.Error { p.note("subscribe"); return nil },
		"ReloadUnit":      func(u, m string) (dbus.ObjectPath, *dbus.Error) { return p.job("reload " + u + " " + m) },
		"RestartUnit":     func(u, m string) (dbus.ObjectPath, *dbus.Error) { return p.job("restart " + u + " " + m) },
		"StartUnit":       func(u, m string) (dbus.ObjectPath, *dbus.Error) { return p.job("start " + u + " " + m) },
		"ResetFailedUnit": func(u string) *dbus.Error { p.note("reset-failed " + u); return nil },
	}, busPath, manager); err != nil {
		t.Fatal(err)
	}
	if err := conn.ExportSubtreeMethodTable(map[string]any{
		"GetAll": func(face string) (map[string]dbus.Variant, *dbus.Error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.asked != nil {
				p.asked()
			}
			if p.props[face] == nil {
				return nil, &dbus.Error{Name: "org.freedesktop.DBus.Error.UnknownInterface"}
			}
			props := map[string]dbus.Variant{}
			for k, v := range p.props[face] {
				props[k] = v
			}
			if face == unitFace {
				job := struct {
					ID   uint32
					Path dbus.ObjectPath
				}{0, "/"}
				for id := range p.jobs {
					job.ID = id
				}
				props["Job"] = dbus.MakeVariant(job)
			}
			return props, nil
		},
	}, "/org/freedesktop/systemd1/unit", "org.freedesktop.DBus.Properties"); err != nil {
		t.Fatal(err)
	}
	if err := conn.ExportSubtreeMethodTable(map[string]any{
		"Get": func(m dbus.Message, _, _ string) (dbus.Variant, *dbus.Error) {
			path := string(m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath))
			p.mu.Lock()
			defer p.mu.Unlock()
			for id := range p.jobs {
				if strings.HasSuffix(path, fmt.Sprintf("/%d", id)) {
					return dbus.MakeVariant("running"), nil
				}
			}
			return dbus.Variant{}, &dbus.Error{Name: "org.freedesktop.DBus.Error.UnknownObject", Body: []any{"gone"}}
		},
	}, "/org/freedesktop/systemd1/job", "org.freedesktop.DBus.Properties"); err != nil {
		t.Fatal(err)
	}
	if r, err := conn.RequestName(busName, dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("request name: %v, %v", r, err)
	}
	return p
}

type execLine struct {
	Path           string
	Argv           []string
	Ignore         bool
	T1, T2, T3, T4 uint64
	PID            uint32
	Code, Status   int32
}

func (p *pid1) note(call string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, call)
}

func (p *pid1) seen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.calls, ", ")
}

func (p *pid1) job(call string) (dbus.ObjectPath, *dbus.Error) {
	p.note(call)
	p.mu.Lock()
	p.next++
	id := p.next
	p.jobs[id] = true
	answer, early := p.answer, p.early
	p.mu.Unlock()
	after := func() { p.end(id) }
	if answer != nil {
		a, err := answer(strings.Fields(call)[0], id)
		if err != nil {
			p.drop(id)
			return "", err
		}
		after = a
	}
	switch {
	case early:
		after()
	case after != nil:
		go func() {
			time.Sleep(10 * time.Millisecond)
			after()
		}()
	}
	return jobPath(id), nil
}

func jobPath(id uint32) dbus.ObjectPath {
	return dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", id))
}

// drop forgets a job without a word, as if the signal had been lost.
func (p *pid1) drop(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.jobs, id)
}

func (p *pid1) end(id uint32) {
	p.mu.Lock()
	delete(p.jobs, id)
	result := p.result
	p.mu.Unlock()
	if err := p.conn.Emit(busPath, manager+".JobRemoved", id, jobPath(id), "app.service", result); err != nil {
		p.t.Errorf("emit: %v", err)
	}
}

// becomes tells what app.service is now, as systemd does.
func (p *pid1) becomes(activeState string, job uint32) {
	p.t.Helper()
	emitChange(p.t, p.conn, activeState, job)
}

func emitChange(t *testing.T, conn *dbus.Conn, activeState string, job uint32) {
	t.Helper()
	path := dbus.ObjectPath("/")
	if job != 0 {
		path = jobPath(job)
	}
	props := map[string]dbus.Variant{
		"ActiveState": dbus.MakeVariant(activeState),
		"Job": dbus.MakeVariant(struct {
			ID   uint32
			Path dbus.ObjectPath
		}{job, path}),
	}
	if err := conn.Emit(unitPath("app.service"), propsFace+".PropertiesChanged", unitFace, props, []string{}); err != nil {
		t.Fatalf("emit: %v", err)
	}
}

func newClient(t *testing.T, b *dbustest.Bus) *Client {
	t.Helper()
	c := New(Options{Address: b.Address})
	t.Cleanup(func() { c.Close() })
	return c
}

// script changes how systemd behaves from now on.
func (p *pid1) script(f func(*pid1)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func withTimeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
