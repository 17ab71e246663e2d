//go:build integration

package lab_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/test/lab"
)

func boot(t *testing.T, suite string) *lab.Machine {
	t.Helper()
	m, err := lab.Boot(t.Context(), suite, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("close machine: %v", err)
		}
	})
	return m
}

// cgroups is what machines of the process pid left where they have names.
func cgroups(t *testing.T, pid int) []string {
	t.Helper()
	out, err := exec.Command("find", "/sys/fs/cgroup", "-maxdepth", "2", "-name", fmt.Sprintf("upgraderd-lab-%d-*", pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

func TestMachine(t *testing.T) {
	for suite, version := range map[string]string{"bookworm": "252", "trixie": "257", "forky": "262"} {
		t.Run(suite, func(t *testing.T) {
			ctx := t.Context()
			began := time.Now()
			m := boot(t, suite)
			t.Logf("booted in %v", time.Since(began))

			out, err := m.Run(ctx, "systemctl", "--version")
			if err != nil || !strings.HasPrefix(out, "systemd "+version) {
				t.Errorf("systemctl --version: got %q, %v, want systemd %s", out, err, version)
			}
			if out, err := m.Run(ctx, "ls", "/sys/class/net"); err != nil || strings.TrimSpace(out) != "lo" {
				t.Errorf("network: got %q, %v, want lo alone", out, err)
			}
			if err := m.WriteFile(ctx, "/srv/a/b", 0o640, []byte("kept")); err != nil {
				t.Fatal(err)
			}
			for name, stop := range map[string]func() error{
				"kill":     m.Kill,
				"poweroff": func() error { return m.Poweroff(ctx) },
			} {
				if err := stop(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if err := m.PowerOn(ctx); err != nil {
					t.Fatalf("power on after %s: %v", name, err)
				}
				if got, err := m.ReadFile(ctx, "/srv/a/b"); err != nil || got != "kept" {
					t.Errorf("file after %s: got %q, %v", name, got, err)
				}
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			if left := cgroups(t, os.Getpid()); len(left) != 0 {
				t.Errorf("cgroups left: %v", left)
			}
		})
	}
}

// A test that is killed takes its machine along.
func TestKilledTestLeavesNothing(t *testing.T) {
	if os.Getenv("LAB_TEST_CHILD") != "" {
		m := boot(t, "trixie")
		if _, err := m.Run(t.Context(), "systemd-run", "--unit=witness", "sleep", "98765"); err != nil {
			t.Fatal(err)
		}
		_ = os.WriteFile(os.Getenv("LAB_TEST_CHILD"), nil, 0o600)
		select {}
	}
	flag := filepath.Join(t.TempDir(), "up")
	child := exec.Command(os.Args[0], "-test.run=^TestKilledTestLeavesNothing$")
	child.Env = append(os.Environ(), "LAB_TEST_CHILD="+flag)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() { _ = child.Process.Kill(); _ = child.Wait() })
	defer end()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(flag); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the child's machine did not come up")
		}
	}
	awaitWitness(t, true)
	end()
	awaitWitness(t, false)
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), "upgraderd-lab") {
		t.Errorf("mounts: %v\n%s", err, mounts)
	}
	if err := boot(t, "trixie").Close(); err != nil { // sweeps the dead one's cgroup
		t.Fatal(err)
	}
	if left := cgroups(t, child.Process.Pid); len(left) != 0 {
		t.Errorf("cgroups left: %v", left)
	}
}

// awaitWitness waits until the machine's process is there, or gone.
func awaitWitness(t *testing.T, want bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); witness(t) != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the machine's process is there: got %v, want %v", !want, want)
		}
	}
}

func witness(t *testing.T) bool {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range lines {
		if line, _ := os.ReadFile(file); strings.HasSuffix(string(line), "sleep\x0098765\x00") {
			return true
		}
	}
	return false
}
