package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/progress"
	"github.com/upgraderd/upgraderd/upgrader/wish"
)

// verbTimeout bounds a verb: somebody may have to find a password, and the daemon has
// a limit of its own for that.
const verbTimeout = askTimeout + 30*time.Second

// ErrNoDaemon tells that nobody has the daemon's name.
var ErrNoDaemon = advice.Give(errors.New("upgraderd.service is not on the bus"), "start it: systemctl start upgraderd.service")

// Client talks to the daemon. It is for one goroutine.
type Client struct {
	// Interactive lets polkit ask somebody for a password, and wait for it.
	Interactive bool

	conn    *dbus.Conn
	signals chan *dbus.Signal
	owner   string // the unique name of the daemon, "" while it is away
}

// Dial connects to the bus at an address, by default the system's. It needs no daemon
// yet.
func Dial(ctx context.Context, at string) (*Client, error) {
	at = address(at)
	c := &Client{signals: make(chan *dbus.Signal, 64)}
	var err error
	// In their order, however slow we are.
	c.conn, err = dbus.Dial(at, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, advice.Give(fmt.Errorf("connect to the bus at %s: %w", at, err), "see: systemctl status dbus")
	}
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	c.conn.Signal(c.signals)
	err = greet(ctx, c.conn)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = c.watch(ctx)
	}
	if err != nil {
		_ = c.conn.Close()
		return nil, fmt.Errorf("connect to the bus at %s: %w", at, err)
	}
	return c, nil
}

// watch has the daemon's signals sent, and those of its coming and going.
func (c *Client) watch(ctx context.Context) error {
	for _, rule := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(Name), dbus.WithMatchPathNamespace(basePath)},
		{dbus.WithMatchSender(busFace), dbus.WithMatchInterface(busFace), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, Name)},
	} {
		if err := c.conn.AddMatchSignalContext(ctx, rule...); err != nil {
			return err
		}
	}
	// Anybody may send a signal to us alone, which no rule of ours keeps away.
	err := c.conn.BusObject().CallWithContext(ctx, busFace+".GetNameOwner", 0, Name).Store(&c.owner)
	if called(err) == "org.freedesktop.DBus.Error.NameHasNoOwner" {
		return nil
	}
	return err
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// call calls a method of the daemon's and waits for the answer. It never starts the
// daemon.
func (c *Client) call(ctx context.Context, path dbus.ObjectPath, face, member string, args []any, into ...any) error {
	ctx, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	flags := dbus.FlagNoAutoStart
	if c.Interactive {
		flags |= dbus.FlagAllowInteractiveAuthorization
	}
	m := &dbus.Message{
		Type: dbus.TypeMethodCall, Flags: flags,
		Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath: dbus.MakeVariant(path), dbus.FieldDestination: dbus.MakeVariant(Name),
			dbus.FieldInterface: dbus.MakeVariant(face), dbus.FieldMember: dbus.MakeVariant(member),
		},
		Body: args,
	}
	if len(args) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(args...))
	}
	call := c.conn.SendWithContext(ctx, m, make(chan *dbus.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		return fmt.Errorf("the daemon did not answer: %w", ctx.Err())
	}
	call.Err = understood(call.Err)
	switch name := called(call.Err); name {
	case "":
	case errorServiceUnknown, "org.freedesktop.DBus.Error.NameHasNoOwner":
		return ErrNoDaemon
	case errorNoReply:
		return fmt.Errorf("it went away before it answered: %w", ErrNoDaemon)
	case errorInteractive:
		return advice.Give(call.Err, "do it as root, or where a password can be asked for")
	}
	if call.Err != nil {
		return call.Err
	}
	return call.Store(into...)
}

// target looks a target up by its name.
func (c *Client) target(ctx context.Context, name string) (path dbus.ObjectPath, err error) {
	err = c.call(ctx, basePath, managerFace, "GetTarget", []any{name}, &path)
	return path, err
}

// Follows is an error unless the daemon follows a target of this name.
func (c *Client) Follows(ctx context.Context, name string) error {
	_, err := c.target(ctx, name)
	return err
}

