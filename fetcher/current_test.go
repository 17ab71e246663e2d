package fetcher

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// folder is the classic release folder: releases by version, and a file that names
// the one to run.
func folder(t *testing.T) (*shop, Options) {
	t.Helper()
	s := newShop(t)
	for _, version := range []string{"1.0", "1.1", "2.0"} {
		s.put("app."+version, []byte(version))
	}
	o := s.options()
	o.Keys, o.Verify, o.Patterns, o.Current = nil, VerifyNo, []string{"app.@v"}, "current"
	return s, o
}

func TestCurrent(t *testing.T) {
	s, o := folder(t)
	f := mustNew(t, o)
	for _, c := range []struct{ content, want string }{
		{"app.1.1\n", "1.1"}, {"1.0\n", "1.0"}, {"app.2.0\r\n", "2.0"},
		{"", " is empty"}, {"app.1.1", "line feed"}, {"app.1.1\napp.2.0\n", "more than one line"}, {"\n", "not the name"},
		{"../app.1.1\n", `holds a '/'`}, {"app.3.0\n", `"app.3.0", which is none of the 3`}, {"current\n", "none of the 3"}, {"a\x1b[31m\n", "does not print"},
	} {
		s.put("current", []byte(c.content))
		l, err := f.Check(context.Background())
		if err != nil {
			if !strings.Contains(err.Error(), c.want) || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("%q: %v", c.content, err)
			}
			continue
		}
		if string(l.Current.Version) != c.want || !l.Commanded || len(l.Candidates) != 3 {
			t.Errorf("%q: %v of %v, commanded %v; want %s", c.content, l.Current, l.Candidates, l.Commanded, c.want)
		}
		if got := content(t, mustFetch(t, f, l.Current, t.TempDir())); string(got) != c.want {
			t.Errorf("%q: fetched %q", c.content, got)
		}
	}
	s.put("current", []byte(strings.Repeat("x", currentMax+1)))
	_, err := f.Check(context.Background())
	wantCode(t, err, fault.MetaTooLarge)
	s.drop("current")
	_, err = f.Check(context.Background())
	wantCode(t, err, fault.NotFound)
}

// TestCurrentLink is the folder with a symbolic link.
func TestCurrentLink(t *testing.T) {
	s, o := folder(t)
	f := mustNew(t, o)
	link := filepath.Join(s.dir, "current")
	for _, c := range []struct{ to, want string }{
		{"app.1.1", "1.1"}, {"./app.1.0", "1.0"}, {filepath.Join(s.dir, "app.2.0"), "2.0"}, {"app.3.0", ""}, {"../app.1.0", ""}, {"/etc/passwd", ""}, {"..", ""},
	} {
		if err := os.Symlink(c.to, link); err != nil {
			t.Fatal(err)
		}
		l, err := f.Check(context.Background())
		if (err == nil) != (c.want != "") || string(l.Current.Version) != c.want {
			t.Errorf("to %s: %v, %v; want %q", c.to, l.Current, err, c.want)
		}
		s.drop("current")
	}
}

// TestCurrentSigned tells a choice that the publisher signed from one that anybody
// made who may write the folder.
func TestCurrentSigned(t *testing.T) {
	s, o := folder(t)
	o.Verify, o.Keys = VerifySigned, []string{s.key}
	for _, version := range []string{"1.0", "1.1"} {
		s.release("app."+version, []byte(version))
	}
	f := mustNew(t, o)
	check := func(want string, commanded bool) {
		t.Helper()
		if l := mustCheck(t, f); string(l.Current.Version) != want || l.Commanded != commanded {
			t.Errorf("%v, commanded %v; want %s, %v", l.Current, l.Commanded, want, commanded)
		}
	}
	s.put("current", []byte("app.1.0\n"))
	check("1.0", false)
	s.release("current", []byte("app.1.0\n"))
	check("1.0", true)
	s.put("current", []byte("app.1.1\n"))
	check("1.1", false)
	s.put("current", []byte("app.2.0\n")) // which nobody signed
	_, err := f.Check(context.Background())
	wantCode(t, err, fault.MetaUnlisted)
	s.drop("current")
	if err := os.Symlink("app.1.1", filepath.Join(s.dir, "current")); err != nil {
		t.Fatal(err)
	}
	check("1.1", false)
}

// TestCurrentUndated has nobody go back by a list that may be an old one: its
// signature does not say when it was made, so whoever kept it could show it again.
func TestCurrentUndated(t *testing.T) {
	s, o := folder(t)
	s.put("current", []byte("app.1.0\n"))
	sums := ""
	for _, name := range []string{"app.1.0", "app.1.1", "current"} {
		raw, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sums += fmt.Sprintf("%x  %s\n", sha256.Sum256(raw), name)
	}
	s.put(manifestName, []byte(sums))
	cmd := exec.Command("sh", "-ec", `ssh-keygen -q -t ed25519 -N '' -f "$0/key"; ssh-keygen -q -Y sign -n upgraderd -f "$0/key" SHA256SUMS 2>/dev/null; mv SHA256SUMS.sig SHA256SUMS.sshsig`, t.TempDir())
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	key, err := os.ReadFile(filepath.Join(cmd.Args[3], "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	o.Verify, o.Keys = VerifySigned, []string{strings.TrimSpace(string(key))}
	if l := mustCheck(t, mustNew(t, o)); l.Current.Version != "1.0" || l.Commanded {
		t.Errorf("%v, commanded %v; want 1.0, and to be asked about going back", l.Current, l.Commanded)
	}
}

// TestCurrentElsewhere is a file of a web server.
func TestCurrentElsewhere(t *testing.T) {
	s := newShop(t)
	s.release("app.1.0", []byte("1.0"))
	s.release("app.1.1", []byte("1.1"))
	s.put("current.conf", []byte("app.1.0\n"))
	o := s.options()
	o.Path, o.Patterns, o.Current = s.serve().URL, []string{"app.@v"}, "current.conf"
	f := mustNew(t, o)
	if l := mustCheck(t, f); l.Current.Version != "1.0" || l.Current.Digest != sha256.Sum256([]byte("1.0")) {
		t.Errorf("named %v", l.Current)
	}
	s.put("current.conf", []byte(fmt.Sprintln("1.1")))
	if l := mustCheck(t, f); l.Current.Version != "1.1" {
		t.Errorf("named %v", l.Current)
	}
}
