package activation

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// maxName is the longest descriptor name that systemd takes.
const maxName = 255

// StoreOption changes how the manager keeps a descriptor.
type StoreOption int

const (
	_ StoreOption = iota
	// DropOnHangup lets the manager drop the descriptor when the other end
	// hangs up: right for connections, wrong for listeners. Without it the
	// manager is told FDPOLL=0 and keeps the descriptor until it is removed.
	DropOnHangup
)

// StoreFile leaves a duplicate of f's descriptor with the manager under name
// (FDSTORE=1). It is there after a restart, even after kill -9, for
// [TakeStored] to find; f stays the caller's and may be closed at once. Names
// need not be unique: what is stored twice under a name comes back twice, in any
// order (systemd turns it round at every restart), except that systemd drops a
// second descriptor of the very same open file.
//
// A name has 1 to 255 printable ASCII characters other than ":". Without
// NOTIFY_SOCKET the answer is [ErrNoManager].
//
// The protocol has no reply: systemd needs FileDescriptorStoreMax= above 0,
// room for one more, and NotifyAccess= that covers this process, and logs what
// it refuses. It empties the store when the unit stops for good, unless
// FileDescriptorStorePreserve= says otherwise.
func StoreFile(name string, f *os.File, opts ...StoreOption) error {
	if f == nil {
		return fmt.Errorf("store descriptor %q: %w", name, os.ErrInvalid)
	}
	return store(name, f, opts)
}

func store(name string, f syscall.Conn, opts []StoreOption) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("store descriptor: %w", err)
	}
	msg := "FDSTORE=1\nFDNAME=" + name
	poll := "\nFDPOLL=0"
	for _, o := range opts {
		if o == DropOnHangup {
			poll = ""
		}
	}
	if err := sendFile(msg+poll, f); err != nil {
		return fmt.Errorf("store descriptor %q: %w", name, err)
	}
	return nil
}

// StoreListener is [StoreFile] for a listener of package net. The listener
// stays in use. From now on its Close leaves a unix socket's path in place,
// since the stored socket is still to be reached there.
func StoreListener(name string, l net.Listener, opts ...StoreOption) error {
	c, ok := l.(syscall.Conn)
	if !ok {
		return fmt.Errorf("store listener %q: got a %T, want a listener of package net", name, l)
	}
	if err := store(name, c, opts); err != nil {
		return err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return nil
}

// StorePacketConn is [StoreFile] for a packet connection of package net, which
// stays in use.
func StorePacketConn(name string, c net.PacketConn, opts ...StoreOption) error {
	s, ok := c.(syscall.Conn)
	if !ok {
		return fmt.Errorf("store packet connection %q: got a %T, want a connection of package net", name, c)
	}
	return store(name, s, opts)
}

// RemoveStored makes the manager close every descriptor that it keeps under
// name (FDSTOREREMOVE=1). One that is not there is no error. Descriptors that
// this process holds are not touched.
func RemoveStored(name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("remove stored descriptor: %w", err)
	}
	if err := send("FDSTOREREMOVE=1\nFDNAME=" + name); err != nil {
		return fmt.Errorf("remove stored descriptor %q: %w", name, err)
	}
	return nil
}

// TakeStored takes the inherited descriptors with this name that nobody took
// yet, of any kind: none, when there are none. The caller owns the files. The
// manager keeps its own copies until [RemoveStored].
//
// Stored descriptors and sockets of .socket units arrive in one list: give
// them different names.
func TakeStored(name string) ([]*os.File, error) {
	env, err := environ()
	if err != nil {
		return nil, err
	}
	files, _ := env.take(0, func(_ int, n string) bool { return n == name })
	return files, nil
}

// Stored takes everything that nobody took yet, by name: after the listeners
// were taken, that is what the descriptor store held. The caller owns the
// files. [Names] lists without taking.
func Stored() (map[string][]*os.File, error) {
	files, err := Files()
	if err != nil {
		return nil, err
	}
	stored := make(map[string][]*os.File)
	for _, f := range files {
		stored[f.Name()] = append(stored[f.Name()], f)
	}
	return stored, nil
}

// checkName holds what systemd's fdname_is_valid() holds, and that there is a
// name at all.
func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("name %.40q has %d characters, want 1 to %d", name, len(name), maxName)
	}
	for i := range len(name) {
		if c := name[i]; c < ' ' || c >= 0x7f || c == ':' {
			return fmt.Errorf("name %q has %q at %d, want printable ASCII without %q", name, c, i, ':')
		}
	}
	return nil
}
