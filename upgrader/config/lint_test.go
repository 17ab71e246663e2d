package config

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write golden files and docs/upgrade-keys.md anew")

// plant makes a root directory of the files of an archive. A name such as
// "a -> b" is a symbolic link. What lies in a credstore, where systemd.exec(5) puts
// secrets, only its owner can read.
func plant(t testing.TB, files []txtar.File) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range files {
		name, to, link := strings.Cut(f.Name, " -> ")
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if link {
			err = os.Symlink(to, name)
		} else {
			mode := os.FileMode(0o644)
			if strings.Contains(name, "/credstore/") {
				mode = 0o600
			}
			err = os.WriteFile(name, f.Data, mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// one makes a root directory with app.upgrade.
func one(t testing.TB, text string) string {
	t.Helper()
	return plant(t, []txtar.File{{Name: "etc/upgraderd/app.upgrade", Data: []byte(text)}})
}

// Each archive is a root directory, and in "want" what Lint says of it. Where
// it has "args", a line is the arguments of one call.
func TestLint(t *testing.T) {
	archives, err := filepath.Glob("testdata/lint/*.txt")
	if err != nil || len(archives) == 0 {
		t.Fatal(archives, err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			last := len(a.Files) - 1
			if a.Files[last].Name != "want" {
				t.Fatal("the last file is not want")
			}
			root := plant(t, a.Files[:last])
			calls := []string{""}
			if raw, err := os.ReadFile(filepath.Join(root, "args")); err == nil {
				calls = strings.Split(strings.TrimSpace(string(raw)), "\n")
			}
			var got bytes.Buffer
			for _, call := range calls {
				args := strings.Fields(strings.ReplaceAll(call, "ROOT", root))
				if call != "" {
					got.WriteString("> " + call + "\n")
				}
				_, ds := Lint(root, args...)
				check(t, ds.Print(&got))
				if len(ds.Errors()) == 0 {
					got.WriteString("ok\n")
				}
			}
			text := strings.ReplaceAll(got.String(), root, "")
			if *update {
				a.Files[last].Data = []byte(text)
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(a.Files[last].Data), text); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
