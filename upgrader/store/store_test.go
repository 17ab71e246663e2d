package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// TestMain gives away root's right to ignore permissions: the daemon has
// none, and a test that only works for root would tell nothing. The bounding
// set is what counts when root executes a program.
func TestMain(m *testing.M) {
	held, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_DAC_OVERRIDE, 0, 0, 0)
	if os.Geteuid() == 0 && err == nil && held == 1 {
		runtime.LockOSThread()
		for _, c := range []uintptr{unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER} {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				fmt.Fprintln(os.Stderr, "drop capabilities:", err)
				os.Exit(1)
			}
		}
		fmt.Fprintln(os.Stderr, "run again without capabilities:", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// newStore is an empty store in a directory that is removed afterwards,
// read-only releases and all.
func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "app"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.removeAll(s.dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

func digestOf(text string) Digest { return sha256.Sum256([]byte(text)) }

func release(t testing.TB, version string) (Release, Digest) {
	t.Helper()
	d := digestOf(version)
	r, err := NewRelease(version, d)
	if err != nil {
		t.Fatal(err)
	}
	return r, d
}

// fill makes a small tree for a version, as an unpacker would.
func fill(t testing.TB, fsys fsys, tree, version string) {
	t.Helper()
	steps := []func() error{
		func() error { return fsys.Mkdir(tree+"/bin", 0o755) },
		func() error { return put(fsys, tree+"/bin/app", "#!/bin/sh\necho "+version+"\n", 0o755) },
		func() error { return fsys.Mkdir(tree+"/share", 0o700) },
		func() error { return put(fsys, tree+"/share/motd", "hello from "+version, 0o600) },
		func() error { return fsys.Symlink("bin/app", tree+"/run") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

func put(fsys fsys, name, text string, mode fs.FileMode) error {
	f, err := fsys.Create(name, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text))
	return errors.Join(err, f.Close(), fsys.Chmod(name, mode))
}

func install(t testing.TB, s *Store, version string) Release {
	t.Helper()
	r, d := release(t, version)
	tree, err := s.IncomingTree(d)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s.fs, tree, version)
	if err := s.Install(context.Background(), tree, r, d); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestInstall(t *testing.T) {
	old := unix.Umask(0o077) // the daemon's
	defer unix.Umask(old)
	s := newStore(t)
	r := install(t, s, "1.4.2")
	if want := "1.4.2-" + digestOf("1.4.2").Short(); r.Name != want {
		t.Errorf("got name %q, want %q", r.Name, want)
	}
	wantModes := map[string]fs.FileMode{
		".":               fs.ModeDir | 0o555,
		"bin":             fs.ModeDir | 0o555,
		"bin/app":         0o555,
		"run":             fs.ModeSymlink | 0o777,
		"share":           fs.ModeDir | 0o555,
		"share/motd":      0o444,
		"../../releases":  fs.ModeDir | 0o755,
		"../../.":         fs.ModeDir | 0o755,
		"../../known-bad": fs.ModeDir | 0o755,
	}
	for name, want := range wantModes {
		info, err := os.Lstat(filepath.Join(s.Dir(r), name))
		if err != nil {
			t.Error(err)
		} else if info.Mode() != want {
			t.Errorf("%s: got mode %v, want %v", name, info.Mode(), want)
		}
	}
	if got, err := s.Digest(r); err != nil || got != digestOf("1.4.2") {
		t.Errorf("got digest %v, %v; want %v", got, err, digestOf("1.4.2"))
	}
	if err := s.Verify(context.Background(), r); err != nil {
		t.Error(err)
	}
	if again := install(t, s, "1.4.2"); again != r {
		t.Errorf("second install: got %v, want %v", again, r)
	}
	if err := s.CleanIncoming(nil); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, s.dir), []string{".reserve-0", ".reserve-1", ".reserve-2", ".reserve-3", ".reserve-link", "known-bad", "releases"}; !slices.Equal(got, want) {
		t.Errorf("got %q in the directory, want %q", got, want)
	}
	// A new digest under an old name, by 12 digits only.
	var other Digest
	copy(other[:], digestOf("1.4.2").short())
	tree, err := s.IncomingTree(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Install(context.Background(), tree, r, other); reason.Of(err) != CodeReleaseTree {
		t.Errorf("another artifact with the same 12 digits: got %v, want %s", err, CodeReleaseTree)
	}
}

// short is the part of a digest that stands in names.
func (d Digest) short() []byte { return d[:6] }

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// The manifest is for people, too: sha256sum reads it.
func TestManifestForSha256sum(t *testing.T) {
	s := newStore(t)
	r := install(t, s, "1.4.2")
	cmd := exec.Command("sha256sum", "--check", "--strict", "../"+r.Name+".sha256")
	cmd.Dir = s.Dir(r)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestInstallRefuses(t *testing.T) {
	tests := []struct {
		name string
		make func(tree string) error
		want reason.Code
	}{
		{"FIFO", func(tree string) error { return unix.Mkfifo(tree+"/pipe", 0o600) }, CodeReleaseTree},
		{"line break in a name", func(tree string) error { return os.WriteFile(tree+"/a\nb", nil, 0o600) }, CodeReleaseTree},
		{"line break in a link", func(tree string) error { return os.Symlink("a\nb", tree+"/l") }, CodeReleaseTree},
		{"backslash", func(tree string) error { return os.WriteFile(tree+`/a\b`, nil, 0o600) }, CodeReleaseTree},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			r, d := release(t, "1")
			tree, err := s.IncomingTree(d)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.make(tree); err != nil {
				t.Fatal(err)
			}
			err = s.Install(context.Background(), tree, r, d)
			if reason.Of(err) != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if list, err := s.Releases(); err != nil || len(list) > 0 {
				t.Errorf("got releases %v, %v; want none", list, err)
			}
		})
	}
	t.Run("setuid goes", func(t *testing.T) {
		s := newStore(t)
		r, d := release(t, "1")
		tree, err := s.IncomingTree(d)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, s.fs, tree, "1")
		if err := os.Chmod(tree+"/bin/app", 0o755|fs.ModeSetuid); err != nil {
			t.Fatal(err)
		}
		if err := s.Install(context.Background(), tree, r, d); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(s.Dir(r) + "/bin/app"); err != nil || info.Mode() != 0o555 {
			t.Errorf("got %v, %v; want mode 0555", info, err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		s := newStore(t)
		r, d := release(t, "1")
		tree, err := s.IncomingTree(d)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, s.fs, tree, "1")
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.Install(ctx, tree, r, d); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		install(t, s, "1")
	})
}

// Bit rot, and whoever has root: Verify tells, and Install mends.
func TestVerify(t *testing.T) {
	writable := func(t *testing.T, name string) {
		if err := os.Chmod(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		harm func(t *testing.T, s *Store, dir string)
	}{
		{"one bit", func(t *testing.T, s *Store, dir string) {
			writable(t, dir+"/bin/app")
			f, err := os.OpenFile(dir+"/bin/app", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte{'#' ^ 1}, 0); err != nil {
				t.Fatal(err)
			}
		}},
		{"file gone", func(t *testing.T, s *Store, dir string) {
			writable(t, dir+"/share")
			if err := os.Remove(dir + "/share/motd"); err != nil {
				t.Fatal(err)
			}
		}},
		{"file more", func(t *testing.T, s *Store, dir string) {
			writable(t, dir+"/share")
			if err := os.WriteFile(dir+"/share/more", nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"exec bit gone", func(t *testing.T, s *Store, dir string) {
			if err := os.Chmod(dir+"/bin/app", 0o444); err != nil {
				t.Fatal(err)
			}
		}},
		{"link bent", func(t *testing.T, s *Store, dir string) {
			writable(t, dir)
			if err := errors.Join(os.Remove(dir+"/run"), os.Symlink("share/motd", dir+"/run")); err != nil {
				t.Fatal(err)
			}
		}},
		{"manifest gone", func(t *testing.T, s *Store, dir string) {
			if err := os.Remove(dir + manifestTail); err != nil {
				t.Fatal(err)
			}
		}},
		{"manifest of another", func(t *testing.T, s *Store, dir string) {
			if err := os.WriteFile(dir+manifestTail, []byte(manifestHead+manifestArtifact+digestOf("2").String()+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"manifest empty", func(t *testing.T, s *Store, dir string) {
			if err := os.WriteFile(dir+manifestTail, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			r := install(t, s, "1")
			if err := s.SetLink(Current, r); err != nil {
				t.Fatal(err)
			}
			tt.harm(t, s, s.Dir(r))
			if err := s.Verify(context.Background(), r); reason.Of(err) != CodeReleaseCorrupt {
				t.Fatalf("got %v, want %s", err, CodeReleaseCorrupt)
			}
			install(t, s, "1")
			if err := s.Verify(context.Background(), r); err != nil {
				t.Errorf("after installing it again: %v", err)
			}
			if got, ok, err := s.Link(Current); !ok || err != nil || got != r {
				t.Errorf("current: got %v, %v, %v; want %v", got, ok, err, r)
			}
		})
	}
}

func TestLinks(t *testing.T) {
	s := newStore(t)
	one, two := install(t, s, "1"), install(t, s, "2")
	for _, which := range LinkNames() {
		if _, ok, err := s.Link(which); ok || err != nil {
			t.Errorf("%s of an empty store: got %v, %v; want none", which, ok, err)
		}
		if err := s.ClearLink(which); err != nil {
			t.Errorf("clear %s that is not there: %v", which, err)
		}
	}
	for _, r := range []Release{one, two, two} {
		if err := s.SetLink(Current, r); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := s.Link(Current); got != r || !ok || err != nil {
			t.Errorf("got %v, %v, %v; want %v", got, ok, err, r)
		}
	}
	if to, err := os.Readlink(s.dir + "/current"); err != nil || to != "releases/"+two.Name {
		t.Errorf("got link to %q, %v; want it relative", to, err)
	}
	if err := s.Remove(two); !errors.Is(err, ErrInUse) || reason.Of(err) != CodeReleaseInUse {
		t.Errorf("remove what current points at: got %v, want %v", err, ErrInUse)
	}
	if err := errors.Join(s.ClearLink(Current), s.SetLink(Next, two)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what is not there any more is no error
		if err := s.MoveLink(Next, Tried); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
		if _, ok, err := s.Link(Next); ok || err != nil {
			t.Errorf("next, which was moved: got %v, %v; want none", ok, err)
		}
		if got, ok, err := s.Link(Tried); got != two || !ok || err != nil {
			t.Errorf("got %v, %v, %v; want %v", got, ok, err, two)
		}
	}
	if err := errors.Join(s.ClearLink(Tried), s.MoveLink(Next, Tried)); err != nil {
		t.Errorf("move what is not there: %v", err)
	}
	for range 2 {
		if err := s.Remove(two); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.Releases(); err != nil || !slices.Equal(list, []Release{one}) {
		t.Errorf("got %v, %v; want %v", list, err, one)
	}
	if got := names(t, s.path(releasesDir)); len(got) != 2 {
		t.Errorf("got %q, want a release and its manifest", got)
	}
	if err := s.SetLink(Next, two); reason.Of(err) != CodeReleaseMissing || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("link to what is not there: got %v, want %s", err, CodeReleaseMissing)
	}
}

func TestBrokenLinks(t *testing.T) {
	name := "1-" + digestOf("1").Short()
	tests := []struct {
		name    string
		make    func(link string) error
		settled bool // SetLink mends it
	}{
		{"file", func(l string) error { return os.WriteFile(l, nil, 0o644) }, false},
		{"directory", func(l string) error { return os.Mkdir(l, 0o755) }, false},
		{"FIFO", func(l string) error { return unix.Mkfifo(l, 0o644) }, false},
		{"dangling", func(l string) error { return os.Symlink("releases/9-"+digestOf("9").Short(), l) }, true},
		{"absolute", func(l string) error { return os.Symlink(filepath.Dir(l)+"/releases/"+name, l) }, true},
		{"outside", func(l string) error { return os.Symlink("../app/releases/"+name, l) }, true},
		{"parent", func(l string) error { return os.Symlink("releases/..", l) }, true},
		{"not a release", func(l string) error { return os.Symlink("releases/.new-"+name, l) }, true},
		{"slash at the end", func(l string) error { return os.Symlink("releases/"+name+"/", l) }, true},
		{"itself", func(l string) error { return os.Symlink("current", l) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			r := install(t, s, "1")
			if err := tt.make(s.dir + "/current"); err != nil {
				t.Fatal(err)
			}
			_, ok, err := s.Link(Current)
			if ok || reason.Of(err) != CodeLinkBroken || !strings.Contains(err.Error(), "upgraderd status app") {
				t.Errorf("got %v, %v; want %s and what to do", ok, err, CodeLinkBroken)
			}
			if err := s.Remove(r); err == nil {
				t.Error("removed a release while a link could not be read")
			}
			err = s.SetLink(Current, r)
			if tt.settled && err != nil {
				t.Errorf("set it anew: %v", err)
			}
			if !tt.settled && (reason.Of(err) != CodeLinkBroken || reason.Of(s.ClearLink(Current)) != CodeLinkBroken) {
				t.Errorf("got %v, want it left alone", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name string
		make func(dir string) (string, error)
		want reason.Code
	}{
		{"relative", func(string) (string, error) { return "app", nil }, CodeStateDir},
		{"line break", func(d string) (string, error) { return d + "\n", nil }, CodeStateDir},
		{"file", func(d string) (string, error) { return d, os.WriteFile(d, nil, 0o644) }, CodeStateDir},
		{"symlink", func(d string) (string, error) { return d, os.Symlink(filepath.Dir(d), d) }, CodeStateDir},
		{"group may write", func(d string) (string, error) {
			return d, errors.Join(os.Mkdir(d, 0o755), os.Chmod(d, 0o775))
		}, reason.UnsafePerms},
		{"all may write to releases", func(d string) (string, error) {
			return d, errors.Join(os.MkdirAll(d+"/releases", 0o755), os.Chmod(d+"/releases", 0o777))
		}, reason.UnsafePerms},
		{"parent not writable", func(d string) (string, error) {
			return d, os.Chmod(filepath.Dir(d), 0o555)
		}, reason.Permission},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parent := t.TempDir()
			t.Cleanup(func() { os.Chmod(parent, 0o755) })
			dir, err := tt.make(parent + "/app")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); reason.Of(err) != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	t.Run("odd but good names", func(t *testing.T) {
		for _, name := range []string{"with space", "größe", strings.Repeat("x", 200)} {
			if _, err := Open(t.TempDir() + "/" + name); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("modes are healed", func(t *testing.T) {
		s := newStore(t)
		if err := os.Chmod(s.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(s.dir); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(s.dir); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("got %v, %v; want 0755", info.Mode(), err)
		}
	})
	t.Run("view", func(t *testing.T) {
		dir := t.TempDir() + "/app"
		if _, err := View(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want %v", err, fs.ErrNotExist)
		}
		if got := names(t, filepath.Dir(dir)); len(got) > 0 {
			t.Errorf("looking made %q", got)
		}
		s := newStore(t)
		r := install(t, s, "1")
		v, err := View(s.dir)
		if err != nil {
			t.Fatal(err)
		}
		if list, err := v.Releases(); err != nil || !slices.Equal(list, []Release{r}) {
			t.Errorf("got %v, %v; want %v", list, err, r)
		}
	})
}

func TestLock(t *testing.T) {
	s := newStore(t)
	unlock, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Lock()
	var held *LockedError
	if !errors.Is(err, ErrLocked) || !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("got %v, want %v by process %d", err, ErrLocked, os.Getpid())
	}
	if reason.Of(err) != CodeLocked {
		t.Errorf("got code %q, want %s", reason.Of(err), CodeLocked)
	}
	// A file somebody removed locks nobody out, and must not let two in:
	// whoever comes later takes the new one.
	if err := os.Remove(s.path(lockName)); err != nil {
		t.Fatal(err)
	}
	unlock2, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	unlock()
	if _, err := s.Lock(); !errors.Is(err, ErrLocked) {
		t.Errorf("after the old lock's end: got %v, want %v", err, ErrLocked)
	}
	unlock2()
	unlock3, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	unlock3()
	// Who deploys takes turns with those who deploy, and with nobody else.
	turn, err := s.LockDeploy()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.LockDeploy(); !errors.Is(err, ErrLocked) {
		t.Errorf("two deploy: %v", err)
	}
	if free, err := s.Lock(); err != nil {
		t.Error(err)
	} else {
		free()
	}
	turn()
	// What a dead process wrote is no lock.
	if err := os.WriteFile(s.path(lockName), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	unlock4, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	unlock4()
}

type testRecord struct {
	Step string `json:"step"`
	Note string `json:"note,omitempty"`
}

func TestRecord(t *testing.T) {
	s := newStore(t)
	got := testRecord{Step: "untouched"}
	if ok, err := s.LoadRecord(&got); ok || err != nil || got.Step != "untouched" {
		t.Errorf("got %v, %v, %v; want none", got, ok, err)
	}
	for _, want := range []testRecord{{Step: "staged"}, {Step: "swapping", Note: "a <b> & \u2028 \"c\""}, {}} {
		if err := s.SaveRecord(want); err != nil {
			t.Fatal(err)
		}
		got = testRecord{}
		if ok, err := s.LoadRecord(&got); !ok || err != nil || got != want {
			t.Errorf("got %v, %v, %v; want %v", got, ok, err, want)
		}
	}
	if err := s.SaveRecord(strings.Repeat("x", reserveSize)); reason.Of(err) != CodeRecordTooLarge {
		t.Errorf("got %v, want %s", err, CodeRecordTooLarge)
	}
	if err := s.SaveRecord(func() {}); err == nil {
		t.Error("saved a function")
	}
}

// Each byte cut off and each bit flipped is noticed, or changes nothing.
func TestRecordDamage(t *testing.T) {
	s := newStore(t)
	want := testRecord{Step: "swapping", Note: "1.4.2 → 1.5.0"}
	if err := s.SaveRecord(want); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(s.path(recordName))
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, data []byte) {
		t.Helper()
		if err := os.WriteFile(s.path(recordName), data, 0o644); err != nil {
			t.Fatal(err)
		}
		got := testRecord{}
		ok, err := s.LoadRecord(&got)
		switch {
		case err == nil && got != want:
			t.Errorf("%s: got %v, want %v or an error", what, got, want)
		case err != nil && (ok || got != testRecord{}):
			t.Errorf("%s: an error, and %v all the same", what, got)
		case err != nil && reason.Of(err) != CodeRecordCorrupt && reason.Of(err) != CodeRecordNewer:
			t.Errorf("%s: got %v, want a code", what, err)
		}
	}
	for i := range len(good) {
		check(fmt.Sprintf("cut to %d bytes", i), good[:i])
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			check(fmt.Sprintf("bit %d of byte %d", bit, i), bad)
		}
	}
	check("twice", append(bytes.Clone(good), good...))
	for _, tt := range []struct {
		name, text string
		want       reason.Code
	}{
		{"empty", "", CodeRecordCorrupt},
		{"zeros", strings.Repeat("\x00", 4096), CodeRecordCorrupt},
		{"null", "null", CodeRecordCorrupt},
		{"newer", strings.Replace(string(good), `"schema":1`, `"schema":2`, 1), CodeRecordNewer},
		{"no schema", "{}", CodeRecordCorrupt},
		{"huge", strings.Repeat(" ", reserveSize) + string(good), ""},
	} {
		if err := os.WriteFile(s.path(recordName), []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.LoadRecord(&testRecord{}); err == nil || reason.Of(err) != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	if err := s.SaveRecord(want); err != nil {
		t.Errorf("save over a broken one: %v", err)
	}
}

func TestKnownBad(t *testing.T) {
	s := newStore(t)
	d := digestOf("1.5.0")
	if _, found, err := s.Bad(d); found || err != nil {
		t.Errorf("got %v, %v; want nothing known", found, err)
	}
	if err := s.Forgive(d); err != nil {
		t.Errorf("forgive what is not bad: %v", err)
	}
	want := Bad{Version: "1.5.0", Reason: "exit status 1\nand more", When: time.Date(2026, 11, 20, 16, 0, 0, 0, time.UTC)}
	if err := s.MarkBad(d, want); err != nil {
		t.Fatal(err)
	}
	if err := s.MarkBad(d, want); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, found, err := again.Bad(d); !found || err != nil || got != want {
		t.Errorf("got %v, %v, %v; want %v", got, found, err, want)
	}
	// By hand, or rotten: being there is what counts.
	byHand := digestOf("1.6.0")
	if err := os.WriteFile(s.badName(byHand), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, found, err := s.Bad(byHand); !found || err != nil || got.Reason == "" || got.When.IsZero() {
		t.Errorf("got %v, %v, %v; want it bad since the file's time", got, found, err)
	}
	if list, err := s.KnownBad(); err != nil || len(list) != 2 || !slices.Contains(list, d) || !slices.Contains(list, byHand) {
		t.Errorf("got %v, %v; want two", list, err)
	}
	long := Bad{Reason: strings.Repeat("ö\x00", 100_000)}
	if err := s.MarkBad(d, long); err != nil {
		t.Error(err)
	}
	if err := s.Forgive(d); err != nil {
		t.Fatal(err)
	}
	if _, found, err := s.Bad(d); found || err != nil {
		t.Errorf("after forgiving: got %v, %v; want nothing known", found, err)
	}
}

func TestProgram(t *testing.T) {
	s := newStore(t)
	r := install(t, s, "1")
	if got, err := s.Program(r, "bin/app"); err != nil || got != s.Dir(r)+"/bin/app" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, rel := range []string{"", ".", "..", "../1/bin/app", "/bin/sh", "bin", "bin/none", "share/motd", "run"} {
		if got, err := s.Program(r, rel); reason.Of(err) != CodeProgram {
			t.Errorf("%q: got %q, %v; want %s", rel, got, err, CodeProgram)
		}
	}
	if _, err := s.Program(Release{Name: "../x"}, "bin/app"); err == nil {
		t.Error("took a release that is none")
	}
}

func TestParse(t *testing.T) {
	const hex12 = "0123456789ab"
	tests := []struct {
		in   string
		want Release
	}{
		{"1.4.2-" + hex12, Release{"1.4.2-" + hex12, "1.4.2", hex12}},
		{"1.5.0-rc1-" + hex12, Release{"1.5.0-rc1-" + hex12, "1.5.0-rc1", hex12}},
		{"2026~beta+x^y_z-" + hex12, Release{"2026~beta+x^y_z-" + hex12, "2026~beta+x^y_z", hex12}},
		{strings.Repeat("9", 64) + "-" + hex12, Release{strings.Repeat("9", 64) + "-" + hex12, strings.Repeat("9", 64), hex12}},
		{strings.Repeat("9", 65) + "-" + hex12, Release{}},
		{"", Release{}},
		{hex12, Release{}},
		{"-" + hex12, Release{}},
		{"1-" + hex12 + ".sha256", Release{}},
		{".new-1-" + hex12, Release{}},
		{"1-" + strings.ToUpper(hex12), Release{}},
		{"1-0123456789a", Release{}},
		{"../1-" + hex12, Release{}},
		{"1/2-" + hex12, Release{}},
		{"1\n-" + hex12, Release{}},
		{"ä-" + hex12, Release{}},
		{"-rf-" + hex12, Release{}},
	}
	for _, tt := range tests {
		got, err := ParseRelease(tt.in)
		if got != tt.want || (err == nil) != (tt.want != Release{}) {
			t.Errorf("%q: got %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", strings.Repeat("0", 63), strings.Repeat("0", 65), strings.Repeat("A", 64), strings.Repeat("g", 64)} {
		if d, err := ParseDigest(bad); err == nil {
			t.Errorf("digest %q: got %v, want an error", bad, d)
		}
	}
	if d, err := ParseDigest(digestOf("x").String()); err != nil || d != digestOf("x") {
		t.Errorf("got %v, %v; want it back", d, err)
	}
}

func FuzzParseRelease(f *testing.F) {
	f.Add("1.4.2-0123456789ab")
	f.Add("../../x-0123456789ab")
	f.Fuzz(func(t *testing.T, name string) {
		r, err := ParseRelease(name)
		if err != nil {
			return
		}
		if filepath.Base(name) != name || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") || r.Version+"-"+r.Digest12 != name {
			t.Errorf("%q: got %+v", name, r)
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(sealRecord([]byte(`{"step":"staged"}`)))
	f.Add([]byte(`{"schema":1,"sha256":"","record":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		record, err := openRecord(data)
		if err != nil {
			return
		}
		if got, err := openRecord(sealRecord(record)); err != nil || !bytes.Equal(got, record) {
			t.Errorf("got %q, %v; want %q", got, err, record)
		}
	})
}

// Nothing of ours stays open.
func TestNoLeaks(t *testing.T) {
	fds := func() int { return len(names(t, "/proc/self/fd")) }
	s := newStore(t)
	use := func(version string) {
		unlock, err := s.Lock()
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		r := install(t, s, version)
		steps := []error{
			s.SetLink(Next, r), s.SaveRecord(r), s.MarkBad(digestOf("x"), Bad{}), s.Verify(context.Background(), r),
			s.ClearLink(Next), s.CleanIncoming(nil), s.Remove(r),
		}
		if err := errors.Join(steps...); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Lock(); err == nil {
			t.Fatal("locked twice")
		}
	}
	use("0")
	before, goroutines := fds(), runtime.NumGoroutine()
	for i := range 50 {
		use(fmt.Sprint(i))
	}
	if after := fds(); after != before {
		t.Errorf("got %d open files, want %d", after, before)
	}
	if after := runtime.NumGoroutine(); after != goroutines {
		t.Errorf("got %d goroutines, want %d", after, goroutines)
	}
}

// Install of one large program, and of many small files: seal, fsync, publish.
func BenchmarkInstall(b *testing.B) {
	for _, bm := range []struct {
		name        string
		files, size int
	}{{"1x100MiB", 1, 100 << 20}, {"1000x8KiB", 1000, 8 << 10}} {
		b.Run(bm.name, func(b *testing.B) {
			s := newStore(b)
			data := bytes.Repeat([]byte("upgraderd"), bm.size/9)
			b.SetBytes(int64(bm.files * len(data)))
			i := 0
			for b.Loop() {
				b.StopTimer()
				i++
				r, d := release(b, fmt.Sprint(i))
				tree, err := s.IncomingTree(d)
				if err != nil {
					b.Fatal(err)
				}
				for k := range bm.files {
					if err := os.WriteFile(fmt.Sprint(tree, "/f", k), data, 0o755); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				if err := s.Install(context.Background(), tree, r, d); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Remove(r); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// TestOrder has root place orders in a store that is the daemon's.
func TestOrder(t *testing.T) {
	type order struct{ ID string }
	s, err := Open(filepath.Join(t.TempDir(), "app"))
	if err != nil {
		t.Fatal(err)
	}
	var got order
	if ok, err := s.Order(&got); ok || err != nil {
		t.Errorf("none yet: %v, %v", ok, err)
	}
	if err := s.ClearOrder(func([]byte) bool { return true }); err != nil {
		t.Errorf("nothing to clear: %v", err)
	}
	before := names(t, s.Path())
	for _, id := range []string{"1", "2"} {
		if err := s.PlaceOrder(order{id}); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := s.Order(&got); !ok || err != nil || got.ID != "2" {
		t.Errorf("got %+v, %v, %v, want the later one", got, ok, err)
	}
	if err := s.ClearOrder(func([]byte) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if after := names(t, s.Path()); !slices.Equal(after, before) {
		t.Errorf("left %q, want %q", after, before)
	}
	// One that came in place of the order that is over stays.
	if err := s.PlaceOrder(order{"3"}); err != nil {
		t.Fatal(err)
	}
	if err := s.ClearOrder(func(data []byte) bool { return !bytes.Contains(data, []byte("3")) }); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Order(&got); !ok || err != nil || got.ID != "3" {
		t.Errorf("got %+v, %v, %v, want the one that came later", got, ok, err)
	}
	got = order{"2"}
	for _, text := range []string{"", "{", "null ]", strings.Repeat("x", reserveSize+1)} {
		if err := os.WriteFile(filepath.Join(s.Path(), orderName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if ok, err := s.Order(&got); ok || err == nil || got.ID != "2" {
			t.Errorf("%.10q: got %+v, %v, %v", text, got, ok, err)
		}
	}
}

// TestWishes has root change the wishes in a store that is the daemon's.
func TestWishes(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "app"))
	if err != nil {
		t.Fatal(err)
	}
	before := names(t, s.Path())
	got := "nothing"
	change := func(want, next string) {
		t.Helper()
		err := s.ChangeWishes(func(data []byte) ([]byte, error) {
			if string(data) != want {
				t.Errorf("changing %q, want %q", data, want)
			}
			if next == "" {
				return nil, nil
			}
			return []byte(next), nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := s.Wishes(&got); ok || err != nil {
		t.Errorf("none yet: %v, %v", ok, err)
	}
	change("", "")
	change("", `"a"`)
	change(`"a"`, `"b"`)
	if ok, err := s.Wishes(&got); !ok || err != nil || got != "b" {
		t.Errorf("got %q, %v, %v", got, ok, err)
	}
	no := errors.New("no")
	if err := s.ChangeWishes(func([]byte) ([]byte, error) { return nil, no }); !errors.Is(err, no) {
		t.Errorf("got %v, want the error of the change", err)
	}
	change(`"b"`, "")
	if after := names(t, s.Path()); !slices.Equal(after, before) {
		t.Errorf("left %q, want %q", after, before)
	}
	// Two at once: neither is lost.
	var both sync.WaitGroup
	for range 20 {
		both.Go(func() {
			if err := s.ChangeWishes(func(data []byte) ([]byte, error) { return append(data, 'x'), nil }); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	change(strings.Repeat("x", 20), "")
	got = "b"
	for _, text := range []string{"", "{", "null ]", strings.Repeat("x", reserveSize+1)} {
		if err := os.WriteFile(filepath.Join(s.Path(), wishesName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if ok, err := s.Wishes(&got); ok || err == nil || got != "b" {
			t.Errorf("%.10q: got %q, %v, %v", text, got, ok, err)
		}
	}
}
