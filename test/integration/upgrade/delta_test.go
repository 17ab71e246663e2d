//go:build integration

package upgrade

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/klauspost/compress/zstd"

	"github.com/upgraderd/upgraderd/fetcher/publish"
	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// site is a directory of a host that is published to, and copied to the machine.
type site struct {
	t   *testing.T
	m   *kit.Machine
	o   publish.Options
	key string
}

func newSite(t *testing.T, m *kit.Machine) *site {
	t.Helper()
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, m: m, key: public.String()}
	s.o = publish.Options{
		Dir: t.TempDir(), Artifacts: []string{filepath.Join(t.TempDir(), "hello.zst")}, Deltas: publish.DeltasAuto,
		Signers: []publish.Signer{publish.Minisign{Key: private}}, Keys: []string{s.key},
	}
	m.Run("mkdir", "-p", dir)
	return s
}

// publish adds hello of a version, compressed, with its patches, and gives the names
// and sizes of what is new. Each file passes through harm.
func (s *site) publish(version string, harm func(name string, data []byte) []byte) map[string]int {
	s.t.Helper()
	program, err := os.ReadFile(kit.Hello(s.t, version, ""))
	if err != nil {
		s.t.Fatal(err)
	}
	w, err := zstd.NewWriter(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Close()
	if err := os.WriteFile(s.o.Artifacts[0], w.EncodeAll(program, nil), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.o.Version = version
	r, err := publish.Add(s.t.Context(), s.o)
	if err != nil {
		s.t.Fatal(err)
	}
	sizes := map[string]int{}
	for _, name := range append(r.Added, "SHA256SUMS.minisig", "SHA256SUMS") { // the list last, as everywhere
		data, err := os.ReadFile(filepath.Join(s.o.Dir, name))
		if err != nil {
			s.t.Fatal(err)
		}
		sizes[name] = len(data)
		if err := s.m.WriteFile(s.t.Context(), filepath.Join(dir, name), 0o644, harm(name, data)); err != nil {
			s.t.Fatal(err)
		}
	}
	return sizes
}

// fetched is what the journal says of the bytes of a version.
func fetched(t *testing.T, m *kit.Machine, version string) int {
	t.Helper()
	for line := range strings.Lines(m.Run("journalctl", "-u", "upgraderd", "-o", "json")) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if text, _ := entry["MESSAGE"].(string); strings.HasPrefix(text, "hello: fetched "+version+",") {
			n, err := strconv.Atoi(fmt.Sprint(entry["UPGRADERD_BYTES"]))
			if err != nil {
				t.Fatalf("%v: %v", entry, err)
			}
			return n
		}
	}
	t.Fatalf("the journal does not tell of %s:\n%s", version, m.Journal("upgraderd"))
	return 0
}

// TestDelta upgrades by a patch, and where the patch is damaged without.
func TestDelta(t *testing.T) {
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		s := newSite(t, m)
		asIs := func(_ string, data []byte) []byte { return data }
		m.Write("/etc/upgraderd/hello.upgrade", fmt.Sprintf(
			"[Upgrade]\nUnit=%s\n[Source]\nPath=%s\nMatchPattern=hello_@v.zst\nKey=%s\nPollIntervalSec=1s\n[Confirm]\nWindowSec=1s\n", unit, dir, s.key))
		m.Write("/etc/systemd/system/live@hello.socket.d/address.conf", "[Socket]\nListenStream="+address+"\n")
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "enable", "--now", "live@hello.socket", "upgraderd.service")
		sizes := s.publish("1.0.0", asIs)
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		if got, want := fetched(t, m, "1.0.0"), sizes["hello_1.0.0.zst"]; got != want {
			t.Errorf("1.0.0 took %d bytes, want the file's %d", got, want)
		}

		sizes = s.publish("2.0.0", asIs)
		m.Served(clients, "2.0.0", 100)
		patch := sizes["hello_2.0.0.zst.deltas"] + sizes["hello_2.0.0.zst.from-1.0.0.bsdiff"]
		if got := fetched(t, m, "2.0.0"); got != patch || patch > sizes["hello_2.0.0.zst"]/2 {
			t.Errorf("2.0.0 took %d bytes, want the patch's %d; the file has %d", got, patch, sizes["hello_2.0.0.zst"])
		}
		if text := m.Journal("upgraderd"); !strings.Contains(text, "signature and digest hold; made by a patch of what was here") {
			t.Errorf("the journal does not tell of a patch:\n%s", text)
		}
		m.Run("upgraderd", "verify")

		sizes = s.publish("3.0.0", func(name string, data []byte) []byte {
			if strings.HasSuffix(name, ".bsdiff") {
				data = append([]byte("damaged"), data[7:]...)
			}
			return data
		})
		m.Served(clients, "3.0.0", 100)
		if got, want := fetched(t, m, "3.0.0"), sizes["hello_3.0.0.zst"]; got < want {
			t.Errorf("3.0.0 took %d bytes, want no less than the file's %d", got, want)
		}
		if text := m.Journal("upgraderd"); strings.Count(text, "patches are of no use, fetching the whole file") != 1 {
			t.Errorf("the journal does not tell once of a damaged patch:\n%s", text)
		}
		m.NothingLost(clients)
	})
}
