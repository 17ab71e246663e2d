package upgrader

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

func TestPickSwap(t *testing.T) {
	root := filepath.Join(t.TempDir(), "app")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	link := root + "-link"
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	reload := [][]string{{"/usr/bin/upgraderd", "handover"}}
	supervise := func(args ...string) [][]string {
		return [][]string{append([]string{"/usr/bin/upgraderd", "supervise"}, args...)}
	}
	for _, tt := range []struct {
		name     string
		swap     Swap
		start    [][]string
		reload   [][]string
		want     Swap
		reason   string
		wantCode string
	}{
		{"supervised", SwapAuto, supervise("--root="+root, "--", "bin/app"), reload, SwapHandover, "runs under upgraderd supervise", ""},
		{"two words", SwapAuto, supervise("--root", root, "--", "bin/app"), reload, SwapHandover, "", ""},
		{"slash at the end", SwapAuto, supervise("--root="+root+"/", "--", "bin/app"), reload, SwapHandover, "", ""},
		{"by a link", SwapAuto, supervise("--root="+link, "--", "bin/app"), reload, SwapHandover, "", ""},
		{"zero value is auto", "", supervise("--root="+root, "--", "bin/app"), reload, SwapHandover, "", ""},
		{"other root", SwapAuto, supervise("--root=/elsewhere", "--", "bin/app"), reload, SwapRestart, "--root=/elsewhere", ""},
		{"root of the program", SwapAuto, supervise("--", "bin/app", "--root="+root), reload, SwapRestart, "no --root=", ""},
		{"no reload", SwapAuto, supervise("--root="+root, "--", "bin/app"), nil, SwapRestart, "ExecReload= is missing", ""},
		{"other reload", SwapAuto, supervise("--root="+root, "--", "bin/app"), [][]string{{"/bin/kill", "-HUP", "1"}}, SwapRestart, "does not run upgraderd handover", ""},
		{"not supervised", SwapAuto, [][]string{{"/usr/bin/app"}}, reload, SwapRestart, "does not run upgraderd supervise", ""},
		{"wanted restart", SwapRestart, supervise("--root="+root, "--", "bin/app"), reload, SwapRestart, "Swap=restart", ""},
		{"wanted none", SwapNone, nil, nil, SwapNone, "Swap=none", ""},
		{"wanted handover", SwapHandover, nil, nil, "", "", "UNIT_NO_HANDOVER"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, why, err := pickSwap(&Target{Unit: "app.service", Swap: tt.swap}, systemd.Facts{ExecStart: tt.start, ExecReload: tt.reload}, root)
			if got != tt.want || !strings.Contains(why, tt.reason) || (err != nil) != (tt.wantCode != "") {
				t.Errorf("got %q, %q, %v; want %q, %q", got, why, err, tt.want, tt.reason)
			}
			if err != nil && !strings.Contains(err.Error(), tt.wantCode) {
				t.Errorf("%v lacks %s", err, tt.wantCode)
			}
		})
	}
}

// A unit that was adopted, or edited, while it ran has nobody yet who could hand
// over: it takes one restart.
func TestPickSwapBeforeTheMove(t *testing.T) {
	f := systemd.Facts{
		ExecStart:   [][]string{{"/usr/bin/upgraderd", "supervise", "--root=/x", "--", "bin/app"}},
		ExecReload:  [][]string{{"/usr/bin/upgraderd", "handover"}},
		ActiveState: "active", MainPID: 7,
	}
	for status, want := range map[string]Swap{
		"": SwapRestart, "Ready": SwapRestart,
		"Waiting: no release is installed yet":           SwapHandover,
		"Serving 1.0-0123456789ab (pid 8, generation 1)": SwapHandover,
	} {
		f.StatusText = status
		if got, why, err := pickSwap(&Target{Unit: "app.service"}, f, "/x"); got != want || err != nil {
			t.Errorf("with status %q got %q, %q, %v; want %q", status, got, why, err, want)
		}
	}
	f.StatusText, f.ActiveState, f.MainPID = "", "inactive", 0
	if got, _, err := pickSwap(&Target{Unit: "app.service"}, f, "/x"); got != SwapHandover || err != nil {
		t.Errorf("for one that does not run got %q, %v", got, err)
	}
}

