package bus

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// export gives the connection all that can be called. Targets and jobs come and go;
// what is exported is the tree above them, and each call looks for its object.
func (l *link) export() error {
	manager, target, job, log := l.managerFace(), l.targetFace(), l.jobFace(), l.logFace()
	type node struct {
		path     dbus.ObjectPath
		subtree  bool
		faces    []face
		read     func(path dbus.ObjectPath) map[string]any // nil where there is no such object
		write    func(m dbus.Message, name string, value dbus.Variant) *dbus.Error
		children func() []string
	}
	none := func() []string { return nil }
	nodes := []node{
		{path: basePath, faces: []face{manager}, children: func() []string { return []string{"job", "target"} },
			read: func(dbus.ObjectPath) map[string]any {
				return map[string]any{"Version": journal.Clean(l.o.Version)}
			}},
		{path: targetRoot, subtree: true, faces: []face{target}, children: l.targetNames,
			read: func(path dbus.ObjectPath) map[string]any {
				l.mu.Lock()
				defer l.mu.Unlock()
				if t := l.targetAt(path); t != nil {
					return t.props
				}
				return nil
			}},
		{path: jobRoot, subtree: true, faces: []face{job}, children: l.jobNames,
			read: func(path dbus.ObjectPath) map[string]any {
				l.mu.Lock()
				defer l.mu.Unlock()
				if j := l.jobAt(path); j != nil {
					return j.props
				}
				return nil
			}},
		{path: logPath, faces: []face{log}, children: none, read: l.readLogs, write: l.writeLogs},
	}
	// The way to them has no interface of its own, and shows the way.
	ways := map[string][]string{}
	for _, n := range nodes[:1] {
		addWay(ways, n.path)
	}
	addWay(ways, logPath)
	for path, children := range ways {
		way := node{path: dbus.ObjectPath(path), children: func() []string { return children }}
		nodes = append(nodes, way)
	}
	for _, n := range nodes {
		export := l.conn.ExportMethodTable
		if n.subtree {
			export = l.conn.ExportSubtreeMethodTable
		}
		for _, f := range n.faces {
			if err := export(f.table(), n.path, f.name); err != nil {
				return err
			}
		}
		props := propertiesFace(n.faces, n.read, n.write)
		described := n.faces
		if n.read != nil {
			described = append([]face{props}, n.faces...)
			if err := export(props.table(), n.path, propsFace); err != nil {
				return err
			}
		}
		if err := export(map[string]any{"Introspect": func(m dbus.Message) (string, *dbus.Error) {
			path, _ := m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
			switch {
			case n.subtree && path == n.path:
				return introspection(nil, n.children())
			case n.subtree && n.read(path) == nil:
				return "", noObject(path)
			case n.subtree:
				return introspection(described, nil)
			}
			return introspection(described, n.children())
		}}, n.path, introspectFace); err != nil {
			return err
		}
	}
	return nil
}

func introspection(faces []face, children []string) (string, *dbus.Error) {
	text, err := document(faces, children)
	if err != nil {
		return "", failure(err)
	}
	return text, nil
}

// addWay notes of each object above path which child leads there.
func addWay(ways map[string][]string, path dbus.ObjectPath) {
	above := ""
	for _, child := range strings.Split(string(path)[1:], "/") {
		key := above
		if key == "" {
			key = "/"
		}
		if !slices.Contains(ways[key], child) {
			ways[key] = append(ways[key], child)
		}
		above += "/" + child
	}
}

func (l *link) targetNames() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, name := range slices.Sorted(maps.Keys(l.targets)) {
		all = append(all, escape(name))
	}
	return all
}

func (l *link) jobNames() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, j := range l.sorted() {
		all = append(all, fmt.Sprint(j.id))
	}
	return all
}

// propertiesFace is org.freedesktop.DBus.Properties of objects with these faces, of
// which one alone has properties.
func propertiesFace(faces []face, read func(dbus.ObjectPath) map[string]any, write func(dbus.Message, string, dbus.Variant) *dbus.Error) face {
	// of finds the values that face asks for.
	of := func(m dbus.Message, name string) (map[string]any, []property, *dbus.Error) {
		path, _ := m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
		values := read(path)
		if values == nil {
			return nil, nil, noObject(path)
		}
		for _, f := range faces {
			if f.name == name || name == "" {
				return values, f.props, nil
			}
		}
		for _, standard := range []string{propsFace, introspectFace, busFace + ".Peer"} {
			if name == standard {
				return nil, nil, nil
			}
		}
		return nil, nil, refusal(errorUnknownFace, "%s has no interface %.80q", path, name)
	}
	unknown := func(name string) *dbus.Error {
		return refusal(errorUnknownProperty, "there is no property %.80q", name)
	}
	return face{propsFace, []method{
		{"Get", "interface property value", func(m dbus.Message, face, name string) (dbus.Variant, *dbus.Error) {
			values, _, err := of(m, face)
			if err != nil {
				return dbus.Variant{}, err
			}
			value, ok := values[name]
			if !ok {
				return dbus.Variant{}, unknown(name)
			}
			return dbus.MakeVariant(value), nil
		}},
		{"GetAll", "interface properties", func(m dbus.Message, face string) (map[string]dbus.Variant, *dbus.Error) {
			values, _, err := of(m, face)
			if err != nil {
				return nil, err
			}
			all := map[string]dbus.Variant{}
			for name, value := range values {
				all[name] = dbus.MakeVariant(value)
			}
			return all, nil
		}},
		{"Set", "interface property value", func(m dbus.Message, face, name string, value dbus.Variant) *dbus.Error {
			_, props, err := of(m, face)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(props, func(p property) bool { return p.name == name })
			switch {
			case i < 0:
				return unknown(name)
			case !props[i].write || write == nil:
				return refusal(errorReadOnly, "property %s is read-only", name)
			case value.Signature() != dbus.SignatureOf(props[i].zero):
				return refusal(errorInvalidArgs, "property %s is of type %s", name, dbus.SignatureOf(props[i].zero))
			}
			return write(m, name, value)
		}},
	}, []signal{{"PropertiesChanged", []introspect.Arg{arg("interface", "s"), arg("changed_properties", "a{sv}"), arg("invalidated_properties", "as")}}}, nil}
}
