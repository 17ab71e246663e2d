package overseer

import (
	"net"
	"time"
)

// State is what Program is told about itself.
type State struct {
	// Enabled says that this process can be replaced while it serves. It is false
	// where Run could not oversee and calls Program all the same.
	Enabled bool
	// ID is the SHA-1 of the binary that runs, in hex.
	ID string
	// StartedAt is when Program was started.
	StartedAt time.Time
	// Listener is the first of Listeners, nil where there is none.
	Listener net.Listener
	// Listeners are open, in the order of Config.Addresses. What upgraderd passes beyond
	// those comes after them.
	Listeners []net.Listener
	// PacketConn is the first of PacketConns, which are the sockets of Addresses
	// that take datagrams, in their order.
	PacketConn  net.PacketConn
	PacketConns []net.PacketConn
	// Address is the first of Addresses, which say where this program listens.
	Address   string
	Addresses []string
	// GracefulShutdown is closed when it is time to end. It is nil, and so is never
	// closed, where Enabled is false.
	GracefulShutdown chan bool
	// BinPath is the path of the binary: the one that is replaced, also while a new
	// one is tried at another.
	BinPath string
}

// DisabledState is what Program gets where Run cannot oversee.
var DisabledState = State{Enabled: false}
