package supervisor

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The shim waits at its gate for as long as it takes, and never runs the
// program of a supervisor that is gone.
func TestShimWaitsAtTheGate(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		open bool
		want string
	}{{"opened late", true, "ran"}, {"never opened", false, "the supervisor was gone"}} {
		t.Run(tt.name, func(t *testing.T) {
			s := &Supervisor{}
			s.opts.Args = []string{"-c", "echo ran $LISTEN_PID $$ $LISTEN_PIDFDID"}
			t.Setenv("LISTEN_PIDFDID", "7")
			out := captureStdout(t, func() {
				w, gate, err := s.spawn(release{program: "/bin/sh"}, 1, "")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond) // the shim is long at the gate
				if tt.open {
					gate.Write([]byte{1})
				}
				gate.Close()
				wait(w.pidfd, w.pid)
				w.pidfd.Close()
			})
			if !strings.Contains(out, tt.want) {
				t.Errorf("got %q, want %q", out, tt.want)
			}
		})
	}
	out, err := exec.Command(exe, ShimVerb).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "supervisor alone") {
		t.Errorf("by hand: %v %s", err, out)
	}
}

// captureStdout gives what processes started by f wrote to descriptors 1
// and 2, which is where workers write.
func captureStdout(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	restore := redirect(t, int(file.Fd()))
	f()
	restore()
	data, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
