package unitlint

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// queueLeast is the queue of a service that takes two seconds to start, at
// 2,000 connections a second.
const queueLeast = 4096

func noSocket(v *view) []finding {
	u := v.service
	if !u.there() || v.own() || slices.ContainsFunc(v.sockets, func(s *unit) bool { return !s.masked }) {
		return nil
	}
	name := strings.TrimSuffix(u.name, ".service") + ".socket"
	f := finding{
		place:   u.place("Service"),
		message: "no .socket unit holds the service's sockets, so connections are refused while it restarts",
		hint:    "if it listens, write " + v.real(v.unitDir()+"/"+name) + " with ListenStream=, Backlog=4096 and TriggerLimitIntervalSec=0 below [Socket]",
	}
	if s := v.supervise; s != nil {
		if s.listen > 0 || s.unsure {
			return nil
		}
		f.place = s.place
		f.message = "no .socket unit and no --listen holds the service's sockets: two workers cannot both listen at one address without SO_REUSEPORT, and while it restarts connections are refused"
		f.hint += ", or add --listen= to ExecStart="
	}
	return []finding{f}
}

// eachSocket asks a question of every socket that can be judged.
func eachSocket(v *view, ask func(*unit) (finding, bool)) []finding {
	var found []finding
	for _, u := range v.sockets {
		if !u.there() {
			continue
		}
		if f, ok := ask(u); ok {
			found = append(found, f)
		}
	}
	return found
}

// queues tells whether a socket has a queue of connections: a stream or a
// sequential packet socket that systemd does not accept from itself.
func queues(u *unit) bool {
	if _, accepts := u.yes("Socket", "Accept"); accepts {
		return false
	}
	_, stream := u.last("Socket", "ListenStream")
	_, packet := u.last("Socket", "ListenSequentialPacket")
	return stream || packet
}

func backlog(v *view) []finding {
	return eachSocket(v, func(u *unit) (finding, bool) {
		s, given := u.last("Socket", "Backlog")
		n, valid := number(s.value)
		if !queues(u) || !given || !valid || n >= queueLeast {
			return finding{}, false // the default is all that the kernel allows
		}
		return finding{
			place:   s.place,
			message: fmt.Sprintf("only %d connections wait while the service starts; clients beyond that wait for seconds or are refused", n),
			hint:    write(u, s, given, "Backlog=4096"),
		}, true
	})
}

func somaxconn(v *view) []finding {
	if v.somaxconn == 0 {
		return nil
	}
	return eachSocket(v, func(u *unit) (finding, bool) {
		s, given := u.last("Socket", "Backlog")
		want, valid := number(s.value)
		if !given || !valid || want > math.MaxInt32 { // as much as there may be
			want = queueLeast
		}
		if !queues(u) || want <= v.somaxconn {
			return finding{}, false
		}
		return finding{
			place:   s.place,
			message: fmt.Sprintf("the kernel cuts the queue to net.core.somaxconn, which is %d and not %d", v.somaxconn, want),
			hint:    fmt.Sprintf("write net.core.somaxconn=%d in /etc/sysctl.d/upgraderd.conf, run sysctl --system and restart the socket", want),
		}, true
	})
}

func triggerLimit(v *view) []finding {
	return eachSocket(v, func(u *unit) (finding, bool) {
		s, given := u.last("Socket", "TriggerLimitIntervalSec")
		interval := 2 * time.Second
		if d, ok := span(s.value); ok {
			interval = d
		}
		burst := uint64(20)
		_, accepts := u.yes("Socket", "Accept")
		if accepts {
			burst = 200
		}
		if b, ok := u.last("Socket", "TriggerLimitBurst"); ok {
			if n, ok := number(b.value); ok {
				burst = n
			}
		}
		if interval == 0 || burst == 0 {
			return finding{}, false
		}
		return finding{
			place: s.place,
			message: fmt.Sprintf("after %d starts of the service in %s the socket fails, and refuses connections until it is restarted%s",
				burst, told(interval), assumed(given, "TriggerLimitIntervalSec=")),
			hint: write(u, s, given, "TriggerLimitIntervalSec=0"),
		}, true
	})
}

func accept(v *view) []finding {
	return eachSocket(v, func(u *unit) (finding, bool) {
		s, accepts := u.yes("Socket", "Accept")
		return finding{
			place:   s.place,
			message: "with Accept=yes systemd starts an instance for each connection, and none reaches " + v.service.name,
			hint:    write(u, s, true, "Accept=no"),
		}, accepts
	})
}

func flushPending(v *view) []finding {
	return eachSocket(v, func(u *unit) (finding, bool) {
		s, flushes := u.yes("Socket", "FlushPending")
		return finding{
			place: s.place, fatal: v.restarts(),
			message: "with FlushPending=yes systemd throws away the connections that wait whenever the service ends",
			hint:    write(u, s, true, "FlushPending=no"),
		}, flushes
	})
}
