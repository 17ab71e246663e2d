package config

import (
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/upgraderd/upgraderd/upgrader/realm"
)

type inode struct {
	os.FileInfo
	uid  uint32
	mode fs.FileMode
}

func (i inode) Sys() any          { return &syscall.Stat_t{Uid: i.uid} }
func (i inode) Mode() fs.FileMode { return i.mode }

func TestGuardCheck(t *testing.T) {

	host, image := guard{owners: []uint32{0}}, guard{owners: []uint32{0, 1000}}
	user := guardOfUser(realm.Realm{User: true}, 1000)
	tests := []struct {
		name  string
		guard guard
		inode inode
		want  string // part of the refusal, "" for none
	}{
		{"root's file", host, inode{uid: 0, mode: 0o644}, ""},
		{"root's secret", host, inode{uid: 0, mode: 0o600}, ""},
		{"root's directory", host, inode{uid: 0, mode: fs.ModeDir | 0o755}, ""},
		{"root's link", host, inode{uid: 0, mode: fs.ModeSymlink | 0o777}, ""},
		{"somebody's file", host, inode{uid: 999, mode: 0o644}, "/f belongs to user 999 and not to root"},
		{"somebody's read-only file", host, inode{uid: 999, mode: 0o444}, "user 999"},
		{"somebody's directory", host, inode{uid: 999, mode: fs.ModeDir | 0o755}, "user 999"},
		{"somebody's link", host, inode{uid: 999, mode: fs.ModeSymlink | 0o777}, "user 999"},
		{"nobody's file, as in a user namespace without root", host, inode{uid: nobody, mode: 0o644}, "user 65534"},
		{"group-writable file", host, inode{uid: 0, mode: 0o664}, "mode 0664 lets others write /f"},
		{"world-writable file", host, inode{uid: 0, mode: 0o646}, "mode 0646"},
		{"group-writable directory", host, inode{uid: 0, mode: fs.ModeDir | fs.ModeSetgid | 0o775}, "mode 0775"},
		{"sticky directory", host, inode{uid: 0, mode: fs.ModeDir | fs.ModeSticky | 0o777}, "mode 0777"},
		{"file in one's own image", image, inode{uid: 1000, mode: 0o644}, ""},
		{"root's file in one's own image", image, inode{uid: 0, mode: 0o644}, ""},
		{"another's file in one's own image", image, inode{uid: 1001, mode: 0o644}, "user 1001"},
		{"group-writable file in one's own image", image, inode{uid: 1000, mode: 0o664}, "mode 0664"},
		{"a user's own file", user, inode{uid: 1000, mode: 0o600}, ""},
		{"root's file on a user's way", user, inode{uid: 0, mode: fs.ModeDir | 0o755}, ""},
		{"another's file on a user's way", user, inode{uid: 1001, mode: 0o644}, "/f belongs to user 1001 and neither to root nor to you"},
		{"a user's file that the group may write", user, inode{uid: 1000, mode: 0o664}, "mode 0664"},
		{"file that was named by who asks", guard{off: true}, inode{uid: 1001, mode: 0o666}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.guard.check("/f", tt.inode)
			if tt.want == "" {
				if err != nil {
					t.Errorf("got %v, want it read", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if hint := hintOf(err); !strings.Contains(hint, "/f") {
				t.Errorf("the hint %q does not say what to do", hint)
			}
		})
	}
}

// In a sandbox of a user's, root's files seem to be nobody's. Nowhere else they count.
func TestGuardSandboxed(t *testing.T) {
	root := inode{uid: nobody, mode: fs.ModeDir | 0o755}
	user := Of(realm.Realm{User: true})
	if err := user.tree.check("/f", root); err == nil {
		t.Error("outside of a sandbox: nobody's directory counts")
	}
	if err := user.Sandboxed().tree.check("/f", root); err != nil {
		t.Errorf("in a sandbox: %v", err)
	}
	if err := user.tree.check("/f", root); err == nil {
		t.Error("the files that the sandboxed ones were made of count nobody's, too")
	}
	if err := At("/").Sandboxed().tree.check("/f", root); err == nil {
		t.Error("the system's: nobody's directory counts")
	}
}

func TestGuardOf(t *testing.T) {
	mine := t.TempDir()
	me := os.Geteuid()
	tests := []struct {
		name, root string
		euid       int
		want       []uint32
	}{
		{"the system, asked by anybody", "/", 999, []uint32{0}},
		{"one's own image", mine, me, []uint32{0, uint32(me)}},
		{"an image of another's", mine, me + 1, []uint32{0}},
		{"no image", mine + "/none", me, []uint32{0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := guardOf(tt.root, tt.euid).owners; !slices.Equal(got, tt.want) {
				t.Errorf("got owners %v, want %v", got, tt.want)
			}
		})
	}
	for _, root := range []string{"", "/", "//", "/.", "/etc/.."} {
		if got := treeAt(root).owners; !slices.Equal(got, []uint32{0}) {
			t.Errorf("%q: got owners %v, want root alone", root, got)
		}
	}
}

// What others may write does not count, wherever on the way it is, and whoever
// asks. Targets that need nothing of it are followed.
func TestGuardOnTheWay(t *testing.T) {
	unit := func(name string) []byte { return []byte(strings.Replace(small, "app.service", name+".service", 1)) }
	files := []txtar.File{
		{Name: "etc/upgraderd/plain.upgrade", Data: unit("plain")},
		{Name: "etc/upgraderd/dropped.upgrade", Data: unit("dropped")},
		{Name: "etc/upgraderd/dropped.upgrade.d/10.conf", Data: []byte("[Upgrade]\nInstancesMax=5\n")},
		{Name: "opt/here/linked.conf", Data: unit("linked")},
		{Name: "opt/here/way -> ."},
		{Name: "etc/upgraderd/linked.upgrade -> ../../opt/here/way/../here/linked.conf"},
		{Name: "run/upgraderd/shadowed.upgrade -> /dev/null"},
		{Name: "run/upgraderd/emptied.upgrade"},
		{Name: "usr/lib/upgraderd/shadowed.upgrade", Data: unit("shadowed")},
		{Name: "usr/lib/upgraderd/emptied.upgrade", Data: unit("emptied")},
		{Name: "usr/lib/upgraderd/shipped.upgrade", Data: unit("shipped")},
		{Name: "run/upgraderd/shipped.upgrade.d/10.conf", Data: []byte("[Upgrade]\nInstancesMax=5\n")},
		{Name: "run/upgraderd/passing.upgrade", Data: unit("passing")},
	}
	tests := []struct {
		name, open string // this is made writable for its group
		mode       fs.FileMode
		want       string // targets that are followed
		said       string
	}{
		{"nothing", "etc/upgraderd/plain.upgrade", 0o644,
			"dropped linked passing plain shipped", ""},
		{"file", "etc/upgraderd/plain.upgrade", 0o664, "dropped linked passing shipped",
			"/etc/upgraderd/plain.upgrade: not read, since mode 0664 lets others write /etc/upgraderd/plain.upgrade"},
		{"drop-in", "etc/upgraderd/dropped.upgrade.d/10.conf", 0o646, "linked passing plain shipped",
			"10.conf: not read, since mode 0646"},
		{"directory of drop-ins", "etc/upgraderd/dropped.upgrade.d", 0o1777, "linked passing plain shipped",
			"/etc/upgraderd/dropped.upgrade: not read, since mode 0777 lets others write /etc/upgraderd/dropped.upgrade.d"},
		{"file that a link leads to", "opt/here/linked.conf", 0o666, "dropped passing plain shipped",
			"/etc/upgraderd/linked.upgrade: not read, since mode 0666 lets others write /opt/here/linked.conf"},
		{"directory that a link leads through", "opt", 0o777, "dropped passing plain shipped",
			"/etc/upgraderd/linked.upgrade: not read, since mode 0777 lets others write /opt"},
		// It adds no target, and takes nothing away from what root decided.
		{"directory on the search path", "run/upgraderd", 0o1777, "dropped linked plain",
			"/run/upgraderd: not read, since mode 0777 lets others write /run/upgraderd"},
		{"directory above one", "run", 0o775, "dropped linked plain",
			"/run/upgraderd: not read, since mode 0775 lets others write /run"},
		{"mask", "run/upgraderd/emptied.upgrade", 0o666, "dropped linked passing plain shipped",
			"/run/upgraderd/emptied.upgrade: not read, since mode 0666"},
		{"directory with nothing on the search path", "usr/local", 0o2775,
			"dropped linked passing plain shipped", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := plant(t, files)
			check(t, os.Mkdir(root+"/usr/local", 0o755))
			special := tt.mode & 0o7000
			mode := tt.mode.Perm()
			if special&0o1000 != 0 {
				mode |= fs.ModeSticky
			}
			if special&0o2000 != 0 {
				mode |= fs.ModeSetgid
			}
			check(t, os.Chmod(root+"/"+tt.open, mode))
			targets, ds := LoadAll(root)
			var got []string
			for _, target := range targets {
				got = append(got, target.Name)
				alone, _ := Load(root, target.Name)
				if diff := cmp.Diff(target, alone); diff != "" {
					t.Errorf("Load: %s", diff)
				}
			}
			if want := strings.Fields(tt.want); !slices.Equal(got, want) {
				t.Errorf("got targets %v, want %v", got, want)
			}
			if peeked, _ := PeekAll(root); len(peeked) != len(targets) {
				t.Errorf("PeekAll: got %d targets, want %d", len(peeked), len(targets))
			}
			said := ""
			if err := ds.Err(); err != nil {
				said = strings.ReplaceAll(err.Error(), root, "")
			}
			if tt.said == "" && said != "" || !strings.Contains(said, tt.said) {
				t.Errorf("got %q, want %q", said, tt.said)
			}
			for _, d := range ds {
				if d.Hint == "" || d.Code != CodeFile {
					t.Errorf("%v: hint %q", d, d.Hint)
				}
			}
		})
	}
}

// Where every file is a stranger's there is no target, and one line for each
// directory says so.
func TestGuardAgainstStrangers(t *testing.T) {
	root := plant(t, []txtar.File{
		{Name: "etc/upgraderd/app.upgrade", Data: []byte(small)},
		{Name: "usr/lib/upgraderd/app.upgrade", Data: []byte(small)},
	})
	strange := tree{root: root, at: realm.System(), guard: guard{owners: []uint32{1 << 30}}}
	targets, ds := all(strange, true)
	if len(targets) != 0 || len(ds) != 2 {
		t.Errorf("got %d targets, %v", len(targets), ds)
	}
	if target, ds := loadOne(strange, "app", true); target != nil || len(ds) == 0 {
		t.Errorf("got %v, %v", target, ds)
	}
}

// A way that only seems to end nowhere is still looked at.
func TestGuardBehindNothing(t *testing.T) {
	root := plant(t, []txtar.File{
		{Name: "etc/upgraderd/app.upgrade -> /open/none/../app"},
		{Name: "open/app", Data: []byte(small)},
	})
	check(t, os.Chmod(root+"/open", 0o777))
	if target, ds := Load(root, "app"); target != nil {
		t.Errorf("app is followed: %v", ds)
	}
}

// What somebody hands to `upgraderd verify` is theirs, and read.
func TestLintTakesAnyFile(t *testing.T) {
	root := one(t, small)
	check(t, os.Chmod(root+"/etc/upgraderd/app.upgrade", 0o666))
	if targets, ds := Lint("/", root+"/etc/upgraderd/app.upgrade"); len(targets) != 1 || len(ds) != 0 {
		t.Errorf("got %v, %v", targets, ds)
	}
}
