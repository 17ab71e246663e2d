package publish

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher"
)

// desk is a publisher's: a key, a directory, and a file to publish.
type desk struct {
	t    *testing.T
	o    Options
	file string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, file: filepath.Join(t.TempDir(), "app")}
	d.o = Options{Dir: t.TempDir(), Artifacts: []string{d.file}, Signers: []Signer{Minisign{private}}, Keys: []string{public.String()}}
	return d
}

// add publishes these bytes as this version.
func (d *desk) add(version, content string) (Result, error) {
	d.t.Helper()
	if err := os.WriteFile(d.file, []byte(content), 0o644); err != nil {
		d.t.Fatal(err)
	}
	d.o.Version = version
	return Add(context.Background(), d.o)
}

func (d *desk) mustAdd(version, content string) Result {
	d.t.Helper()
	r, err := d.add(version, content)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

// content is what a reader of the directory finds, by name.
func (d *desk) content() map[string]string {
	d.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(d.o.Dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == d.o.Dir {
			return err
		}
		data, err := os.ReadFile(p)
		all[e.Name()] = string(data)
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}

// newest is what a host takes.
func (d *desk) newest() string {
	d.t.Helper()
	f, err := host(d.o.Dir, "app_@v", d.o.Keys, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	l, err := f.Check(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	c, _ := l.Newest()
	v, err := f.Fetch(context.Background(), c, d.t.TempDir(), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(v.Candidate().Version)
}

func TestAdd(t *testing.T) {
	d := newDesk(t)
	if r := d.mustAdd("1.0", "one"); !slices.Equal(r.Added, []string{"app_1.0"}) || !slices.Equal(r.Patterns, []string{"app_@v"}) || r.Unchanged {
		t.Errorf("got %+v", r)
	}
	before := d.content()
	if r := d.mustAdd("1.0", "one"); !r.Unchanged {
		t.Errorf("the same again: %+v", r)
	}
	if fmt.Sprint(d.content()) != fmt.Sprint(before) {
		t.Error("the same again changed something")
	}
	d.mustAdd("1.1", "two")
	if got := d.newest(); got != "1.1" {
		t.Errorf("a host takes %s", got)
	}
	// What was lost is there again.
	if err := os.Remove(filepath.Join(d.o.Dir, "app_1.1")); err != nil {
		t.Fatal(err)
	}
	if r := d.mustAdd("1.1", "two"); r.Unchanged {
		t.Errorf("got %+v", r)
	}
	if got := d.newest(); got != "1.1" {
		t.Errorf("a host takes %s", got)
	}
	// A new last day takes the old one's place, and an expired list is signed anew.
	d.o.BestBefore = time.Now().AddDate(0, 0, -2)
	if _, err := d.add("1.2", "three"); err == nil {
		t.Error("a list that no host believes was published")
	}
	for _, day := range []string{"2998-01-01", "2999-01-01"} {
		d.o.BestBefore, _ = time.Parse(time.DateOnly, day)
		d.mustAdd("1.2", "three")
		if list := d.content()[manifestName]; strings.Count(list, bestBefore) != 1 || !strings.Contains(list, day) {
			t.Errorf("got %s", list)
		}
	}
	d.o.Artifacts, d.o.BestBefore = nil, time.Time{}
	if r, err := Add(context.Background(), d.o); err != nil || len(r.Added) != 0 || strings.Contains(d.content()[manifestName], bestBefore) {
		t.Errorf("signing anew: %+v, %v", r, err)
	}
}

// TestAddRefuses has everything as it was after each refusal.
func TestAddRefuses(t *testing.T) {
	stranger := newDesk(t)
	for name, c := range map[string]struct {
		harm func(d *desk)
		why  string
	}{
		"other bytes": {func(d *desk) { d.o.Version = "1.0" }, "raise the version"},
		"a list that somebody changed": {func(d *desk) {
			list := filepath.Join(d.o.Dir, manifestName)
			raw, _ := os.ReadFile(list)
			os.WriteFile(list, append(raw, []byte(strings.Repeat("0", 64)+"  app_9\n")...), 0o644)
		}, "--adopt"},
		"a list without a signature": {func(d *desk) { os.Remove(filepath.Join(d.o.Dir, manifestName+".minisig")) }, "--adopt"},
		"a list of a stranger":       {func(d *desk) { d.o.Keys, d.o.Signers = stranger.o.Keys, stranger.o.Signers }, "--adopt"},
		"a list that is none, adopted": {func(d *desk) {
			os.WriteFile(filepath.Join(d.o.Dir, manifestName), []byte("hello"), 0o644)
			d.o.Adopt = true
		}, "META_SYNTAX"},
		"a key that hosts lack":    {func(d *desk) { d.o.Signers = stranger.o.Signers }, "a host would refuse it"},
		"a signer that fails":      {func(d *desk) { d.o.Signers = []Signer{Command{"false"}} }, "false"},
		"a signer that signs not":  {func(d *desk) { d.o.Signers = []Signer{Command{"true"}} }, "no signature"},
		"a signer that changes it": {func(d *desk) { d.o.Signers = append(d.o.Signers, Command{"sh", "-c", "echo >> $0; touch $0.x"}) }, "a signer changed it"},
		"a version that is none":   {func(d *desk) { d.o.Version = "a b" }, "version"},
		"no file":                  {func(d *desk) { d.o.Artifacts = []string{filepath.Join(d.o.Dir, "none")} }, "no such file"},
		"a directory":              {func(d *desk) { d.o.Artifacts = []string{d.o.Dir} }, "not a regular file"},
		"a FIFO":                   {func(d *desk) { os.Remove(d.file); unix.Mkfifo(d.file, 0o644) }, "not a regular file"},
		"the list's name":          {func(d *desk) { d.o.Artifacts = []string{rename(d, "SHA256SUMS")} }, "means something else"},
		"two of one name":          {func(d *desk) { d.o.Artifacts = append(d.o.Artifacts, d.file) }, "one name"},
		"somebody else's turn": {func(d *desk) {
			f, _ := os.Open(d.o.Dir)
			unix.Flock(int(f.Fd()), unix.LOCK_EX)
			d.t.Cleanup(func() { f.Close() })
		}, "somebody else"},
		"no signer":                {func(d *desk) { d.o.Signers = nil }, "nobody signs"},
		"no key":                   {func(d *desk) { d.o.Keys = nil }, "no key"},
		"a context that has ended": {nil, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.mustAdd("1.0", "one")
			os.WriteFile(d.file, []byte("two"), 0o644)
			d.o.Version = "2.0"
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if c.harm != nil {
				c.harm(d)
			} else {
				cancel()
			}
			before := d.content()
			_, err := Add(ctx, d.o)
			if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v, want %q", err, c.why)
			}
			if after := d.content(); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("got %q, want %q as before", after, before)
			}
		})
	}
}

func rename(d *desk, name string) string {
	to := filepath.Join(filepath.Dir(d.file), name)
	os.Rename(d.file, to)
	return to
}

// TestAddUnderReaders has a host look all the time: it never sees anything but a
// release that is there.
func TestAddUnderReaders(t *testing.T) {
	d := newDesk(t)
	d.mustAdd("1", "one")
	f, err := host(d.o.Dir, "app_@v", d.o.Keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(context.Background())
	looked := make(chan error, 1)
	go func() {
		last := fetcher.Version("1")
		for ctx.Err() == nil {
			l, err := f.Check(ctx)
			if err == nil {
				c, _ := l.Newest()
				if c.Version.Compare(last) < 0 {
					err = fmt.Errorf("went from %s to %s", last, c.Version)
				}
				last = c.Version
			}
			if err == nil {
				_, err = os.Stat(filepath.Join(d.o.Dir, "app_"+string(last)))
			}
			if err != nil && ctx.Err() == nil {
				looked <- err
				return
			}
		}
		looked <- nil
	}()
	for n := 2; n <= 5; n++ {
		d.mustAdd(fmt.Sprint(n), fmt.Sprint("bytes of ", n))
		// A host that came between two steps looks again after a second, and must
		// not come between two steps of the next release then.
		time.Sleep(2 * time.Second)
	}
	cancel()
	if err := <-looked; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestAddAfterAKill finds what a killed run left.
func TestAddAfterAKill(t *testing.T) {
	d := newDesk(t)
	left := filepath.Join(d.o.Dir, stagingName+"123")
	if err := os.MkdirAll(filepath.Join(left, "old"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.mustAdd("1.0", "one")
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", left, err)
	}
	if d.newest() != "1.0" {
		t.Error("1.0 is not there")
	}
}

func TestName(t *testing.T) {
	for _, c := range []struct{ file, version, name, pattern string }{
		{"hello", "2.0.0", "hello_2.0.0", "hello_@v"},
		{"hello.tar.zst", "2.0.0", "hello_2.0.0.tar.zst", "hello_@v.tar.zst"},
		{"hello.gz", "2", "hello_2.gz", "hello_@v.gz"},
		{"hello-2.0.0", "2.0.0", "hello-2.0.0", "hello-@v"},
		{"hello_2.0.0_amd64.gz", "2.0.0", "hello_2.0.0_amd64.gz", "hello_@v_amd64.gz"},
		{".gz", "1", "", ""},
		{"a*b", "1", "", ""},
		{"a@b", "1", "", ""},
		{"SHA256SUMS.minisig", "1", "", ""},
		{"BEST-BEFORE-1", "1", "", ""},
	} {
		name, pattern, err := Name(c.file, c.version)
		if name != c.name || pattern != c.pattern || (err != nil) != (c.name == "") {
			t.Errorf("%s %s: got %q, %q, %v", c.file, c.version, name, pattern, err)
		}
	}
}
