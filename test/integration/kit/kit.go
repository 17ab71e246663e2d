// Package kit is what the integration tests share: a machine with upgraderd
// installed the way an operator does it, releases of the example service, and
// load on it. Its functions end the test when something is not as it must be,
// and show the machine's journal then.
package kit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/build"
	"github.com/upgraderd/upgraderd/test/lab"
	"github.com/upgraderd/upgraderd/test/load"
	"github.com/upgraderd/upgraderd/units"
)

// Main is the body of every TestMain: the test binary is also the load.
func Main(m *testing.M) {
	load.Serve()
	code := m.Run()
	if err := built.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// EachSuite runs f on a fresh machine of each selected suite: once the test
// function has returned, and as many side by side as there are processors, since
// most of what tests do is wait.
func EachSuite(t *testing.T, f func(t *testing.T, m *Machine)) {
	t.Helper()
	for _, suite := range lab.SelectedSuites() {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			f(t, Boot(t, suite))
		})
	}
}

// EachSuiteAlone is EachSuite for a test that keeps the machine busy by itself: one
// suite after the other.
func EachSuiteAlone(t *testing.T, f func(t *testing.T, m *Machine)) {
	t.Helper()
	for _, suite := range lab.SelectedSuites() {
		t.Run(suite, func(t *testing.T) { f(t, Boot(t, suite)) })
	}
}

// Machine is a lab machine whose methods end the test on errors.
type Machine struct {
	*lab.Machine
	t *testing.T
}

// Boot boots a machine of the suite with upgraderd installed, not enabled.
func Boot(t *testing.T, suite string) *Machine {
	t.Helper()
	program := Build(t, "./cmd/upgraderd")
	m := Bare(t, suite)
	result, err := units.Install(m.Root(), units.Options{Program: program})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Written) == 0 {
		t.Fatal("nothing was installed")
	}
	m.Run("systemd-sysusers", "upgraderd.conf")
	m.Run("systemd-tmpfiles", "--create", "upgraderd.conf")
	m.Run("journalctl", "--update-catalog")
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "reload", "dbus.service")
	return m
}

// Bare boots a machine of the suite that knows nothing of upgraderd.
func Bare(t *testing.T, suite string) *Machine {
	t.Helper()
	booted, err := lab.Boot(t.Context(), suite, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{Machine: booted, t: t}
	t.Cleanup(m.close)
	return m
}

// In gives the machine to a subtest, which its methods end instead.
func (m *Machine) In(t *testing.T) *Machine { return &Machine{m.Machine, t} }

func (m *Machine) close() {
	if m.t.Failed() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		journal, err := m.Machine.Journal(ctx, "")
		if _, since, ok := strings.Cut(journal, "Startup finished"); ok {
			journal = since
		}
		m.t.Logf("journal of %s (%v):\n%s", m.Suite, err, lastLines(journal, 150))
	}
	if err := m.Close(); err != nil {
		m.t.Errorf("close machine: %v", err)
	}
}

func lastLines(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// Run runs a command as root in the machine; it must succeed. It gives stdout
// without the last line's end.
func (m *Machine) Run(argv ...string) string {
	m.t.Helper()
	out, err := m.Machine.Run(m.t.Context(), argv...)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSuffix(out, "\n")
}

// Fails runs a command as root in the machine; it must not succeed. It gives
// what the command said.
func (m *Machine) Fails(argv ...string) string {
	m.t.Helper()
	out, err := m.Machine.Run(m.t.Context(), argv...)
	if err == nil {
		m.t.Fatalf("%s: got exit status 0, want a failure: %s", strings.Join(argv, " "), out)
	}
	return out + err.Error()
}

// Property is one property of a unit.
func (m *Machine) Property(unit, name string) string {
	m.t.Helper()
	value, err := m.Machine.Property(m.t.Context(), unit, name)
	if err != nil {
		m.t.Fatal(err)
	}
	return value
}

// Journal is the unit's journal so far.
func (m *Machine) Journal(unit string) string {
	m.t.Helper()
	m.Run("journalctl", "--sync")
	text, err := m.Machine.Journal(m.t.Context(), unit)
	if err != nil {
		m.t.Fatal(err)
	}
	return text
}

// Write puts a text file into the machine.
func (m *Machine) Write(path, text string) {
	m.t.Helper()
	if err := m.WriteFile(m.t.Context(), path, 0o644, []byte(text)); err != nil {
		m.t.Fatal(err)
	}
}

// Copy puts a file of the host into the machine, with its mode.
func (m *Machine) Copy(host, path string) {
	m.t.Helper()
	if err := m.Machine.Copy(m.t.Context(), host, path); err != nil {
		m.t.Fatal(err)
	}
}

// Processes are the PIDs in the unit's control group, and how each was called.
// They are read by one command: what is looked for may be there for a second only.
func (m *Machine) Processes(unit string) map[string]string {
	m.t.Helper()
	const script = `group=$(systemctl show --property=ControlGroup --value "$0")
[ -n "$group" ] || exit 0
while read -r pid; do
	printf '%s ' "$pid"
	tr '\0' ' ' <"/proc/$pid/cmdline"
	echo
done <"/sys/fs/cgroup$group/cgroup.procs"`
	list, err := m.Machine.Run(m.t.Context(), "sh", "-c", script, unit)
	if err != nil { // systemd removes an empty group, and processes end
		return nil
	}
	processes := make(map[string]string)
	for line := range strings.Lines(list) {
		if pid, called, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			processes[pid] = called
		}
	}
	return processes
}