func TestUsable(t *testing.T) {
	for state, want := range map[string]string{
		"loaded": "", "not-found": "UNIT_NOT_FOUND", "masked": "UNIT_MASKED", "bad-setting": "UNIT_BAD", "error": "UNIT_BAD", "stub": "UNIT_BAD",
	} {
		err := usable("app.service", systemd.Facts{LoadState: state})
		if (err == nil) != (want == "") || err != nil && !(strings.Contains(err.Error(), want) && strings.Contains(err.Error(), "app.service")) {
			t.Errorf("%s: got %v, want %q", state, err, want)
		}
	}
}

func TestLimit(t *testing.T) {
	for _, tt := range []struct {
		start, stop time.Duration
		restart     bool
		want        time.Duration
	}{
		{time.Minute, time.Second, false, time.Minute + jobSlack},
		{time.Minute, time.Second, true, time.Minute + time.Second + jobSlack},
		{-1, time.Second, false, jobMax},
		{time.Minute, -1, true, jobMax},
		{time.Minute, -1, false, time.Minute + jobSlack},
		{100 * time.Hour, 0, false, jobMax},
	} {
		if got := limit(systemd.Facts{TimeoutStart: tt.start, TimeoutStop: tt.stop}, tt.restart); got != tt.want {
			t.Errorf("limit(%v, %v, %v) = %v, want %v", tt.start, tt.stop, tt.restart, got, tt.want)
		}
	}
}

func TestSummary(t *testing.T) {
	for want, all := range map[string][]TargetStatus{
		"0 targets":              nil,
		"1 target: 1 up to date": {{State: Idle, Current: "1.0-0123456789ab"}},
		"3 targets: 2 up to date, 1 confirming 1.5.0": {
			{State: Idle, Current: "1.0-0123456789ab"}, {State: Confirming, To: "1.5.0-0123456789ab"}, {State: Idle, Current: "x"},
		},
		"4 targets: 1 in trouble, 1 starting, 1 waiting for the operator with 1.5.0, 1 without a release": {
			{State: Idle, Trouble: "x"}, {State: Recovering}, {State: Held, To: "1.5.0-0123456789ab"}, {State: Idle},
		},
		"1 target: 1 stuck after a failed rollback": {{State: Idle, Last: &Outcome{Verdict: VerdictStuck}}},
	} {
		if got := summary(all); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	unit := &fakeUnit{}
	app := &Target{Name: "app", Unit: "app.service"}
	for name, o := range map[string]Options{
		"relative state": {StateDir: "x", Systemd: unit},
		"no systemd":     {StateDir: "/x"},
		"same name":      {StateDir: "/x", Systemd: unit, Targets: []*Target{app, {Name: "app", Unit: "b.service"}}},
		"same unit":      {StateDir: "/x", Systemd: unit, Targets: []*Target{app, {Name: "b", Unit: "app.service"}}},
		"name is a path": {StateDir: "/x", Systemd: unit, Targets: []*Target{{Name: "../x", Unit: "b.service"}}},
		"name is hidden": {StateDir: "/x", Systemd: unit, Targets: []*Target{{Name: ".x", Unit: "b.service"}}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestStatusOfNothing(t *testing.T) {
	dir := t.TempDir()
	got := ReadStatus(dir, []*Target{{Name: "app", Unit: "app.service", Swap: SwapAuto}})
	if len(got) != 1 || got[0].State != Idle || got[0].Current != "" || got[0].Trouble != "" {
		t.Errorf("got %+v", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("reading the status made %v, %v", entries, err)
	}
}

func TestDamagedRecord(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.running("1.0")
		if err := os.WriteFile(filepath.Join(w.unit.root, "record.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if st := w.status(); st.Current != old || !strings.Contains(st.Trouble, "RECORD_CORRUPT") {
			t.Errorf("got %+v", st)
		}
		w.start()
		name := w.publish("1.1", "")
		w.settles(name, VerdictGood)
		w.saysOnce("RECORD_CORRUPT")
		w.oracle()
	})
}

// A link that somebody broke is mended by the record, or said.
func TestBrokenLinks(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		old := w.running("1.0")
		for _, link := range []string{"current", "next", "staged", "previous"} {
			path := filepath.Join(w.unit.root, link)
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("releases/gone-0123456789ab", path); err != nil {
				t.Fatal(err)
			}
		}
		w.start()
		w.eventually("mended", func(st TargetStatus) bool { return st.Current == old && st.Next == "" && st.Staged == "" })
		name := w.publish("1.1", "")
		w.settles(name, VerdictGood)
		w.oracle()
	})
}
