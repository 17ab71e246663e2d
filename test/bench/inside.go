package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/test/load"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// insideVerb makes this program the part that runs inside the machine:
// VERB and an order in JSON in, a report in JSON out.
const insideVerb = "inside"

func inside(args []string) error {
	if len(args) != 2 {
		return errors.New("inside: want a verb and an order")
	}
	var (
		report any
		err    error
	)
	ctx := context.Background() // the machine ends us with our parent
	switch text := []byte(args[1]); args[0] {
	case "swaps":
		report, err = obey(ctx, text, swaps)
	case "starts":
		report, err = obey(ctx, text, starts)
	case "rounds":
		report, err = obey(ctx, text, rounds)
	case "footprint":
		report, err = obey(ctx, text, footprint)
	case "kills":
		report, err = obey(ctx, text, kills)
	case "restarts":
		report, err = obey(ctx, text, restarts)
	default:
		err = fmt.Errorf("inside: no verb %q", args[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

func obey[Order, Report any](ctx context.Context, text []byte, do func(context.Context, Order) (Report, error)) (any, error) {
	var order Order
	if err := json.Unmarshal(text, &order); err != nil {
		return nil, err
	}
	return do(ctx, order)
}

// trigger is a way to ask for a handover.
type trigger string

const (
	hangup trigger = "SIGHUP"
	reload trigger = "ReloadUnit"
)

// swapOrder asks for handovers one after the other, releases taking turns.
type swapOrder struct {
	Releases []release
	Count    int
	Via      trigger
	// Every is the time from one trigger to the next; a handover that takes
	// longer moves the next one.
	Every time.Duration
	// Glance is the time between two looks at which release answers. Default
	// 0.1 ms, which tells a first answer exactly and makes the service busier
	// in a swap than it is without.
	Glance time.Duration
}

// swap is one handover.
type swap struct {
	// Began is the moment of the trigger, Answered when the first answer of
	// the new release was there, Done when the job was (for ReloadUnit).
	Began, Answered, Done time.Time
}

func swaps(ctx context.Context, o swapOrder) ([]swap, error) {
	s, err := newSwapper(ctx, o.Releases)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var all []swap
	for range o.Count {
		time.Sleep(time.Until(s.last.Add(o.Every)))
		done, err := s.swap(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("handover %d: %w", len(all)+1, err)
		}
		all = append(all, done)
	}
	return all, nil
}

// result is how something ended, and when.
type result struct {
	at  time.Time
	err error
}

// swapper hands a service over to its other release, again and again.
type swapper struct {
	bus      *systemd.Client
	pid      int
	releases []release
	now      int // index of the one that serves
	last     time.Time
}

func newSwapper(ctx context.Context, releases []release) (*swapper, error) {
	s := &swapper{bus: systemd.New(systemd.Options{}), releases: releases, last: time.Now()}
	facts, err := s.bus.Facts(ctx, unit)
	if err != nil {
		s.close()
		return nil, err
	}
	s.pid = int(facts.MainPID)
	current, err := os.Readlink(store + "/current")
	if err != nil {
		s.close()
		return nil, err
	}
	for i, r := range releases {
		if filepath.Base(current) == r.Name {
			s.now = i
		}
	}
	return s, nil
}

func (s *swapper) close() { _ = s.bus.Close() }

// swap points current at the other release, asks for a handover, and returns
// when the new one has answered and, for a job, when that is done too.
func (s *swapper) swap(ctx context.Context, o swapOrder) (swap, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	next := 1 - s.now
	fresh := store + "/.current"
	if err := os.Symlink("releases/"+s.releases[next].Name, fresh); err != nil {
		return swap{}, err
	}
	if err := os.Rename(fresh, store+"/current"); err != nil {
		return swap{}, err
	}
	done := make(chan result, 1)
	var w swap
	w.Began = time.Now()
	s.last = w.Began
	switch o.Via {
	case hangup:
		done <- result{err: syscall.Kill(s.pid, syscall.SIGHUP)}
	case reload:
		go func() {
			job, err := s.bus.Reload(ctx, unit)
			if err == nil && job != systemd.ResultDone {
				err = fmt.Errorf("job: got %s, want done", job)
			}
			done <- result{time.Now(), err}
		}()
	}
	for {
		version, err := ask(service)
		if err != nil {
			return w, err
		}
		if version == s.releases[next].Version {
			break
		}
		if err := ctx.Err(); err != nil {
			return w, fmt.Errorf("wait for %s: %w", s.releases[next].Version, err)
		}
		pause(cmp.Or(o.Glance, glance))
	}
	w.Answered = time.Now()
	s.now = next
	e := <-done
	w.Done = e.at
	return w, e.err
}

var service = netip.MustParseAddrPort(address)

const glance = 100 * time.Microsecond

// pause leaves the CPUs of a small machine to those who are measured.
// time.Sleep would take a whole millisecond: epoll counts in them.
func pause(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil)
}

// ask opens a connection, sends one request, and tells which version answered.
// It makes five system calls and no goroutine, so that the client takes as
// little as possible of what it measures.
func ask(address netip.AddrPort) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(10 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return "", os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}); err != nil {
		return "", os.NewSyscallError("connect", err)
	}
	if _, err := unix.Write(fd, []byte("GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")); err != nil {
		return "", os.NewSyscallError("write", err)
	}
	answer := make([]byte, 0, 1024)
	for !bytes.Contains(answer, []byte("\r\n\r\n")) {
		n, err := unix.Read(fd, answer[len(answer):cap(answer)])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return "", fmt.Errorf("read an answer: got %q, then %w", answer, cmp.Or(err, io.ErrUnexpectedEOF))
		}
		answer = answer[:len(answer)+n]
	}
	for line := range bytes.Lines(answer) {
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && string(name) == load.VersionHeader {
			return string(bytes.TrimSpace(value)), nil
		}
	}
	return "", fmt.Errorf("got an answer without %s: %q", load.VersionHeader, answer)
}
