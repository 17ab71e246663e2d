package config_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/upgraderd/upgraderd/upgrader/config"
)

// A file with a slip does not keep the others from being read.
func ExampleLoadAll() {
	root, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(root)
	dir := filepath.Join(root, "etc/upgraderd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		fmt.Println(err)
		return
	}
	const source = `
[Source]
Path=/srv/releases
MatchPattern=%N_@v.tar.zst
Key=RWQ6hEqFjLN+XxRQvXZno7WQYh8CvDZxVMG6iBPJsAJQRDfBjnMbD7c8
`
	for name, text := range map[string]string{
		"web.upgrade":  "[Upgrade]\nUnit=web.service\n" + source,
		"mail.upgrade": "[Upgrade]\nUnit=mail.service\nInstanceMax=5\n" + source,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			fmt.Println(err)
			return
		}
	}

	targets, diagnostics := config.LoadAll(root)
	for _, t := range targets {
		fmt.Println(t.Name, t.Unit, t.Program, t.Source.Patterns)
	}
	for _, d := range diagnostics {
		fmt.Printf("%s:%d: %s; %s\n", filepath.Base(d.File), d.Line, d.Message, d.Hint)
	}
	// Output:
	// web web.service bin/web [web_@v.tar.zst]
	// mail.upgrade:3: InstanceMax= is unknown in [Upgrade]; did you mean InstancesMax=?
}

// What upgraderd verify does first.
func ExampleLint() {
	root, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(root)
	targets, ds := config.Lint(root, filepath.Join("testdata", "example.upgrade"))
	fmt.Println(ds.Print(os.Stdout), len(ds.Errors()), len(targets))
	// Output:
	// testdata/example.upgrade:5: Path=: the URL holds a user name or password [CONFIG_VALUE]
	// 	hint: what a .upgrade file holds is no secret: everybody can read it
	// <nil> 1 0
}
