package activation

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func lookup(env map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) { v, ok := env[k]; return v, ok }
}

func TestParseEnviron(t *testing.T) {
	const pid, pidfd = 42, 9000
	for _, tt := range []struct {
		name    string
		env     string
		want    []string
		wantErr string
	}{
		{name: "not activated", env: ""},
		{name: "no count", env: "LISTEN_PID=42"},
		{name: "none", env: "LISTEN_PID=42 LISTEN_FDS=0 LISTEN_FDNAMES="},
		{name: "names", env: "LISTEN_PID=42 LISTEN_FDS=3 LISTEN_FDNAMES=a:b:a", want: []string{"a", "b", "a"}},
		{name: "no names", env: "LISTEN_PID=42 LISTEN_FDS=2", want: []string{"unknown", "unknown"}},
		{name: "empty name", env: "LISTEN_PID=42 LISTEN_FDS=2 LISTEN_FDNAMES=:", want: []string{"", ""}},
		{name: "other process", env: "LISTEN_PID=43 LISTEN_FDS=1"},
		{name: "other process, rest broken", env: "LISTEN_PID=43 LISTEN_FDS=x"},
		{name: "our pidfd", env: "LISTEN_PID=42 LISTEN_PIDFDID=9000 LISTEN_FDS=1 LISTEN_FDNAMES=a", want: []string{"a"}},
		{name: "other pidfd", env: "LISTEN_PID=42 LISTEN_PIDFDID=9001 LISTEN_FDS=1 LISTEN_FDNAMES=a"},
		{name: "bad process id", env: "LISTEN_PID=me LISTEN_FDS=1", wantErr: "LISTEN_PID"},
		{name: "negative process id", env: "LISTEN_PID=-42 LISTEN_FDS=1", wantErr: "LISTEN_PID"},
		{name: "bad pidfd", env: "LISTEN_PID=42 LISTEN_PIDFDID=x LISTEN_FDS=1", wantErr: "LISTEN_PIDFDID"},
		{name: "bad count", env: "LISTEN_PID=42 LISTEN_FDS=one", wantErr: "LISTEN_FDS"},
		{name: "negative count", env: "LISTEN_PID=42 LISTEN_FDS=-1", wantErr: "LISTEN_FDS"},
		{name: "huge count", env: "LISTEN_PID=42 LISTEN_FDS=2000000000", wantErr: "at most"},
		{name: "overflow", env: "LISTEN_PID=42 LISTEN_FDS=99999999999999999999", wantErr: "LISTEN_FDS"},
		{name: "too few names", env: "LISTEN_PID=42 LISTEN_FDS=2 LISTEN_FDNAMES=a", wantErr: "got 1 names, want 2"},
		{name: "too many names", env: "LISTEN_PID=42 LISTEN_FDS=1 LISTEN_FDNAMES=a:b", wantErr: "got 2 names, want 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := make(map[string]string)
			for _, kv := range strings.Fields(tt.env) {
				k, v, _ := strings.Cut(kv, "=")
				env[k] = v
			}
			got, err := parseEnviron(lookup(env), pid, func() (uint64, bool) { return pidfd, true })
			if (err != nil) != (tt.wantErr != "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Fatalf("got error %v, want %q", err, tt.wantErr)
			}
			if !slices.Equal(got.names, tt.want) {
				t.Errorf("got names %q, want %q", got.names, tt.want)
			}
		})
	}
}

// An unknown pidfd number, as on kernels before 6.9, leaves LISTEN_PID alone to
// decide.
func TestParseEnvironWithoutPidfs(t *testing.T) {
	env := map[string]string{"LISTEN_PID": "42", "LISTEN_PIDFDID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}
	got, err := parseEnviron(lookup(env), 42, func() (uint64, bool) { return 0, false })
	if err != nil || len(got.names) != 1 {
		t.Errorf("got %q, %v, want one descriptor", got.names, err)
	}
}

func FuzzParseEnviron(f *testing.F) {
	f.Add("42", "", "1", "a", true)
	f.Add("42", "7", "2", "a:b", true)
	f.Add("42", "7", "65537", "", false)
	f.Add("-1", "x", "-1", "::::", true)
	f.Add("٤٢", "0x7", "1e3", "a\x00b:\n", true)
	f.Fuzz(func(t *testing.T, pid, pidfd, fds, names string, named bool) {
		env := map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": fds}
		if pidfd != "" {
			env["LISTEN_PIDFDID"] = pidfd
		}
		if named {
			env["LISTEN_FDNAMES"] = names
		}
		got, err := parseEnviron(lookup(env), 42, func() (uint64, bool) { return 7, true })
		if err != nil && len(got.names) != 0 {
			t.Errorf("got %d names beside the error %v", len(got.names), err)
		}
		if len(got.names) > maxFiles {
			t.Errorf("got %d names, want at most %d", len(got.names), maxFiles)
		}
		if len(got.names) > 0 && pid != "42" && strings.TrimLeft(pid, "+0") != "42" {
			t.Errorf("took descriptors meant for %q", pid)
		}
		if named && len(got.names) > 0 && strings.Join(got.names, ":") != names {
			t.Errorf("got names %q of %q", got.names, names)
		}
	})
}

func TestWatchdogLimit(t *testing.T) {
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
		wantErr   bool
	}{
		{"", "", 0, false},
		{"3000000", "", 3 * time.Second, false},
		{"3000000", "42", 3 * time.Second, false},
		{"3000000", "43", 0, false},
		{"3000000", "x", 0, true},
		{"0", "", 0, true},
		{"1", "", 0, true},
		{"-5", "", 0, true},
		{"3s", "", 0, true},
		{"9223372036854775807", "", 0, true},
	} {
		env := make(map[string]string)
		if tt.usec != "" {
			env["WATCHDOG_USEC"] = tt.usec
		}
		if tt.pid != "" {
			env["WATCHDOG_PID"] = tt.pid
		}
		got, err := watchdogLimit(lookup(env), 42)
		if got != tt.want || (err != nil) != tt.wantErr {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: got %s, %v, want %s, error %t", tt.usec, tt.pid, got, err, tt.want, tt.wantErr)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"http":                   true,
		"a b~!":                  true,
		strings.Repeat("x", 255): true,
		strings.Repeat("x", 256): false,
		"":                       false,
		"a:b":                    false,
		"a\nFDSTORE=1":           false,
		"a\x7f":                  false,
		"é":                      false,
	} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("name %q: got %v, want ok %t", name, err, ok)
		}
	}
}
