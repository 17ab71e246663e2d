package activation

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Watchdog tells the manager that the service is alive (WATCHDOG=1), at once
// and then twice in every WatchdogSec=, for as long as healthy returns nil. It
// returns nil when ctx ends, and at once where no watchdog watches this process
// (WATCHDOG_USEC unset, or WATCHDOG_PID of another).
//
// healthy is called in this goroutine. When it returns an error or hangs, no
// ping is sent, and unless it recovers in time the manager ends the service
// and starts it again: it should touch what must not hang, such as the main
// loop, and nothing that a restart would not mend. A nil healthy only proves
// that goroutines are scheduled.
//
// A ping that cannot be sent is tried again at the next turn.
func Watchdog(ctx context.Context, healthy func() error) error {
	limit, err := WatchdogInterval()
	if err != nil || limit == 0 {
		return err
	}
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for {
		if healthy == nil || healthy() == nil {
			err = Notify("WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// WatchdogInterval is WatchdogSec= of this service: the time within which the
// manager wants WATCHDOG=1, as sd_watchdog_enabled(3) tells it. It is 0 where
// no watchdog watches this process.
func WatchdogInterval() (time.Duration, error) {
	return watchdogLimit(os.LookupEnv, os.Getpid())
}

// watchdogLimit is the time within which the manager wants a ping, 0 for never.
func watchdogLimit(lookup func(string) (string, bool), pid int) (time.Duration, error) {
	v, ok := lookup("WATCHDOG_USEC")
	if !ok {
		return 0, nil
	}
	usec, err := strconv.ParseInt(v, 10, 64)
	if err != nil || usec < 2 || usec > int64(maxWatchdog/time.Microsecond) {
		return 0, fmt.Errorf("read WATCHDOG_USEC: %q is not a time in microseconds", v)
	}
	if v, ok := lookup("WATCHDOG_PID"); ok {
		want, err := strconv.ParseInt(v, 10, 32)
		if err != nil || want <= 0 {
			return 0, fmt.Errorf("read WATCHDOG_PID: %q is not a process id", v)
		}
		if int(want) != pid {
			return 0, nil
		}
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// maxWatchdog keeps the conversion to time.Duration from overflowing.
const maxWatchdog = 100 * 365 * 24 * time.Hour
