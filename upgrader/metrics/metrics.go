// Package metrics says in numbers what upgraderd status says in words, in the text
// format of Prometheus. Its promise: every series is made of what is on disk, so
// that it is the same whoever asks, counters outlive the daemon, and a host with n
// targets has at most a constant times n series, whatever its sources offer.
//
// The table in this file is the one source for what there is: docs/metrics.md is
// generated from it, and the alert rules and the dashboard are checked against it.
package metrics

import (
	"time"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// Host is what there is to tell.
type Host struct {
	// Version is that of the program that tells, and Go that of its compiler.
	Version, Go string
	// Broken counts the .upgrade files that cannot be followed.
	Broken  int
	Targets []upgrader.TargetStatus
}

// kind is a metric's TYPE.
type kind string

const (
	gauge   kind = "gauge"
	counter kind = "counter"
	summary kind = "summary" // without quantiles: a sum and a count
)

// metric is a row of the table.
type metric struct {
	Name   string
	Kind   kind
	Help   string
	Labels []string // in their order, target first where there is one
	of     func(Host) []sample
}

// sample is one series. Of a summary it has a count, too.
type sample struct {
	labels []string // values, as Labels of the metric has their names
	value  float64
	count  int64
}

// states and verdicts are those a series is for, in the order of an upgrade.
var (
	states = []upgrader.State{
		upgrader.Idle, upgrader.Fetching, upgrader.Staging, upgrader.Checking, upgrader.Swapping,
		upgrader.Confirming, upgrader.Beside, upgrader.Keeping, upgrader.RollingBack, upgrader.Held, upgrader.Recovering,
	}
	verdicts = []upgrader.Verdict{
		upgrader.VerdictGood, upgrader.VerdictInstalled, upgrader.VerdictRefused,
		upgrader.VerdictRolledBack, upgrader.VerdictStuck, upgrader.VerdictInconclusive, upgrader.VerdictCancelled,
	}
)

// table is all there is.
func table() []metric {
	return []metric{
		{"upgraderd_build_info", gauge, "The upgraderd that tells this; always 1.", []string{"version", "goversion"},
			func(h Host) []sample { return one(1, h.Version, h.Go) }},
		{"upgraderd_config_broken", gauge, "Targets whose .upgrade file is broken, so that they are not followed.", nil,
			func(h Host) []sample { return one(float64(h.Broken)) }},
		{"upgraderd_target_info", gauge, "What a target is and runs; always 1.", []string{"target", "unit", "swap", "current", "previous"},
			each(func(st upgrader.TargetStatus) []sample {
				return one(1, st.Name, st.Unit, string(st.Swap), version(st.Current), version(st.Previous))
			})},
		{"upgraderd_target_state", gauge, "1 for the state that the target is in, 0 for the others.", []string{"target", "state"},
			each(func(st upgrader.TargetStatus) (all []sample) {
				for _, s := range states {
					all = append(all, one(truth(st.State == s), st.Name, string(s))...)
				}
				return all
			})},
		{"upgraderd_target_state_since_timestamp_seconds", gauge, "When the target got into its state.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample { return date(st.Since, st.Name) })},
		{"upgraderd_target_installed", gauge, "1 if a release is installed.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample { return one(truth(st.Current != ""), st.Name) })},
		{"upgraderd_target_trouble", gauge, "1 while something fails and is tried again; upgraderd status says what.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample { return one(truth(st.Trouble != ""), st.Name) })},
		{"upgraderd_target_waiting", gauge, "1 if a release is staged and waits for the operator.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample {
				return one(truth(st.State == upgrader.Held || st.Fetched != ""), st.Name)
			})},
		{"upgraderd_target_unsigned", gauge, "1 if nobody signs for the releases (Verify=no).", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample { return one(truth(st.Unsigned), st.Name) })},
		{"upgraderd_known_bad", gauge, "Releases that are known bad and not tried again.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample { return one(float64(len(st.KnownBad)), st.Name) })},
		{"upgraderd_attempts_total", counter, "Attempts to upgrade or to roll back that ended, by verdict.", []string{"target", "verdict"},
			each(func(st upgrader.TargetStatus) (all []sample) {
				for _, v := range verdicts {
					all = append(all, one(float64(max(0, st.Totals.Attempts[v])), st.Name, string(v))...)
				}
				return all
			})},
		{"upgraderd_last_attempt_timestamp_seconds", gauge, "When the last attempt ended.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample {
				if st.Last == nil {
					return nil
				}
				return date(st.Last.When, st.Name)
			})},
		{"upgraderd_last_attempt_verdict", gauge, "1 for the verdict of the last attempt, 0 for the others.", []string{"target", "verdict"},
			each(func(st upgrader.TargetStatus) (all []sample) {
				for _, v := range verdicts {
					all = append(all, one(truth(st.Last != nil && st.Last.Verdict == v), st.Name, string(v))...)
				}
				return all
			})},
		{"upgraderd_handover_seconds", summary, "Time from the decision to swap until the new release served, of handovers.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample { return spent(st, upgrader.SwapHandover) })},
		{"upgraderd_restart_seconds", summary, "The same of swaps by restart: for so long nobody answers.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample { return spent(st, upgrader.SwapRestart) })},
		{"upgraderd_reload_seconds", summary, "The same of configurations, by reload.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample { return spent(st, upgrader.SwapReload) })},
		{"upgraderd_fetch_bytes_total", counter, "Bytes received of artifacts that arrived whole; patches count as what they are.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample { return one(float64(max(0, st.Totals.FetchedBytes)), st.Name) })},
		{"upgraderd_fetch_received_bytes", gauge, "How much of the artifact on its way is here.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample {
				if st.Progress == nil {
					return one(0, st.Name)
				}
				return one(float64(max(0, st.Progress.Done)), st.Name)
			})},
		{"upgraderd_source_last_success_timestamp_seconds", gauge, "When the source answered last, to the minute.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample { return date(st.Checked, st.Name) })},
		{"upgraderd_source_poll_interval_seconds", gauge, "The longest time between two looks at the source, but for RandomizedDelaySec=.", []string{"target"},
			each(func(st upgrader.TargetStatus) []sample {
				if st.PollIntervalSec <= 0 {
					return nil
				}
				return one(st.PollIntervalSec, st.Name)
			})},
	}
}

func each(f func(upgrader.TargetStatus) []sample) func(Host) []sample {
	return func(h Host) (all []sample) {
		for _, st := range h.Targets {
			all = append(all, f(st)...)
		}
		return all
	}
}

func one(value float64, labels ...string) []sample { return []sample{{labels: labels, value: value}} }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// date is no series where nothing happened yet: 1970 would alert.
func date(t time.Time, labels ...string) []sample {
	if t.IsZero() {
		return nil
	}
	return one(float64(t.UnixMilli())/1000, labels...)
}

func spent(st upgrader.TargetStatus, by upgrader.Swap) []sample {
	s := st.Totals.Swaps[by]
	return []sample{{labels: []string{st.Name}, value: s.Took().Seconds(), count: max(0, s.Count)}}
}

func version(name string) string {
	if r, err := store.ParseRelease(name); err == nil {
		return r.Version
	}
	return name
}
