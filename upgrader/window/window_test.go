package window

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, good := range []string{"02:00-04:00", "Mon..Fri 02:00-04:00", "Sat,Sun 22:30-4:00 UTC", "monday,Wed..thu 00:00-24:00", "Fri..Mon 1:00-2:00"} {
		if _, err := Parse(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "UTC", "Mon", "Mon 02:00", "02:00", "02:00-02:00", "24:00-02:00", "25:00-02:00", "2-4", "02:60-04:00", "02:0-04:00", "+2:00-04:00", "Mon,,Tue 02:00-04:00",
		"Mon..  02:00-04:00", "Foo 02:00-04:00", "Mon Tue 02:00-04:00", "02:00-04:00 CET", "02:00-04:00-06:00", "-"} {
		if w, err := Parse(bad); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, w)
		}
	}
}

func TestClosed(t *testing.T) {
	at := func(s string) time.Time {
		d, err := time.Parse("2006-01-02 15:04", s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	// 2026-11-27 is a Friday.
	for _, row := range []struct {
		windows []string
		at      string
		next    string // "": open
	}{
		{nil, "2026-11-27 12:00", ""},
		{[]string{"02:00-04:00 UTC"}, "2026-11-27 02:00", ""},
		{[]string{"02:00-04:00 UTC"}, "2026-11-27 03:59", ""},
		{[]string{"02:00-04:00 UTC"}, "2026-11-27 04:00", "2026-11-28 02:00"},
		{[]string{"02:00-04:00 UTC"}, "2026-11-27 01:59", "2026-11-27 02:00"},
		{[]string{"Mon..Thu 02:00-04:00 UTC"}, "2026-11-27 03:00", "2026-11-30 02:00"},
		{[]string{"Mon..Thu 02:00-04:00 UTC", "Sun 10:00-11:00 UTC"}, "2026-11-27 03:00", "2026-11-29 10:00"},
		{[]string{"Thu 22:00-04:00 UTC"}, "2026-11-27 03:00", ""},
		{[]string{"Fri 22:00-04:00 UTC"}, "2026-11-27 03:00", "2026-11-27 22:00"},
		{[]string{"Sat..Mon 22:00-04:00 UTC"}, "2026-12-01 03:59", ""},
		{[]string{"Fri 22:00-24:00 UTC"}, "2026-11-28 00:00", "2026-12-04 22:00"},
		{[]string{"00:00-24:00 UTC"}, "2026-11-28 23:59", ""},
	} {
		var all []Window
		for _, s := range row.windows {
			w, err := Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, w)
		}
		next, closed := Closed(all, at(row.at))
		if closed != (row.next != "") || closed && !next.Equal(at(row.next)) {
			t.Errorf("%q at %s: closed %v, next %v, want %q", row.windows, row.at, closed, next, row.next)
		}
	}
	if _, closed := Closed([]Window{{From: 1, To: 2}}, at("2026-11-27 12:00")); !closed {
		t.Error("a window of no day is open")
	}
}

// A host's own time zone counts, also on the day on which it changes.
func TestLocal(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	before := time.Local
	time.Local = berlin
	t.Cleanup(func() { time.Local = before })
	w, err := Parse("Sun 04:00-05:00")
	if err != nil {
		t.Fatal(err)
	}
	saturday := time.Date(2026, 10, 24, 12, 0, 0, 0, berlin)
	next, closed := Closed([]Window{w}, saturday.UTC())
	if !closed || next.Sub(saturday) != 17*time.Hour || !w.Open(next) {
		t.Errorf("opens at %v", next)
	}
}
