package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

const (
	// defaultAddress is where every Linux system bus listens.
	defaultAddress = "unix:path=/run/dbus/system_bus_socket"

	// greetTimeout bounds what the bus itself has to answer.
	greetTimeout = 10 * time.Second

	redialMin = 100 * time.Millisecond
	redialMax = 5 * time.Second

	// newsMax is how many changes wait to be told before the older ones of a target
	// are left out.
	newsMax = 4096

	// jobCheck is how often jobs are looked after that nothing was heard of: another
	// order may have taken the place of theirs.
	jobCheck = 2 * time.Second
)

// Daemon is what the server asks of an [upgrader.Daemon].
type Daemon interface {
	// Look has the target look for orders.
	Look(target string)
	TakeBack(target, id string) error
	Foresee(ctx context.Context, target string) (upgrader.Plan, error)
}

var _ Daemon = (*upgrader.Daemon)(nil)

// Options of a server. Those without a default are required.
type Options struct {
	// Address is a D-Bus address. Default: DBUS_SYSTEM_BUS_ADDRESS, then the system
	// bus socket.
	Address string
	// Own tells that the daemon is a user's, on their own bus: there it obeys that user
	// and root, and polkit is not asked.
	Own bool
	// StateDir is the daemon's.
	StateDir string
	// Version is what the property of that name says.
	Version string
	// Reload reads the .upgrade files again.
	Reload func(context.Context) error
	// Logs is what org.freedesktop.LogControl1 controls. Default: nothing.
	Logs Logs
	// Log hears of a bus lost and found, and of who asks for what. Default: nobody.
	Log *slog.Logger
}

// Server is the daemon's side. It observes the daemon, and tells the bus.
type Server struct {
	o      Options
	daemon Daemon
	ctx    context.Context // that of Run, for calls that godbus begins
	gate   *gate
	orders sync.Mutex // held while one is placed

	newsMu sync.Mutex
	news   []item
	heard  chan struct{} // holds one token

	mu      sync.Mutex
	link    *link // nil: not on the bus
	targets map[string]*target
	jobs    map[uint32]*job
	last    uint32 // number of a job
}

// item is one change.
type item struct {
	name   string
	status *upgrader.TargetStatus // nil: it is gone
}

// target is what was last told of one.
type target struct {
	status upgrader.TargetStatus
	props  map[string]any
}

var _ upgrader.Observer = (*Server)(nil)

// New prepares a server. It does not connect yet.
func New(o Options) *Server {
	o.Address = address(o.Address)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		o: o, gate: newGate(), heard: make(chan struct{}, 1),
		targets: map[string]*target{}, jobs: map[uint32]*job{},
	}
}

func address(given string) string {
	return cmp.Or(given, os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), defaultAddress)
}

// Changed is told by the daemon.
func (s *Server) Changed(st upgrader.TargetStatus) { s.hear(item{st.Name, &st}) }

// Gone is told by the daemon.
func (s *Server) Gone(name string) { s.hear(item{name, nil}) }

func (s *Server) hear(i item) {
	s.newsMu.Lock()
	s.news = append(s.news, i)
	if len(s.news) >= newsMax {
		s.news = newestOfEach(s.news)
	}
	s.newsMu.Unlock()
	select {
	case s.heard <- struct{}{}:
	default:
	}
}

func newestOfEach(all []item) []item {
	last := map[string]int{}
	for i, n := range all {
		last[n.name] = i
	}
	var kept []item
	for i, n := range all {
		if last[n.name] == i {
			kept = append(kept, n)
		}
	}
	return kept
}

