package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

// configure writes what the worker of a release reads when it is told to.
func (m *manager) configure(release, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, "store/releases", release, "config"), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// hasRead is what it read last and took.
func (m *manager) hasRead(release string) string {
	data, _ := os.ReadFile(filepath.Join(m.dir, "store/releases", release, "config.read"))
	return string(data)
}

// A reload without another release to run is a signal to the worker, and waits for
// what comes of it. Another release is handed over to, as ever, and so is the same
// one for who wants a new worker.
func TestReload(t *testing.T) {
	m := newManager(t, "reload=notify=SIGHUP")
	addr := m.socket("web")
	v1 := m.release("1.0", "reloads")
	m.link("current", v1)
	m.startReady()
	_, pid, _ := get(addr)
	same := func() {
		t.Helper()
		if _, now, err := get(addr); now != pid || err != nil {
			t.Errorf("worker %d answers, %v; want %d as before", now, err, pid)
		}
	}
	reload := func(text string) (Reply, error) {
		t.Helper()
		m.configure(v1, text)
		return m.handover()
	}
	if r, err := reload("good"); err != nil || !r.Told || r.Release != v1 || m.hasRead(v1) != "good" {
		t.Errorf("reload: %+v, %v, and it has read %q", r, err, m.hasRead(v1))
	}
	same()
	r, err := reload("bad")
	if want := "says: Reload refused: line 1: bad"; err == nil || !strings.Contains(err.Error(), want) || r.Refused {
		t.Errorf("reload: %+v, %v; want %q", r, err, want)
	}
	m.eventually("the reason in the status", func() bool {
		st, _ := statusline.Parse(m.status())
		return strings.Contains(st.Note, "line 1: bad") && st.Generation == 1
	})
	if _, err := reload("better"); err != nil || m.hasRead(v1) != "better" {
		t.Errorf("reload: %v, and it has read %q", err, m.hasRead(v1))
	}
	m.eventually("a status without the failure", func() bool { return !strings.Contains(m.status(), "bad") })
	same()

	// SIGHUP is the same signal, but this one came to the supervisor.
	m.cmd.Process.Signal(syscall.SIGHUP)
	m.eventually("a new worker", func() bool { return processGone(pid) })
	_, pid, _ = get(addr)

	v2 := m.release("2.0", "reloads")
	m.link("next", v2)
	if r, err := m.handover(); err != nil || r.Told || r.Release != v2 {
		t.Errorf("handover: %+v, %v", r, err)
	}
	if r, err := m.handover(); err != nil || !r.Already || r.Told {
		t.Errorf("handover once more: %+v, %v", r, err)
	}
}

// A worker that does not say how its reload went keeps serving, and the reload
// fails when its time is over. The next may go better.
func TestReloadUnanswered(t *testing.T) {
	m := newManager(t, "reload=notify=HUP", "start=200ms")
	addr := m.socket("web")
	m.link("current", m.release("1.0", "mute"))
	m.startReady()
	_, pid, _ := get(addr)
	if r, err := m.handover(); err == nil || !strings.Contains(err.Error(), "did not say RELOADING=1 with MONOTONIC_USEC within") || r.Refused {
		t.Errorf("reload: %+v, %v", r, err)
	}
	if _, now, err := get(addr); now != pid || err != nil {
		t.Errorf("worker %d answers, %v; want %d as before", now, err, pid)
	}
}

// A worker that the signal ends takes the unit with it, as without a supervisor,
// and who asked hears of it.
func TestReloadEndsTheWorker(t *testing.T) {
	m := newManager(t, "reload=notify=SIGHUP")
	m.socket("web")
	m.link("current", m.release("1.0", ""))
	m.startReady()
	if _, err := m.handover(); err == nil || !strings.Contains(err.Error(), "killed by SIGHUP") {
		t.Errorf("reload: %v, want to hear how the worker ended", err)
	}
	m.exited()
}

// Where nobody answers, a reload is over when the signal is sent.
func TestReloadWithoutAnswer(t *testing.T) {
	m := newManager(t, "reload=USR1")
	addr := m.socket("web")
	m.link("current", m.release("1.0", ""))
	m.startReady()
	_, pid, _ := get(addr)
	if r, err := m.handover(); err != nil || !r.Told {
		t.Errorf("reload: %+v, %v", r, err)
	}
	m.eventually("the worker's reload", func() bool { st, _ := statusline.Parse(m.status()); return st.Note == "reloaded" })
	if _, now, err := get(addr); now != pid || err != nil {
		t.Errorf("worker %d answers, %v; want %d as before", now, err, pid)
	}
}

func TestParseReload(t *testing.T) {
	for in, want := range map[string]Reload{
		"handover":       {},
		"SIGHUP":         {Signal: syscall.SIGHUP},
		"usr1":           {Signal: syscall.SIGUSR1},
		"notify=SIGHUP":  {Signal: syscall.SIGHUP, Notify: true},
		"notify=SIGUSR2": {Signal: syscall.SIGUSR2, Notify: true},
	} {
		if got, err := ParseReload(in); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "notify", "notify=", "SIGNONE", "HUP=notify", "KILL", "notify=SIGSTOP", "notify=handover"} {
		if got, err := ParseReload(in); err == nil || !strings.Contains(err.Error(), "give") {
			t.Errorf("%q: got %+v, %v, want to be told what to give", in, got, err)
		}
	}
}
