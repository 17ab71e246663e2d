package activation_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/activation"
)

func TestNotifications(t *testing.T) {
	for name, abstract := range map[string]bool{"path": false, "abstract": true} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			m := newManager(t, abstract)
			m.use(t)
			for _, tt := range []struct {
				send func() error
				want string
			}{
				{activation.Ready, "READY=1"},
				{activation.Stopping, "STOPPING=1"},
				{func() error { return activation.Status("serving %d of %d", 1, 2) }, "STATUS=serving 1 of 2"},
				{func() error { return activation.Status("bad %s", "path\nSTOPPING=1\r\x00\x7f") }, "STATUS=bad path STOPPING=1   "},
				{func() error { return activation.ExtendTimeout(1500 * time.Millisecond) }, "EXTEND_TIMEOUT_USEC=1500000"},
				{func() error { return activation.Notify("READY=1", "STATUS=up", "X_OWN=2") }, "READY=1\nSTATUS=up\nX_OWN=2"},
				{func() error { return activation.RemoveStored("a b") }, "FDSTOREREMOVE=1\nFDNAME=a b"},
			} {
				if err := tt.send(); err != nil {
					t.Fatal(err)
				}
				m.want(t, tt.want)
			}
		})
	}
}

func TestReloadingCarriesTheMonotonicClock(t *testing.T) {
	m := newManager(t, false)
	m.use(t)
	usec := func() int64 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			t.Fatal(err)
		}
		return now.Nano() / 1000
	}
	before := usec()
	if err := activation.Reloading(); err != nil {
		t.Fatal(err)
	}
	d, err := m.next(5 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	got, err := strconv.ParseInt(d.value("MONOTONIC_USEC"), 10, 64)
	if err != nil || !d.has("RELOADING=1") || got < before || got > usec() {
		t.Errorf("got %q, want RELOADING=1 and MONOTONIC_USEC from %d on", d.text, before)
	}
}

func TestNotifyWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		t.Fatal(err)
	}
	if activation.Supervised() {
		t.Error("Supervised: got true without NOTIFY_SOCKET")
	}
	for name, err := range map[string]error{
		"Notify":        activation.Notify("READY=1"),
		"Ready":         activation.Ready(),
		"Reloading":     activation.Reloading(),
		"ExtendTimeout": activation.ExtendTimeout(time.Second),
		"Barrier":       activation.Barrier(t.Context()),
	} {
		if err != nil {
			t.Errorf("%s: got %v, want nil", name, err)
		}
	}
	// To keep something is another matter: nobody would.
	if err := activation.StoreFile("f", os.Stdin); !errors.Is(err, activation.ErrNoManager) {
		t.Errorf("StoreFile: got %v, want ErrNoManager", err)
	}
	if err := activation.StoreState("s", nil); !errors.Is(err, activation.ErrNoManager) {
		t.Errorf("StoreState: got %v, want ErrNoManager", err)
	}
}

func TestNotifyErrors(t *testing.T) {
	noLeaks(t)
	for addr, want := range map[string]string{
		"vsock:2:1234":                       "neither a path nor an abstract address",
		"relative":                           "neither a path nor an abstract address",
		filepath.Join(t.TempDir(), "nobody"): "no such file",
		"/" + strings.Repeat("x", 200):       "invalid argument",
	} {
		t.Setenv("NOTIFY_SOCKET", addr)
		if err := activation.Ready(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NOTIFY_SOCKET=%s: got %v, want %q", addr, err, want)
		}
	}
	if err := activation.ExtendTimeout(-time.Second); err == nil {
		t.Error("ExtendTimeout(-1s): got nil, want an error")
	}
}

func TestBarrier(t *testing.T) {
	noLeaks(t)
	m := newManager(t, false)
	m.use(t)
	if err := activation.Ready(); err != nil {
		t.Fatal(err)
	}
	passed := make(chan error, 1)
	go func() { passed <- activation.Barrier(t.Context()) }()

	m.want(t, "READY=1")
	d := m.want(t, "BARRIER=1")
	if len(d.files) != 1 {
		t.Fatalf("got %d descriptors, want 1", len(d.files))
	}
	select {
	case err := <-passed:
		t.Fatalf("Barrier returned %v before the manager closed its end", err)
	case <-time.After(50 * time.Millisecond):
	}
	d.close()
	if err := <-passed; err != nil {
		t.Error(err)
	}

	// A manager that never gets there: the context decides.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := activation.Barrier(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	d, err := m.next(time.Second)
	if err != nil {
		t.Fatal(err)
	}
	d.close()
	if err := activation.Barrier(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a context that has ended: got %v, want its error", err)
	}
}

func TestWatchdog(t *testing.T) {
	m := newManager(t, false)
	m.use(t)
	t.Setenv("WATCHDOG_USEC", "2000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	fd, err := m.conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	raw, err := fd.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// Inside the bubble nothing may wait for the network.
	pings := func() (n int) {
		_ = raw.Control(func(fd uintptr) {
			buf := make([]byte, 100)
			for {
				k, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
				if err != nil {
					return
				}
				if string(buf[:k]) == "WATCHDOG=1" {
					n++
				}
			}
		})
		return n
	}
	synctest.Test(t, func(t *testing.T) {
		var sick atomic.Bool
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- activation.Watchdog(ctx, func() error {
				if sick.Load() {
					return errors.New("the main loop hangs")
				}
				return nil
			})
		}()

		time.Sleep(4*time.Second + time.Millisecond)
		synctest.Wait()
		if n := pings(); n != 5 {
			t.Errorf("got %d pings in 4s of WatchdogSec=2s, want 5", n)
		}
		sick.Store(true)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if n := pings(); n != 0 {
			t.Errorf("got %d pings of a sick service, want none", n)
		}
		sick.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := pings(); n != 2 {
			t.Errorf("got %d pings after recovery, want 2", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Setenv("WATCHDOG_PID", "1")
	if err := activation.Watchdog(t.Context(), nil); err != nil {
		t.Errorf("watchdog of another process: got %v, want nil at once", err)
	}
}
