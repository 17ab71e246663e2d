package upgrader

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

const (
	// glance is how often a unit on its way is looked at.
	glance = 100 * time.Millisecond
	// reconcileTime is how long facts may lag behind a job's end: STATUS=
	// and the exit of a process reach systemd on their own ways.
	reconcileTime = 5 * time.Second
	// jobSlack is added to systemd's own limit, so that its verdict comes
	// before ours.
	jobSlack = 15 * time.Second
	// restartPatience is for RestartSec=. A unit that crashes again and again
	// is not waited for: what comes may be what mends it.
	restartPatience = 5 * time.Second
	// jobMax bounds a unit without a limit (TimeoutStartSec=infinity).
	jobMax = time.Hour
)

// unitError is a unit that cannot be upgraded as it is.
type unitError struct {
	Code string
	Unit string
	What string
	Hint string
}

func (e *unitError) Error() string {
	return fmt.Sprintf("[%s] %s %s; %s", e.Code, e.Unit, e.What, e.Hint)
}

func (e *unitError) Advice() string { return e.Hint }

// usable refuses a unit that systemd could not load.
func usable(unit string, f systemd.Facts) error {
	switch f.LoadState {
	case "loaded", "merged":
		return nil
	case "not-found":
		return &unitError{systemd.CodeNotFound, unit, "does not exist", "install it and run systemctl daemon-reload, or name another in Unit="}
	case "masked":
		return &unitError{systemd.CodeMasked, unit, "is masked", "unmask it with: systemctl unmask " + unit}
	case "bad-setting", "error":
		what := "has a setting that systemd cannot use"
		if f.LoadError != "" {
			what += ": " + f.LoadError
		}
		return &unitError{systemd.CodeBadUnit, unit, what, "find the line with: systemd-analyze verify " + unit}
	}
	return &unitError{systemd.CodeBadUnit, unit, fmt.Sprintf("is in load state %q", f.LoadState), "see: systemctl status " + unit}
}

// serving reads which release the supervisor says it runs.
func serving(f systemd.Facts) (statusline.Status, bool) {
	return statusline.Parse(f.StatusText)
}

// serves reports that a supervisor says it runs release name.
func serves(f systemd.Facts, name string) bool {
	st, ok := serving(f)
	return ok && st.Release == name
}

// servesOther reports that a supervisor says it runs another release.
func servesOther(f systemd.Facts, name string) bool {
	st, ok := serving(f)
	return ok && st.Release != "" && st.Release != name
}

// waitsForFirst reports a supervisor that has no release to run yet.
func waitsForFirst(f systemd.Facts) bool {
	st, ok := serving(f)
	return ok && st.Release == "" && st.Starting == "" && (f.ActiveState == "activating" || f.ActiveState == "active")
}

// crashed reports a unit that systemd gave up on, or is about to start again.
func crashed(f systemd.Facts) bool {
	return f.ActiveState == "failed" || restarting(f)
}

// leftDown reports a unit that ended by itself, as if all was well, and that
// nothing would start again.
func leftDown(f systemd.Facts) bool {
	return f.ActiveState == "inactive" && f.EndedItself && len(f.TriggeredBy) == 0
}

// leftDown is the same where systemd may have forgotten the unit, and somebody
// has watched it since the swap.
func (m *machine) leftDown(f systemd.Facts) bool {
	return leftDown(f) || f.ActiveState == "inactive" && f.Undisturbed(m.base, 0) && len(f.TriggeredBy) == 0
}

// forgotten reports a unit that does not run, and that nothing would start, and
// systemd cannot say why: nothing refers to it, or it was over too soon.
func forgotten(f systemd.Facts) bool {
	return f.ActiveState == "inactive" && (f.InvocationID == "" || f.NeverActive) && len(f.TriggeredBy) == 0
}

// restarting reports a unit that waits for RestartSec= to pass.
func restarting(f systemd.Facts) bool {
	return f.SubState == "auto-restart" || f.SubState == "auto-restart-queued"
}

// moving reports a unit on its way from one state to another.
func moving(f systemd.Facts) bool {
	if crashed(f) {
		return false
	}
	switch f.ActiveState {
	case "activating", "deactivating", "reloading", "refreshing":
		return true
	}
	return f.Job != 0
}

// ending says why a unit does not run, for a reason in a sentence.
func ending(f systemd.Facts) string {
	s := fmt.Sprintf("the unit is %s (%s), Result=%s", f.ActiveState, f.SubState, f.Result)
	if exit := f.Exit(); exit != "" {
		s += ", " + exit
	}
	return s
}

// limit bounds a job on the unit by what systemd itself allows it.
func limit(f systemd.Facts, restart bool) time.Duration {
	total := jobSlack
	for _, part := range []struct {
		d     time.Duration
		count bool
	}{{f.TimeoutStart, true}, {f.TimeoutStop, restart}} {
		switch {
		case !part.count:
		case part.d < 0:
			return jobMax
		default:
			total += part.d
		}
	}
	return min(total, jobMax)
}

