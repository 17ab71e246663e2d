package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/realm"
)

// guard decides whose files count. A target says which unit the daemon may
// restart and whose releases it runs, so on the running system only root makes
// one: a file, a directory on the way to it and a symbolic link count if root
// owns them, and if neither group nor others may write them. Mode 1777 is no
// exception, since what matters is who may add a name. The daemon's own user
// is nobody special: whoever takes over the daemon must not be able to widen
// what polkit lets it do. ACLs that let others write show in the group's bits.
//
// Below another root directory (--root=, an image, a test) the owner of that
// directory counts too if that is who asks: it concerns their own files then.
//
// Credentials are lent by systemd, on a file system of their own that is read-only,
// and may belong to the daemon's user: nobody but root has put them there.
//
// In a user namespace that does not map root, root's files seem to be nobody's
// (65534), as do everybody else's, so nobody is never trusted. PrivateUsers=
// of upgraderd-check@.service does map root.
type guard struct {
	off         bool // whoever asked named the file, and is asked about their own
	owners      []uint32
	user        bool   // the files are a user's
	credentials string // the directory of the daemon's credentials
}

// guardOf is the guard of the tree below root for whoever has this effective
// user id.
func guardOf(root string, euid int) guard {
	g := guard{owners: []uint32{0}, credentials: realm.System().Credentials}
	if root == "/" {
		// Somebody else who asks, "upgraderd verify", has none of their own.
		g.credentials = cmp.Or(lentDirectory(), g.credentials)
		return g
	}
	if st, err := os.Stat(root); err == nil {
		if uid, ok := owner(st); ok && int64(uid) == int64(euid) {
			g.owners = append(g.owners, uid)
		}
	}
	return g
}

// guardOfUser is the guard of a realm of a user: what the user may have others
// do is theirs to say, beside root. Whoever else may write a file could have the
// user's services run anything.
func guardOfUser(r realm.Realm, euid int) guard {
	return guard{owners: []uint32{0, uint32(euid)}, user: true, credentials: cmp.Or(lentDirectory(), r.Credentials)}
}

// lentDirectory is that of the credentials of this process, "" if it has none.
func lentDirectory() string {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); path.IsAbs(dir) {
		return path.Clean(dir)
	}
	return ""
}

// nobody is who owns what a user namespace does not map, see user_namespaces(7).
const nobody = 65534

// check refuses a file, directory or link that somebody else could have
// written.
func (g guard) check(name string, st fs.FileInfo) error {
	if g.off || g.lent(name) {
		return nil
	}
	uid, ok := owner(st)
	if !ok || !slices.Contains(g.owners, uid) {
		if g.user {
			return refuse(fmt.Sprintf("look at it, and if it is right, copy %s so that it is yours", printable(name)),
				"not read, since %s belongs to user %d and neither to root nor to you", printable(name), uid)
		}
		return refuse(fmt.Sprintf("look at it, and if it is right: chown -h root: %s", printable(name)),
			"not read, since %s belongs to user %d and not to root", printable(name), uid)
	}
	if st.Mode()&fs.ModeSymlink != 0 { // its mode says 0777 and means nothing
		return nil
	}
	if perm := st.Mode().Perm(); perm&0o022 != 0 {
		return refuse(fmt.Sprintf("look at it, and if it is right: chmod go-w %s", printable(name)),
			"not read, since mode %04o lets others write %s", perm, printable(name))
	}
	return nil
}

// lent tells a credential, or their directory.
func (g guard) lent(name string) bool {
	if name != g.credentials && !strings.HasPrefix(name, g.credentials+"/") {
		return false
	}
	var fs unix.Statfs_t
	return unix.Statfs(g.credentials, &fs) == nil && fs.Flags&unix.ST_RDONLY != 0
}

func owner(st fs.FileInfo) (uint32, bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return sys.Uid, true
}
