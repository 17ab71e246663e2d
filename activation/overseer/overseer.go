package overseer

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/upgraderd/upgraderd/activation/internal/drain"
	"github.com/upgraderd/upgraderd/upgrader/supervisor"
)

// What passes from the main process to its workers, beside what package
// activation knows.
const (
	envBinPath = "OVERSEER_BIN_PATH"
	// envParent is the PID of a main process that no other would follow.
	envParent = "OVERSEER_PARENT"
	// envCheck has a binary answer with its value and end: see SanityCheck.
	envCheck = "OVERSEER_BIN_CHECK"
)

// process is the part that this process plays.
type process interface {
	restart()
}

var current atomic.Pointer[process]

// Run oversees c.Program and ends the process when that is over. Where it
// cannot, it says so and runs Program here, with DisabledState; if c.Required, it
// ends the process instead.
func Run(c Config) {
	err := RunErr(c)
	if err == nil {
		os.Exit(0)
	}
	if c.Required {
		log.Fatalf("[overseer] %s", err)
	}
	if c.Debug || !c.NoWarn {
		log.Printf("[overseer] disabled, the program runs by itself: %s", err)
	}
	if c.Program == nil {
		os.Exit(1)
	}
	c.Program(DisabledState)
}

// RunErr is Run for who wants the error. It returns nil when Program has
// returned, in the worker; the main process ends as its worker did and does not
// return.
func RunErr(c Config) error {
	SanityCheck()
	config, err := c.complete()
	if err != nil {
		return err
	}
	if supervisor.IsWorker() {
		return runWorker(config)
	}
	return runParent(config)
}

// Restart asks for a graceful restart, from the worker or the main process. With
// Config.NoRestart it is a graceful shutdown. It does not wait, and does nothing before
// Run.
func Restart() {
	if p := current.Load(); p != nil {
		(*p).restart()
	}
}

// IsSupported says whether Run can oversee on this system. Where this package
// builds, it can.
func IsSupported() bool { return true }

// HttpServe serves handler on a listener of [State] until the graceful shutdown
// has ended: connections that are kept open are told to go elsewhere, and no
// request that was sent is lost. http.Serve instead leaves them open until
// TerminateTimeout, and closes what is left then.
func HttpServe(l net.Listener, handler http.Handler) error {
	if l == nil { // as in DisabledState
		return errors.New("serve: no listener: set Address, or where Run said why it cannot oversee, listen yourself")
	}
	if handler == nil {
		handler = http.DefaultServeMux
	}
	ctx, limit := context.Background(), defaultTerminateTimeout
	if w := currentWorker(); w != nil {
		ctx, limit = w.ending, w.TerminateTimeout
	}
	if ours, ok := l.(*listener); ok {
		l = ours.yield()
	}
	d := drain.New(drain.Options{
		HTTP:      &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute},
		Listeners: []net.Listener{l},
		Grace:     min(5*time.Second, limit/2),
		Limit:     limit,
	})
	failed := make(chan struct{}, 1)
	go d.Accept(func() { failed <- struct{}{} })
	select {
	case <-ctx.Done():
	case <-failed: // the drain says why
	}
	return d.Drain()
}
