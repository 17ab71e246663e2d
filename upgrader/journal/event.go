package journal

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Levels between slog's own, where syslog(3) has more to say.
const (
	LevelNotice   = slog.LevelInfo + 2  // normal, but worth a look: a swap, a new release
	LevelCritical = slog.LevelError + 4 // a person is needed now
)

// Event is something that happened, in the past tense of its name. The zero
// Event is no event.
type Event int

// The events. Their order is that of the catalog; adding one anywhere is
// fine, changing a MESSAGE_ID is not.
const (
	_ Event = iota
	DaemonStarted
	BusLost
	BusReturned
	LaunchFailed
	ConfigReloaded
	ConfigUnread
	ConfigRejected
	ConfigDoubtful
	MetricsUnwritten
	TargetLocked
	TargetDropped
	ReleaseFound
	ReleaseKnownBad
	ReleaseForgiven
	ReleaseIncomparable
	ReleaseRepublished
	SourceWentBack
	OperatorOrdered
	OrderRefused
	OrderTakenBack
	ReleasePassed
	OperatorWished
	WishEnded
	ReleaseForbidden
	UpgradeAwaited
	SourceFailed
	SourceRecovered
	HostFailed
	HostRecovered
	TurnAwaited
	UnitAwaited
	ReleaseBorrowed
	ReleaseComing
	ReleaseFetched
	ReleaseVerified
	ReleaseStaged
	ReleaseRefused
	ReleaseChecked
	CheckUnavailable
	SwapChosen
	UnitUnusable
	UnitChangedOnDisk
	SwapStarted
	ReleaseServes
	ReleaseRotten
	ReleaseDamaged
	ReleaseHealed
	ReleaseInstalled
	OperatorAwaited
	OperatorIntervened
	ReleaseBeside
	SupervisorReturned
	ReleaseKept
	ReleaseConfirmed
	ReleaseTurnedBad
	RolledBack
	RollbackYielded
	RollbackFailed
	DependentReturned
	DependentDown
	SwapUnguarded
	UpgradeAbandoned
	TrialInterrupted
	SwapRecovered
	ReleaseRemoved
	StepFailed
	ReleaseAwaited
	WorkerStarting
	WorkerReady
	WorkerBeside
	WorkerFailed
	WorkerDraining
	WorkerDrained
	WorkerKilled
	WorkerEnded
	BesideEnded
	WorkerAdopted
	WorkerStalled
	WorkerTold
	ReloadFailed
	SupervisorRenewed
	SupervisorOutdated
	HandoverRefused
	UnitStopping
	LeftoversKilled
	eventsEnd
)

// Description is one row of the event table.
type Description struct {
	Name string
	// ID is the MESSAGE_ID: 128 bits in hex, for ever.
	ID    string
	Level slog.Level
	// Text is the sentence; {name} stands for the attribute of that name.
	Text string
	// Subject and Body are the catalog entry; @FIELD@ stands for a field.
	Subject, Body string
}

// Describe gives the row of e. It panics on a value that is no event.
func (e Event) Describe() Description {
	if e <= 0 || e >= eventsEnd {
		panic(fmt.Sprintf("journal: no event %d", int(e)))
	}
	return table()[e]
}

// String is the event's name.
func (e Event) String() string { return e.Describe().Name }

// Events lists the table in its order.
func Events() []Description {
	t := table()
	all := make([]Description, 0, len(t))
	for e := Event(1); e < eventsEnd; e++ {
		all = append(all, t[e])
	}
	return all
}

// keyID is the attribute that carries the MESSAGE_ID; the handler makes it
// the field of that name, outside any group.
const keyID = "message_id"

// Emit writes e with its facts. The sentence is filled in from attrs; a fact
// that the sentence names and attrs lack reads "unknown".
func Emit(ctx context.Context, log *slog.Logger, e Event, attrs ...slog.Attr) {
	d := e.Describe()
	if !log.Enabled(ctx, d.Level) {
		return
	}
	all := make([]slog.Attr, 0, len(attrs)+1)
	all = append(all, slog.String(keyID, d.ID))
	all = append(all, attrs...)
	log.LogAttrs(ctx, d.Level, fill(d.Text, attrs), all...) //nolint:sloglint // a constant of the table, with its facts filled in
}

// fill replaces {name} by the attribute's text.
func fill(text string, attrs []slog.Attr) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, after, _ := strings.Cut(rest, "}")
		b.WriteString(lookup(name, attrs))
		text = after
	}
}

func lookup(name string, attrs []slog.Attr) string {
	for _, a := range attrs {
		if a.Key != name {
			continue
		}
		if a.Key == "bytes" {
			return Bytes(a.Value.Resolve().Int64())
		}
		if s := display(a.Value.Resolve()); s != "" {
			return s
		}
	}
	return "unknown"
}

// display is a value as a person reads it.
func display(v slog.Value) string {
	if v.Kind() == slog.KindDuration {
		return roundDuration(v.Duration()).String()
	}
	return v.String()
}

// Bytes is a number of bytes as a person reads it: 12.3 MiB.
func Bytes(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/(1<<10), "KiB"
	for _, larger := range []string{"MiB", "GiB", "TiB"} {
		if v < 1<<10 {
			break
		}
		v, unit = v/(1<<10), larger
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

// roundDuration keeps three digits or so: nobody reads nanoseconds of a
// download.
func roundDuration(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	default:
		return d.Round(100 * time.Microsecond)
	}
}
