package statusline

import (
	"fmt"
	"strings"
	"testing"
)

func TestFormatParse(t *testing.T) {
	for _, tt := range []struct {
		status Status
		text   string
	}{
		{Status{}, "Waiting"},
		{Status{Note: "no release yet in /var/lib/upgraderd/app"}, "Waiting: no release yet in /var/lib/upgraderd/app"},
		{Status{Starting: "1.0-aaaaaaaaaaaa"}, "Waiting; starting 1.0-aaaaaaaaaaaa"},
		{Status{Release: "1.0-aaaaaaaaaaaa", PID: 7, Generation: 1}, "Serving 1.0-aaaaaaaaaaaa (pid 7, generation 1)"},
		{
			Status{Release: "1.0-aaaaaaaaaaaa", PID: 7, Generation: 1, Starting: "2.0-bbbbbbbbbbbb", Draining: 2, Note: "14 sessions: busy; very"},
			"Serving 1.0-aaaaaaaaaaaa (pid 7, generation 1); starting 2.0-bbbbbbbbbbbb; 2 draining: 14 sessions: busy; very",
		},
	} {
		if got := Format(tt.status); got != tt.text {
			t.Errorf("Format(%+v)\n got %q\nwant %q", tt.status, got, tt.text)
		}
		if got, ok := Parse(tt.text); !ok || got != tt.status {
			t.Errorf("Parse(%q)\n got %+v %t\nwant %+v", tt.text, got, ok, tt.status)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", "ready", "Serving", "Serving x", "Serving x (pid a, generation 1)", "Serving x (pid 1, generation 1) and more",
		"Serving x (pid 1, generation 1); dancing", "Waiting; 0 draining", "Waiting; -1 draining", "Serving  (pid 1, generation 1)",
		"Processing requests...", "Serving x (pid 1, generation 1",
	} {
		if s, ok := Parse(text); ok {
			t.Errorf("Parse(%q) = %+v, want it refused", text, s)
		}
	}
}

// A worker writes the note; it must not be able to change the rest.
func FuzzNote(f *testing.F) {
	f.Add("at work", "1.0-aaaaaaaaaaaa")
	f.Add(strings.Repeat("é", 8000), strings.Repeat("x", 4000))
	f.Add("x\nServing 9.9-bbbbbbbbbbbb (pid 1, generation 1)", "/usr/bin/app; x: (y)")
	f.Fuzz(func(t *testing.T, note, release string) {
		want := Status{Release: release, PID: 7, Generation: 3, Draining: 1, Note: note}
		text := Format(want)
		if strings.ContainsAny(text, "\n\x00\x1b") {
			t.Errorf("control characters in %q", text)
		}
		if len(text) > 3<<10 {
			t.Errorf("%d bytes are too many for systemd", len(text))
		}
		got, ok := Parse(text)
		if release == "" {
			return // nothing serves, then
		}
		if !ok || got.PID != 7 || got.Generation != 3 || got.Draining != 1 || got.Starting != "" {
			t.Errorf("Parse(%q) = %+v %t, want what is not note to be as it was", text, got, ok)
		}
	})
}

func ExampleParse() {
	s, ok := Parse("Serving 1.5.0-0123456789ab (pid 812, generation 3); 1 draining: 14 sessions")
	fmt.Println(ok, s.Release, s.Draining, s.Note)
	// Output: true 1.5.0-0123456789ab 1 14 sessions
}
