package progress

import (
	"testing"
	"testing/synctest"
	"time"
)

const mib = 1 << 20

// run notes a transfer of rate bytes a second for so many seconds, ten times each.
func run(m *Meter, done, rate int64, seconds int) int64 {
	for range 10 * seconds {
		time.Sleep(100 * time.Millisecond)
		done += rate / 10
		m.Note(done)
	}
	return done
}

// near tells a rate that is the one wanted, but for what rounding does.
func near(got, want int64) bool { return got >= want*98/100 && got <= want*102/100 }

func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Meter
		if p := m.Progress(10); p.Rate != 0 || p.LeftSec != -1 {
			t.Errorf("before the first byte: %+v", p)
		}
		m.Note(40 * mib) // which were there already
		if p := m.Progress(100 * mib); p.Done != 40*mib || p.Rate != 0 || p.LeftSec != -1 {
			t.Errorf("at the start: %+v", p)
		}
		done := run(&m, 40*mib, mib, 5)
		if p := m.Progress(100 * mib); !near(p.Rate, mib) || p.LeftSec < 54 || p.LeftSec > 57 {
			t.Errorf("after 5 s at 1 MiB/s: %+v", p)
		}
		// Ten times as fast: after the window nothing is left of the past.
		done = run(&m, done, 10*mib, 3)
		if p := m.Progress(200 * mib); p.Rate < 3*mib || p.Rate > 7*mib {
			t.Errorf("3 s after it became faster: %+v", p)
		}
		done = run(&m, done, 2*mib, 11)
		if p := m.Progress(200 * mib); !near(p.Rate, 2*mib) {
			t.Errorf("11 s after it became slower: %+v", p)
		}
		// And silence counts.
		time.Sleep(10 * time.Second)
		if p := m.Progress(200 * mib); p.Rate > mib+mib/10 || p.Done != done {
			t.Errorf("after 10 s of silence: %+v", p)
		}
		time.Sleep(10 * time.Hour)
		if p := m.Progress(200 * mib); p.Rate > mib/1000 || p.LeftSec < 3600 {
			t.Errorf("after hours of silence: %+v", p)
		}
		if p := m.Progress(-1); p.LeftSec != -1 {
			t.Errorf("of unknown length: %+v", p)
		}
		if n := len(m.samples); n > int(window/step)+1 {
			t.Errorf("%d samples are kept", n)
		}
	})
}

func TestString(t *testing.T) {
	for _, c := range []struct {
		p    Progress
		want string
	}{
		{Progress{Done: 12 * mib, Total: 60 * mib, Rate: 2 * mib, LeftSec: 24}, "12.0 MiB of 60.0 MiB (20 %), 2.0 MiB/s, 24s left"},
		{Progress{Done: 12 * mib, Total: -1, Rate: 2 * mib, LeftSec: -1}, "12.0 MiB, 2.0 MiB/s"},
		{Progress{Done: 0, Total: 60 * mib, LeftSec: -1}, "0 B of 60.0 MiB (0 %), 0 B/s"},
		{Progress{Done: 61 * mib, Total: 60 * mib, Rate: 1, LeftSec: 0}, "61.0 MiB of 60.0 MiB (100 %), 1 B/s, 0s left"},
		{Progress{Done: 1, Total: 1 << 40, Rate: 1 << 20, LeftSec: 1 << 20}, "1 B of 1.0 TiB (0 %), 1.0 MiB/s, 291h left"},
		{Progress{Done: 1, Total: 1 << 40, Rate: 1 << 30, LeftSec: 1024}, "1 B of 1.0 TiB (0 %), 1.0 GiB/s, 17min left"},
		{Progress{Done: 1, Total: 1 << 40, Rate: 1 << 30, LeftSec: 90}, "1 B of 1.0 TiB (0 %), 1.0 GiB/s, 1min 30s left"},
		{Progress{Done: 1, Total: 1 << 40, Rate: 1 << 30, LeftSec: 3590}, "1 B of 1.0 TiB (0 %), 1.0 GiB/s, 1h 0min left"},
	} {
		if got := c.p.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
