//go:build integration

package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// built are the packages under test.
type built struct {
	// deb and rpm are of one version, newer and newerRPM of the next.
	deb, rpm, newer, newerRPM string
}

const (
	version = "1.0.0"
	next    = "1.0.1"
)

// build makes them from this checkout, once for all suites.
func build(t *testing.T) built {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	make := func(args ...string) {
		t.Helper()
		packaging(t, root, "umask 022", append([]string{"-out", dir}, args...)...)
	}
	make("-version", version)
	make("-version", next)
	return built{
		deb: one(t, dir, "*_"+version+"-1_*.deb"), rpm: one(t, dir, "*-"+version+"-1.*.rpm"),
		newer: one(t, dir, "*_"+next+"-1_*.deb"), newerRPM: one(t, dir, "*-"+next+"-1.*.rpm"),
	}
}

// packaging runs the command of that name in a checkout, as if it were no work of
// git's: what is compared should not hang on what is committed.
func packaging(t *testing.T, root, setup string, args ...string) {
	t.Helper()
	script := setup + ` && exec go run ./packaging "$@"`
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, "packaging", "-nfpm", nfpm(t)}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GIT_DIR=/nonexistent", "SOURCE_DATE_EPOCH=1800000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("packaging: %v\n%s", err, out)
	}
}

func nfpm(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("UPGRADERD_CACHE")
	if cache == "" {
		cache = "/var/cache/upgraderd-lab"
	}
	found, err := filepath.Glob(filepath.Join(cache, "tools", runtime.Version(), "nfpm-*", "nfpm"))
	if err != nil || len(found) == 0 {
		t.Fatalf("nfpm is missing (%v): make package", err)
	}
	return found[len(found)-1]
}

// one is the file that a pattern finds.
func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: got %v, %v, want one file", pattern, found, err)
	}
	return found[0]
}

// reproducible builds the packages anew from a copy of the checkout in another
// place, with another time zone and umask: not a bit may differ.
func reproducible(t *testing.T, b built) {
	copied, out := filepath.Join(t.TempDir(), "elsewhere"), t.TempDir()
	if err := os.Mkdir(copied, 0o755); err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), "sh", "-c", `tar -C ../../.. --exclude=./.git --exclude=./bin --exclude=./dist -cf - . | tar -C "$0" -xf -`, copied).CombinedOutput()
	if err != nil {
		t.Fatalf("copy: %v: %s", err, said)
	}
	packaging(t, copied, "umask 077 && export TZ=Asia/Tokyo LC_ALL=C", "-out", out, "-version", version)
	for _, first := range []string{b.deb, b.rpm} {
		second := filepath.Join(out, filepath.Base(first))
		if said, err := exec.CommandContext(t.Context(), "cmp", first, second).CombinedOutput(); err != nil {
			t.Errorf("two builds differ: %v: %s", err, said)
		}
	}
}

// lintian has nothing to say about the .deb that is not explained beside it.
func lintian(t *testing.T, b built) {
	said, err := exec.CommandContext(t.Context(), "lintian", "--allow-root", "--fail-on", "error,warning", b.deb).CombinedOutput()
	if err != nil || len(said) > 0 {
		t.Errorf("lintian: %v\n%s", err, said)
	}
}

// rpm reads the .rpm: it holds what the .deb
// holds, at the places of such hosts, and its scripts are whole.
func rpm(t *testing.T, b built) {
	ask := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "rpm", append([]string{"--query", "--package"}, append(args, b.rpm)...)...).Output()
		if err != nil {
			t.Fatalf("rpm %v: %v", args, err)
		}
		return string(out)
	}
	files, err := exec.CommandContext(t.Context(), "sh", "-c", `dpkg-deb --fsys-tarfile "$0" | tar -tf -`, b.deb).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for file := range strings.Lines(string(files)) {
		file = strings.TrimSpace(strings.TrimPrefix(file, "."))
		switch {
		case strings.HasSuffix(file, "/"), strings.Contains(file, "lintian"), strings.HasSuffix(file, "changelog.Debian.gz"):
			continue
		case strings.HasSuffix(file, "/copyright"):
			file = "/usr/share/licenses/upgraderd/LICENSE"
		}
		want[strings.Replace(file, "vendor-completions", "site-functions", 1)] = true
	}
	for file := range strings.Lines(ask("--queryformat", `[%{FILEMODES:perms} %{FILENAMES}\n]`)) {
		if strings.HasPrefix(file, "d") {
			continue
		}
		if _, file, _ = strings.Cut(strings.TrimSpace(file), " "); !want[file] {
			t.Errorf("the .rpm has %s, which the .deb has not", file)
		}
		delete(want, file)
	}
	for file := range want {
		t.Errorf("the .rpm lacks %s", file)
	}
	scripts := ask("--scripts")
	for _, want := range []string{"postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet", "systemd-sysusers upgraderd.conf", "try-restart upgraderd.service"} {
		if !strings.Contains(scripts, want) {
			t.Errorf("no %q in the scripts:\n%s", want, scripts)
		}
	}
	if got := ask("--queryformat", "%{VERSION}-%{RELEASE} %{LICENSE} %{BUILDHOST}"); got != version+"-1 MIT localhost" {
		t.Errorf("got %q", got)
	}
	if needs := ask("--requires"); !strings.Contains(needs, "systemd >= 252") || !strings.Contains(needs, "polkit") {
		t.Errorf("requires %q", needs)
	}
	for _, mode := range strings.Split(strings.TrimSpace(ask("--queryformat", `[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]`)), "\n") {
		if !strings.HasPrefix(mode, "-rw-r--r-- root:root ") && !strings.HasPrefix(mode, "drwxr-xr-x root:root ") && mode != "-rwxr-xr-x root:root /usr/bin/upgraderd" {
			t.Errorf("mode: %s", mode)
		}
	}
}
