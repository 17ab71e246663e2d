package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	busName  = "org.freedesktop.systemd1"
	busPath  = dbus.ObjectPath("/org/freedesktop/systemd1")
	manager  = "org.freedesktop.systemd1.Manager"
	unitFace = "org.freedesktop.systemd1.Unit"
	svcFace  = "org.freedesktop.systemd1.Service"

	propsFace = "org.freedesktop.DBus.Properties"

	// defaultAddress is where every Linux system bus listens (dbus
	// specification, well-known message bus instances).
	defaultAddress = "unix:path=/run/dbus/system_bus_socket"

	// readTimeout bounds a call that only reads: PID 1 answers in a
	// millisecond unless it is in deep trouble.
	readTimeout = 10 * time.Second

	// verbTimeout bounds a call that polkit has to allow. PID 1 gives up on
	// a polkit that does not answer after 25 s, and its "no" is worth the
	// wait: a call that we gave up on could still take effect.
	verbTimeout = 30 * time.Second

	// jobCheck is how often a wait looks whether its job still exists, in
	// case the signal of its end was lost.
	jobCheck = 2 * time.Second

	redialMin = 100 * time.Millisecond
	redialMax = 5 * time.Second
)

// Options say which bus. The zero value is the system bus.
type Options struct {
	// Address is a D-Bus address. Default: DBUS_SYSTEM_BUS_ADDRESS, then the
	// system bus socket.
	Address string
	// Log hears of connections lost and found. Default: nobody.
	Log *slog.Logger
}

// Client is a connection to one systemd, made when it is first needed and
// made anew when it breaks. It may be used by several goroutines at once.
type Client struct {
	address string
	log     *slog.Logger

	// turn holds one token; whoever has it may dial and touch what follows.
	// One dial serves all, and waiting for it ends with the waiter's context.
	turn   chan struct{}
	link   *link
	links  uint64 // made so far
	closed bool
}

// ErrClosed is returned by every call after Close.
var ErrClosed = errors.New("client is closed")

