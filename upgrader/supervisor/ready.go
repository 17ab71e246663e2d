package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ReadyKind is the way a worker is seen to be ready.
type ReadyKind string

const (
	// ReadyNotify waits for READY=1. The others accept READY=1 too.
	ReadyNotify ReadyKind = "notify"
	// ReadyAccepting looks at the worker's system calls and epoll sets until
	// it waits on each of its listeners. Never by connecting: the old worker
	// shares the accept queue and might be the one that answers.
	ReadyAccepting ReadyKind = "accepting"
	// ReadyAfter is satisfied with a worker that stays alive for a time.
	ReadyAfter ReadyKind = "after"
	// ReadyCommand runs a command until it exits with 0.
	ReadyCommand ReadyKind = "command"
)

// Ready says when a worker may take over.
type Ready struct {
	Kind    ReadyKind
	After   time.Duration // with ReadyAfter
	Command []string      // with ReadyCommand; the first word is an absolute path
}

// ParseReady reads the value of --ready: "notify", "accepting",
// "after=TIME", or a command with its arguments separated by spaces.
func ParseReady(s string) (Ready, error) {
	if v, ok := strings.CutPrefix(s, "after="); ok {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			return Ready{}, fmt.Errorf("--ready=after=%s: give a time such as after=2s", v)
		}
		return Ready{Kind: ReadyAfter, After: d}, nil
	}
	switch ReadyKind(s) {
	case ReadyNotify, ReadyAccepting:
		return Ready{Kind: ReadyKind(s)}, nil
	}
	words := strings.Fields(s)
	if len(words) == 0 || !filepath.IsAbs(words[0]) {
		return Ready{}, fmt.Errorf("--ready=%q: give notify, accepting, after=TIME or a command by its absolute path", s)
	}
	return Ready{Kind: ReadyCommand, Command: words}, nil
}

// watchReady blocks until the worker is seen ready by other means than
// READY=1, or ctx ends. With ReadyNotify it has nothing to watch.
func (r Ready) watchReady(ctx context.Context, w *worker) error {
	switch r.Kind {
	case ReadyAfter:
		select {
		case <-time.After(r.After):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	case ReadyAccepting:
		return poll(ctx, func() error { return waitsOnAll(w.pid, w.listening) })
	case ReadyCommand:
		return poll(ctx, func() error { return r.run(ctx, w) })
	default:
		<-ctx.Done()
		return ctx.Err()
	}
}

// run asks the command once. It learns the worker's PID as MAINPID, as
// systemd's own ExecReload= would.
func (r Ready) run(ctx context.Context, w *worker) error {
	cmd := exec.CommandContext(ctx, r.Command[0], r.Command[1:]...)
	cmd.Env = append(os.Environ(), "MAINPID="+strconv.Itoa(w.pid), "UPGRADERD_RELEASE="+w.release.name())
	cmd.WaitDelay = time.Second // a grandchild that keeps stdout open must not hold us
	return cmd.Run()
}

// poll calls look at growing intervals until it returns nil or ctx ends;
// then it returns the last answer.
func poll(ctx context.Context, look func() error) error {
	const most = 100 * time.Millisecond
	for wait := 2 * time.Millisecond; ; wait = min(wait*2, most) {
		err := look()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}
