package unitlint

import (
	"fmt"
	"time"
)

func startLimit(v *view) []finding {
	u := v.service
	if !u.there() {
		return nil
	}
	s, given := u.last("Unit", "StartLimitIntervalSec", "StartLimitInterval")
	if old, ok := u.last("Service", "StartLimitInterval"); ok && !given {
		s, given = old, ok
	}
	interval := v.defaults.limitInterval
	if d, ok := span(s.value); ok {
		interval = d
	}
	burst := v.defaults.limitBurst
	b, ok := u.last("Unit", "StartLimitBurst")
	if !ok {
		b, ok = u.last("Service", "StartLimitBurst")
	}
	if n, valid := number(b.value); ok && valid {
		burst = n
	}
	if interval == 0 || burst == 0 {
		return nil
	}
	within := told(interval)
	if interval == forever {
		within = "any time"
	}
	s.section = "Unit"
	return []finding{{
		place: s.place,
		message: fmt.Sprintf("after %d starts in %s systemd does not start the service again, and fails its sockets along with it%s",
			burst, within, assumed(given, "StartLimitIntervalSec=")),
		hint: write(u, s, given, "StartLimitIntervalSec=0"),
	}}
}

// assumed tells that it is a default that is wrong.
func assumed(given bool, key string) string {
	if given {
		return ""
	}
	return " (" + key + " is missing)"
}

func restart(v *view) []finding {
	u := v.service
	if !u.there() {
		return nil
	}
	s, given := u.last("Service", "Restart")
	switch s.value {
	case "always", "on-failure", "on-abnormal", "on-abort":
		return nil
	case "":
		s.value = "no"
	}
	return []finding{{
		place:   s.place,
		message: fmt.Sprintf("with Restart=%s a service that crashed is not started again%s", s.value, assumed(given, "Restart=")),
		hint:    write(u, s, given, "Restart=on-failure"),
	}}
}

func restartDelay(v *view) []finding {
	const most = time.Second
	s, given := v.service.last("Service", "RestartSec")
	d := v.defaults.restart
	if got, ok := span(s.value); ok {
		d = got
	}
	if d <= most {
		return nil
	}
	return []finding{{
		place:   s.place,
		message: fmt.Sprintf("a supervisor that died comes back only after %s; if its worker died too, connections wait so long", told(d)),
		hint:    write(v.service, s, given, "RestartSec=100ms"),
	}}
}

func stopTimeout(v *view) []finding {
	if v.supervise.unsure {
		return nil
	}
	s, d := v.service.limit(v.defaults.stop, "TimeoutStopSec", "TimeoutSec")
	if d > v.supervise.drain {
		return nil
	}
	return []finding{{
		place: s.place,
		message: fmt.Sprintf("systemd allows a stop %s, the supervisor lets connections drain for %s: unless its request for more time arrives, it is killed meanwhile",
			told(d), told(v.supervise.drain)),
		hint: write(v.service, s, s.value != "", "TimeoutStopSec="+told(v.supervise.drain+30*time.Second)),
	}}
}

func startTimeout(v *view) []finding {
	if v.supervise.unsure {
		return nil
	}
	s, d := v.service.limit(v.defaults.start, "TimeoutStartSec", "TimeoutSec")
	if d > v.supervise.start {
		return nil
	}
	return []finding{{
		place: s.place,
		message: fmt.Sprintf("systemd allows a start or reload %s, the supervisor gives a worker %s to become ready: systemd may end it first, and the reason is lost",
			told(d), told(v.supervise.start)),
		hint: write(v.service, s, s.value != "", "TimeoutStartSec="+told(v.supervise.start+30*time.Second)),
	}}
}

// told writes a time as people write it in units.
func told(d time.Duration) string {
	switch {
	case d == forever:
		return "infinity"
	case d%time.Second == 0:
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}