// Job is one that this client began.
type Job struct {
	ID     uint32
	Path   dbus.ObjectPath
	Order  upgrader.Order
	owner  dbus.ObjectPath // the target's
	daemon string          // the unique name of the one that was asked
}

// Order has the daemon carry out what o says. It returns when the order is on disk.
func (c *Client) Order(ctx context.Context, target string, o upgrader.Order) (Job, error) {
	members := map[upgrader.OrderVerb]string{upgrader.OrderFetch: "Fetch", upgrader.OrderUpgrade: "Upgrade", upgrader.OrderConfirm: "Confirm", upgrader.OrderRollback: "Rollback"}
	member := members[o.Verb]
	if o.DespiteHold {
		return Job{}, advice.Give(errors.New("only root's order goes despite a hold"), "end it before: upgraderd unhold %s", target)
	}
	if o.AllowDowngrade {
		member = "Downgrade"
	}
	args := []any{o.Version}
	if o.BesideSec > 0 {
		if o.AllowDowngrade {
			return Job{}, errors.New("only root may have a downgrade serve beside; leave out --beside, or --allow-downgrade")
		}
		member, args = "UpgradeBeside", append(args, uint64(o.BesideSec))
	}
	j := Job{Order: o}
	var err error
	if j.owner, err = c.target(ctx, target); err != nil {
		return j, err
	}
	if err := c.conn.BusObject().CallWithContext(ctx, busFace+".GetNameOwner", 0, Name).Store(&j.daemon); err != nil {
		return j, fmt.Errorf("%w: %w", ErrNoDaemon, err)
	}
	err = c.call(ctx, j.owner, targetFace, member, args, &j.ID, &j.Path, &j.Order.ID)
	return j, err
}

// Forgive lets the known bad releases of a target be tried again, and returns their
// versions.
func (c *Client) Forgive(ctx context.Context, target string) (versions []string, err error) {
	path, err := c.target(ctx, target)
	if err == nil {
		err = c.call(ctx, path, targetFace, "Forgive", nil, &versions)
	}
	return versions, err
}

// Wish has the daemon make after of before, which are what an operator forbids of a
// target. It asks for each change by itself, and for none where there is none; of
// several, those before one that is refused stay.
func (c *Client) Wish(ctx context.Context, target string, before, after wish.Wishes) error {
	path, err := c.target(ctx, target)
	do := func(member string, args ...any) {
		if err == nil {
			err = c.call(ctx, path, targetFace, member, args)
		}
	}
	switch h := after.Hold; {
	case h == nil && before.Hold != nil:
		do("Unhold")
	case h != nil && (before.Hold == nil || before.Hold.ID != h.ID):
		do("Hold", uint64(h.ForSec), h.Reason)
	}
	switch p := after.Pin; {
	case p == nil && before.Pin != nil:
		do("Unpin")
	case p != nil && (before.Pin == nil || *before.Pin != *p):
		do("Pin", p.Version, p.Reason)
	}
	for _, s := range before.Skips {
		if _, still := after.Skipped(fetcher.Version(s.Version)); !still {
			do("Unskip", s.Version)
		}
	}
	for _, s := range after.Skips {
		if !slices.Contains(before.Skips, s) {
			do("Skip", s.Version, s.Reason)
		}
	}
	return err
}

// View is what a client was told of a target.
type View struct {
	Name, State, To, Trouble string
	Swap                     upgrader.Swap
	Progress                 *progress.Progress
	Order                    string // the ID of what is carried out or waits
	Answer                   upgrader.Answer
}

