package upgrader

import (
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/window"
)

// Swap is the way a unit moves from one release to the next.
type Swap string

const (
	SwapAuto     Swap = "auto"     // handover where the unit runs under supervise, else restart
	SwapHandover Swap = "handover" // new worker beside the old, then the old drains
	SwapRestart  Swap = "restart"  // RestartUnit; the backlog holds new connections meanwhile
	SwapReload   Swap = "reload"   // ReloadUnit, of a configuration: whoever runs reads it again
	SwapNone     Swap = "none"     // staged, and waits for the operator
)

// Target is one .upgrade file, read: what follows which source, and which
// unit runs it. It never changes once a cycle has begun.
type Target struct {
	// Name is the file's name without ".upgrade", and the name of the
	// directory in the store.
	Name string
	// File is the .upgrade file, for messages.
	File string
	// Unit runs the release, e.g. "app.service".
	Unit string
	// Swap defaults to SwapAuto.
	Swap Swap
	// Dependents are the units that may be started again where a restart of Unit
	// took them down. Only those that depend on Unit ever are.
	Dependents []string
	// Program is the executable inside a release, relative: where a plain
	// executable is put, and what must be executable in a tree.
	Program string
	// Config, unless empty, says that the releases are configurations of the unit,
	// which have no program: where a plain file is put, and what must be there in a
	// tree. One unit may have several targets of this kind.
	Config string
	// Check is a command, run in the sandbox inside the staged release, that
	// must exit 0 before the swap. Empty: no check.
	Check []string
	// CheckTimeout bounds Check. Default 30 s.
	CheckTimeout time.Duration
	// InstancesMax is how many releases stay on disk, at least 2. Default 3.
	InstancesMax int
	// KnownBad is how long a release stays known bad. Zero: until it is forgiven.
	KnownBad time.Duration
	// Windows are when upgrades begin by themselves. None: at any time.
	Windows []window.Window
	// MinVersion refuses anything older. Empty: no floor.
	MinVersion fetcher.Version
	Source     fetcher.Options
	Confirm    Confirm
}

// content is the file inside a release that matters.
func (t *Target) content() string {
	if t.Config != "" {
		return t.Config
	}
	return t.Program
}

// Confirm says how a release proves itself after the swap.
type Confirm struct {
	// Window is how long the release is watched. Default 1 minute.
	Window time.Duration
	// Probes are asked at every ProbeInterval; all of them must succeed.
	Probes []Probe
	// ProbeInterval defaults to 1 s, ProbeTimeout to 5 s.
	ProbeInterval, ProbeTimeout time.Duration
	// ProbeFailuresMax consecutive failures end the watch with the verdict
	// bad. Default 3.
	ProbeFailuresMax int
}

// Probe is one question asked of the running service.
type Probe struct {
	Kind ProbeKind
	// Address is a URL, a host:port or a socket path, by Kind.
	Address string
	// Command is the argument vector of a ProbeExec.
	Command []string
}

// ProbeKind tells how a probe asks.
type ProbeKind string

const (
	ProbeHTTP ProbeKind = "http" // GET, 2xx counts; https too
	ProbeTCP  ProbeKind = "tcp"  // connect
	ProbeUnix ProbeKind = "unix" // connect
	ProbeExec ProbeKind = "exec" // exit status 0, with the daemon's own rights
)
