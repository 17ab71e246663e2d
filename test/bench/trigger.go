package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// From the trigger to the first answer of the new release, against the bare
// start of the same program: from fork and exec to its first answer, without
// systemd, supervisor or any other release. One client finds out both: it asks
// every tenth of a millisecond.
//
// The supervisor rests before each trigger, as it does between two upgrades:
// long enough to have given its memory back, which it has to fetch again.

const (
	triggerRounds = 50
	// triggerRest twice is more than a drain plus the second after which the
	// supervisor gives memory back.
	triggerRest = 650 * time.Millisecond
	// mostOfBareStart bounds SIGHUP → first answer. The rest is for the signal,
	// the fork, the readiness and the answers the old release still gives.
	mostOfBareStart = 1.5
)

func measureTrigger(ctx context.Context, b *bench) error {
	s, err := newScene(ctx, b, "")
	if err != nil {
		return err
	}
	defer s.Close()
	order := roundsOrder{Releases: s.releases, Count: triggerRounds, Rest: triggerRest}
	var r roundsReport
	if err := s.order(ctx, "rounds", order, &r); err != nil {
		return err
	}
	bare, hup, bus := median(r.Bare), median(r.Hangup), median(r.Reload)
	ratio := hup.Seconds() / bare.Seconds()
	b.table.show("bare start → first answer", "%s (median of %d)", ms(bare), len(r.Bare))
	b.table.hold(ratio <= mostOfBareStart, "SIGHUP → first answer of the new release",
		fmt.Sprintf("≤ %.1f × bare start", mostOfBareStart), "%s = %.2f × (median of %d)", ms(hup), ratio, len(r.Hangup))
	b.table.show("ReloadUnit → first answer of the new release", "%s = %.2f × (median of %d)", ms(bus), bus.Seconds()/bare.Seconds(), len(r.Reload))
	b.table.show("ReloadUnit → job done", "%s (median of %d)", ms(median(r.Job)), len(r.Job))
	return nil
}

type roundsOrder struct {
	Releases []release
	Count    int
	Rest     time.Duration
}

type roundsReport struct {
	Bare, Hangup, Reload, Job []time.Duration
}

// rounds measures in turns, so that whatever the machine does besides meets
// all of them.
func rounds(ctx context.Context, o roundsOrder) (roundsReport, error) {
	var r roundsReport
	s, err := newSwapper(ctx, o.Releases)
	if err != nil {
		return r, err
	}
	defer s.close()
	for range o.Count {
		for _, via := range []trigger{hangup, reload} {
			time.Sleep(o.Rest)
			took, err := bareStart(ctx, o.Releases[0].program())
			if err != nil {
				return r, fmt.Errorf("bare start: %w", err)
			}
			r.Bare = append(r.Bare, took)
			time.Sleep(o.Rest)
			w, err := s.swap(ctx, swapOrder{Via: via})
			if err != nil {
				return r, fmt.Errorf("%s: %w", via, err)
			}
			if via == hangup {
				r.Hangup = append(r.Hangup, w.Answered.Sub(w.Began))
				continue
			}
			r.Reload = append(r.Reload, w.Answered.Sub(w.Began))
			r.Job = append(r.Job, w.Done.Sub(w.Began))
		}
	}
	return r, nil
}

// bareStart starts the program as anybody would, by fork and exec, to listen
// by itself, and tells when it has answered. The running service is asked all
// the while, as in a handover, so that the program finds the machine as busy.
func bareStart(ctx context.Context, program string) (time.Duration, error) {
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	started := netip.AddrPortFrom(service.Addr(), port)
	cmd := exec.CommandContext(ctx, program, "-address="+started.String())
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for {
		if _, err := ask(service); err != nil {
			return 0, err
		}
		_, err := ask(started)
		if err == nil {
			return time.Since(began), nil
		}
		if !errors.Is(err, unix.ECONNREFUSED) || time.Since(began) > 10*time.Second {
			return 0, err
		}
		pause(glance)
	}
}

// starts does nothing but start the program beside the service, again and
// again: what a machine feels of any new process, handover or not.
func starts(ctx context.Context, o swapOrder) ([]swap, error) {
	var all []swap
	last := time.Now()
	for range o.Count {
		time.Sleep(time.Until(last.Add(o.Every)))
		last = time.Now()
		took, err := bareStart(ctx, o.Releases[0].program())
		if err != nil {
			return nil, err
		}
		all = append(all, swap{Began: last, Answered: last.Add(took)})
	}
	return all, nil
}

// freePort is one that nobody listened on a moment ago.
func freePort() (uint16, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}