// Await waits for the end of a job, and shows what goes on meanwhile. It outlives a
// daemon that is restarted, since the order does.
func (c *Client) Await(ctx context.Context, j Job, show func(View)) (upgrader.Answer, error) {
	values := map[string]dbus.Variant{}
	away, fresh := false, false
	// A daemon that is away, or does not know its targets yet, tells of them when it is
	// there.
	refresh := func() error {
		err := c.call(ctx, j.owner, propsFace, "GetAll", []any{targetFace}, &values)
		if errors.Is(err, ErrNoDaemon) || called(err) == errorUnknownObject {
			fresh = false
			return nil
		}
		fresh = err == nil
		return err
	}
	if err := refresh(); err != nil {
		return upgrader.Answer{}, err
	}
	for {
		v := view(values)
		switch {
		case v.Answer.ID == j.Order.ID:
			return v.Answer, nil
		case away && fresh && v.Order != j.Order.ID && v.State != string(upgrader.Recovering):
			return upgrader.Answer{}, advice.Give(fmt.Errorf("%s: the daemon came back without the order", v.Name), "see upgraderd status %s", v.Name)
		}
		show(v)
		s, err := c.next(ctx)
		if err != nil {
			return upgrader.Answer{}, err
		}
		switch s.Name {
		case propsFace + ".PropertiesChanged":
			if changed, ok := body[map[string]dbus.Variant](s, 1); ok && s.Path == j.owner {
				for name, value := range changed {
					values[name] = value
				}
			}
		case managerFace + ".JobRemoved":
			id, _ := body[uint32](s, 0)
			result, _ := body[string](s, 3)
			if id != j.ID || s.Sender != j.daemon {
				break
			}
			switch Result(result) {
			case ResultReplaced:
				return upgrader.Answer{}, advice.Give(fmt.Errorf("%s: another order took the place of this one", v.Name), "see upgraderd status %s", v.Name)
			case ResultDropped:
				return upgrader.Answer{}, advice.Give(fmt.Errorf("%s is not followed any more", v.Name), "see upgraderd verify %s", v.Name)
			}
			verdict, _ := body[string](s, 4)
			reason, _ := body[string](s, 5)
			return upgrader.Answer{ID: j.Order.ID, Verdict: upgrader.Verdict(verdict), Reason: reason}, nil
		case managerFace + ".TargetNew":
			if path, _ := body[dbus.ObjectPath](s, 1); path == j.owner {
				if err := refresh(); err != nil {
					return upgrader.Answer{}, err
				}
			}
		case busFace + ".NameOwnerChanged":
			if owner, _ := body[string](s, 2); owner != "" && owner != j.daemon {
				away = true
				if err := refresh(); err != nil {
					return upgrader.Answer{}, err
				}
			}
		}
	}
}

// next is the next signal of the daemon's, or of its coming and going.
func (c *Client) next(ctx context.Context) (*dbus.Signal, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case s, ok := <-c.signals:
			if !ok {
				return nil, advice.Give(errors.New("the connection to the bus ended"), "see: systemctl status dbus")
			}
			switch name, _ := body[string](s, 0); {
			case s.Sender == busFace && s.Name == busFace+".NameOwnerChanged" && name == Name:
				c.owner, _ = body[string](s, 2)
				return s, nil
			case s.Sender == c.owner && c.owner != "":
				return s, nil
			}
		}
	}
}

// body is an argument of a signal.
func body[T any](s *dbus.Signal, i int) (T, bool) {
	var none T
	if i >= len(s.Body) {
		return none, false
	}
	v, ok := s.Body[i].(T)
	return v, ok
}

// view reads the properties of a target. What is missing is "".
func view(values map[string]dbus.Variant) View {
	text := func(name string) string {
		s, _ := values[name].Value().(string)
		return s
	}
	v := View{Name: text("Name"), State: text("State"), To: text("To"), Trouble: text("Trouble"), Swap: upgrader.Swap(text("Swap"))}
	var now transfer
	if store(values["Progress"], &now) && now.Done >= 0 {
		v.Progress = &progress.Progress{Done: now.Done, Total: now.Total, Rate: now.Rate, LeftSec: now.LeftSec}
	}
	var o ordered
	if store(values["Order"], &o) {
		v.Order = o.ID
	}
	var a answered
	if store(values["Answer"], &a) {
		v.Answer = upgrader.Answer{ID: a.ID, Verdict: upgrader.Verdict(a.Verdict), Reason: a.Reason}
	}
	return v
}

func store(v dbus.Variant, into any) bool {
	return v.Value() != nil && dbus.Store([]any{v.Value()}, into) == nil
}
