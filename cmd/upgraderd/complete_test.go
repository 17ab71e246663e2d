package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/upgraderd/upgraderd/upgrader"
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

// asUpgraderd is a directory that has this test as the program upgraderd, and a host
// with a target app, of which 1.2 runs and 1.5 was seen at the source.
func asUpgraderd(t *testing.T) (dir, host string) {
	t.Helper()
	dir, host = t.TempDir(), t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "upgraderd")); err != nil { // what testscript calls main by
		t.Fatal(err)
	}
	for _, d := range []string{"etc/upgraderd", stateDir} {
		if err := os.MkdirAll(filepath.Join(host, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(host, "etc/upgraderd/app.upgrade"), []byte("[Upgrade]\nUnit=app.service\n[Source]\nPath=/srv\nMatchPattern=app_@v\nVerify=no\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(filepath.Join(host, stateDir, "app"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SaveRecord(map[string]any{"offered": []upgrader.Offer{{Version: "1.5"}, {Version: "1.2"}}}); err != nil {
		t.Fatal(err)
	}
	return dir, host
}

// typed is what is typed in every shell, and what stands there once the tab key was
// pressed. HOST is where a target is.
var typed = []struct{ line, want string }{
	{"upgraderd stat", "upgraderd status "},
	{"upgraderd version --js", "upgraderd version --json "},
	{"upgraderd rollb", "upgraderd rollback "},
	{"upgraderd pin --root=HOST a", "upgraderd pin --root=HOST app "},
	{"upgraderd pin --root=HOST app 1.5", "upgraderd pin --root=HOST app 1.5 "},
	{"upgraderd rollback app 1", "upgraderd rollback app 1"}, // no such target here
}

// Of two digests of one version the one on disk counts where that is asked for,
// whichever comes first.
func TestOfferOfOneVersion(t *testing.T) {
	there, here := upgrader.Listed{Offered: true}, upgrader.Listed{OnDisk: true}
	there.Version, here.Version = "1.5", "1.5"
	onDisk := func(r upgrader.Listed) bool { return r.OnDisk }
	for _, releases := range [][]upgrader.Listed{{there, here}, {here, there}, {here, here}} {
		if got := offer(releases, onDisk); !slices.Equal(got, []string{"1.5\ton disk"}) {
			t.Errorf("of %+v: %q", releases, got)
		}
	}
}

// The file for zsh, where zsh looks for it, in a terminal.
func TestZshCompletes(t *testing.T) {
	dir, host := asUpgraderd(t)
	completions, err := filepath.Abs("../../units/zsh/vendor-completions")
	if err != nil {
		t.Fatal(err)
	}
	const script = `
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PROMPT= RPROMPT= fpath=($COMPLETIONS \$fpath); unsetopt beep; autoload -U compinit; compinit -u -d $DIR/dump"
zpty -w z 'line() { print -r -- "$BUFFER" >>$DIR/lines; BUFFER= }; zle -N line; bindkey "^Xl" line; bindkey "^I" complete-word; : >$DIR/lines'
until [[ -e $DIR/lines ]]; do zpty -r -t z >/dev/null; sleep 0.01; done
n=0
for typed in "$@"; do
	zpty -w -n z "$typed"$'\t\x18l'
	(( n++ ))
	until (( $(wc -l <$DIR/lines) == n )); do # what the terminal shows is read, or zsh would wait for it
		zpty -r -t z >/dev/null
		sleep 0.01
	done
done
zpty -d z
cat $DIR/lines
`
	cmd := exec.CommandContext(t.Context(), "zsh", "-f", "-c", script, "zsh")
	want := ""
	for _, row := range typed {
		cmd.Args = append(cmd.Args, strings.ReplaceAll(row.line, "HOST", host))
		want += strings.ReplaceAll(row.want, "HOST", host) + "\n"
	}
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "COMPLETIONS="+completions, "DIR="+t.TempDir(), "TERM=xterm")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != want {
		t.Errorf("%v: got\n%s\nwant\n%s", err, out, want)
	}
}

// The file for fish, as fish asks it.
func TestFishCompletes(t *testing.T) {
	dir, host := asUpgraderd(t)
	const script = `
source ../../units/fish/vendor_completions.d/upgraderd.fish
for line in $argv
	complete -C $line | string split -f 1 \t
	echo .
end
`
	cmd := exec.CommandContext(t.Context(), "fish", "--no-config", "-c", script)
	want := ""
	for _, row := range typed {
		cmd.Args = append(cmd.Args, strings.ReplaceAll(row.line, "HOST", host))
		if words := strings.Fields(row.want); row.line != row.want {
			want += words[len(words)-1] + "\n"
		}
		want += ".\n"
	}
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+t.TempDir(), "XDG_CONFIG_HOME=", "XDG_DATA_HOME=")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != want {
		t.Errorf("%v: got\n%s\nwant\n%s", err, out, want)
	}
}

// The file for bash, as bash loads and calls it.
func TestBashCompletes(t *testing.T) {
	dir, _ := asUpgraderd(t)
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
