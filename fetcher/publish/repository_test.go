package publish

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// tufDesk is a publisher's, with a repository.
type tufDesk struct {
	t    *testing.T
	o    RepositoryOptions
	file string
}

func newTUFDesk(t *testing.T) *tufDesk {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "keys")
	if err := MakeRoleKeys(keys); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadRoleKeys(keys)
	if err != nil || len(loaded) != 4 {
		t.Fatalf("%d keys, %v", len(loaded), err)
	}
	d := &tufDesk{t: t, file: filepath.Join(t.TempDir(), "app")}
	d.o = RepositoryOptions{Dir: t.TempDir(), Artifacts: []string{d.file}, Keys: loaded}
	return d
}

func (d *tufDesk) add(version, content string) (Result, error) {
	d.t.Helper()
	if err := os.WriteFile(d.file, []byte(content), 0o644); err != nil {
		d.t.Fatal(err)
	}
	d.o.Version = version
	return AddToRepository(context.Background(), d.o)
}

func (d *tufDesk) mustAdd(version, content string) {
	d.t.Helper()
	if _, err := d.add(version, content); err != nil {
		d.t.Fatal(err)
	}
}

// renew signs anew what has to be.
func (d *tufDesk) renew() {
	d.t.Helper()
	o := d.o
	o.Artifacts = nil
	if _, err := AddToRepository(context.Background(), o); err != nil {
		d.t.Fatal(err)
	}
}

// follow is a host that knows the first root.
func (d *tufDesk) follow() *fetcher.Fetcher {
	d.t.Helper()
	f, err := fetcher.New(fetcher.Options{
		Target: "app", Path: d.o.Dir, Patterns: []string{"app_@v"}, Verify: fetcher.VerifyTUF,
		Root: filepath.Join(d.o.Dir, "metadata", "1.root.json"), StateDir: filepath.Join(d.t.TempDir(), "tuf"),
	}, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(f.Close)
	return f
}

func (d *tufDesk) newest(f *fetcher.Fetcher) string {
	d.t.Helper()
	l, err := f.Check(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	c, _ := l.Newest()
	return string(c.Version)
}

func (d *tufDesk) content() map[string]string {
	d.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(d.o.Dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		all[p[len(d.o.Dir):]] = string(data)
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}

// TestRepository has years pass over a repository and a host that follows it.
func TestRepository(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTUFDesk(t)
		d.mustAdd("1", "one")
		host := d.follow()
		if got := d.newest(host); got != "1" {
			t.Errorf("newest is %q", got)
		}
		time.Sleep(timestampFor + time.Second)
		if _, err := host.Check(context.Background()); fault.CodeOf(err) != fault.TUFExpired {
			t.Errorf("a timestamp that nobody renewed: %v", err)
		}
		d.renew()
		d.mustAdd("2", "two")
		if got := d.newest(host); got != "2" {
			t.Errorf("newest is %q", got)
		}
		safe := d.o.Keys
		d.o.Keys = maps.Clone(safe)
		delete(d.o.Keys, "root")
		for range 40 { // the root's key is in a safe meanwhile
			time.Sleep(6 * 24 * time.Hour)
			d.renew()
			d.newest(host)
		}
		d.o.Keys = safe
		d.renew()
		if _, err := os.Stat(filepath.Join(d.o.Dir, "metadata", "2.root.json")); err != nil {
			t.Errorf("the root was not renewed: %v", err)
		}
		time.Sleep(200 * 24 * time.Hour)
		d.renew()
		d.mustAdd("3", "three")
		for name, host := range map[string]*fetcher.Fetcher{"the old host": host, "a new one": d.follow()} {
			if got := d.newest(host); got != "3" {
				t.Errorf("%s: newest is %q", name, got)
			}
		}
		r, err := d.add("3", "three")
		if err != nil || len(r.Added) != 0 {
			t.Errorf("the same again: %+v, %v", r, err)
		}
	})
}

// TestRepositoryRefuses has all as it was after each refusal.
func TestRepositoryRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(d *tufDesk)
		why  string
	}{
		"other bytes":      {func(d *tufDesk) { d.o.Version = "1.0" }, "raise the version"},
		"keys of another":  {func(d *tufDesk) { d.o.Keys = newTUFDesk(d.t).o.Keys }, "another repository's key"},
		"no key to sign":   {func(d *tufDesk) { d.o.Keys = maps.Clone(d.o.Keys); delete(d.o.Keys, "timestamp") }, "timestamp.pem is missing"},
		"targets changed":  {func(d *tufDesk) { d.edit("1.targets.json", `"length": 3`, `"length": 4`) }, "targets.json"},
		"a list that lies": {func(d *tufDesk) { d.edit("1.snapshot.json", `"version": 1`, `"version": 7`) }, "snapshot.json"},
		"no timestamp":     {func(d *tufDesk) { os.Remove(filepath.Join(d.o.Dir, "metadata", "timestamp.json")) }, "no such file"},
		"the first root is gone": {func(d *tufDesk) {
			os.Rename(filepath.Join(d.o.Dir, "metadata", "1.root.json"), filepath.Join(d.o.Dir, "metadata", "2.root.json"))
		}, "a host would refuse it"},
		"no file":    {func(d *tufDesk) { d.o.Artifacts = []string{filepath.Join(d.o.Dir, "none")} }, "no such file"},
		"no version": {func(d *tufDesk) { d.o.Version = "" }, "version"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTUFDesk(t)
			d.mustAdd("1.0", "one")
			os.WriteFile(d.file, []byte("two"), 0o644)
			d.o.Version = "2.0"
			c.harm(d)
			before := d.content()
			if _, err := AddToRepository(context.Background(), d.o); err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v, want %q", err, c.why)
			}
			if after := d.content(); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("got %q, want %q", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
			}
		})
	}
}

func (d *tufDesk) edit(name, from, to string) {
	at := filepath.Join(d.o.Dir, "metadata", name)
	raw, err := os.ReadFile(at)
	if err != nil || !strings.Contains(string(raw), from) {
		d.t.Fatalf("%s: %v, or no %s in it:\n%s", name, err, from, raw)
	}
	if err := os.WriteFile(at, []byte(strings.Replace(string(raw), from, to, 1)), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func TestLoadRoleKeysRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadRoleKeys(dir); err == nil || !strings.Contains(err.Error(), "keygen --tuf") {
		t.Errorf("none: %v", err)
	}
	for _, text := range []string{"", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", strings.Repeat("x", 5<<10)} {
		if err := os.WriteFile(filepath.Join(dir, "root.pem"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if keys, err := LoadRoleKeys(dir); err == nil {
			t.Errorf("%.20q gives %v", text, keys)
		}
	}
}
