package fetcher

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// TestSigningGuide runs the commands of docs/signing.md as a publisher would, and
// after them looks with the eyes of the hosts that its comments describe.
func TestSigningGuide(t *testing.T) {
	text, err := os.ReadFile("../docs/signing.md")
	if err != nil {
		t.Fatal(err)
	}
	desk := newDesk(t, "signing.md")
	var script strings.Builder
	ran, asked := 0, 0
	for number, line := range strings.Split(string(text), "\n") {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			script.WriteString(command + "\n")
			ran++
			continue
		}
		if script.Len() > 0 {
			desk.run(number, script.String())
			script.Reset()
		}
		if host := regexp.MustCompile(`^<!-- host: (.*?)(?: is ([A-Z_]+))? -->$`).FindStringSubmatch(line); host != nil {
			asked++
			if got := desk.ask(host[1]); fault.CodeOf(got) != fault.Code(host[2]) {
				t.Errorf("signing.md:%d: %s: %v", number+1, line, got)
			}
		}
	}
	if ran < 20 || asked < 15 {
		t.Errorf("ran %d lines and asked %d hosts", ran, asked)
	}
	for _, code := range []fault.Code{
		fault.SigMissing, fault.SigSyntax, fault.SigKey, fault.SigBad, fault.SigRevoked, fault.SigExpired, fault.SigWeak,
		fault.SigNamespace, fault.SigThreshold,
	} {
		if !strings.Contains(string(text), "`"+string(code)+"`") {
			t.Errorf("signing.md does not explain %s", code)
		}
	}
}

// desk is a directory of a publisher, whose tools ask no questions.
type desk struct {
	t     *testing.T
	dir   string // a short name: it holds the socket of gpg-agent
	guide string // which tells what to run
}

func newDesk(t *testing.T, guide string) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "desk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{t, dir, guide}
	for _, sub := range []string{"bin", ".gnupg"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Fatal("gpg is missing: install it")
	}
	d.write("bin/gpg", fmt.Sprintf("#!/bin/sh\nexec %s --batch --quiet --yes --pinentry-mode loopback --passphrase '' \"$@\"\n", gpg), 0o700)
	t.Cleanup(func() { d.run(0, "gpgconf --kill all") })
	return d
}

func (d *desk) write(name, text string, mode os.FileMode) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), mode); err != nil {
		d.t.Fatal(err)
	}
}

// run runs lines of a shell; line is where they end.
func (d *desk) run(line int, script string) {
	d.t.Helper()
	cmd := exec.Command("sh", "-eu", "-c", "umask 022\n"+script)
	cmd.Dir = d.dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GNUPGHOME=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+d.dir, "PATH="+filepath.Join(d.dir, "bin")+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("%s:%d: %v: %s\n%s", d.guide, line, err, out, script)
	}
}

// ask has a host with some settings look at the desk.
func (d *desk) ask(settings string) error {
	d.t.Helper()
	o := Options{Target: "app", Path: d.dir, Patterns: []string{"app_@v"}}
	for _, s := range strings.Fields(settings) {
		name, value, _ := strings.Cut(s, "=")
		var files []string
		for _, file := range strings.Split(value, ",") {
			files = append(files, filepath.Join(d.dir, file))
		}
		switch name {
		case "Key":
			o.Keys = files
		case "RevokedKey":
			o.RevokedKeys = files
		case "Threshold":
			n, err := strconv.Atoi(value)
			if err != nil {
				d.t.Fatal(err)
			}
			o.Threshold = n
		default:
			d.t.Fatalf("unknown setting %s", s)
		}
	}
	f, err := New(o, nil)
	if err != nil {
		return err
	}
	defer f.Close()
	listing, err := f.Check(context.Background())
	if err == nil && (len(listing.Candidates) != 1 || len(listing.Signers) != max(1, o.Threshold)) {
		d.t.Errorf("%s: %+v", settings, listing)
	}
	return err
}
