package main

import (
	"testing"
	"time"
)

func TestHoldTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 10, 24, 12, 0, 0, 0, berlin) // the day before summer time ends
	for _, row := range []struct {
		span, date string
		want       time.Duration
	}{
		{"", "", 0},
		{"infinity", "", 0},
		{"1h 30min", "", 90 * time.Minute},
		{"", "13:00", time.Hour},
		{"", "13:00:05", time.Hour + 5*time.Second},
		{"", "12:00", 25 * time.Hour}, // it is that now, and tomorrow has an hour more
		{"", "2026-10-25", 12 * time.Hour},
		{"", "2026-10-25 12:00", 25 * time.Hour},
		{"", "2026-10-25 12:00 UTC", 26 * time.Hour},
		{"", "12:00 UTC", 2 * time.Hour},
		{"", "2026-10-24T12:00:00-02:00", 4 * time.Hour},
	} {
		if got, err := holdTime(row.span, row.date, now); err != nil || got != row.want {
			t.Errorf("%q %q: got %v, %v, want %v", row.span, row.date, got, err, row.want)
		}
	}
	for _, row := range [][2]string{
		{"1h", "13:00"}, {"-1h", ""}, {"0", ""}, {"1", "x"}, {"", "2026-10-24"}, {"", "2026-10-24 11:59"}, {"", "25:00"}, {"", "2026-13-01"}, {"", " "}, {"", "UTC"},
	} {
		if got, err := holdTime(row[0], row[1], now); err == nil {
			t.Errorf("%q: got %v, want an error", row, got)
		}
	}
}
