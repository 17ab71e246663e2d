package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/test/lab"
	"github.com/upgraderd/upgraderd/test/load"
	"github.com/upgraderd/upgraderd/units"
)

const (
	unit    = "live@hello.service"
	address = "127.0.0.1:8080"
	// plainUnit is the control: the same program as people run it without
	// upgraderd, holding its own socket.
	plainUnit    = "plain.service"
	plainAddress = "127.0.0.1:8081"

	store      = "/var/lib/upgraderd/hello"
	insidePath = "/usr/local/bin/upgraderd-bench"
)

// versions are the releases that take turns.
var versions = []string{"1.0.0", "2.0.0"}

// scene is a machine on which live@hello runs, as an operator sets it up.
type scene struct {
	*lab.Machine
	releases []release // by version, in the order of versions
}

// release is one in the machine's store.
type release struct{ Version, Name string }

// program is where the release's program is in the machine.
func (r release) program() string { return store + "/releases/" + r.Name + "/bin/hello" }

// newScene boots one whose releases have this fault, or none. The caller
// closes it.
func newScene(ctx context.Context, b *bench, fault string) (_ *scene, err error) {
	upgraderd, err := b.build(ctx, "./cmd/upgraderd", "")
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m, err := lab.Boot(ctx, b.suite, lab.Options{})
	if err != nil {
		return nil, err
	}
	s := &scene{Machine: m}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if _, err := units.Install(m.Root(), units.Options{Program: upgraderd}); err != nil {
		return nil, err
	}
	if err := m.Copy(ctx, self, insidePath); err != nil {
		return nil, err
	}
	for _, version := range versions {
		if err := s.addRelease(ctx, b, version, fault); err != nil {
			return nil, err
		}
	}
	files := map[string]string{
		"/etc/systemd/system/live@hello.socket.d/address.conf": "[Socket]\nListenStream=" + address + "\n",
		"/etc/systemd/system/" + plainUnit: "[Service]\nType=notify\nDynamicUser=yes\nExecStart=" +
			s.releases[0].program() + " -address=" + plainAddress + "\n",
	}
	for path, text := range files {
		if err := m.WriteFile(ctx, path, 0o644, []byte(text)); err != nil {
			return nil, err
		}
	}
	for _, command := range []string{
		"systemd-sysusers upgraderd.conf",
		"systemd-tmpfiles --create upgraderd.conf",
		"ln -s releases/" + s.releases[0].Name + " " + store + "/current",
		"systemctl daemon-reload",
		"systemctl start live@hello.socket " + unit + " " + plainUnit,
	} {
		if _, err := m.Run(ctx, strings.Fields(command)...); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *scene) addRelease(ctx context.Context, b *bench, version, fault string) error {
	program, err := b.build(ctx, "./examples/hello", "-X main.version="+version+" -X main.fault="+fault)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	r := release{version, version + "-" + hex.EncodeToString(sum[:])[:12]}
	s.releases = append(s.releases, r)
	return s.WriteFile(ctx, r.program(), 0o555, data)
}

// order has the part inside the machine do something, and reads its report.
func (s *scene) order(ctx context.Context, verb string, order, report any) error {
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	out, err := s.Run(ctx, insidePath, insideVerb, verb, string(text))
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), report); err != nil {
		return fmt.Errorf("report of %s: %w", verb, err)
	}
	return nil
}

// load puts clients on a service of the machine.
func (s *scene) load(ctx context.Context, o load.Options) (*load.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := load.Start(s.NetCommand(ctx, self), o)
	if err != nil {
		return nil, err
	}
	// Only what comes after the first second is at the full rate.
	err = p.Await(ctx, func(r load.Report) bool { return r.Sent > o.Rate })
	if err != nil {
		_, stopErr := p.Stop()
		return nil, errors.Join(err, stopErr)
	}
	return p, nil
}

// ended stops the load and reports, unless what was done meanwhile failed: then
// that is the error.
func ended(p *load.Process, err error) (load.Report, error) {
	r, stopErr := p.Stop()
	return r, cmp.Or(err, stopErr)
}

// build builds a command of this module as releases are built.
func (b *bench) build(ctx context.Context, pkg, ldflags string) (string, error) {
	sum := sha256.Sum256([]byte(ldflags))
	path := filepath.Join(b.dir, filepath.Base(pkg)+"-"+hex.EncodeToString(sum[:4]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	_, err := command(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags", "-s -w "+ldflags, "-o", path, pkg)
	return path, err
}

// command runs one of this host in the directory of the module, which is the
// current one, and gives what it printed.
func command(ctx context.Context, env []string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(cmd.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("run %s: %w\n%s%s", strings.Join(argv, " "), err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// machineClass says what a reader needs to compare figures, and no more.
func machineClass() string {
	var u unix.Utsname
	release := "unknown"
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	number, _, _ := strings.Cut(release, "-")
	return fmt.Sprintf("%s/%s, %d CPUs, Linux %s, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), number, runtime.Version())
}