// Executable is the inode number of what a process runs, "" where it has nothing to
// run, as for a moment in the middle of execve(2).
func (m *Machine) Executable(pid string) string {
	m.t.Helper()
	return m.Run("sh", "-c", "stat --dereference --format=%i /proc/"+pid+"/exe || :")
}

// Signal sends a signal, by its name without SIG, to a process of the machine.
func (m *Machine) Signal(pid, name string) {
	m.t.Helper()
	m.Run("sh", "-c", "kill -s "+name+" "+pid)
}

// Eventually waits until done says yes. The limit is for what never happens: a
// busy machine may need many seconds for what takes milliseconds on another.
func (m *Machine) Eventually(what string, done func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("still not: %s", what)
		}
	}
}

// Load puts load on a service of the machine. The test ends it with Stop; it
// ends with the test at the latest.
func (m *Machine) Load(o load.Options) *load.Process {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	p, err := load.Start(m.NetCommand(context.Background(), self), o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(sync.OnceFunc(func() { _, _ = p.Stop() }))
	return p
}

// Served waits until the load got count more answers from this version.
func (m *Machine) Served(p *load.Process, version string, count int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 20*time.Second)
	defer cancel()
	if err := p.AwaitVersion(ctx, version, count); err != nil {
		m.t.Fatal(err)
	}
}

// NothingLost ends the load; not one request may have failed.
func (m *Machine) NothingLost(p *load.Process) load.Report {
	m.t.Helper()
	r, err := p.Stop()
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Logf("load: %v", r)
	if r.Failures() != 0 || r.Sent == 0 {
		m.t.Errorf("got %d of %d requests failed, want 0 of many:\n%s", r.Failures(), r.Sent, strings.Join(r.Errors, "\n"))
	}
	return r
}

// Release is a release in the machine's store.
type Release struct {
	Target, Version, Name string
	// Dir is its directory in the machine.
	Dir string
}

// PutRelease puts a release whose one file is bin/<target> into the store,
// complete, as the daemon would: for tests of the supervisor alone.
func (m *Machine) PutRelease(target, version, program string) Release {
	m.t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		m.t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	r := Release{Target: target, Version: version, Name: version + "-" + hex.EncodeToString(sum[:])[:12]}
	r.Dir = "/var/lib/upgraderd/" + target + "/releases/" + r.Name
	if err := m.WriteFile(m.t.Context(), r.Dir+"/bin/"+target, 0o555, data); err != nil {
		m.t.Fatal(err)
	}
	return r
}

// Link points current, next or previous at a release by one rename.
func (m *Machine) Link(which string, r Release) {
	m.t.Helper()
	dir := "/var/lib/upgraderd/" + r.Target
	m.Run("ln", "-sfn", "releases/"+r.Name, dir+"/."+which)
	m.Run("mv", "-T", dir+"/."+which, dir+"/"+which)
}

// Unlink removes a link.
func (m *Machine) Unlink(target, which string) {
	m.t.Helper()
	m.Run("rm", "-f", "/var/lib/upgraderd/"+target+"/"+which)
}

// Script writes a program of shell commands.
func Script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// built holds what was built for this test binary.
var built build.Cache

// Build builds a command of this module with these linker flags, once.
func Build(t *testing.T, pkg string, ldflags ...string) string {
	t.Helper()
	path, err := built.Program(t.Context(), pkg, ldflags...)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Hello builds the example service: this version, with this fault or none.
func Hello(t *testing.T, version, fault string) string {
	t.Helper()
	path, err := built.Hello(t.Context(), version, fault)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
