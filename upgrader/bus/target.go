package bus

import (
	"context"
	"math"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// Structures of properties; the comments are their D-Bus types.
type (
	transfer struct{ Done, Total, Rate, LeftSec int64 } // (xxxx), -1 where it is not known
	ordered  struct{ ID, Verb, Version string }         // (sss)
	answered struct{ ID, Verdict, Reason string }       // (sss)
	knownBad struct {
		Version, Digest, Reason string
		Timestamp               uint64
	} // (ssst)
)

// targetProperties says what there is; properties has the values.
func targetProperties() []property {
	p := func(name string, zero any) property { return property{name: name, zero: zero, emits: "true"} }
	return []property{
		{name: "Name", zero: "", emits: "const"},
		p("Unit", ""), p("Swap", ""), p("State", ""), p("SinceTimestamp", uint64(0)),
		p("Current", ""), p("Next", ""), p("Previous", ""), p("Staged", ""), p("Beside", ""), p("Serving", ""), p("To", ""), p("Fetched", ""),
		p("Progress", transfer{}), p("Trouble", ""),
		p("LastVerdict", ""), p("LastFrom", ""), p("LastTo", ""), p("LastReason", ""), p("LastTimestamp", uint64(0)),
		p("CheckedTimestamp", uint64(0)), p("KnownBad", []knownBad{}), p("Signed", false),
		p("Held", false), p("HoldReason", ""), p("Pin", ""), p("Skips", []string{}),
		p("Order", ordered{}), p("Answer", answered{}), p("Job", dbus.ObjectPath("/")),
	}
}

// properties is called with the lock held.
func (s *Server) properties(t *target) map[string]any {
	st := t.status
	p := map[string]any{
		"Name": st.Name, "Unit": st.Unit, "Swap": string(st.Swap), "State": string(st.State), "SinceTimestamp": usec(st.Since),
		"Current": st.Current, "Next": st.Next, "Previous": st.Previous, "Staged": st.Staged, "Serving": journal.Clean(st.Serving), "To": st.To, "Fetched": st.Fetched,
		"Beside": "", "Progress": transfer{-1, -1, -1, -1}, "Trouble": journal.Clean(st.Trouble),
		"LastVerdict": "", "LastFrom": "", "LastTo": "", "LastReason": "", "LastTimestamp": uint64(0),
		"CheckedTimestamp": usec(st.Checked), "Signed": !st.Unsigned,
		"Order": ordered{}, "Job": dbus.ObjectPath("/"),
		"Answer": answered{st.Answer.ID, string(st.Answer.Verdict), journal.Clean(st.Answer.Reason)},
	}
	if st.Beside != nil {
		p["Beside"] = st.Beside.Release
	}
	if now := st.Progress; now != nil {
		p["Progress"] = transfer{now.Done, now.Total, now.Rate, now.LeftSec}
	}
	if last := st.Last; last != nil {
		p["LastVerdict"], p["LastFrom"], p["LastTo"] = string(last.Verdict), last.From, last.To
		p["LastReason"], p["LastTimestamp"] = journal.Clean(last.Reason), usec(last.When)
	}
	bad := []knownBad{}
	for _, b := range st.KnownBad {
		bad = append(bad, knownBad{journal.Clean(b.Version), b.Digest, journal.Clean(b.Reason), usec(b.When)})
	}
	p["KnownBad"] = bad
	p["Held"], p["HoldReason"], p["Pin"] = st.Hold != nil, "", ""
	if st.Hold != nil {
		p["HoldReason"] = journal.Clean(st.Hold.String())
	}
	if st.Pin != nil {
		p["Pin"] = journal.Clean(st.Pin.Version)
	}
	skips := []string{}
	for _, s := range st.Skips {
		skips = append(skips, journal.Clean(s.Version))
	}
	p["Skips"] = skips
	if j := s.jobOf(st.Name); j != nil {
		p["Job"] = jobPath(j.id)
		p["Order"] = ordered{j.order.ID, string(j.order.Verb), j.order.Version}
	}
	return p
}

// usec is a date as systemd has it: in microseconds since 1970, 0 if there is none.
func usec(t time.Time) uint64 { return uint64(max(t.UnixMicro(), 0)) }

func (l *link) targetFace() face {
	// Each verb names its target by the path that was called.
	on := func(m dbus.Message) (string, *dbus.Error) {
		path, _ := m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
		l.mu.Lock()
		defer l.mu.Unlock()
		if t := l.targetAt(path); t != nil {
			return t.status.Name, nil
		}
		return "", noObject(path)
	}
	place := func(m dbus.Message, verb string, o upgrader.Order) (uint32, dbus.ObjectPath, string, *dbus.Error) {
		name, gone := on(m)
		if gone != nil {
			return 0, "/", "", gone
		}
		j, err := l.order(callerOf(m), name, verb, o)
		if err != nil {
			return 0, "/", "", err
		}
		return j.id, jobPath(j.id), j.order.ID, nil
	}
	// job gives the verb that places an order.
	job := func(verb string, o upgrader.Order) func(dbus.Message, string) (uint32, dbus.ObjectPath, string, *dbus.Error) {
		return func(m dbus.Message, version string) (uint32, dbus.ObjectPath, string, *dbus.Error) {
			o := o
			o.Version = version
			return place(m, verb, o)
		}
	}
	// slow gives a verb that answers when it is done.
	slow := func(m dbus.Message, verb string, do func(name string) *dbus.Error) *dbus.Error {
		name, gone := on(m)
		if gone != nil {
			return gone
		}
		c := callerOf(m)
		leave, full := l.enter(c)
		if full != nil {
			return full
		}
		defer leave()
		if refused := l.permit(c, verb, map[string]string{"target": name}); refused != nil {
			return refused
		}
		return do(name)
	}
	const started = "version id job order"
	wishes := wishMethods(func(m dbus.Message, w wished) *dbus.Error {
		name, gone := on(m)
		if gone != nil {
			return gone
		}
		c := callerOf(m)
		leave, full := l.enter(c)
		if full != nil {
			return full
		}
		defer leave()
		return l.wish(c, name, w)
	})
	return face{targetFace, append(wishes, []method{
		{"Describe", "json", func(m dbus.Message) (string, *dbus.Error) {
			name, gone := on(m)
			if gone != nil {
				return "", gone
			}
			return l.describe(name)
		}},
		{"Check", "version", func(m dbus.Message) (version string, err *dbus.Error) {
			err = slow(m, "check", func(name string) *dbus.Error {
				plan, err := l.foresee(name)
				version = plan.To
				return err
			})
			return version, err
		}},
		{"Plan", "json", func(m dbus.Message) (text string, err *dbus.Error) {
			err = slow(m, "check", func(name string) *dbus.Error {
				plan, err := l.foresee(name)
				if err != nil {
					return err
				}
				text, err = inJSON(plan)
				return err
			})
			return text, err
		}},
		{"Fetch", started, job("fetch", upgrader.Order{Verb: upgrader.OrderFetch})},
		{"Upgrade", started, job("upgrade", upgrader.Order{Verb: upgrader.OrderUpgrade})},
		{"UpgradeBeside", "version t id job order", func(m dbus.Message, version string, seconds uint64) (uint32, dbus.ObjectPath, string, *dbus.Error) {
			if seconds == 0 {
				seconds = uint64(upgrader.BesideDefault / time.Second)
			}
			sec := int64(min(seconds, math.MaxInt64))
			return place(m, "upgrade", upgrader.Order{Verb: upgrader.OrderUpgrade, Version: version, BesideSec: sec})
		}},
		{"Confirm", started, job("confirm", upgrader.Order{Verb: upgrader.OrderConfirm})},
		{"Downgrade", started, job("downgrade", upgrader.Order{Verb: upgrader.OrderUpgrade, AllowDowngrade: true})},
		{"Rollback", started, job("rollback", upgrader.Order{Verb: upgrader.OrderRollback})},
		{"Verify", "damage", func(m dbus.Message) (all []damage, err *dbus.Error) {
			all = []damage{}
			err = slow(m, "verify", func(name string) *dbus.Error {
				for _, d := range upgrader.Intact(l.ctx, l.o.StateDir, name) {
					all = append(all, damage{journal.Clean(d.Path), journal.Clean(d.Err.Error())})
				}
				return nil
			})
			return all, err
		}},
		{"Forgive", "versions", func(m dbus.Message) (versions []string, err *dbus.Error) {
			versions = []string{}
			err = slow(m, "forgive", func(name string) *dbus.Error {
				forgiven, err := upgrader.Forgive(l.o.StateDir, name)
				for _, bad := range forgiven {
					versions = append(versions, journal.Clean(bad.Version))
				}
				if err != nil {
					return failure(err)
				}
				l.daemon.Look(name)
				return nil
			})
			return versions, err
		}},
	}...), nil, targetProperties()}
}

// damage is (ss).
type damage struct{ Path, What string }

// targetAt is called with the lock held.
func (s *Server) targetAt(path dbus.ObjectPath) *target {
	for name, t := range s.targets {
		if targetPath(name) == path {
			return t
		}
	}
	return nil
}

func (l *link) describe(name string) (string, *dbus.Error) {
	l.mu.Lock()
	t := l.targets[name]
	if t == nil {
		l.mu.Unlock()
		return "", noObject(targetPath(name))
	}
	st := t.status
	l.mu.Unlock()
	return inJSON(st)
}

// foreseeTimeout bounds a look at a source; its own limits are tighter.
const foreseeTimeout = 5 * time.Minute

func (l *link) foresee(name string) (upgrader.Plan, *dbus.Error) {
	ctx, cancel := context.WithTimeout(l.ctx, foreseeTimeout)
	defer cancel()
	plan, err := l.daemon.Foresee(ctx, name)
	if err != nil {
		return upgrader.Plan{}, failure(err)
	}
	return plan, nil
}

func noObject(path dbus.ObjectPath) *dbus.Error {
	return refusal(errorUnknownObject, "there is no object %s", path)
}
