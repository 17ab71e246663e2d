package client

import (
	"net/http"
	"strconv"
	"time"
)

// usedUp tells that a server that counts requests lets in no more, and how long
// that lasts. There is no standard for it yet: GitHub says X-RateLimit-Remaining
// and GitLab RateLimit-Remaining, and the time of the reset is seconds since
// 1970, or from now as in the drafts of the IETF.
func usedUp(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	for _, prefix := range []string{"X-RateLimit-", "RateLimit-"} {
		if h.Get(prefix+"Remaining") != "0" {
			continue
		}
		reset, err := strconv.ParseInt(h.Get(prefix+"Reset"), 10, 64)
		switch {
		case err != nil || reset < 0:
			return 0, true
		case reset > year2001:
			// A second more: the clocks are read in whole ones.
			wait = time.Unix(min(reset, year9999)+1, 0).Sub(now)
		default:
			wait = time.Duration(reset) * time.Second
		}
		return min(max(wait, 0), retryAfterMax), true
	}
	return 0, false
}

const (
	year2001 = 1_000_000_000
	year9999 = 253_402_300_799
)
