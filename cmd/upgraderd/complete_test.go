package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader/realm"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// Versions come as upgraderd orders them, and say which one runs.
func TestVersionsOnDisk(t *testing.T) {
	root := t.TempDir()
	at := scope{realm.System(), root}
	for _, r := range []string{"1.9-0123456789ab", "1.10-0123456789ac", "no-release"} {
		if err := os.MkdirAll(filepath.Join(root, stateDir, "app/releases", r), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("releases/1.9-0123456789ab", filepath.Join(root, stateDir, "app", string(store.Current))); err != nil {
		t.Fatal(err)
	}
	want := []string{"1.10\ton disk", "1.9\tcurrent"}
	if got := versionsOnDisk(at, []string{"app"}); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := versionsOnDisk(at, []string{"../upgraderd/app"}); !slices.Equal(got, want) {
		t.Errorf("of a path: got %q, want its last part's %q", got, want)
	}
	if got := versionsOnDisk(at, []string{"other"}); got != nil {
		t.Errorf("of no target: got %q", got)
	}
}

// A service has a file, in one directory or in several; a template is none.
func TestServices(t *testing.T) {
	root := t.TempDir()
	for _, file := range []string{"etc/systemd/system/one.service", "usr/lib/systemd/system/one.service", "usr/lib/systemd/system/two@.service", "usr/lib/systemd/system/a.socket"} {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := services(scope{realm.System(), root}, nil), []string{"one.service"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Whoever adds a verb says what its arguments are: one that takes some, and has
// no completion, is named here.
func TestEveryVerbCompletes(t *testing.T) {
	none := []string{"allows", "keygen", "run-check"}
	for _, cmd := range rootCommand().Commands() {
		takesSome := cmd.Args == nil || cmd.Args(cmd, []string{"a"}) == nil || cmd.Args(cmd, []string{"a", "b"}) == nil
		if takesSome && cmd.ValidArgsFunction == nil && !slices.Contains(none, cmd.Name()) {
			t.Errorf("%s: has arguments and no ValidArgsFunction, such as complete(false, targetNames)", cmd.Name())
		}
		if d := cmd.CompletionOptions.DefaultShellCompDirective; d != nil && *d != cobra.ShellCompDirectiveNoFileComp {
			t.Errorf("%s: has a default of its own", cmd.Name())
		}
	}
}

// The file for bash, as bash loads and calls it.
func TestBashCompletes(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "upgraderd")); err != nil { // what testscript calls main by
		t.Fatal(err)
	}
	const script = `
source /usr/share/bash-completion/bash_completion
source ../../units/bash-completion/completions/upgraderd
try() { # WORD... as typed, with the cursor behind the last
	COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMPREPLY=()
	COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMP_KEY=9
	__start_upgraderd 2>/dev/null # compopt is for a completion under way
	printf '%s: %s\n' "$*" "${COMPREPLY[*]}"
}
complete -p upgraderd
try upgraderd stat
try upgraderd version --js
try upgraderd rollb
`
	cmd := exec.Command("bash", "--norc", "-c", script)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const want = `complete -o default -F __start_upgraderd upgraderd
upgraderd stat: status
upgraderd version --js: --json
upgraderd rollb: rollback
`
	if string(out) != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}
