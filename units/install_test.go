package units

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const daemon = "usr/lib/systemd/system/upgraderd.service"

func install(t *testing.T, root string, o Options) Result {
	t.Helper()
	result, err := Install(root, o)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// tree lists every file below root with its content and mode.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(name)
		all[strings.TrimPrefix(name, root)] = info.Mode().String() + " " + string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestInstall(t *testing.T) {
	root := t.TempDir()
	program := filepath.Join(t.TempDir(), "built")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	result := install(t, root, Options{Program: program})
	first := tree(t, root)

	for _, want := range []string{
		"/usr/bin/upgraderd",
		"/usr/lib/systemd/system/upgraderd.service",
		"/usr/lib/systemd/system/upgraderd-check@.service",
		"/usr/lib/systemd/system/upgraderd-source@.service",
		"/usr/lib/systemd/system/upgraderd-source.socket",
		"/usr/lib/systemd/system/upgraderd-metrics@.service",
		"/usr/lib/systemd/system/upgraderd-metrics.socket",
		"/usr/lib/systemd/system/upgraderd-guard@.timer",
		"/usr/lib/systemd/system/upgraderd-guard@.service",
		"/usr/lib/systemd/system/upgraderd-failed@.service",
		"/usr/lib/systemd/system/upgraderd-boot.service",
		"/usr/lib/systemd/system/live@.service",
		"/usr/lib/systemd/system/live@.socket",
		"/usr/lib/systemd/user/upgraderd.service",
		"/usr/lib/systemd/user/live@.service",
		"/usr/share/polkit-1/rules.d/50-upgraderd.rules",
		"/usr/lib/sysusers.d/upgraderd.conf",
		"/usr/lib/tmpfiles.d/upgraderd.conf",
		"/usr/lib/systemd/catalog/upgraderd.catalog",
		"/usr/share/man/man8/upgraderd.8.gz",
		"/usr/share/man/man5/upgraderd.upgrade.5.gz",
		"/usr/share/man/man1/upgraderd-supervise.1.gz",
		"/usr/share/man/man7/upgraderd-activation.7.gz",
		"/usr/share/bash-completion/completions/upgraderd",
		"/usr/share/fish/vendor_completions.d/upgraderd.fish",
		"/usr/share/zsh/vendor-completions/_upgraderd",
		"/usr/share/doc/upgraderd/examples/app.upgrade",
		"/usr/share/doc/upgraderd/examples/prometheus-rules.yml",
	} {
		if _, ok := first[want]; !ok {
			t.Errorf("not installed: %s", want)
		}
		if !slices.Contains(result.Written, want) {
			t.Errorf("not reported: %s", want)
		}
	}
	if got := first["/usr/bin/upgraderd"]; !strings.HasPrefix(got, "-rwxr-xr-x #!/bin/sh") {
		t.Errorf("program: got %q, want mode 0755", got)
	}
	for name, content := range first {
		if name != "/usr/bin/upgraderd" && !strings.HasPrefix(content, "-rw-r--r-- ") {
			t.Errorf("%s: got %.10s, want -rw-r--r--", name, content)
		}
		if strings.Contains(name, "partial") {
			t.Errorf("left behind: %s", name)
		}
	}

	again := install(t, root, Options{Program: program})
	if len(again.Written)+len(again.Kept) != 0 {
		t.Errorf("the second time: got %+v, want nothing done", again)
	}
}

// A man page is what gunzip makes the page of again.
func TestInstallCompressesManPages(t *testing.T) {
	root := t.TempDir()
	install(t, root, Options{})
	f, err := os.Open(filepath.Join(root, "usr/share/man/man8/upgraderd.8.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	want, err := files.ReadFile("man/man8/upgraderd.8")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want the page's %d", len(got), len(want))
	}
}

// What waits in a unit waits by the monotonic clock: OnCalendar= is by the clock
// that jumps.
func TestTimersAreMonotonic(t *testing.T) {
	timers := 0
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".timer" {
			return err
		}
		timers++
		text, err := fs.ReadFile(files, name)
		if strings.Contains(string(text), "OnCalendar=") {
			t.Errorf("%s has OnCalendar=", name)
		}
		return err
	})
	if err != nil || timers == 0 {
		t.Errorf("%d timers, %v", timers, err)
	}
}

