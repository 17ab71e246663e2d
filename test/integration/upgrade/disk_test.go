//go:build integration

package upgrade

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// The store's file system fills up or runs out of inodes while a release is on its
// way: one clear error, the service goes on, and once there is room again the
// release arrives, without anybody's help.
func TestDiskTrouble(t *testing.T) {
	const state = "/var/lib/upgraderd"
	troubles := []struct{ name, begin, end, code string }{
		{"full as it unpacks", "fallocate -l $(($(df --output=avail -B1 " + state + " | tail -1) - 100000000)) " + state + "/filler", "rm " + state + "/filler", "FS_NOSPACE"},
		{"full", "fallocate -l $(($(df --output=avail -B1 " + state + " | tail -1) - 2000000)) " + state + "/filler", "rm " + state + "/filler", "FS_NOSPACE"},
		{"no inodes", "mkdir " + state + "/many; cd " + state + "/many; seq $(($(df --output=iavail " + state + " | tail -1) - 3)) | xargs touch", "rm -r " + state + "/many", "FS_NOINODES"},
	}
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		m.Run("mount", "-t", "tmpfs", "-o", "size=256m,nr_inodes=1000,mode=0755", "state", state)
		m.Run("chown", "upgraderd:", state)
		source, clients := proved(t, m)
		configure(m, unit, source, dir, "WindowSec=1s\n[Source]\nMatchPattern=\nMatchPattern=hello-@v.tar.gz hello-@v\n")
		m.Run("systemctl", "reload", "upgraderd")
		for i, c := range troubles {
			version := fmt.Sprintf("2.%d.0", i)
			ok := t.Run(c.name, func(t *testing.T) {
				m := m.In(t)
				daemon := m.Property("upgraderd.service", "MainPID")
				m.Run("sh", "-c", c.begin)
				if i == 0 {
					source.PublishBytes("hello-"+version+".tar.gz", swelling(t, kit.Hello(t, version, ""), 100<<20))
				} else {
					source.Publish("hello-"+version, kit.Hello(t, version, ""))
				}
				m.Eventually("the status says why", func() bool { return strings.Contains(fmt.Sprint(target(t, m)["trouble"]), c.code) })
				if got := current(m); strings.HasPrefix(got, version) {
					t.Errorf("current is %s", got)
				}
				m.Run("sh", "-c", c.end)
				m.Eventually(version+" arrives", func() bool { return strings.HasPrefix(current(m), version+"-") })
				confirmed(t, m, version)
				if n := strings.Count(m.Journal("upgraderd.service"), c.code); n > 3 {
					t.Errorf("the journal has %s %d times, which is no news any more", c.code, n)
				}
				if got := m.Property("upgraderd.service", "MainPID"); got != daemon {
					t.Errorf("the daemon is process %s, want %s as before", got, daemon)
				}
			})
			if !ok {
				t.FailNow()
			}
		}
		m.NothingLost(clients)
	})
}

// swelling is an archive of a program and of a file that needs far more room than the
// archive, which is small enough for the disk to be believed to hold it.
func swelling(t *testing.T, program string, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 1<<10)
	random := rand.NewChaCha8([32]byte{})
	add := func(name string, size int64, from io.Reader) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: size}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, from, size); err != nil {
			t.Fatal(err)
		}
	}
	add("bin/hello", int64(len(data)), bytes.NewReader(data))
	add("share/large", size, readerFunc(func(p []byte) (int, error) {
		if _, err := random.Read(line[:64]); err != nil { // not so monotonous that it is taken for a bomb
			return 0, err
		}
		return copy(p, line), nil
	}))
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The file system of the store becomes read-only for the daemon, and can be written
// to again: when a release is on its way, and when one is on trial. The service
// goes on, the journal says why nothing else does (nowhere could more be noted),
// and it all goes on afterwards, without anybody's help.
func TestReadOnlyDisk(t *testing.T) {
	const (
		state = "/var/lib/upgraderd"
		// A mount over the one on which the daemon has its lock open, which
		// keeps that from being remounted.
		inDaemon   = "nsenter --mount --target=$(systemctl show --value --property=MainPID upgraderd.service) "
		readOnly   = inDaemon + "sh -c 'mount --bind " + state + " " + state + " && mount -o remount,bind,ro " + state + "'"
		notAnyMore = inDaemon + "umount " + state
	)
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		source, clients := proved(t, m)
		daemon := m.Property("upgraderd.service", "MainPID")
		told := func() int { return strings.Count(m.Journal("upgraderd.service"), "FS_READONLY") }

		m.Run("sh", "-c", readOnly)
		source.Publish("hello-2.0.0", kit.Hello(t, "2.0.0", ""))
		m.Eventually("the journal says why", func() bool { return told() > 0 })
		if got := current(m); !strings.HasPrefix(got, "1.0.0-") {
			t.Errorf("current is %s, want 1.0.0", got)
		}
		m.Run("sh", "-c", notAnyMore)
		confirmed(t, m, "2.0.0")

		follow(t, m, source, dir, "WindowSec=5s\n")
		m.Run("systemctl", "reload", "upgraderd.service")
		source.Publish("hello-3.0.0", kit.Hello(t, "3.0.0", ""))
		m.Eventually("3.0.0 is on trial", func() bool { return target(t, m)["state"] == "confirming" })
		before := told()
		m.Run("sh", "-c", readOnly)
		m.Eventually("the journal says why", func() bool { return told() > before })
		m.Served(clients, "3.0.0", 100)
		if now := target(t, m); now["state"] != "confirming" {
			t.Errorf("the state on disk is %v, which could not be written", now["state"])
		}
		m.Run("sh", "-c", notAnyMore)
		confirmed(t, m, "3.0.0")

		if n := told(); n > 6 {
			t.Errorf("the journal has FS_READONLY %d times, which is no news any more", n)
		}
		if got := m.Property("upgraderd.service", "MainPID"); got != daemon {
			t.Errorf("the daemon is process %s, want %s as before", got, daemon)
		}
		m.NothingLost(clients)
	})
}
