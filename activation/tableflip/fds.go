package tableflip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/activation"
	"github.com/upgraderd/upgraderd/upgrader/supervisor"
)

// Listener, PacketConn and Conn can be shared between processes.
type (
	Listener interface {
		net.Listener
		syscall.Conn
	}
	PacketConn interface {
		net.PacketConn
		syscall.Conn
	}
	Conn interface {
		net.Conn
		syscall.Conn
	}
)

// prefix begins the names of our files among others in LISTEN_FDNAMES.
const prefix = "tableflip/"

// Kinds of files.
const (
	listenKind = "listener"
	packetKind = "packet"
	connKind   = "conn"
	fileKind   = "fd"
)

// nameOf makes a name of what tells a file from others: no ":" is in it, as
// sd_listen_fds_with_names(3) wants.
func nameOf(kind string, parts ...string) string {
	name := prefix + kind
	for _, p := range parts {
		name += "/" + url.QueryEscape(p)
	}
	return name
}

// Fds are the files that pass from one process to the next. Its methods may be called
// from several goroutines. What they return, and what is given to them, is the
// caller's to close: Fds has duplicates.
type Fds struct {
	lc *net.ListenConfig

	mu        sync.Mutex
	inherited map[string]*os.File
	foreign   []*os.File // sockets of .socket units and of --listen
	used      map[string]*os.File
	kept      map[string]bool // what lies with the supervisor: true for what is used, false for what was replaced
	keeping   bool            // this process may keep files: it is ready
	paths     []string        // of unix sockets that were opened here
}

func inherit(lc *net.ListenConfig) (*Fds, error) {
	files, err := activation.Files()
	if err != nil {
		return nil, err
	}
	f := &Fds{lc: lc, inherited: map[string]*os.File{}, used: map[string]*os.File{}, kept: map[string]bool{}}
	for _, file := range files {
		name := file.Name()
		if !strings.HasPrefix(name, prefix) {
			f.foreign = append(f.foreign, file)
			continue
		}
		if old := f.inherited[name]; old != nil {
			old.Close()
		}
		f.inherited[name] = file
		f.kept[name] = true
	}
	return f, nil
}

// take gives the inherited file of this name, nil if there is none, and marks it as
// used.
func (f *Fds) take(name string) *os.File {
	file := f.inherited[name]
	if file != nil {
		delete(f.inherited, name)
		f.used[name] = file
	}
	return file
}

// foreignAt gives the socket of the unit that is bound to the address.
func (f *Fds) foreignAt(network, addr string) *os.File {
	l := supervisor.Listen{Name: "any", Network: network, Address: addr}
	for i, file := range f.foreign {
		bound := false
		raw, err := file.SyscallConn()
		if err != nil {
			continue
		}
		_ = raw.Control(func(fd uintptr) { bound = l.IsBoundTo(int(fd)) })
		if bound {
			f.foreign = append(f.foreign[:i:i], f.foreign[i+1:]...)
			return file
		}
	}
	return nil
}

// Listen returns an inherited listener, or opens one.
func (f *Fds) Listen(network, addr string) (net.Listener, error) {
	return f.ListenWithCallback(network, addr, func(network, addr string) (net.Listener, error) {
		l, err := f.lc.Listen(context.Background(), network, addr)
		if errors.Is(err, unix.EADDRINUSE) && removeStale(network, addr) {
			l, err = f.lc.Listen(context.Background(), network, addr)
		}
		return l, err
	})
}

// ListenWithCallback returns an inherited listener, or what callback opens.
func (f *Fds) ListenWithCallback(network, addr string, callback func(network, addr string) (net.Listener, error)) (net.Listener, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.listener(network, addr)
	if l != nil || err != nil {
		return l, err
	}
	l, err = callback(network, addr)
	if err != nil {
		return nil, fmt.Errorf("create new listener: %w", err)
	}
	shared, ok := l.(Listener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("%T doesn't implement tableflip.Listener", l)
	}
	if err := f.addListener(network, addr, shared); err != nil {
		l.Close()
		return nil, err
	}
	if network == "unix" && !strings.HasPrefix(addr, "@") {
		f.paths = append(f.paths, addr)
	}
	return l, nil
}

// Listener returns an inherited listener or nil.
func (f *Fds) Listener(network, addr string) (net.Listener, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.listener(network, addr)
}

func (f *Fds) listener(network, addr string) (net.Listener, error) {
	file := f.take(nameOf(listenKind, network, addr))
	if file == nil {
		if file = f.foreignAt(network, addr); file == nil {
			return nil, nil
		}
		defer file.Close()
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("inherit listener %s %s: %w", network, addr, err)
	}
	keepPath(l)
	return l, nil
}

// keepPath leaves a unix socket's path to who holds the socket.
func keepPath(v any) {
	if u, ok := v.(interface{ SetUnlinkOnClose(bool) }); ok {
		u.SetUnlinkOnClose(false)
	}
}

// AddListener adds a listener, in place of another for the same address.
func (f *Fds) AddListener(network, addr string, l Listener) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.addListener(network, addr, l)
}

func (f *Fds) addListener(network, addr string, l Listener) error {
	keepPath(l)
	return f.add(nameOf(listenKind, network, addr), l)
}

