//go:build integration

package upgrade

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/publish"
)

// TestSigners follows a publisher from OpenPGP to SSH, then to both, where both
// must have signed, with keys from a credential. Whatever is not signed as it
// should be is refused, and serves as soon as it is.
func TestSigners(t *testing.T) {
	const drop = "/etc/upgraderd/hello.upgrade.d/keys.conf"
	kit.EachSuite(t, func(t *testing.T, m *kit.Machine) {
		d := newSigners(t)
		m.Write("/etc/keys/releases.gpg", string(d.run("gpg", "--export")))
		m.Write("/etc/systemd/system/upgraderd.service.d/keys.conf", "[Service]\nLoadCredential=releases.gpg:/etc/keys/releases.gpg\n")
		openPGP, ssh := "Key=%d/releases.gpg\n", "Key=\""+strings.TrimSpace(string(d.read("key.pub")))+"\"\n"

		source := m.DirSource(dir)
		m.Write(drop, "[Source]\nKey=\n"+openPGP)
		follow(t, m, source, dir, "")
		// publish signs with some of the tools, and damages some of the signatures.
		publish := func(version string, sign []string, damage ...string) {
			t.Helper()
			program, err := os.ReadFile(kit.Hello(t, version, ""))
			if err != nil {
				t.Fatal(err)
			}
			source.Add("hello-"+version, program)
			source.Put("hello-"+version, program)
			d.manifest(source.Manifest())
			for file, signature := range map[string][]byte{"gpg": d.gpg(), "sshsig": d.ssh()} {
				if !strings.Contains(strings.Join(sign, " "), file) {
					continue
				}
				if strings.Contains(strings.Join(damage, " "), file) {
					signature = bytes.Replace(signature, signature[len(signature)/2:len(signature)/2+1], []byte{signature[len(signature)/2] ^ 1}, 1)
				}
				source.Put("SHA256SUMS."+file, signature)
			}
			source.Put("SHA256SUMS", source.Manifest())
		}
		refused := func(version, code string) {
			t.Helper()
			m.Eventually(version+" is refused with "+code, func() bool {
				return strings.Contains(fmt.Sprint(target(t, m)), code)
			})
			if got := current(m); strings.HasPrefix(got, version) {
				t.Errorf("current is %s", got)
			}
		}
		publish("1.0.0", []string{"gpg"})
		clients := m.Load(traffic)
		m.Served(clients, "1.0.0", 100)
		pid := m.Property(unit, "MainPID")
		t.Log(m.Run("upgraderd", "verify"))

		for _, step := range []struct {
			version string
			keys    string
			bad     string // signature that is damaged at first
			all     []string
			code    string
		}{
			{"2.0.0", openPGP, "gpg", []string{"gpg"}, "SIG_"},
			{"3.0.0", ssh, "sshsig", []string{"sshsig"}, "SIG_"},
			{"4.0.0", openPGP + ssh + "Threshold=2\n", "sshsig", []string{"gpg", "sshsig"}, "SIG_THRESHOLD"},
			{"5.0.0", openPGP + ssh + "Threshold=2\n", "gpg", []string{"gpg", "sshsig"}, "SIG_THRESHOLD"},
		} {
			publish(step.version, step.all, step.bad)
			m.Write(drop, "[Source]\nKey=\n"+step.keys)
			m.Run("systemctl", "reload", "upgraderd.service")
			refused(step.version, step.code)
			publish(step.version, step.all)
			m.Served(clients, step.version, 100)
			confirmed(t, m, step.version)
		}
		m.NothingLost(clients)
		if got := m.Property(unit, "MainPID"); got != pid {
			t.Errorf("MainPID: got %s, want %s as before", got, pid)
		}
	})
}

// signers are a publisher's tools, outside of the machine.
type signers struct {
	t   *testing.T
	dir string // a short name: it holds the socket of gpg-agent
}

func newSigners(t *testing.T) *signers {
	t.Helper()
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &signers{t, dir}
	t.Cleanup(func() { d.run("gpgconf", "--kill", "all") })
	d.run("gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key", "releases@example.org", "ed25519", "sign", "never")
	d.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
	return d
}

func (d *signers) run(command string, args ...string) []byte {
	d.t.Helper()
	cmd := exec.Command(command, args...)
	cmd.Dir, cmd.Env = d.dir, append(os.Environ(), "HOME="+d.dir, "GNUPGHOME="+d.dir)
	out, err := cmd.Output()
	if err != nil {
		d.t.Fatalf("%s %q: %v", command, args, err)
	}
	return out
}

func (d *signers) read(name string) []byte {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		d.t.Fatal(err)
	}
	return data
}

func (d *signers) manifest(text []byte) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, publish.ManifestName), text, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *signers) gpg() []byte {
	d.t.Helper()
	return d.run("gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--output", "-", "--detach-sign", publish.ManifestName)
}

func (d *signers) ssh() []byte {
	d.t.Helper()
	os.Remove(filepath.Join(d.dir, publish.ManifestName+".sig"))
	d.run("ssh-keygen", "-q", "-Y", "sign", "-n", "upgraderd", "-f", "key", publish.ManifestName)
	return d.read(publish.ManifestName + ".sig")
}
