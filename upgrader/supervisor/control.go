package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/advice"
)

// The control socket speaks one line of JSON each way: a Request, then, when
// it is done, a Reply. It is in the unit's runtime directory, and obeys only
// the supervisor's own user and root.

// Request asks the supervisor for something.
type Request struct {
	Verb string `json:"verb"` // "handover"
	// New wants a new worker, whatever [Options.Reload] is.
	New bool `json:"new,omitempty"`
}

// Reply is the supervisor's answer, sent when the request is over.
type Reply struct {
	// Error is empty if all went well.
	Error string `json:"error,omitempty"`
	// Release is the one that serves now.
	Release string `json:"release,omitempty"`
	// Already says that the release on trial served before the request.
	Already bool `json:"already,omitempty"`
	// Told says that there was nothing to hand over to, and the worker read its
	// configuration again.
	Told bool `json:"told,omitempty"`
	// Refused says that there is an Error because of what the supervisor is about,
	// and not because of a release: nothing was tried.
	Refused bool `json:"refused,omitempty"`
	// Ended says that there is an Error because the supervisor ended meanwhile.
	Ended bool `json:"ended,omitempty"`
	// Stopping says that there is an Error because the unit is being stopped.
	Stopping bool `json:"stopping,omitempty"`
}

const (
	maxRequest     = 4 << 10
	maxReply       = 64 << 10
	maxConnections = 16
	requestTimeout = 5 * time.Second // to read a line that a local client has ready
)

// controlPath is where the supervisor of a unit listens.
func controlPath(runtimeDir string) string { return filepath.Join(runtimeDir, "control") }

// errUnanswered is a supervisor that took a request and ended before it was over.
var errUnanswered = advice.Give(errors.New("it went away"), "see the journal of the unit")

// RequestHandover asks the supervisor whose runtime directory this is for a
// handover, and waits until it is over or ctx ends. The supervisor goes on
// either way. One that is renewed just then is asked again: twice does no harm.
func RequestHandover(ctx context.Context, runtimeDir string) (Reply, error) {
	return request(ctx, runtimeDir, Request{Verb: "handover"})
}

func request(ctx context.Context, runtimeDir string, what Request) (Reply, error) {
	r, err := requestOnce(ctx, runtimeDir, what)
	if errors.Is(err, errUnanswered) {
		r, err = requestOnce(ctx, runtimeDir, what)
	}
	return r, err
}

func requestOnce(ctx context.Context, runtimeDir string, what Request) (Reply, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", controlPath(runtimeDir))
	if err != nil {
		return Reply{}, fmt.Errorf("reach the supervisor: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := json.NewEncoder(conn).Encode(what); err != nil {
		return Reply{}, fmt.Errorf("ask the supervisor: %w", unanswered(err))
	}
	var r Reply
	if err := json.NewDecoder(io.LimitReader(conn, maxReply)).Decode(&r); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return Reply{}, fmt.Errorf("wait for the supervisor: %w", unanswered(err))
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// unanswered knows how a connection ends whose other side is gone: a socket that
// is closed with bytes unread resets it.
func unanswered(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return errUnanswered
	}
	return err
}

// listenControl opens the control socket.
func listenControl(runtimeDir string) (*net.UnixListener, error) {
	path := controlPath(runtimeDir)
	_ = os.Remove(path) // of a supervisor that was killed
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return l, nil
}

// keptControl takes over a control socket that is open. It owns f.
func keptControl(f *os.File) (*net.UnixListener, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take the control socket over: %w", err)
	}
	return l.(*net.UnixListener), nil
}

// serveControl answers until the listener is closed, and returns when the last
// answer is written: whoever asked hears of it, also where it is the end. ask hands a
// request to the owner and returns its reply.
func serveControl(l *net.UnixListener, ask func(Request) Reply) {
	slots := make(chan struct{}, maxConnections)
	unread := unreadConns{all: map[*net.UnixConn]struct{}{}}
	var answers sync.WaitGroup
	defer answers.Wait()
	defer unread.giveUp()
	for {
		slots <- struct{}{}
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: wait for one, do not spin
			time.Sleep(100 * time.Millisecond)
			<-slots
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(requestTimeout))
		unread.add(conn)
		answers.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			r, err := readRequest(conn)
			if !unread.done(conn) && err != nil {
				return // the next supervisor is asked again
			}
			reply := Reply{}
			if err != nil {
				reply.Error = err.Error()
			} else {
				reply = ask(r)
			}
			_ = conn.SetWriteDeadline(time.Now().Add(requestTimeout))
			_ = json.NewEncoder(conn).Encode(reply) // a client that left needs no answer
		})
	}
}

// unreadConns are those whose request has not come yet. They may be used from several
// goroutines.
type unreadConns struct {
	mu  sync.Mutex
	all map[*net.UnixConn]struct{} // nil once they were given up
}

func (u *unreadConns) add(c *net.UnixConn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all[c] = struct{}{}
}

// done tells if c was not given up before.
func (u *unreadConns) done(c *net.UnixConn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, waited := u.all[c]
	delete(u.all, c)
	return waited
}

// giveUp has nobody wait for a request any more.
func (u *unreadConns) giveUp() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.all {
		_ = c.SetReadDeadline(time.Now())
	}
	u.all = nil
}

// readRequest reads what is asked, then checks who asks: a client that is refused
// before it has written would see a broken pipe, and not why.
func readRequest(conn *net.UnixConn) (Request, error) {
	line, err := bufio.NewReader(io.LimitReader(conn, maxRequest)).ReadBytes('\n')
	if err != nil {
		return Request{}, fmt.Errorf("read request: %w", err)
	}
	var cred *unix.Ucred
	if cerr := control(conn, func(fd int) { cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return Request{}, fmt.Errorf("tell who asks: %w", err)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return Request{}, fmt.Errorf("user %d may not ask this supervisor: ask as root or as its own user", cred.Uid)
	}
	var r Request
	if err := json.Unmarshal(line, &r); err != nil {
		return Request{}, fmt.Errorf("read request: %w", err)
	}
	return r, nil
}
