package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/progress"
)

func TestLayOut(t *testing.T) {
	half := &progress.Progress{Done: 30 << 20, Total: 60 << 20, Rate: 2 << 20, LeftSec: 15}
	figures := " 30.0 MiB of 60.0 MiB (50 %), 2.0 MiB/s, 15s left"
	for _, c := range []struct {
		name  string
		p     *progress.Progress
		width int
		want  string
	}{
		{"wide", half, 120, "app: fetching 1.5.0 [===============>              ]" + figures},
		{"a terminal of 80", half, 79, "app: fetching 1.5.0 [====>   ]" + figures},
		{"no room for a bar", half, 76, "app: fetching 1.5.0" + figures},
		{"narrow", half, 30, ("app: fetching 1.5.0" + figures)[:30]},
		{"none", half, 0, ""},
		{"over", &progress.Progress{Done: 1, Total: 1, Rate: 1}, 120, "app: fetching 1.5.0 [==============================] 1 B of 1 B (100 %), 1 B/s, 0s left"},
		{"less than nothing", &progress.Progress{Done: -1000, Total: 10}, 120, "app: fetching 1.5.0 [>                             ] -1000 B of 10 B (0 %), 0 B/s, 0s left"},
		{"of unknown length", &progress.Progress{Done: 1, Total: -1, LeftSec: -1}, 120, "app: fetching 1.5.0 1 B, 0 B/s"},
		{"nothing is known", nil, 120, "app: fetching 1.5.0"},
	} {
		if got := layOut("app: fetching 1.5.0", c.p, c.width); got != c.want {
			t.Errorf("%s: got\n%q, want\n%q", c.name, got, c.want)
		}
	}
}

// TestLineIsNotInTheWay has a terminal see ten lines a second, gone at the end, and
// a pipe none, nor a file.
func TestLineIsNotInTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := &line{w: &out, width: func() int { return 80 }}
		for range 1000 {
			l.show("app: fetching", nil)
			time.Sleep(time.Millisecond)
		}
		if n := strings.Count(out.String(), "\r"); n < 9 || n > 11 {
			t.Errorf("%d lines in a second", n)
		}
		out.Reset()
		l.say("something is wrong")
		l.clear()
		if got := out.String(); got != "\r\x1b[Ksomething is wrong\n" {
			t.Errorf("got %q", got)
		}
	})
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	l := newLine(write)
	l.show("app: fetching", nil)
	l.say("something is wrong")
	l.clear()
	write.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(read); err != nil || got.String() != "something is wrong\n" {
		t.Errorf("a pipe got %q, %v", got.String(), err)
	}
}