// New prepares a client. It does not connect yet: a bus that is down at start
// is no reason not to start.
func New(o Options) *Client {
	c := &Client{address: o.Address, log: o.Log, turn: make(chan struct{}, 1)}
	if c.address == "" {
		c.address = os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	}
	if c.address == "" {
		c.address = defaultAddress
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Close ends the connection; calls under way return an error.
func (c *Client) Close() error {
	c.turn <- struct{}{} // a dial is short
	defer func() { <-c.turn }()
	c.closed = true
	if c.link == nil {
		return nil
	}
	err := c.link.conn.Close()
	c.link = nil
	return err
}

// connect gives a live link, dialling if there is none.
func (c *Client) connect(ctx context.Context) (*link, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c.closed {
		return nil, ErrClosed
	}
	if c.link != nil && c.link.conn.Connected() {
		return c.link, nil
	}
	if c.link != nil {
		c.log.Warn("connection to the bus lost, connecting again")
		c.link = nil
	}
	l, err := dial(ctx, c.address)
	if err != nil {
		return nil, err
	}
	c.links++
	l.number = c.links
	c.link = l
	return l, nil
}

// reach is connect for those who wait: it tries until ctx ends.
func (c *Client) reach(ctx context.Context) (*link, error) {
	pause := redialMin
	for {
		attempt, cancel := context.WithTimeout(ctx, readTimeout)
		l, err := c.connect(attempt)
		cancel()
		if err == nil || errors.Is(err, ErrClosed) {
			return l, err
		}
		if !sleep(ctx, pause) {
			return nil, fmt.Errorf("%w; %w", ctx.Err(), err)
		}
		pause = min(2*pause, redialMax)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Facts reads what is true of unit now. A unit that does not exist has
// LoadState "not-found"; that is no error.
func (c *Client) Facts(ctx context.Context, unit string) (Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	for pause := redialMin; ; pause = min(2*pause, redialMax) {
		f, err := c.facts(ctx, unit)
		if err == nil {
			return f, nil
		}
		if !lost(err) && !left(err) || !sleep(ctx, pause) {
			return Facts{}, classify("read", unit, err)
		}
	}
}

func (c *Client) facts(ctx context.Context, unit string) (Facts, error) {
	l, err := c.connect(ctx)
	if err != nil {
		return Facts{}, err
	}
	l.follow(unit)
	o := l.conn.Object(busName, unitPath(unit))
	// Both questions are asked before the first answer is awaited.
	const getAll = propsFace + ".GetAll"
	unitCall := o.GoWithContext(ctx, getAll, 0, make(chan *dbus.Call, 1), unitFace)
	svcCall := o.GoWithContext(ctx, getAll, 0, make(chan *dbus.Call, 1), svcFace)
	var unitProps, svcProps map[string]dbus.Variant
	if err := (<-unitCall.Done).Store(&unitProps); err != nil {
		<-svcCall.Done
		return Facts{}, err
	}
	if err := (<-svcCall.Done).Store(&svcProps); err != nil {
		var de dbus.Error
		if !errors.As(err, &de) || de.Name != "org.freedesktop.DBus.Error.UnknownInterface" {
			return Facts{}, err
		}
		svcProps = nil // a socket, a target: no service
	}
	f := parseFacts(unitProps, svcProps)
	f.Watch = l.number
	if f.Running() { // what does not run cannot fail
		l.watch(f.ID)
	}
	seen := l.follow(f.ID)
	f.JobsEnded, f.LastJob, f.Failures = seen.jobsEnded, seen.lastJob, seen.failures
	return f, nil
}

// ResetFailed forgets that unit failed, and its start-limit counter.
func (c *Client) ResetFailed(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	l, err := c.connect(ctx)
	if err != nil {
		return classify("reset-failed", unit, err)
	}
	err = l.conn.Object(busName, busPath).CallWithContext(ctx, manager+".ResetFailedUnit", 0, unit).Err
	if err != nil {
		return classify("reset-failed", unit, err)
	}
	return nil
}

// lost reports that the connection broke or could not be made, so that
// nobody said no.
func lost(err error) bool {
	var de dbus.Error
	var dp *dbus.Error
	return !errors.As(err, &de) && !errors.As(err, &dp) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) &&
		!errors.Is(err, ErrClosed)
}

// left tells that the bus answered in the place of a systemd that went away, as
// it does when it re-executes itself. A question can be asked again.
func left(err error) bool {
	var e dbus.Error
	return errors.As(err, &e) && slices.Contains([]string{
		"org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
	}, e.Name)
}

// link is one connection, and who waits on it.
type link struct {
	conn *dbus.Conn

	mu      sync.Mutex
	owner   string // systemd's unique name; only its signals count
	waiters map[*waiter]struct{}
	units   map[string]*sight // by unit; only those that were asked about
	number  uint64            // of the connection, never 0
}

// sight is what was seen of a unit.
type sight struct {
	jobsEnded, failures uint64
	lastJob             Result

	watched     bool // failures are counted
	activeState string
}

var _ dbus.SignalHandler = (*link)(nil)

func dial(ctx context.Context, address string) (_ *link, err error) {
	l := &link{waiters: map[*waiter]struct{}{}, units: map[string]*sight{}}
	conn, err := dbus.Dial(address, dbus.WithSignalHandler(l))
	if err != nil {
		return nil, fmt.Errorf("connect to the bus at %s: %w", address, err)
	}
	l.conn = conn
	// Auth reads without a deadline; a frozen bus must not hold us.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err == nil {
			return
		}
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		err = fmt.Errorf("greet the bus at %s: %w", address, err)
	}()
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		// What the far end said while closing is no more than "gone".
		return nil, fmt.Errorf("authenticate: %w", orEOF(err))
	}
	if err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.Hello", 0).Err; err != nil {
		return nil, err
	}
	// Each rule names its sender: without, anybody on the bus could tell us
	// that a job is done.
	for _, rule := range [][]dbus.MatchOption{
		{dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchInterface("org.freedesktop.DBus"),
			dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, busName)},
		{dbus.WithMatchSender(busName), dbus.WithMatchInterface(manager),
			dbus.WithMatchMember("JobRemoved"), dbus.WithMatchObjectPath(busPath)},
	} {
		if err := conn.AddMatchSignalContext(ctx, rule...); err != nil {
			return nil, fmt.Errorf("watch systemd: %w", err)
		}
	}
	if err := l.subscribe(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// follow begins to count the jobs of unit, and gives what was seen of it so far.
// A name that nobody asked by before, such as the primary one of an alias, is
// counted from now on.
func (l *link) follow(unit string) sight {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *l.sight(unit)
}

// sight is called with the lock held.
func (l *link) sight(unit string) *sight {
	s := l.units[unit]
	if s == nil {
		s = &sight{}
		l.units[unit] = s
	}
	return s
}

// watch begins to count the failures of a unit that runs.
func (l *link) watch(unit string) {
	l.mu.Lock()
	s := l.sight(unit)
	before := s.watched
	if !before {
		s.watched, s.activeState = true, "active"
	}
	l.mu.Unlock()
	if before {
		return
	}
	// One rule for each unit: a host has many that are not ours. dbus-daemon
	// allows a connection 512 of them; what is not seen then, OnFailure= tells.
	rule := "type='signal',sender='" + busName + "',path='" + string(unitPath(unit)) +
		"',interface='" + propsFace + "',member='PropertiesChanged',arg0='" + unitFace + "'"
	l.conn.BusObject().Go("org.freedesktop.DBus.AddMatch", dbus.FlagNoReplyExpected, nil, rule)
}

// changed notes what a unit became. systemd tells of each state that a unit is in
// when it looks for its next event, and in the same signal of the job on it.
func (l *link) changed(path dbus.ObjectPath, props map[string]dbus.Variant) {
	for unit, s := range l.units {
		if !s.watched || unitPath(unit) != path {
			continue
		}
		state := value[string](props, "ActiveState")
		if state == "failed" && s.activeState != "failed" && jobOf(props) == 0 {
			s.failures++
		}
		if state != "" {
			s.activeState = state
		}
	}
}

// subscribe asks systemd to send job signals, and notes who it is.
func (l *link) subscribe(ctx context.Context) error {
	if err := l.conn.Object(busName, busPath).CallWithContext(ctx, manager+".Subscribe", 0).Err; err != nil {
		var de dbus.Error
		if !errors.As(err, &de) || de.Name != "org.freedesktop.systemd1.AlreadySubscribed" {
			return fmt.Errorf("subscribe to systemd: %w", err)
		}
	}
	var owner string
	if err := l.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetNameOwner", 0, busName).Store(&owner); err != nil {
		return fmt.Errorf("ask who systemd is: %w", err)
	}
	l.mu.Lock()
	l.owner = owner
	l.mu.Unlock()
	return nil
}

