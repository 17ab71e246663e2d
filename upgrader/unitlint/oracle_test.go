package unitlint

import (
	"cmp"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// systemd itself reads the same files, in the same order, and knows the keys
// in the sections of our table: it complains of a key that it does not know,
// with file and line.
func TestOracle(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("there is no systemd-analyze, which make unit would have installed")
	}
	complaint := regexp.MustCompile(`(?m)^(/\S+?):\d+: Unknown key(?: name)? '(\w+)' in section '?\[?(\w+)`)
	ask := func(t *testing.T, root, unit string) [][]string {
		return complaint.FindAllStringSubmatch(complain(t, root, unit), -1)
	}
	const odd = "\n[Service]\nOdd=1\n"
	files := strings.Join([]string{
		"-- /usr/lib/systemd/system/a-b-c@.service --\n[Service]\nExecStart=/bin/true",
		"-- z@.service -> /usr/lib/systemd/system/a-b-c@.service --\n",
		"-- a-.service.d/1.conf --", "-- a-b-.service.d/2.conf --", "-- a-b-c@.service.d/3.conf --", "-- a-b-c@i.service.d/4.conf --",
		"-- service.d/5.conf --", "-- z@.service.d/6.conf --", "-- z@i.service.d/7.conf --", "-- a-b-@i.service.d/8.conf --", "-- a-b-@.service.d/9.conf --",
		// One name twice: across owners, across directories, and masked.
		"-- /usr/lib/systemd/system/a-b-c@i.service.d/2.conf --", "-- /run/systemd/system/a-b-c@i.service.d/5.conf --",
		"-- /run/systemd/system/a-b-c@.service.d/8.conf --", "-- a-b-@.service.d/4.conf --",
		"-- a-b-.service.d/a.conf --", "-- a-b-@.service.d/a.conf --", "-- a-b-@i.service.d/a.conf --", "-- a-b-c@.service.d/a.conf --",
		"-- a-b-.service.d/b.conf --", "-- a-b-@.service.d/b.conf --", "-- a-b-@i.service.d/b.conf --", "-- a-@i.service.d/b.conf --",
		"-- a-.service.d/d.conf --", "-- a-@.service.d/d.conf --", "-- a-@i.service.d/d.conf --", "-- z@i.service.d/d.conf --", "-- service.d/d.conf --",
		"-- a-b-c@.service.d/c.conf -> /dev/null --", "-- /usr/lib/systemd/system/a-b-c@i.service.d/c.conf --",
	}, odd)
	root := plant(t, files+odd)
	for _, unit := range []string{"a-b-c@i.service", "z@i.service"} {
		var want, got []string
		for _, c := range ask(t, root, unit) {
			if name, _ := filepath.Rel(root, c[1]); !slices.Contains(want, name) {
				want = append(want, name)
			}
		}
		for _, s := range scan(treeAt(root)).load(unit).settings {
			if name, _ := filepath.Rel(root, s.file); s.key == "Odd" {
				got = append(got, name)
			}
		}
		if diff := gocmp.Diff(want, got); diff != "" || len(want) < 5 {
			t.Errorf("%s: -systemd +we\n%s", unit, diff)
		}
	}

	// All keys in all sections, with values that do not make it stop there.
	keys := ofSection()
	values := map[string]string{
		"ExecStart": "/bin/true", "ExecReload": "/bin/true", "User": "x", "Sockets": "x.socket", "OnFailure": "x.target",
		"ReadWritePaths": "/x", "RuntimeDirectory": "x", "StateDirectory": "x",
	}
	for kind, sections := range map[string][]string{"service": {"Unit", "Service"}, "socket": {"Unit", "Socket"}} {
		text := "-- x." + kind + " --\n[Unit]\n"
		for _, section := range sections {
			text += "[" + section + "]\n"
			for key := range keys {
				text += key + "=" + cmp.Or(values[key], "1") + "\n"
			}
		}
		for key, right := range keys {
			if keepsEmpty(key) && slices.Contains(right, sections[1]) {
				out := complain(t, plant(t, "-- x."+kind+" --\n["+sections[1]+"]\n"+key+"=\n"), "x."+kind)
				if !regexp.MustCompile(`(?m)x\.` + kind + `:2: .*ignoring`).MatchString(out) {
					t.Errorf("[%s] %s=: systemd does not ignore it:\n%s", sections[1], key, out)
				}
			}
		}
		unknown := map[string]bool{}
		for _, c := range ask(t, plant(t, text), "x."+kind) {
			unknown[c[3]+"."+c[2]] = true
		}
		for _, section := range sections {
			for key, right := range keys {
				if slices.Contains(right, section) == unknown[section+"."+key] {
					t.Errorf("[%s] %s= in a .%s: systemd says unknown=%v, we say it belongs to %v", section, key, kind, unknown[section+"."+key], right)
				}
			}
		}
	}
}

// complain gives what systemd says of a unit below root.
func complain(t *testing.T, root, unit string) string {
	t.Helper()
	out, err := exec.Command("systemd-analyze", "verify", "--root="+root, "--man=no", "--generators=no", "--recursive-errors=no", unit).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "unrecognized option") {
		t.Fatal("this systemd-analyze has no --root: it is older than 250")
	}
	return string(out)
}
