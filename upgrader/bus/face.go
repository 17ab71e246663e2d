package bus

import (
	"encoding/xml"
	"reflect"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
)

// face is one interface: what is exported, and what introspection says, are made of
// the same table.
type face struct {
	name    string
	methods []method
	signals []signal
	props   []property
}

// method is a function that takes a dbus.Message and then what the caller gives, and
// returns what the caller gets and then a *dbus.Error.
type method struct {
	name string
	args string // their names, those that are given first
	call any
}

type signal struct {
	name string
	args []introspect.Arg
}

type property struct {
	name  string
	zero  any    // of its type
	emits string // "true", "const" or "false"
	write bool
}

// table is what godbus exports.
func (f face) table() map[string]any {
	t := map[string]any{}
	for _, m := range f.methods {
		t[m.name] = m.call
	}
	return t
}

// describe is what introspection says.
func (f face) describe() introspect.Interface {
	d := introspect.Interface{Name: f.name}
	for _, m := range f.methods {
		names := strings.Fields(m.args)
		t := reflect.TypeOf(m.call)
		var args []introspect.Arg
		add := func(t reflect.Type, direction string) {
			a := introspect.Arg{Type: dbus.SignatureOfType(t).String(), Direction: direction}
			if len(args) < len(names) {
				a.Name = names[len(args)]
			}
			args = append(args, a)
		}
		for i := 1; i < t.NumIn(); i++ {
			add(t.In(i), "in")
		}
		for i := range t.NumOut() - 1 {
			add(t.Out(i), "out")
		}
		d.Methods = append(d.Methods, introspect.Method{Name: m.name, Args: args})
	}
	for _, s := range f.signals {
		d.Signals = append(d.Signals, introspect.Signal{Name: s.name, Args: s.args})
	}
	for _, p := range f.props {
		access := "read"
		if p.write {
			access = "readwrite"
		}
		d.Properties = append(d.Properties, introspect.Property{
			Name: p.name, Type: dbus.SignatureOf(p.zero).String(), Access: access,
			Annotations: []introspect.Annotation{{Name: "org.freedesktop.DBus.Property.EmitsChangedSignal", Value: p.emits}},
		})
	}
	return d
}

// document is the introspection of an object.
func document(faces []face, children []string) (string, error) {
	node := introspect.Node{Interfaces: []introspect.Interface{introspect.PeerData, introspect.IntrospectData}}
	for _, f := range faces {
		node.Interfaces = append(node.Interfaces, f.describe())
	}
	for _, child := range children {
		node.Children = append(node.Children, introspect.Node{Name: child})
	}
	text, err := xml.MarshalIndent(node, "", " ")
	return strings.TrimSpace(introspect.IntrospectDeclarationString) + "\n" + string(text) + "\n", err
}

func arg(name, signature string) introspect.Arg { return introspect.Arg{Name: name, Type: signature} }
