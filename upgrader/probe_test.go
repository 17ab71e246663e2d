package upgrader

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestProbes(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/huge", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	secure := httptest.NewTLSServer(mux)
	defer secure.Close()
	secure.Config.ErrorLog = nil
	address := server.Listener.Addr().String()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := closed.Addr().String()
	closed.Close()

	for _, tt := range []struct {
		name  string
		probe Probe
		want  string // in the error; "" means none
	}{
		{"2xx", Probe{Kind: ProbeHTTP, Address: server.URL + "/ok"}, ""},
		{"redirect", Probe{Kind: ProbeHTTP, Address: server.URL + "/moved"}, "got status 302, want 2xx"},
		{"5xx", Probe{Kind: ProbeHTTP, Address: server.URL + "/broken"}, "got status 502, want 2xx"},
		{"slow", Probe{Kind: ProbeHTTP, Address: server.URL + "/slow"}, "deadline exceeded"},
		{"huge body is not read to its end", Probe{Kind: ProbeHTTP, Address: server.URL + "/huge"}, ""},
		{"unknown certificate", Probe{Kind: ProbeHTTP, Address: secure.URL + "/ok"}, "certificate"},
		{"http refused", Probe{Kind: ProbeHTTP, Address: "http://" + refused}, "connection refused"},
		{"bad URL", Probe{Kind: ProbeHTTP, Address: "http://\x00"}, "invalid"},
		{"tcp", Probe{Kind: ProbeTCP, Address: address}, ""},
		{"tcp refused", Probe{Kind: ProbeTCP, Address: refused}, "connection refused"},
		{"unix", Probe{Kind: ProbeUnix, Address: socket}, ""},
		{"unix missing", Probe{Kind: ProbeUnix, Address: socket + "x"}, "no such file"},
		{"command", Probe{Kind: ProbeExec, Command: []string{"/bin/true"}}, ""},
		{"command fails", Probe{Kind: ProbeExec, Command: []string{"/bin/sh", "-c", "echo why; exit 2"}}, "exit status 2: why"},
		{"command hangs", Probe{Kind: ProbeExec, Command: []string{"/bin/sh", "-c", "sleep 1000"}}, "deadline exceeded"},
		{"command missing", Probe{Kind: ProbeExec, Command: []string{"/nonexistent"}}, "no such file"},
		{"no command", Probe{Kind: ProbeExec}, "empty"},
		{"unknown kind", Probe{Kind: "icmp"}, "unknown"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limit := time.Minute // for what must have its answer, on a machine however busy
			if strings.Contains(tt.want, "deadline") {
				limit = 500 * time.Millisecond
			}
			err := probeAll(t.Context(), []Probe{{Kind: ProbeTCP, Address: address}, tt.probe}, limit)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// What a probe command leaves running must not gather in the daemon.
func TestProbeCommandLeavesNoProcess(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	p := Probe{Kind: ProbeExec, Command: []string{"/bin/sh", "-c", `sleep 1000 >/dev/null 2>&1 & echo $! > "$0"`, pidFile}}
	if err := probeAll(t.Context(), []Probe{p}, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(text))
	for range 200 {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %s is left", pid)
}

func TestStreak(t *testing.T) {
	bad := errors.New("x")
	s := streak{most: 3}
	if s.good() {
		t.Error("good before the first answer")
	}
	for i, step := range []struct {
		err          error
		enough, good bool
	}{
		{bad, false, false}, {bad, false, false}, {nil, false, true}, {bad, false, false}, {bad, false, false}, {bad, true, false},
	} {
		if enough := s.add(step.err) != ""; enough != step.enough || s.good() != step.good {
			t.Errorf("step %d: enough %v, good %v; want %v, %v", i, enough, s.good(), step.enough, step.good)
		}
	}
}

func TestProbeRoundsEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		probeRounds(ctx, Confirm{Probes: []Probe{{Kind: ProbeExec, Command: []string{"/bin/true"}}}, ProbeInterval: time.Millisecond}, make(chan error))
	}()
	time.Sleep(20 * time.Millisecond) // a result is ready, and nobody takes it
	cancel()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("probes go on")
	}
}
