package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Listen opens a listener in the machine's network that this process serves: a
// source of releases, for example. The address is an IP address and a port.
func (m *Machine) Listen(network, address string) (l net.Listener, err error) {
	err = m.inNetwork(func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// Dial connects to a service of the machine. The address is an IP address and
// a port; a unix socket is dialled below [Machine.Root] without this.
func (m *Machine) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = m.inNetwork(func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// inNetwork runs f on a thread that is in the machine's network namespace. A
// socket belongs to the namespace it was made in, whoever uses it later.
func (m *Machine) inNetwork(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with this goroutine, and no
		// other ever runs in the wrong network.
		runtime.LockOSThread()
		result <- func() error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.leader))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter the machine's network: %w", err)
			}
			return f()
		}()
	}()
	return <-result
}