// Run serves until ctx ends. A bus that is away is no error: it is waited for. Run is
// called once.
func (s *Server) Run(ctx context.Context, d Daemon) {
	s.daemon, s.ctx = d, ctx
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { s.follow(ctx) })
	told := false
	for pause := redialMin; ctx.Err() == nil; pause = min(2*pause, redialMax) {
		l, err := s.dial(ctx)
		if err == nil {
			pause = redialMin
			if told {
				journal.Emit(ctx, s.o.Log, journal.BusReturned, slog.String("name", Name))
				told = false
			}
			<-l.conn.Context().Done()
			s.use(nil)
			err = errors.New("the connection ended")
		}
		if ctx.Err() != nil {
			return
		}
		if !told {
			journal.Emit(ctx, s.o.Log, journal.BusLost, slog.String("error", err.Error()))
			told = true
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// use tells over l from now on, or not at all.
func (s *Server) use(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = l
}

// link is one connection to the bus.
type link struct {
	*Server
	conn *dbus.Conn
}

var _ dbus.SignalHandler = (*link)(nil)

// DeliverSignal is called by the connection's reader.
func (l *link) DeliverSignal(_, _ string, s *dbus.Signal) {
	if s.Sender == busFace && s.Name == busFace+".NameLost" && len(s.Body) == 1 && s.Body[0] == Name {
		go func() { _ = l.conn.Close() }() // who is not called ours is not asked; the next one asks again
	}
}

// dial connects, exports everything and takes the name. It is exported before anybody
// can call, and never changed: godbus does not expect that while it is called.
func (s *Server) dial(ctx context.Context) (_ *link, err error) {
	l := &link{Server: s}
	l.conn, err = dbus.Dial(s.o.Address, dbus.WithSignalHandler(l), dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("connect to the bus at %s: %w", s.o.Address, err)
	}
	greeting, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	// Auth reads without a deadline; a frozen bus must not hold us.
	stop := context.AfterFunc(greeting, func() { _ = l.conn.Close() })
	defer func() {
		if !stop() && err == nil {
			err = greeting.Err()
		}
		if err != nil {
			s.use(nil)
			_ = l.conn.Close()
			err = fmt.Errorf("take the name %s at %s: %w", Name, s.o.Address, err)
		}
	}()
	if err := l.export(); err != nil {
		return nil, err
	}
	if err := greet(greeting, l.conn); err != nil {
		return nil, err
	}
	// Told from before the name is ours: whoever asks under the name, and hears of no
	// change after, has the last word.
	s.use(l)
	var r uint32
	err = l.conn.BusObject().CallWithContext(greeting, busFace+".RequestName", 0, Name, uint32(dbus.NameFlagDoNotQueue)).Store(&r)
	if called(err) == errorAccessDenied {
		return nil, advice.Give(err, "run: upgraderd install; systemctl reload dbus")
	}
	if err != nil {
		return nil, err
	}
	if got := dbus.RequestNameReply(r); got != dbus.RequestNameReplyPrimaryOwner {
		return nil, advice.Give(fmt.Errorf("somebody else has it (%s)", got), "see: busctl status %s", Name)
	}
	return l, nil
}

// greet authenticates and says Hello.
func greet(ctx context.Context, conn *dbus.Conn) error {
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil || ctx.Err() != nil {
		return fmt.Errorf("authenticate: %w", cmp.Or(err, ctx.Err(), io.EOF))
	}
	// Which godbus calls without a context, to learn our unique name.
	return conn.Hello()
}

// follow tells what the daemon says, and looks after jobs.
func (s *Server) follow(ctx context.Context) {
	tick := time.NewTicker(jobCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.heard:
			s.newsMu.Lock()
			news := s.news
			s.news = nil
			s.newsMu.Unlock()
			for _, n := range news {
				s.take(n)
			}
		case <-tick.C:
			s.lookAfterJobs()
		}
	}
}

// take tells one change.
func (s *Server) take(n item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[n.name]
	if n.status == nil {
		if t != nil {
			s.dropJobs(n.name)
			delete(s.targets, n.name)
			s.emit(basePath, managerFace+".TargetRemoved", n.name, targetPath(n.name))
		}
		return
	}
	fresh := t == nil
	if fresh {
		t = &target{}
		s.targets[n.name] = t
	}
	t.status = *n.status
	s.advance(t)
	if fresh {
		t.props = s.properties(t)
		s.emit(basePath, managerFace+".TargetNew", n.name, targetPath(n.name))
		return
	}
	s.tell(t)
}

// tell sends what changed of a target. It is called with the lock held.
func (s *Server) tell(t *target) {
	now := s.properties(t)
	s.changed(targetPath(t.status.Name), targetFace, t.props, now)
	t.props = now
}

// changed sends what is not as before.
func (s *Server) changed(path dbus.ObjectPath, face string, before, now map[string]any) {
	different := map[string]dbus.Variant{}
	for name, value := range now {
		if !reflect.DeepEqual(before[name], value) {
			different[name] = dbus.MakeVariant(value)
		}
	}
	if len(different) > 0 {
		s.emit(path, propsFace+".PropertiesChanged", face, different, []string{})
	}
}

// emit is called with the lock held. What cannot be sent is lost with the connection,
// and clients ask when it is back.
func (s *Server) emit(path dbus.ObjectPath, name string, args ...any) {
	if s.link == nil {
		return
	}
	if err := s.link.conn.Emit(path, name, args...); err != nil && !errors.Is(err, dbus.ErrClosed) {
		s.o.Log.Debug("telling the bus", "error", err)
	}
}
