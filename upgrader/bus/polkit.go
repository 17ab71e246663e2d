package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upgraderd/upgraderd/upgrader/advice"
)

const (
	polkitName = "org.freedesktop.PolicyKit1"
	polkitPath = dbus.ObjectPath("/org/freedesktop/PolicyKit1/Authority")
	polkitFace = "org.freedesktop.PolicyKit1.Authority"

	// polkitTimeout is shorter than the 25 s that clients wait by default, so that
	// they hear why.
	polkitTimeout = 20 * time.Second
	// askTimeout is for a person who has to find a password.
	askTimeout = 2 * time.Minute

	flagInteraction = uint32(1)
)

// caller is who called, by the bus's word.
type caller struct {
	sender      string // unique name
	interactive bool   // may be asked for a password
}

func callerOf(m dbus.Message) caller {
	sender, _ := m.Headers[dbus.FieldSender].Value().(string)
	return caller{sender, m.Flags&dbus.FlagAllowInteractiveAuthorization != 0}
}

// uid asks the bus whose connection that is.
func (l *link) uid(c caller) (uint32, *dbus.Error) {
	ctx, cancel := context.WithTimeout(l.ctx, greetTimeout)
	defer cancel()
	var uid uint32
	if err := l.conn.BusObject().CallWithContext(ctx, busFace+".GetConnectionUnixUser", 0, c.sender).Store(&uid); err != nil {
		return 0, refusal(errorAccessDenied, "nobody can tell who asks: %v", err)
	}
	return uid, nil
}

// subject, details and result are polkit's.
type subject struct {
	Kind    string
	Details map[string]dbus.Variant
}

type result struct {
	Authorized, Challenge bool
	Details               map[string]string
}

// permit asks polkit whether c may do verb, with details that were checked before, or
// knows by itself on the bus of a user.
// Any doubt is a no.
func (l *link) permit(c caller, verb string, details map[string]string) *dbus.Error {
	uid, refused := l.uid(c)
	if refused != nil {
		return refused
	}
	switch {
	case uid == 0:
	case l.o.Own && uid == uint32(os.Geteuid()):
	case l.o.Own:
		return refusal(errorAccessDenied, "this upgraderd obeys user %d, and you are user %d", os.Geteuid(), uid)
	default:
		if refused := l.ask(c, Name+"."+verb, details); refused != nil {
			if untold, tell := l.gate.tells(uid); tell {
				l.o.Log.Info("refused", slog.String("verb", verb), slog.Any("details", details), slog.Uint64("uid", uint64(uid)), slog.String("error", refused.Error()), slog.Int("untold", untold))
			}
			return refused
		}
	}
	l.o.Log.Info("asked over the bus", slog.String("verb", verb), slog.Any("details", details), slog.Uint64("uid", uint64(uid)))
	return nil
}

func (l *link) ask(c caller, action string, details map[string]string) *dbus.Error {
	limit, flags := polkitTimeout, uint32(0)
	if c.interactive {
		limit, flags = askTimeout, flagInteraction
	}
	ctx, cancel := context.WithTimeout(l.ctx, limit)
	defer cancel()
	id := rand.Text()
	authority := l.conn.Object(polkitName, polkitPath)
	var r result
	err := authority.CallWithContext(ctx, polkitFace+".CheckAuthorization", 0,
		subject{"system-bus-name", map[string]dbus.Variant{"name": dbus.MakeVariant(c.sender)}}, action, details, flags, id).Store(&r)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		// Who was asked for a password is not to give it in vain.
		authority.Go(polkitFace+".CancelCheckAuthorization", dbus.FlagNoReplyExpected, nil, id)
		return refuse(errorAccessDenied, advice.Give(fmt.Errorf("polkit did not answer within %v whether %s is allowed", limit, action), "see: systemctl status polkit"))
	case err != nil:
		return refuse(errorAccessDenied, advice.Give(fmt.Errorf("polkit cannot be asked whether %s is allowed: %w", action, err), "see: systemctl status polkit"))
	case r.Authorized:
		return nil
	case r.Challenge && !c.interactive:
		return refusal(errorInteractive, "%s needs a password, and the caller cannot be asked for one", action)
	}
	return refuse(errorAccessDenied, advice.Give(fmt.Errorf("polkit does not allow %s", action), "do it as root, or have a rule in /etc/polkit-1/rules.d allow it"))
}
