package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

func TestWrap(t *testing.T) {
	tests := []struct {
		name, text string
		width      int
		want       string
	}{
		{"short", "one two", 20, "one two"},
		{"to the brim", "one two three", 7, "one two|three"},
		{"a word too long", "see http://127.0.0.1:8080/healthz now", 10, "see|http://127.0.0.1:8080/healthz|now"},
		{"characters, not bytes", "äöü äöü", 7, "äöü äöü"},
		{"line ends and blanks", " one\n\n two ", 20, "one two"},
		{"nothing", "", 20, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(wrap(tt.text, tt.width), "|"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What is not a terminal gets no escapes and lines of the default width.
func TestNoTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s := newScreen(w)
	if s.colour || s.width != widthDefault {
		t.Errorf("got colour %v and width %d, want no colour and %d", s.colour, s.width, widthDefault)
	}
	if got := s.paint(red, "text"); got != "text" {
		t.Errorf("got %q, want it plain", got)
	}
}

// Colour changes no column, and no line is wider than the screen.
func TestScreen(t *testing.T) {
	long := strings.Repeat("words ", 40)
	show := func(colour bool) string {
		var out bytes.Buffer
		s := &screen{out: &out, width: 80, colour: colour, began: time.Unix(0, 0)}
		s.said(time.Unix(12, 0), "upgraderd", long, red)
		s.output("a  table\n" + long + "\n")
		s.table([]string{"A", "TITLE", ""}, [][]cell{{{"längste", plain}, {"x", bold}, {"ok", green}}, {{"1", plain}, judged(2, 3), {"WRONG", red}}})
		return out.String()
	}
	painted, text := show(true), show(false)
	if !strings.Contains(painted, "\x1b[31m") {
		t.Error("nothing is red")
	}
	for _, code := range []style{bold, dim, red, green} {
		painted = strings.ReplaceAll(painted, "\x1b["+string(code)+"m", "")
	}
	painted = strings.ReplaceAll(painted, "\x1b[0m", "")
	if squeeze(painted) != squeeze(text) {
		t.Errorf("with colour:\n%s\nwithout:\n%s", painted, text)
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	const table = "  A        TITLE\n" +
		"  längste  x          ok\n" +
		"  1        2, want 3  WRONG\n"
	if !strings.Contains(text, table) {
		t.Errorf("got\n%s\nwant in it\n%s", text, table)
	}
	if !strings.Contains(text, "  12.00s  upgraderd   words") || !strings.Contains(text, "\n  a  table\n") {
		t.Errorf("got\n%s", text)
	}
}

// squeeze drops blanks at the ends of lines, which nobody sees.
func squeeze(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func TestEntry(t *testing.T) {
	tests := []struct{ name, raw, want string }{
		{"text", `"hello"`, "hello"},
		{"bytes", `[104,255,105]`, "h?i"},
		{"several", `["one","two"]`, "one"},
		{"too long", `null`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e entry
			if err := json.Unmarshal([]byte(`{"MESSAGE":`+tt.raw+`}`), &e); err != nil {
				t.Fatal(err)
			}
			if string(e.Message) != tt.want {
				t.Errorf("got %q, want %q", e.Message, tt.want)
			}
		})
	}
}

// Of what is said twice, the supervisor's sentence is shown, and the helper's
// is not.
func TestFollowerDropsRepetition(t *testing.T) {
	const said = `{"_SYSTEMD_UNIT":"a.service","_TRANSPORT":"journal","MESSAGE":"hello: 2.0 never served: it crashed"}
{"_SYSTEMD_UNIT":"a.service","_TRANSPORT":"stdout","MESSAGE":"upgraderd: handover: 2.0 never served: it crashed"}
{"_SYSTEMD_UNIT":"b.service","_TRANSPORT":"stdout","MESSAGE":"upgraderd: handover: 2.0 never served: it crashed"}
{"_SYSTEMD_UNIT":"a.service","_TRANSPORT":"stdout","MESSAGE":"built to crash"}
{"_SYSTEMD_UNIT":"a.service","_TRANSPORT":"journal","MESSAGE":"hello: 2.0 never served: it crashed"}
`
	var shown []string
	f := &follower{changed: make(chan struct{}), ended: make(chan struct{})}
	if err := f.read(strings.NewReader(said), func(e entry) { shown = append(shown, e.unit()+" "+string(e.Message[:5])) }); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(shown, "|"), "a hello|b upgra|a built|a hello"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if f.length() != 5 {
		t.Errorf("got %d entries, want 5", f.length())
	}
	if err := f.await(t.Context(), 3, func(e entry) bool { return e.Transport == "journal" }); err != nil {
		t.Error(err)
	}
	close(f.ended)
	if err := f.await(t.Context(), 5, func(entry) bool { return true }); err == nil {
		t.Error("got no error for an entry that never came")
	}
}

func TestVerdict(t *testing.T) {
	id := func(e journal.Event) text { return text(e.Describe().ID) }
	tests := []struct {
		name string
		e    entry
		want bool
	}{
		{"good", entry{ID: id(journal.ReleaseConfirmed), From: "1.0", To: "2.0"}, true},
		{"refused", entry{ID: id(journal.ReleaseRefused), From: "1.0", To: "2.0"}, true},
		{"another is good", entry{ID: id(journal.ReleaseConfirmed), From: "2.0", To: "3.0"}, false},
		{"rolled back", entry{ID: id(journal.RolledBack), From: "2.0", To: "1.0"}, true},
		{"rolled back to it", entry{ID: id(journal.RolledBack), From: "3.0", To: "2.0"}, false},
		{"no source", entry{ID: id(journal.SourceFailed)}, true},
		{"serves, and is watched", entry{ID: id(journal.ReleaseServes), From: "1.0", To: "2.0"}, false},
		{"no event", entry{Message: "2.0 is good"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := isVerdict("2.0")(tt.e); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	refused := &upgrader.Outcome{Verdict: upgrader.VerdictRefused, To: "2.0", Reason: "it crashed"}
	tests := []struct {
		name               string
		st                 upgrader.TargetStatus
		verdict, wantedWhy string
	}{
		{"its end", upgrader.TargetStatus{Last: refused}, "refused", "it crashed"},
		{"another's end", upgrader.TargetStatus{Last: &upgrader.Outcome{Verdict: upgrader.VerdictGood, To: "1.0"}}, "none", ""},
		{"no attempt", upgrader.TargetStatus{Trouble: "not signed [SIG_BAD]; sign it"}, "SIG_BAD", "not signed [SIG_BAD]; sign it"},
		{"trouble after its end", upgrader.TargetStatus{Last: refused, Trouble: "[FETCH_STALLED]"}, "refused", "it crashed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			verdict, why := judge(tt.st, "2.0")
			if verdict != tt.verdict || why != tt.wantedWhy {
				t.Errorf("got %q and %q, want %q and %q", verdict, why, tt.verdict, tt.wantedWhy)
			}
		})
	}
}

// A table with one wrong row ends in errWrong, and says which.
func TestWrongRows(t *testing.T) {
	right := outcome{step: step{version: "2.0", verdict: "refused", bad: true, serves: "1.0"}, got: "refused", gotBad: true, gotServe: "1.0"}
	for name, spoil := range map[string]func(*outcome){
		"verdict":       func(o *outcome) { o.got = "good" },
		"not known bad": func(o *outcome) { o.gotBad = false },
		"version":       func(o *outcome) { o.gotServe = "2.0" },
	} {
		t.Run(name, func(t *testing.T) {
			o := right
			spoil(&o)
			if !right.ok() || o.ok() {
				t.Errorf("got %v for the right one and %v for the wrong one", right.ok(), o.ok())
			}
			var out bytes.Buffer
			s := &screen{out: &out, width: 100}
			if err := s.verdicts(facts{outcomes: []outcome{right}, sent: 1, before: "7", after: "7"}); err != nil {
				t.Errorf("the right one: %v\n%s", err, &out)
			}
			if err := s.verdicts(facts{outcomes: []outcome{o}, sent: 1, before: "7", after: "7"}); !errors.Is(err, errWrong) {
				t.Errorf("the wrong one: got %v\n%s", err, &out)
			}
		})
	}
	for name, f := range map[string]facts{
		"a request failed": {outcomes: []outcome{right}, sent: 9, failed: 1, before: "7", after: "7"},
		"nothing was sent": {outcomes: []outcome{right}, before: "7", after: "7"},
		"another main PID": {outcomes: []outcome{right}, sent: 9, before: "7", after: "8"},
		"no main PID":      {outcomes: []outcome{right}, sent: 9, before: "0", after: "0"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := (&screen{out: &out, width: 100}).verdicts(f); !errors.Is(err, errWrong) {
				t.Errorf("got %v\n%s", err, &out)
			}
		})
	}
}
