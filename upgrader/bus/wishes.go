package bus

import (
	"fmt"
	"math"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// wished is a change of what an operator forbids, as somebody asks for it.
type wished struct {
	verb, version, reason string
	change                func(*wish.Wishes, wish.Mark) error
	pin                   bool // change pins
}

// wisher carries a change out on the target that was called, where polkit lets the
// caller, and signs it with who that is.
type wisher func(dbus.Message, wished) *dbus.Error

// wishMethods are the verbs that forbid, and those that take it back. Both are one
// action of polkit's.
func wishMethods(do wisher) []method {
	return []method{
		{"Hold", "seconds reason", func(m dbus.Message, seconds uint64, reason string) *dbus.Error {
			if seconds > uint64(math.MaxInt64/time.Second) {
				return refusal(errorInvalidArgs, "%d seconds are too many; with 0 it is held until that is taken back", seconds)
			}
			return do(m, wished{verb: "hold", reason: reason, change: func(all *wish.Wishes, by wish.Mark) error {
				h, err := wish.NewHold(time.Duration(seconds)*time.Second, by)
				all.Hold = &h
				return err
			}})
		}},
		{"Unhold", "", func(m dbus.Message) *dbus.Error {
			return do(m, wished{verb: "hold", change: func(all *wish.Wishes, _ wish.Mark) error {
				all.Hold = nil
				return nil
			}})
		}},
		{"Pin", "version reason", func(m dbus.Message, version, reason string) *dbus.Error {
			return do(m, wished{verb: "pin", version: version, reason: reason, pin: true, change: func(all *wish.Wishes, by wish.Mark) error {
				all.Pin = &wish.Pin{Version: version, Mark: by}
				return nil
			}})
		}},
		{"Unpin", "", func(m dbus.Message) *dbus.Error {
			return do(m, wished{verb: "pin", change: func(all *wish.Wishes, _ wish.Mark) error {
				all.Pin = nil
				return nil
			}})
		}},
		{"Skip", "version reason", func(m dbus.Message, version, reason string) *dbus.Error {
			return do(m, wished{verb: "skip", version: version, reason: reason, change: func(all *wish.Wishes, by wish.Mark) error {
				return all.Skip(version, by)
			}})
		}},
		{"Unskip", "version", func(m dbus.Message, version string) *dbus.Error {
			return do(m, wished{verb: "skip", version: version, change: func(all *wish.Wishes, _ wish.Mark) error {
				v, err := fetcher.ParseVersion(version)
				all.Skips = slices.DeleteFunc(all.Skips, func(s wish.Skip) bool { return fetcher.Version(s.Version).Compare(v) == 0 })
				return err
			}})
		}},
	}
}

// wishTextMax bounds what a caller may give, before anything is done with it; what a
// wish may hold is less, and told.
const wishTextMax = 4096

// wish is a [wisher] for the target of this name. Who pins what leads back needs the
// right to downgrade, too: a pin moves the target as a downgrade does.
func (l *link) wish(c caller, name string, w wished) *dbus.Error {
	if len(w.version) > wishTextMax || len(w.reason) > wishTextMax {
		return refusal(errorInvalidArgs, "more than %d bytes of version or reason", wishTextMax)
	}
	uid, refused := l.uid(c)
	if refused != nil {
		return refused
	}
	by := wish.Mark{By: userName(uid), Reason: w.reason, When: time.Now().UTC().Truncate(time.Second)}
	// Tried on none first: polkit is not asked about what cannot be.
	if err := wish.Try(func(all *wish.Wishes) error { return w.change(all, by) }); err != nil {
		return refuse(errorInvalidArgs, err)
	}
	details := map[string]string{"target": name, "version": w.version}
	if refused := l.permit(c, w.verb, details); refused != nil {
		return refused
	}
	back := l.leadsBack(name, w)
	if back {
		if refused := l.permit(c, "downgrade", details); refused != nil {
			return refuse(refused.Name, fmt.Errorf("to pin %s to %s is a downgrade: %w", name, w.version, understood(*refused)))
		}
	}
	if err := upgrader.ChangeWishes(l.o.StateDir, name, func(all *wish.Wishes) error {
		// It took time to ask, and the target may have moved on meanwhile.
		if !back && l.leadsBack(name, w) {
			return advice.Give(fmt.Errorf("%s moved on meanwhile, and a pin to %s leads it back now", name, w.version), "ask again")
		}
		return w.change(all, by)
	}); err != nil {
		return failure(err)
	}
	l.daemon.Look(name)
	return nil
}

func (l *link) leadsBack(name string, w wished) bool {
	return w.pin && upgrader.LeadsBack(l.o.StateDir, name, wish.Pin{Version: w.version})
}

// userName is whom a wish is signed with.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return fmt.Sprint("user ", id)
}
