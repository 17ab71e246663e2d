package unitlint

import (
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/supervisor"
)

// supervise is what a unit's ExecStart= tells upgraderd supervise.
type supervise struct {
	setting
	root       string
	listen     int
	runtimeDir string
	start      time.Duration
	drain      time.Duration
	// unsure is set where a variable or a specifier hides part of the line.
	unsure bool
}

// supervised reads the line of ExecStart= that runs upgraderd supervise, as the
// daemon finds it; nil if none does.
func supervised(u *unit) *supervise {
	for _, s := range u.all("Service", "ExecStart") {
		argv, sure := u.words(s.value)
		if i := slices.Index(argv, "supervise"); i >= 0 {
			v := &supervise{setting: s, start: supervisor.DefaultStartTimeout, drain: supervisor.DefaultDrainTimeout, unsure: !sure}
			v.flags(argv[i+1:])
			return v
		}
	}
	return nil
}

// flags reads the flags before the program.
func (v *supervise) flags(argv []string) {
	for len(argv) > 0 {
		arg := argv[0]
		argv = argv[1:]
		if strings.HasPrefix(arg, "$") {
			v.unsure = true // it may hold any flag
			continue
		}
		if arg == "--" || !strings.HasPrefix(arg, "--") {
			return
		}
		name, value, joined := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !joined {
			if len(argv) == 0 {
				return
			}
			value, argv = argv[0], argv[1:]
		}
		if strings.Contains(value, "$") {
			v.unsure = true
		}
		switch name {
		case "root":
			v.root = value
		case "listen":
			v.listen++
		case "runtime-dir":
			v.runtimeDir = value
		case "start-timeout":
			v.duration(&v.start, value)
		case "drain-timeout":
			v.duration(&v.drain, value)
		}
	}
}

// duration reads a time as the flag does; 0 is its default.
func (v *supervise) duration(d *time.Duration, value string) {
	got, err := time.ParseDuration(value)
	if err != nil {
		v.unsure = true
	} else if got > 0 {
		*d = got
	}
}

// runsHandover tells whether a line of ExecReload= asks for a handover and
// waits, as the daemon finds it.
func runsHandover(u *unit) bool {
	return slices.ContainsFunc(u.listed("Service", "ExecReload"), func(s setting) bool { return s.value == "handover" })
}
