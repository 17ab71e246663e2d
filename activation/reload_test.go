package activation_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/activation"
)

// What the manager hears of a reload is what sd_notify(3) wants, in that order,
// and an error never leaves the service in the middle of one.
func TestOnReload(t *testing.T) {
	noLeaks(t)
	m := newManager(t, false)
	m.use(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	results := make(chan error)
	activation.OnReload(ctx, func(ctx context.Context) error {
		if err := activation.Status("reading"); err != nil {
			t.Error(err)
		}
		select {
		case err := <-results:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP)

	ask := func(sig syscall.Signal) {
		t.Helper()
		if err := unix.Kill(unix.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	begins := func() {
		t.Helper()
		d, err := m.next(5 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if !d.has("RELOADING=1") || d.value("MONOTONIC_USEC") == "" {
			t.Errorf("got %q, want RELOADING=1 and MONOTONIC_USEC", d.text)
		}
	}
	for _, c := range []struct {
		sig   syscall.Signal
		err   error
		after string // what is told between RELOADING=1 and the call
		want  string
	}{
		{syscall.SIGUSR1, nil, "", "READY=1\nERRNO=0"},
		{syscall.SIGUSR2, errors.New("line 1:\nbad"), "", "READY=1\nSTATUS=Reload refused: line 1: bad\nERRNO=22"},
		{syscall.SIGUSR1, fmt.Errorf("read it: %w", syscall.ENOENT), "STATUS=", "READY=1\nSTATUS=Reload refused: read it: no such file or directory\nERRNO=2"},
		{syscall.SIGUSR1, nil, "STATUS=", "READY=1\nERRNO=0"},
		{syscall.SIGUSR1, nil, "", "READY=1\nERRNO=0"},
	} {
		ask(c.sig)
		begins()
		if c.after != "" {
			m.want(t, c.after)
		}
		m.want(t, "STATUS=reading")
		results <- c.err
		m.want(t, c.want)
	}

	// Two that come in the middle of one make one more.
	ask(syscall.SIGUSR1)
	begins()
	m.want(t, "STATUS=reading")
	arrived := make(chan os.Signal, 2)
	signal.Notify(arrived, syscall.SIGUSR1, syscall.SIGUSR2)
	ask(syscall.SIGUSR1)
	ask(syscall.SIGUSR2)
	<-arrived
	<-arrived
	signal.Stop(arrived) // waits until the others have what has arrived
	results <- nil
	m.want(t, "READY=1\nERRNO=0")
	begins()
	m.want(t, "STATUS=reading")
	results <- nil
	m.want(t, "READY=1\nERRNO=0")
	cancel()
	for range 2 { // the second comes when nobody waits any more
		ask(syscall.SIGHUP)
		if d, err := m.next(50 * time.Millisecond); err == nil {
			t.Errorf("got %q after the end", d.text)
		}
	}
}
