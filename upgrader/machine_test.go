package upgrader

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// states lists the constants of type State from the source, so that a new one
// cannot be forgotten here.
func constants(t *testing.T, kind string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "machine.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == kind {
			for _, v := range spec.Values {
				if lit, ok := v.(*ast.BasicLit); ok {
					values = append(values, strings.Trim(lit.Value, `"`))
				}
			}
		}
		return true
	})
	if len(values) == 0 {
		t.Fatalf("no constants of type %s", kind)
	}
	return values
}

func TestTableIsSound(t *testing.T) {
	all := steps()
	next := map[State][]State{}
	seen := map[string]bool{}
	used := map[Event]bool{}
	for _, row := range transitions() {
		key := fmt.Sprint(row.From, row.On)
		if seen[key] {
			t.Errorf("two rows for %s in %s", row.On, row.From)
		}
		seen[key] = true
		used[row.On] = true
		for _, s := range []State{row.From, row.To} {
			if all[s] == nil {
				t.Errorf("state %s has no step", s)
			}
		}
		next[row.From] = append(next[row.From], row.To)
	}
	for _, s := range constants(t, "State") {
		if all[State(s)] == nil {
			t.Errorf("state %s has no step", s)
		}
		if !reaches(next, Recovering, State(s)) {
			t.Errorf("state %s cannot be reached from the start", s)
		}
		if !reaches(next, State(s), Idle) {
			t.Errorf("state %s cannot come to rest", s)
		}
	}
	for _, e := range constants(t, "Event") {
		if !used[Event(e)] {
			t.Errorf("event %s has no row", e)
		}
	}
}

func reaches(next map[State][]State, from, to State) bool {
	seen := map[State]bool{from: true}
	for queue := []State{from}; len(queue) > 0; queue = queue[1:] {
		if queue[0] == to {
			return true
		}
		for _, n := range next[queue[0]] {
			if !seen[n] {
				seen[n] = true
				queue = append(queue, n)
			}
		}
	}
	return false
}

// Every event that a step can return has a row for the states that run that
// step: the source tells which function returns which.
func TestStepsReturnWhatTheTableKnows(t *testing.T) {
	events := map[string]bool{}
	for _, e := range constants(t, "Event") {
		events[e] = true
	}
	returns := map[string]map[string]bool{} // function → events named in it
	calls := map[string]map[string]bool{}   // function → methods called in it
	for _, name := range []string{"recover.go", "look.go", "order.go", "fetched.go", "wishes.go", "stage.go", "check.go", "swap.go", "confirm.go", "beside.go", "rollback.go", "guard.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !returnsEvent(fn) {
				continue
			}
			returns[fn.Name.Name], calls[fn.Name.Name] = map[string]bool{}, map[string]bool{}
			ast.Inspect(fn, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.Ident:
					if events[n.Name] {
						returns[fn.Name.Name][n.Name] = true
					}
				case *ast.SelectorExpr:
					if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "journal" {
						return false // its events have some of our names
					}
					calls[fn.Name.Name][n.Sel.Name] = true
				}
				return true
			})
		}
	}
	var collect func(fn string, into, seen map[string]bool)
	collect = func(fn string, into, seen map[string]bool) {
		if seen[fn] {
			return
		}
		seen[fn] = true
		for e := range returns[fn] {
			into[e] = true
		}
		for callee := range calls[fn] {
			if returns[callee] != nil {
				collect(callee, into, seen)
			}
		}
	}
	for state, fn := range map[State]string{
		Recovering: "recover", Idle: "look", Fetching: "fetch", Staging: "stage", Checking: "check",
		Swapping: "swap", Confirming: "confirm", Beside: "beside", Keeping: "keep", RollingBack: "rollBack", Held: "hold",
	} {
		got := map[string]bool{}
		collect(fn, got, map[string]bool{})
		if len(got) == 0 {
			t.Errorf("step %s returns nothing", fn)
		}
		for e := range got {
			if _, ok := after(state, Event(e)); !ok {
				t.Errorf("%s can return %s, and state %s has no row for it", fn, e, state)
			}
		}
		for _, row := range transitions() {
			if row.From == state && !got[string(row.On)] {
				t.Errorf("no step returns %s in state %s", row.On, state)
			}
		}
	}
}

func returnsEvent(fn *ast.FuncDecl) bool {
	if fn.Type.Results == nil {
		return false
	}
	id, ok := fn.Type.Results.List[0].Type.(*ast.Ident)
	return ok && id.Name == "Event"
}

// picture draws the table as doc.go shows it.
func picture() string {
	var b strings.Builder
	last := State("")
	for _, row := range transitions() {
		from := ""
		if row.From != last {
			from = string(row.From)
			last = row.From
		}
		fmt.Fprintf(&b, "//\t%-13s %-20s ─▶ %s\n", from, row.On, row.To)
	}
	return b.String()
}

func TestPictureInDoc(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	want := picture()
	if !strings.Contains(string(doc), want) {
		_, rest, _ := strings.Cut(string(doc), "//\trecovering ")
		t.Errorf("doc.go does not show the table as it is; it should hold\n%s\ndiff:\n%s", want, cmp.Diff("//\trecovering "+rest, want))
	}
}