// pickSwap decides by facts how the unit is swapped, and why. It refuses only
// a handover that was demanded and cannot be.
func pickSwap(t *Target, f systemd.Facts, root string) (Swap, string, error) {
	if t.Unit == OwnUnit && t.Swap != SwapNone {
		return ownSwap(t, f)
	}
	if t.Config != "" {
		return pickReload(t, f)
	}
	missing := noHandover(f, root)
	switch t.Swap {
	case SwapNone:
		return SwapNone, "Swap=none", nil
	case SwapRestart:
		return SwapRestart, "Swap=restart" + exposure(f), nil
	case SwapHandover:
		if missing != "" {
			return "", "", &unitError{"UNIT_NO_HANDOVER", t.Unit, "cannot hand over: " + missing, "correct the unit, or set Swap=auto"}
		}
		return SwapHandover, "Swap=handover", nil
	}
	if st, ok := serving(f); ok && st.Release != "" && supervision(f) == nil {
		// What runs is not what the unit file says any more. A restart would
		// stop a good service for a start that nobody has tried.
		return "", "", &unitError{
			"UNIT_CHANGED", t.Unit, "runs under upgraderd supervise, but its unit file does not say so any more",
			"correct ExecStart= and run systemctl daemon-reload, or restart it by hand, or set Swap=restart",
		}
	}
	if missing != "" {
		return SwapRestart, missing + exposure(f), nil
	}
	return SwapHandover, "it runs under upgraderd supervise", nil
}

// pickReload decides how a unit comes to read another configuration.
func pickReload(t *Target, f systemd.Facts) (Swap, string, error) {
	why := "Swap=" + string(t.Swap)
	switch t.Swap {
	case SwapNone, SwapRestart:
		return t.Swap, why, nil
	case SwapReload:
		if f.Running() && !f.CanReload {
			return "", "", &unitError{systemd.CodeNoReload, t.Unit, "cannot be reloaded", "give it an ExecReload=, or set Swap=restart"}
		}
		return SwapReload, why, nil
	}
	if f.CanReload {
		return SwapReload, "the unit can be reloaded", nil
	}
	return SwapRestart, "the unit has no ExecReload=" + exposure(f), nil
}

// exposure says what a restart costs a unit that opens its sockets itself.
func exposure(f systemd.Facts) string {
	held := slices.ContainsFunc(f.TriggeredBy, func(by string) bool { return strings.HasSuffix(by, ".socket") })
	if held || supervision(f) != nil { // a supervisor's are in the fd store
		return ""
	}
	return "; no socket unit holds connections meanwhile"
}

// noHandover says what a unit lacks for a handover, "" if nothing.
func noHandover(f systemd.Facts, root string) string {
	argv := supervision(f)
	if argv == nil {
		return "ExecStart= does not run upgraderd supervise"
	}
	have, ok := rootArgument(argv)
	switch {
	case !ok:
		return "its upgraderd supervise has no --root="
	case !sameDir(have, root):
		return fmt.Sprintf("its upgraderd supervise has --root=%s, the releases are in %s", have, root)
	}
	for _, line := range f.ExecReload {
		if !slices.Contains(line, "handover") {
			continue
		}
		if _, ok := serving(f); !ok && f.Running() && f.MainPID != 0 {
			return "what runs was started before the unit ran upgraderd supervise"
		}
		return ""
	}
	if len(f.ExecReload) == 0 {
		return "it runs under upgraderd supervise, but ExecReload= is missing (want ExecReload=/usr/bin/upgraderd handover)"
	}
	return "it runs under upgraderd supervise, but ExecReload= does not run upgraderd handover"
}

// supervision is the line of ExecStart= that runs upgraderd supervise, nil if
// none does.
func supervision(f systemd.Facts) []string {
	for _, line := range f.ExecStart {
		if slices.Contains(line, "supervise") {
			return line
		}
	}
	return nil
}

// rootArgument finds --root=DIR or --root DIR before the program's own
// arguments.
func rootArgument(argv []string) (string, bool) {
	for i, a := range argv {
		if a == "--" {
			break
		}
		if dir, ok := strings.CutPrefix(a, "--root="); ok {
			return dir, true
		}
		if a == "--root" && i+1 < len(argv) {
			return argv[i+1], true
		}
	}
	return "", false
}

// sameDir compares two names of a directory, through links if need be.
func sameDir(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	ra, err1 := filepath.EvalSymlinks(a)
	rb, err2 := filepath.EvalSymlinks(b)
	return err1 == nil && err2 == nil && ra == rb
}

// facts asks systemd about the target's unit.
func (m *machine) facts(ctx context.Context) (systemd.Facts, error) {
	f, err := m.systemd.Facts(ctx, m.target.Unit)
	if err == nil {
		m.serving = ""
		if st, ok := serving(f); ok {
			m.serving = st.Release
		}
	}
	return f, err
}

// settle looks at the unit until enough is true of it, but not longer than
// patience; it returns the last facts either way. A bus that is down for a
// moment is waited for.
func (m *machine) settle(ctx context.Context, patience time.Duration, enough func(systemd.Facts) bool) (systemd.Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f, err := m.facts(ctx)
	for {
		if err == nil && enough(f) {
			return f, nil
		}
		if !sleep(ctx, glance) {
			return f, err
		}
		now, again := m.facts(ctx)
		if again == nil {
			f, err = now, nil
		} else if ctx.Err() == nil {
			err = again
		}
	}
}

// still waits for a unit that is on its way to get there. One that systemd is
// about to start again is on its way too: whoever swaps it now would take that
// start for the swap.
func (m *machine) still(ctx context.Context) (systemd.Facts, error) {
	rests := func(f systemd.Facts) bool {
		return !moving(f) && !restarting(f) || waitsForFirst(f)
	}
	f, err := m.facts(ctx)
	if err != nil || rests(f) {
		return f, err
	}
	patience := limit(f, true)
	if restarting(f) {
		patience = restartPatience
	}
	return m.settle(ctx, patience, rests)
}
