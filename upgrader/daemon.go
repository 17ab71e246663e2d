package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/realm"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// incomingDefault keeps a host with many targets from filling its line, its disk
// and its memory at once; a few slow sources do not yet keep the others waiting.
const incomingDefault = 4

// lockPatience is for a daemon that comes back while a guard undoes what it
// left: the guard needs a handover's time.
const lockPatience = 10 * time.Second

// Options are what a daemon needs.
type Options struct {
	// StateDir holds one directory per target. It must exist. Required.
	StateDir string
	// Targets to follow; more or others can come with Reload.
	Targets []*Target
	// Broken tells of a target that is not among them whether its file may be
	// there, and cannot be followed as it is. What is pending of such a one waits
	// until that is mended. Default: those that are not among them are gone.
	Broken func(target string) bool
	// Systemd moves the units. Required.
	Systemd Systemd
	// Observer hears of every change of a status. Default: nobody.
	Observer Observer
	// Log gets every event; see package journal. Default: nobody.
	Log *slog.Logger
	// Notify tells the service manager (sd_notify(3)): READY, STATUS,
	// RELOADING, STOPPING and WATCHDOG. Default: nobody.
	Notify func(state ...string) error
	// WatchdogInterval is WATCHDOG_USEC; the main loop pings at half of it.
	// Zero: no watchdog.
	WatchdogInterval time.Duration
	// SourceSocket is where the sandbox of sources that are commands is reached.
	// Default: that of the system.
	SourceSocket string
	// Program is the executable that this daemon runs from, to tell which release
	// of upgraderd it is. Default: none of them.
	Program string
	// Incoming bounds the artifacts that are fetched and unpacked at once, over
	// all targets. Default 4.
	Incoming int
}

// Observer hears of each status that a target gets, in its order. Its methods are
// called by the machines, each for its own target, and must not block.
type Observer interface {
	Changed(TargetStatus)
	Gone(target string) // it is no longer followed
}

// Daemon follows targets, each in a goroutine of its own. Its methods may be
// called from any goroutine.
type Daemon struct {
	o       Options
	slots   chan struct{}
	commons *commons
	self    string // the release that this daemon is, "" if none
	// newest makes the source of a target.
	newest func(*Target) (source, error)
	// disk makes what a machine writes to of an open store.
	disk func(*store.Store) disk
	wall wallClock

	reloads chan []*Target
	exits   chan string   // names of machines that ended
	changed chan struct{} // a status changed; holds one token

	mu       sync.Mutex
	status   map[string]TargetStatus
	machines map[string]*machine
}

// New checks the options. Nothing is started and nothing on disk is touched.
func New(o Options) (*Daemon, error) {
	if !filepath.IsAbs(o.StateDir) {
		return nil, fmt.Errorf("state directory %q is not absolute", o.StateDir)
	}
	if o.Systemd == nil {
		return nil, errors.New("no systemd to talk to")
	}
	if err := distinct(o.Targets); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.Notify == nil {
		o.Notify = func(...string) error { return nil }
	}
	if o.Broken == nil {
		o.Broken = func(string) bool { return false }
	}
	if o.SourceSocket == "" {
		o.SourceSocket = realm.System().SourceSocket
	}
	if o.Incoming <= 0 {
		o.Incoming = incomingDefault
	}
	d := &Daemon{
		o:       o,
		slots:   make(chan struct{}, o.Incoming),
		commons: newCommons(),
		reloads: make(chan []*Target),
		exits:   make(chan string),
		changed: make(chan struct{}, 1),
		status:  map[string]TargetStatus{},

		machines: map[string]*machine{},
		disk:     func(s *store.Store) disk { return s },
		wall:     time.Now,
		self:     ownRelease(o.StateDir, o.Program),
	}
	d.newest = func(t *Target) (source, error) {
		from := t.Source
		from.StateDir = filepath.Join(o.StateDir, t.Name, "tuf")
		from.Command = runSource(o.SourceSocket)
		f, err := fetcher.New(from, o.Log)
		if err != nil {
			return nil, err // not a source that holds a nil
		}
		return f, nil
	}
	return d, nil
}

type nobody struct{}

func (nobody) Changed(TargetStatus) {}
func (nobody) Gone(string)          {}

