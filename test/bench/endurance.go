package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/test/load"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// What holds for a while holds for long: a million new connections, by few
// clients and by many, through a thousand handovers to and fro; and the
// supervisor killed two hundred times.

const (
	enduredConnections = 1_000_000
	supervisorKills    = 200
)

// crowds are the clients that connect, ask, leave and come again without a
// pause, and the handovers they see. Ten thousand have a service at its limit: an
// old worker then takes its time to drain, and so do the handovers.
var crowds = []struct {
	clients, handovers int
	every              time.Duration
}{{64, 500, handoverEvery}, {1_000, 400, handoverEvery}, {10_000, 100, time.Second}}

func measureEndurance(ctx context.Context, b *bench) error {
	s, err := newScene(ctx, b, "")
	if err != nil {
		return err
	}
	defer s.Close()
	var done []swap
	warm := swapOrder{Releases: s.releases, Count: 100, Via: hangup, Every: handoverEvery / 2}
	if err := s.order(ctx, "swaps", warm, &done); err != nil {
		return err
	}
	before, err := s.footprint(ctx)
	if err != nil {
		return err
	}
	sent, handovers := 0, 0
	for i, crowd := range crowds {
		clients, err := s.load(ctx, load.Options{Address: address, Crowd: crowd.clients, Timeout: time.Minute})
		if err != nil {
			return err
		}
		order := swapOrder{Releases: s.releases, Count: crowd.handovers, Via: hangup, Every: crowd.every}
		err = s.order(ctx, "swaps", order, &done)
		// Each crowd has its share of the million.
		enough := enduredConnections*(i+1)/len(crowds) - sent
		if err == nil {
			err = clients.Await(ctx, func(r load.Report) bool { return r.Sent >= enough })
		}
		r, err := ended(clients, err)
		if err != nil {
			return err
		}
		for _, text := range r.Errors {
			b.say("%s", text)
		}
		sent += r.Sent
		handovers += len(done)
		b.table.hold(r.Failures() == 0, fmt.Sprintf("lost connections, %d clients", crowd.clients), "0",
			"%d of %d in %d handovers, %s; slowest %s", r.Failures(), r.Sent, len(done), ways(r), ms(r.Max))
	}
	after, err := s.footprint(ctx)
	if err != nil {
		return err
	}
	b.table.hold(sent >= enduredConnections && handovers >= 500, "connections, handovers in all", "10⁶, 500", "%d, %d", sent, handovers)
	const most = 256 << 10
	grown := after.PSS - before.PSS
	b.table.hold(grown <= most && after.FDs <= before.FDs && after.Stored <= before.Stored && after.Zombies == 0,
		fmt.Sprintf("the supervisor after %d handovers", handovers), "no growth",
		"PSS %s → %s, descriptors %d → %d, in the fd store %d → %d, zombies %d",
		mib(before.PSS), mib(after.PSS), before.FDs, after.FDs, before.Stored, after.Stored, after.Zombies)
	return nil
}

// measureKills kills the supervisor again and again; its worker goes on, and the
// next supervisor takes it over.
func measureKills(ctx context.Context, b *bench) error {
	s, err := newScene(ctx, b, "")
	if err != nil {
		return err
	}
	defer s.Close()
	clients, err := s.load(ctx, traffic(address))
	if err != nil {
		return err
	}
	var killed int
	err = s.order(ctx, "kills", supervisorKills, &killed)
	r, err := ended(clients, err)
	if err != nil {
		return err
	}
	for _, text := range r.Errors {
		b.say("%s", text)
	}
	b.table.hold(r.Failures() == 0 && killed >= supervisorKills,
		fmt.Sprintf("lost connections in %d kills of the supervisor", killed), "0",
		"%d of %d, %s", r.Failures(), r.Sent, ways(r))
	return nil
}

// kills tells how many there were. Each waits for the next supervisor, and every
// tenth is in the middle of a handover.
func kills(ctx context.Context, count int) (int, error) {
	bus := systemd.New(systemd.Options{})
	defer bus.Close()
	for n := range count {
		before, err := bus.Facts(ctx, unit)
		if err != nil {
			return n, err
		}
		pid := int(before.MainPID)
		if n%10 == 9 {
			if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
				return n, err
			}
			time.Sleep(time.Duration(n%8) * time.Millisecond)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return n, fmt.Errorf("kill %s: %w", strconv.Itoa(pid), os.NewSyscallError("kill", err))
		}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			f, err := bus.Facts(ctx, unit)
			if err == nil && f.ActiveState == "active" && f.MainPID != 0 && f.MainPID != before.MainPID {
				break
			}
			if time.Now().After(deadline) {
				return n, fmt.Errorf("kill %d: no new supervisor, the unit is %s (%w)", n+1, f.ActiveState, err)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return count, nil
}
