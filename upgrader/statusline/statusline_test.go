package statusline

import (
	"fmt"
	"strings"
	"testing"
	"time"
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
		{
			Status{Release: "1.0-aaaaaaaaaaaa", PID: 7, Generation: 1, Beside: "2.0-bbbbbbbbbbbb", BesidePID: 9, Draining: 1, Note: "at work"},
			"Serving 1.0-aaaaaaaaaaaa (pid 7, generation 1); beside 2.0-bbbbbbbbbbbb (pid 9); 1 draining: at work",
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

func TestHandover(t *testing.T) {
	for text, want := range map[string]Handover{
		"[ready in 5ms, the old one drains]":                                   {Ready: 5 * time.Millisecond, Connections: Unknown, Cut: Unknown},
		"[ready in 5ms, the old one drains 0 connections]":                     {Ready: 5 * time.Millisecond, Cut: Unknown},
		"[ready in 1m0s, the old one drained in 1.2s]":                         {Ready: time.Minute, Drained: 1200 * time.Millisecond, Connections: Unknown, Cut: Unknown},
		"[ready in 5ms, the old one drained 1 connection in 1.2s]":             {Ready: 5 * time.Millisecond, Drained: 1200 * time.Millisecond, Connections: 1, Cut: Unknown},
		"[ready in 5ms, the old one was killed after 30s]":                     {Ready: 5 * time.Millisecond, Drained: 30 * time.Second, Killed: true, Connections: Unknown, Cut: Unknown},
		"[ready in 1µs, the old one was killed after 30s with 12 connections]": {Ready: time.Microsecond, Drained: 30 * time.Second, Killed: true, Connections: Unknown, Cut: 12},
	} {
		for _, note := range []string{"", "14 sessions: busy", "[x"} {
			s := Status{Release: "1.0-aaaaaaaaaaaa", PID: 7, Generation: 2, Note: note, Handover: &want}
			sentence := Format(s)
			if !strings.HasSuffix(sentence, text) {
				t.Errorf("got %q, want %q at its end", sentence, text)
			}
			if got, ok := Parse(sentence); !ok || got.Note != note || got.Handover == nil || *got.Handover != want {
				t.Errorf("Parse(%q) = %+v, %+v", sentence, got, got.Handover)
			}
		}
	}
	// What a worker says of itself is no handover.
	forged := Format(Status{Release: "x", PID: 7, Generation: 2, Note: "[ready in 5ms, the old one drains]"})
	for _, text := range []string{
		forged,
		"Serving x (pid 7, generation 2): [ready in never, the old one drains]",
		"Serving x (pid 7, generation 2): [ready in -5ms, the old one drains]",
		"Serving x (pid 7, generation 2): [ready in 5ms, the old one drains 99999999999999999999 connections]",
	} {
		if got, ok := Parse(text); !ok || got.Handover != nil {
			t.Errorf("Parse(%q) = %+v", text, got.Handover)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", "ready", "Serving", "Serving x", "Serving x (pid a, generation 1)", "Serving x (pid 1, generation 1) and more",
		"Serving x (pid 1, generation 1); dancing",
		"Serving x (pid 1, generation 1); beside y", "Serving x (pid 1, generation 1); beside y (pid z)", "Serving x (pid 1, generation 1); beside  (pid 2)", "Waiting; 0 draining", "Waiting; -1 draining", "Serving  (pid 1, generation 1)",
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
