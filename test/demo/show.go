package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/upgraderd/upgraderd/test/build"
	"github.com/upgraderd/upgraderd/test/lab"
	"github.com/upgraderd/upgraderd/test/load"
	"github.com/upgraderd/upgraderd/test/publish"
	"github.com/upgraderd/upgraderd/upgrader"
)

// What is put where in the machine.
const (
	unit          = "live@hello.service"
	socketUnit    = "live@hello.socket"
	addressFile   = "/etc/systemd/system/live@hello.socket.d/address.conf"
	limitFile     = "/etc/systemd/system/live@hello.service.d/limit.conf"
	upgradeFile   = "/etc/upgraderd/hello.upgrade"
	keyFile       = "/etc/upgraderd/hello.pub"
	authorityFile = "/etc/upgraderd/hello-ca.pem"
	directory     = "/srv/hello"
	address       = "127.0.0.1:8080"
	siteHost      = "127.0.0.1"
	siteAddress   = siteHost + ":8443"
	sitePath      = "/hello/"
	siteURL       = "https://" + siteAddress + sitePath
)

const daemonCommand = "./cmd/upgraderd"

// Short, for a demo; a real service is given more of each.
const (
	startTimeout  = 3 * time.Second
	confirmWindow = 3 * time.Second
	// healthy is how long the release that turns bad answers its probes.
	healthy = time.Second
)

// The load: clients that come, ask once and leave, and clients that stay.
const (
	newPerSecond = 200
	kept         = 8
	keptPause    = 20 * time.Millisecond
	// patience of a client. The first ones wait for a release to appear.
	patience = 30 * time.Second
)

// errWrong is a demo that went through, and showed something else than it
// should.
var errWrong = errors.New("not everything went as it must")

// show is one run of the demo.
type show struct {
	screen    *screen
	built     build.Cache
	machine   *lab.Machine
	journal   *follower
	load      *load.Process
	publisher *publish.Publisher
	artifacts map[string][]byte
	site      *site
}

func run(ctx context.Context, screen *screen, suite string) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &show{screen: screen, artifacts: make(map[string][]byte)}
	defer func() { err = errors.Join(err, s.built.Close()) }()
	if s.publisher, err = publish.New(); err != nil {
		return err
	}

	all := steps()
	screen.heading(fmt.Sprintf("upgraderd demo: %d releases of a live service, on a real systemd, under load", len(all)))
	if err := s.prepare(ctx, suite, all); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.machine.Close()) }()

	screen.heading("upgraderd is installed, and a service gets an address and a source of releases")
	if err := s.install(ctx); err != nil {
		return err
	}
	if err := s.followJournal(ctx); err != nil {
		return err
	}
	defer s.journal.wait()
	defer cancel()
	if err := s.startLoad(ctx); err != nil {
		return err
	}
	defer func() { _, _ = s.load.Stop() }() // if it still runs; why was said before
	defer cancel()
	defer s.closeSite()

	began := time.Now()
	var outcomes []outcome
	var before, after string // the main PID
	for i, st := range all {
		screen.heading(fmt.Sprintf("[%d/%d] %s", i+1, len(all), st.title))
		o, err := s.play(ctx, st)
		if err != nil {
			return err
		}
		s.sayOutcome(o)
		outcomes = append(outcomes, o)
		if after, err = s.machine.Property(ctx, unit, "MainPID"); err != nil {
			return err
		}
		if i == 0 {
			before = after
		}
	}
	report, err := s.load.Stop()
	if err != nil {
		return err
	}
	took := time.Since(began)
	if err := s.sayStatus(ctx); err != nil {
		return err
	}
	return screen.verdicts(facts{
		outcomes: outcomes, sent: report.Sent, failed: report.Failures(), errors: report.Errors,
		took: took, before: before, after: after,
	})
}

// prepare compiles everything while the machine boots.
func (s *show) prepare(ctx context.Context, suite string, all []step) error {
	began := time.Now()
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error {
		if _, err := s.built.Program(ctx, daemonCommand); err != nil {
			return err
		}
		for _, st := range all {
			if _, err := s.built.Hello(ctx, st.version, st.fault); err != nil {
				return err
			}
		}
		s.screen.note("built upgraderd and %d releases of examples/hello in %s", len(all), seconds(time.Since(began)))
		return nil
	})
	both.Go(func() (err error) {
		if s.machine, err = lab.Boot(ctx, suite, lab.Options{}); err != nil {
			return err
		}
		version, err := s.machine.Run(ctx, "systemctl", "--version")
		if err != nil {
			return err
		}
		version, _, _ = strings.Cut(version, " (")
		s.screen.note("booted Debian %s with %s in %s", suite, version, seconds(time.Since(began)))
		return nil
	})
	err := both.Wait()
	if err != nil && s.machine != nil {
		err = errors.Join(err, s.machine.Close())
	}
	return err
}