// DeliverSignal is called by the connection's reader, one signal at a time;
// it must not block.
func (l *link) DeliverSignal(_, _ string, s *dbus.Signal) {
	switch s.Name {
	case "org.freedesktop.DBus.NameOwnerChanged":
		if s.Sender != "org.freedesktop.DBus" || len(s.Body) != 3 || s.Body[0] != busName {
			return
		}
		owner, _ := s.Body[2].(string)
		l.mu.Lock()
		l.owner = owner
		l.mu.Unlock()
		if owner == "" {
			return
		}
		// systemd came back after daemon-reexec under another name. It may
		// have forgotten us; asked twice, it says AlreadySubscribed.
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
			defer cancel()
			if l.subscribe(ctx) != nil {
				_ = l.conn.Close() // the next call makes a sound one
			}
		}()
	case propsFace + ".PropertiesChanged":
		if len(s.Body) != 3 || s.Body[0] != unitFace {
			return
		}
		props, ok := s.Body[1].(map[string]dbus.Variant)
		l.mu.Lock()
		defer l.mu.Unlock()
		if ok && s.Sender == l.owner {
			l.changed(s.Path, props)
		}
	case manager + ".JobRemoved":
		if len(s.Body) != 4 {
			return
		}
		path, ok1 := s.Body[1].(dbus.ObjectPath)
		result, ok2 := s.Body[3].(string)
		if !ok1 || !ok2 {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if s.Sender != l.owner {
			return
		}
		if unit, ok := s.Body[2].(string); ok {
			if s := l.units[unit]; s != nil {
				s.jobsEnded++
				s.lastJob = Result(result)
			}
		}
		for w := range l.waiters {
			w.removed(path, Result(result))
		}
	}
}