func TestInstallKeepsWhatWasChanged(t *testing.T) {
	root := t.TempDir()
	install(t, root, Options{})
	name := filepath.Join(root, daemon)
	if err := os.WriteFile(name, []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // not the second time either
		result := install(t, root, Options{})
		if !slices.Equal(result.Kept, []string{"/" + daemon}) || len(result.Written) != 0 {
			t.Fatalf("got %+v, want %s kept and nothing written", result, daemon)
		}
		if got, _ := os.ReadFile(name); string(got) != "mine\n" {
			t.Fatalf("the operator's file: got %q", got)
		}
		if got, _ := os.ReadFile(name + besideSuffix); !strings.Contains(string(got), "ExecStart=") {
			t.Fatalf("ours beside it: got %q", got)
		}
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	install(t, root, Options{})
	if _, err := os.Stat(name + besideSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file beside it: got %v, want it gone", err)
	}
}

// What an older version installed, and nobody changed, is replaced.
func TestInstallReplacesOlderVersion(t *testing.T) {
	root := t.TempDir()
	install(t, root, Options{})
	old := []byte("# of last year\n")
	if err := os.WriteFile(filepath.Join(root, daemon), old, 0o644); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(root, recordPath)
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	current, err := files.ReadFile("systemd/upgraderd.service")
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), digest(current), digest(old), 1))
	if err := os.WriteFile(record, text, 0o644); err != nil {
		t.Fatal(err)
	}
	result := install(t, root, Options{})
	if !slices.Equal(result.Written, []string{"/" + daemon}) || len(result.Kept) != 0 {
		t.Errorf("got %+v, want %s written", result, daemon)
	}
}

// A symlink that leads out of the root must not bring the host into play.
func TestInstallStaysBelowRoot(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(root, "usr")); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(root, Options{}); err == nil {
		t.Error("got no error, want one")
	}
	if left := tree(t, outside); len(left) != 0 {
		t.Errorf("written outside: %v", left)
	}
}

// An install that was cut off is finished by the next one.
func TestInstallAfterCutOff(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, filepath.Dir(daemon))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".upgraderd.service.partial"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	install(t, root, Options{})
	for name := range tree(t, root) {
		if strings.Contains(name, "partial") {
			t.Errorf("left behind: %s", name)
		}
	}
}

// Every file has a place to go to.
func TestDestinations(t *testing.T) {
	entries, err := files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if destinations[e.Name()] == "" {
			t.Errorf("no destination for %s", e.Name())
		}
	}
	if len(entries)+1 != len(destinations) { // one directory is in another
		t.Errorf("got %d directories, want %d", len(entries)+1, len(destinations))
	}
}

// A user's install writes what their manager finds, and nothing elsewhere; links are
// followed, and another state directory is the one that the units name.
func TestInstallUser(t *testing.T) {
	home := t.TempDir()
	program := filepath.Join(t.TempDir(), "built")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	dotfiles := filepath.Join(home, "dotfiles")
	if err := os.Mkdir(dotfiles, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "config")
	if err := os.Symlink(dotfiles, link); err != nil {
		t.Fatal(err)
	}
	o := UserOptions{Home: home, ConfigHome: link, StateHome: "/srv/100%", Program: program}
	result, err := InstallUser(o)
	if err != nil {
		t.Fatal(err)
	}
	all := tree(t, home)
	for _, name := range []string{"upgraderd.service", "live@.service", "live@.socket", "upgraderd-check@.service", "upgraderd-guard@.timer"} {
		if _, ok := all["/dotfiles/systemd/user/"+name]; !ok {
			t.Errorf("not installed: %s", name)
		}
	}
	if got := all["/.local/bin/upgraderd"]; !strings.HasPrefix(got, "-rwxr-xr-x #!/bin/sh") {
		t.Errorf("program: got %q", got)
	}
	service := all["/dotfiles/systemd/user/live@.service"]
	want := "ExecStart=" + home + "/.local/bin/upgraderd supervise --root=/srv/100%%/upgraderd/%i "
	if !strings.Contains(service, want) || strings.Contains(service, ProgramPath) {
		t.Errorf("got %s, want %s", service, want)
	}
	if len(result.Written) == 0 || !strings.HasPrefix(result.Written[0], home) {
		t.Errorf("got %+v, want files below %s", result, home)
	}
	again, err := InstallUser(o)
	if err != nil || len(again.Written)+len(again.Kept) != 0 {
		t.Errorf("the second time: got %+v, %v, want nothing done", again, err)
	}
	if _, err := InstallUser(UserOptions{Home: home, ConfigHome: "x", StateHome: "/y"}); err == nil {
		t.Error("a directory that is not absolute: got no error")
	}
}
