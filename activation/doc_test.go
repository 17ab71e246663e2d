package activation_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Every function that services import has an example, and a doc that begins
// with its name.
func TestEveryFunctionHasAnExample(t *testing.T) {
	parse := func(name string) *ast.File {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	examples := make(map[string]bool)
	for _, e := range doc.Examples(parse("example_test.go")) {
		examples[e.Name] = true
	}
	names, err := filepath.Glob("*.go")
	if err != nil || len(names) == 0 {
		t.Fatalf("got no files: %v", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, decl := range parse(name).Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !f.Name.IsExported() {
				continue
			}
			if !examples[f.Name.Name] {
				t.Errorf("%s: no Example%s", name, f.Name.Name)
			}
			if !strings.HasPrefix(f.Doc.Text(), f.Name.Name+" ") {
				t.Errorf("%s: the doc of %s does not begin with its name", name, f.Name.Name)
			}
		}
	}
}