// ListenPacket returns an inherited packet conn, or opens one.
func (f *Fds) ListenPacket(network, addr string) (net.PacketConn, error) {
	return f.ListenPacketWithCallback(network, addr, func(network, addr string) (net.PacketConn, error) {
		return f.lc.ListenPacket(context.Background(), network, addr)
	})
}

// ListenPacketWithCallback returns an inherited packet conn, or what callback opens.
func (f *Fds) ListenPacketWithCallback(network, addr string, callback func(network, addr string) (net.PacketConn, error)) (net.PacketConn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.packetConn(network, addr)
	if c != nil || err != nil {
		return c, err
	}
	c, err = callback(network, addr)
	if err != nil {
		return nil, fmt.Errorf("create new packet conn: %w", err)
	}
	shared, ok := c.(PacketConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("%T doesn't implement tableflip.PacketConn", c)
	}
	if err := f.add(nameOf(packetKind, network, addr), shared); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// PacketConn returns an inherited packet conn or nil.
func (f *Fds) PacketConn(network, addr string) (net.PacketConn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.packetConn(network, addr)
}

func (f *Fds) packetConn(network, addr string) (net.PacketConn, error) {
	file := f.take(nameOf(packetKind, network, addr))
	if file == nil {
		if file = f.foreignAt(network, addr); file == nil {
			return nil, nil
		}
		defer file.Close()
	}
	c, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("inherit packet conn %s %s: %w", network, addr, err)
	}
	return c, nil
}

// AddPacketConn adds a packet conn, in place of another for the same address.
func (f *Fds) AddPacketConn(network, addr string, c PacketConn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.add(nameOf(packetKind, network, addr), c)
}

// Conn returns an inherited connection or nil.
func (f *Fds) Conn(network, addr string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file := f.take(nameOf(connKind, network, addr))
	if file == nil {
		return nil, nil
	}
	c, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("inherit connection %s %s: %w", network, addr, err)
	}
	return c, nil
}

// AddConn adds a connection.
func (f *Fds) AddConn(network, addr string, c Conn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.add(nameOf(connKind, network, addr), c)
}

// Files returns all inherited files and marks them as used.
func (f *Fds) Files() ([]*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var files []*os.File
	for name := range f.inherited {
		escaped, ok := strings.CutPrefix(name, prefix+fileKind+"/")
		if !ok {
			continue
		}
		plain, err := url.QueryUnescape(escaped)
		if err != nil {
			return nil, fmt.Errorf("inherit file %s: %w", name, err)
		}
		file, err := dup(f.take(name), plain)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// File returns an inherited file or nil.
func (f *Fds) File(name string) (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file := f.take(nameOf(fileKind, name))
	if file == nil {
		return nil, nil
	}
	return dup(file, name)
}

// AddFile adds a file, in place of another of that name.
func (f *Fds) AddFile(name string, file *os.File) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.add(nameOf(fileKind, name), file)
}

// add takes a duplicate into Fds, and to the supervisor if this process may.
func (f *Fds) add(name string, c syscall.Conn) error {
	file, err := dup(c, name)
	if err != nil {
		return err
	}
	for _, old := range []*os.File{f.inherited[name], f.used[name]} {
		if old != nil {
			old.Close()
		}
	}
	delete(f.inherited, name)
	f.used[name] = file
	_, replaced := f.kept[name]
	if replaced {
		f.kept[name] = false
	}
	if !f.keeping {
		return nil
	}
	if replaced {
		if err := activation.RemoveStored(name); err != nil {
			return err
		}
	}
	return f.keep(name)
}

func (f *Fds) keep(name string) error {
	if err := activation.StoreFile(name, f.used[name]); err != nil {
		return err
	}
	f.kept[name] = true
	return nil
}

// keepAll leaves with the supervisor what is used, and has it drop what is not.
func (f *Fds) keepAll() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keeping = true
	var errs []error
	for name, file := range f.inherited {
		file.Close()
		errs = append(errs, activation.RemoveStored(name))
	}
	f.inherited = map[string]*os.File{}
	for _, file := range f.foreign {
		file.Close()
	}
	f.foreign = nil
	for name := range f.used {
		if kept, known := f.kept[name]; !kept {
			if known {
				errs = append(errs, activation.RemoveStored(name))
			}
			errs = append(errs, f.keep(name))
		}
	}
	return errors.Join(errs...)
}

// removePaths removes the paths of unix sockets that nobody will serve.
func (f *Fds) removePaths() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.paths {
		os.Remove(p)
	}
}

// removeStale removes the path of a unix socket that nobody listens on.
func removeStale(network, addr string) bool {
	if network != "unix" || strings.HasPrefix(addr, "@") {
		return false
	}
	fi, err := os.Lstat(addr)
	if err != nil || fi.Mode()&os.ModeSocket == 0 {
		return false
	}
	c, err := net.Dial(network, addr)
	if err == nil {
		c.Close()
		return false
	}
	return errors.Is(err, unix.ECONNREFUSED) && os.Remove(addr) == nil
}

// dup makes a duplicate without a change to the mode of what is open.
func dup(c syscall.Conn, name string) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	if cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