// distinct refuses two targets of one name, or two that run one unit: they would
// take turns undoing each other. Its configurations wait for each other.
func distinct(targets []*Target) error {
	names, units := map[string]bool{}, map[string]string{}
	for _, t := range targets {
		switch {
		case t.Name == "" || t.Name != filepath.Base(t.Name) || strings.HasPrefix(t.Name, "."):
			return fmt.Errorf("target name %q cannot be a directory's name", t.Name)
		case names[t.Name]:
			return fmt.Errorf("target %q is given twice", t.Name)
		case t.Config == "" && units[t.Unit] != "":
			return advice.Give(fmt.Errorf("targets %q and %q both name %s", units[t.Unit], t.Name, t.Unit), "give each unit one target")
		}
		names[t.Name] = true
		if t.Config == "" {
			units[t.Unit] = t.Name
		}
	}
	return nil
}

// Run follows the targets until ctx ends, and returns when all of them have
// stopped. Ending it in the middle of an upgrade is safe: the next Run takes
// it up from the record. The error is ctx's, or one that wraps
// [store.ErrLocked] if another daemon holds every target there is. Run is
// called once.
func (d *Daemon) Run(ctx context.Context) error {
	locked, err := d.lockAll()
	for began := time.Now(); errors.Is(err, store.ErrLocked) && time.Since(began) < lockPatience; locked, err = d.lockAll() {
		if !sleep(ctx, lockPatience/20) {
			return ctx.Err()
		}
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	fleet := map[string]*machine{}
	start := func(t *Target, s *heldStore) {
		m := d.machine(t)
		fleet[t.Name] = m
		d.mu.Lock()
		d.machines[t.Name] = m
		d.mu.Unlock()
		running.Go(func() {
			d.follow(ctx, m, s)
			select {
			case d.exits <- t.Name:
			case <-ctx.Done():
			}
		})
	}
	for _, t := range d.o.Targets {
		d.reserve(t, locked[t.Name])
	}
	for _, t := range d.o.Targets {
		d.put(readStatus(d.o.StateDir, t))
		start(t, locked[t.Name])
	}
	running.Go(func() { d.retireAll(ctx) })
	journal.Emit(ctx, d.o.Log, journal.DaemonStarted, slog.Int("targets", len(fleet)))
	d.notify("READY=1", "STATUS="+summary(d.Status()))
	desired := map[string]*Target{}
	for _, t := range d.o.Targets {
		desired[t.Name] = t
	}

	var watchdog <-chan time.Time
	if d.o.WatchdogInterval > 0 {
		ticker := time.NewTicker(d.o.WatchdogInterval / 2)
		defer ticker.Stop()
		watchdog = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			d.notify("STOPPING=1", "STATUS=Stopping")
			return ctx.Err()
		case <-watchdog:
			d.notify("WATCHDOG=1")
		case <-d.changed:
			d.notify("STATUS=" + summary(d.Status()))
		case targets := <-d.reloads:
			d.notify("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonic().Microseconds(), 10))
			desired = d.apply(fleet, targets, start)
			journal.Emit(ctx, d.o.Log, journal.ConfigReloaded, slog.Int("targets", len(targets)))
			d.notify("READY=1", "STATUS="+summary(d.Status()))
		case name := <-d.exits:
			delete(fleet, name)
			d.drop(name)
			if t := desired[name]; t != nil { // wanted again meanwhile
				d.put(readStatus(d.o.StateDir, t))
				start(t, nil)
			}
		}
	}
}

// apply offers each machine what it shall follow from its next cycle on.
func (d *Daemon) apply(fleet map[string]*machine, targets []*Target, start func(*Target, *heldStore)) map[string]*Target {
	desired := map[string]*Target{}
	for _, t := range targets {
		desired[t.Name] = t
		if m := fleet[t.Name]; m != nil {
			m.offered.Store(&offer{t})
			m.wake()
			continue
		}
		d.put(readStatus(d.o.StateDir, t))
		start(t, nil)
	}
	for name, m := range fleet {
		if desired[name] == nil {
			m.offered.Store(&offer{})
			m.wake()
		}
	}
	return desired
}

// Reload gives the daemon another set of targets. A target that is in the
// middle of an upgrade finishes it as it began; one that is gone stops after
// that, and its files stay. It returns when the set is accepted, or when ctx
// ends.
func (d *Daemon) Reload(ctx context.Context, targets []*Target) error {
	if err := distinct(targets); err != nil {
		return err
	}
	select {
	case d.reloads <- slices.Clone(targets):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status is the state of every target now, by name.
func (d *Daemon) Status() []TargetStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]TargetStatus, 0, len(d.status))
	for _, st := range d.status {
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b TargetStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (d *Daemon) put(st TargetStatus) {
	d.mu.Lock()
	d.status[st.Name] = st
	d.mu.Unlock()
	d.o.Observer.Changed(st)
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

func (d *Daemon) drop(name string) {
	d.mu.Lock()
	delete(d.status, name)
	delete(d.machines, name)
	d.mu.Unlock()
	d.o.Observer.Gone(name)
}

// busy is a target besides but that is on trial, "" if there is none.
func (d *Daemon) busy(but string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, st := range d.status {
		if name != but && st.State.pending() {
			return name
		}
	}
	return ""
}

func (d *Daemon) notify(state ...string) {
	if err := d.o.Notify(state...); err != nil {
		d.o.Log.Warn("telling systemd", "error", err)
	}
}

// monotonic is the clock that RELOADING=1 has to carry.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// reserve has a target that was in the middle of a swap, or watched one, go on with
// what it had locked: none of those that waited for it may come first.
func (d *Daemon) reserve(t *Target, s *heldStore) {
	var r record
	if s == nil {
		return
	}
	if _, err := s.LoadRecord(&r); err != nil || !r.State.pending() || r.State == Swapping && r.Swap == "" {
		return
	}
	s.unitTurn = d.commons.tryTake(t.Unit, t.Name)
	if digest, err := r.digest(); err == nil && digest != (store.Digest{}) {
		s.turn = d.commons.tryTake(digest.String(), t.Name)
	}
}

func (d *Daemon) machine(t *Target) *machine {
	m := &machine{
		systemd: d.o.Systemd,
		newest:  d.newest,
		slots:   d.slots,
		commons: d.commons,
		plain:   d.o.Log,
		woken:   make(chan struct{}, 1),
		publish: d.put,
		wall:    d.wall,
		self:    d.self,
		busy:    d.busy,
	}
	m.use(t)
	return m
}

// heldStore is a store whose lock is ours.
type heldStore struct {
	*store.Store
	unlock         func()
	turn, unitTurn func() // what was reserved for its machine, nil if nothing was
}

func (d *Daemon) open(t *Target) (*heldStore, error) {
	s, err := store.Open(filepath.Join(d.o.StateDir, t.Name))
	if err != nil {
		return nil, err
	}
	unlock, err := s.Lock()
	if err != nil {
		return nil, err
	}
	return &heldStore{Store: s, unlock: unlock}, nil
}

// lockAll locks what can be locked. Only if another process holds all of it
// is this daemon one too many; any other trouble is the target's own.
func (d *Daemon) lockAll() (map[string]*heldStore, error) {
	held := map[string]*heldStore{}
	var taken error
	others := 0
	for _, t := range d.o.Targets {
		s, err := d.open(t)
		if err == nil {
			held[t.Name] = s
			continue
		}
		if errors.Is(err, store.ErrLocked) {
			others++
			taken = err
		}
	}
	if others > 0 && others == len(d.o.Targets) {
		return nil, fmt.Errorf("another upgraderd runs: %w", taken)
	}
	return held, nil
}

// follow runs one target until ctx ends or it is retired. A store that cannot
// be opened is tried again; the other targets do not notice.
func (d *Daemon) follow(ctx context.Context, m *machine, s *heldStore) {
	var pause backoff
	var quiet hush
	for s == nil {
		if o := m.offered.Load(); o != nil && o.target == nil {
			return
		}
		var err error
		if s, err = d.open(m.target); err == nil {
			break
		}
		d.cannotOpen(ctx, m, &quiet, err)
		if !sleep(ctx, pause.next(0)) {
			return
		}
	}
	defer s.unlock()
	d.commons.join(m.target, s.Store)
	defer d.commons.leave(m.target.Name)
	m.store = d.disk(s.Store)
	m.turn, m.unitTurn = s.turn, s.unitTurn
	if err := m.run(ctx); errors.Is(err, errRetired) {
		journal.Emit(ctx, m.log, journal.TargetDropped, slog.String("unit", m.target.Unit), slog.String("path", s.Path()))
	}
}

func (d *Daemon) cannotOpen(ctx context.Context, m *machine, quiet *hush, err error) {
	event := journal.StepFailed
	if errors.Is(err, store.ErrLocked) {
		event = journal.TargetLocked
	}
	text := m.errText(err)
	if quiet.isNews(event, Recovering, text) {
		journal.Emit(ctx, m.log, event, slog.String("unit", m.target.Unit), slog.String("phase", "opening"), slog.String("error", text))
	}
	d.put(TargetStatus{Name: m.target.Name, Unit: m.target.Unit, Swap: m.target.Swap, State: Recovering, Trouble: text, Unsigned: unsigned(m.target)})
}