// install does what an operator does, once for the host and once for the
// service.
func (s *show) install(ctx context.Context) error {
	const program = "/root/upgraderd"
	daemon, err := s.built.Program(ctx, daemonCommand)
	if err != nil {
		return err
	}
	if err := s.machine.Copy(ctx, daemon, program); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{program, "install"},
		{"systemd-sysusers", "upgraderd.conf"},
		{"systemd-tmpfiles", "--create", "upgraderd.conf"},
		{"journalctl", "--update-catalog"},
	} {
		if err := s.run(ctx, argv...); err != nil {
			return err
		}
	}
	s.screen.print("")
	for _, f := range []struct{ path, text string }{
		{addressFile, "[Socket]\nListenStream=8080\n"},
		{limitFile, fmt.Sprintf("[Service]\nExecStart=\nExecStart=/usr/bin/upgraderd supervise --root=%%S/upgraderd/%%i \\\n    --start-timeout=%s -- bin/%%i\n", startTimeout)},
		{keyFile, s.publisher.Key + "\n"},
		{upgradeFile, targetFile(sourceSection(directory, ""))},
	} {
		if err := s.write(ctx, f.path, f.text); err != nil {
			return err
		}
	}
	if err := s.run(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	return s.run(ctx, "systemctl", "enable", "--now", socketUnit)
}

// targetFile is the .upgrade file for releases from this source.
func targetFile(source string) string {
	return "[Upgrade]\nUnit=" + unit + "\n\n" + source +
		"\n[Confirm]\nWindowSec=" + confirmWindow.String() + "\nProbe=http://" + address + "/healthz\nProbeIntervalSec=250ms\n"
}

// sourceSection says where releases come from, and whom to trust there.
func sourceSection(path, authority string) string {
	source := "[Source]\nPath=" + path + "\nMatchPattern=" + artifact("@v") + "\nKey=" + keyFile + "\n"
	if authority != "" {
		source += "CAFile=" + authority + "\nPollIntervalSec=1s\n"
	}
	return source
}

// artifact is a release's file name.
func artifact(version string) string { return "hello_" + version }

// release gives what was built for the step, and puts it on the publisher's
// list.
func (s *show) release(ctx context.Context, st step) ([]byte, error) {
	program, err := s.built.Hello(ctx, st.version, st.fault)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	s.artifacts[artifact(st.version)] = data
	s.publisher.Add(artifact(st.version), data)
	return data, nil
}

// openSite serves files in the machine's network, and makes its authority
// known there.
func (s *show) openSite(ctx context.Context) error {
	l, err := s.machine.Listen("tcp", siteAddress)
	if err != nil {
		return err
	}
	var authority []byte
	if s.site, authority, err = openSite(l, siteHost); err != nil {
		return err
	}
	return s.machine.WriteFile(ctx, authorityFile, 0o644, authority)
}

func (s *show) closeSite() {
	if s.site != nil {
		s.site.close()
	}
}

func (s *show) startLoad(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s.load, err = load.Start(s.machine.NetCommand(ctx, self), load.Options{
		Address: address, Rate: newPerSecond, Kept: kept, Pause: keptPause, Timeout: patience,
	})
	if err != nil {
		return err
	}
	s.screen.print("")
	s.screen.note("clients ask %s from now on: %d new ones a second, and %d that stay", address, newPerSecond, kept)
	return nil
}

// followJournal shows what daemon and service say, without the target's name,
// which is always the same. What systemd itself says about them is left out,
// unless it is a complaint.
func (s *show) followJournal(ctx context.Context) (err error) {
	cmd := s.machine.Command(ctx, "journalctl", "--follow", "--no-tail", "--output=json", "--unit=upgraderd.service", "--unit="+unit)
	s.journal, err = follow(cmd, func(e entry) {
		if e.fromSystemd() && e.Priority > "4" {
			return
		}
		s.screen.said(e.when(), e.unit(), strings.TrimPrefix(string(e.Message), "hello: "), e.style())
	})
	return err
}

// run runs a command in the machine, and shows it.
func (s *show) run(ctx context.Context, argv ...string) error {
	s.screen.command(strings.Join(argv, " "))
	_, err := s.machine.Run(ctx, argv...)
	return err
}

// write puts a file into the machine, and shows it.
func (s *show) write(ctx context.Context, path, text string) error {
	s.screen.file(path, text)
	return s.machine.WriteFile(ctx, path, 0o644, []byte(text))
}

func (s *show) status(ctx context.Context) (upgrader.TargetStatus, error) {
	out, err := s.machine.Run(ctx, "upgraderd", "status", "--json", "hello")
	if err != nil {
		return upgrader.TargetStatus{}, err
	}
	var all []upgrader.TargetStatus
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return upgrader.TargetStatus{}, fmt.Errorf("read the status: %w", err)
	}
	if len(all) != 1 {
		return upgrader.TargetStatus{}, fmt.Errorf("read the status: got %d targets, want 1", len(all))
	}
	return all[0], nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
