package upgrader

import "time"

// wallClock is the clock that people read. It jumps: an RTC without a battery, NTP,
// a hand. So its dates are for people only, and nothing is decided by them; what
// has to wait or to end does so by the monotonic reading of [time.Now].
type wallClock func() time.Time

// date is now, without the monotonic reading: what was meant to be measured
// shows in a test that has the two clocks differ.
func (now wallClock) date() time.Time { return now().UTC().Round(0) }
