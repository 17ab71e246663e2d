package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/progress"
)

// Event is something that the daemon told of. Its JSON form is a line of `upgraderd
// monitor --json`.
type Event struct {
	When time.Time `json:"when"`
	Kind Kind      `json:"event"`
	// Target is "" of the daemon's own coming and going.
	Target string `json:"target,omitempty"`
	// State and To are of Kind state, and of progress.
	State string `json:"state,omitempty"`
	To    string `json:"to,omitempty"`
	// Progress is how far a transfer is.
	Progress *progress.Progress `json:"progress,omitempty"`
	// Release is what is current now.
	Release string `json:"release,omitempty"`
	// Verdict of an attempt, or of a job's order.
	Verdict string `json:"verdict,omitempty"`
	From    string `json:"from,omitempty"`
	// Reason of a verdict, or what the trouble is; "" where trouble is over.
	Reason string `json:"reason,omitempty"`
	// Job is the number of one, and Result how it ended.
	Job    uint32 `json:"job,omitempty"`
	Result Result `json:"result,omitempty"`
}

// Kind is what an event is about.
type Kind string

const (
	KindDaemonCame Kind = "daemon-came"
	KindDaemonLeft Kind = "daemon-left"
	KindFollowed   Kind = "followed" // a target is followed from now on, or was when this began
	KindDropped    Kind = "dropped"  // it no longer is
	KindState      Kind = "state"
	KindProgress   Kind = "progress"
	KindRelease    Kind = "release" // another one is current
	KindTrouble    Kind = "trouble"
	KindVerdict    Kind = "verdict"
	KindJobBegan   Kind = "job-began"
	KindJobEnded   Kind = "job-ended"
)

// watched is a target, by what was told of it.
type watched struct {
	name   string
	values map[string]dbus.Variant
}

// Monitor tells what happens to the targets of these names, or to all, until ctx ends;
// it begins with what there is. A daemon that goes away is waited for. The error is
// tell's, or of the bus.
func (c *Client) Monitor(ctx context.Context, names []string, tell func(Event) error) error {
	all := map[dbus.ObjectPath]*watched{}
	wanted := func(name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	say := func(e Event) error {
		e.When = time.Now()
		return tell(e)
	}
	begin := func(path dbus.ObjectPath, name string) error {
		if all[path] != nil || !wanted(name) {
			return nil
		}
		w := &watched{name: name, values: map[string]dbus.Variant{}}
		if err := c.call(ctx, path, propsFace, "GetAll", []any{targetFace}, &w.values); called(err) == errorUnknownObject {
			return nil // dropped meanwhile
		} else if err != nil {
			return err
		}
		all[path] = w
		v := view(w.values)
		return say(Event{Kind: KindFollowed, Target: name, State: v.State, To: v.To, Release: current(w.values), Reason: v.Trouble})
	}
	list := func() error {
		var entries []targetEntry
		if err := c.call(ctx, basePath, managerFace, "ListTargets", nil, &entries); err != nil {
			return err
		}
		for _, e := range entries {
			if err := begin(e.Path, e.Name); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range names {
		if _, err := c.target(ctx, name); err != nil {
			return err
		}
	}
	if err := list(); err != nil {
		return err
	}
	for {
		s, err := c.next(ctx)
		if err != nil {
			return err
		}
		switch s.Name {
		case busFace + ".NameOwnerChanged":
			kind := KindDaemonCame
			if owner, _ := body[string](s, 2); owner == "" {
				kind = KindDaemonLeft
				clear(all)
			}
			if err = say(Event{Kind: kind}); err == nil && kind == KindDaemonCame {
				err = list()
			}
		case managerFace + ".TargetNew":
			name, _ := body[string](s, 0)
			path, _ := body[dbus.ObjectPath](s, 1)
			err = begin(path, name)
		case managerFace + ".TargetRemoved":
			path, _ := body[dbus.ObjectPath](s, 1)
			if w := all[path]; w != nil {
				delete(all, path)
				err = say(Event{Kind: KindDropped, Target: w.name})
			}
		case managerFace + ".JobNew", managerFace + ".JobRemoved":
			e := Event{Kind: KindJobBegan}
			e.Job, _ = body[uint32](s, 0)
			e.Target, _ = body[string](s, 2)
			if s.Name == managerFace+".JobRemoved" {
				result, _ := body[string](s, 3)
				e.Kind, e.Result = KindJobEnded, Result(result)
				e.Verdict, _ = body[string](s, 4)
				e.Reason, _ = body[string](s, 5)
			}
			if wanted(e.Target) {
				err = say(e)
			}
		case propsFace + ".PropertiesChanged":
			changed, _ := body[map[string]dbus.Variant](s, 1)
			if w := all[s.Path]; w != nil {
				err = w.tell(changed, say)
			}
		}
		if errors.Is(err, ErrNoDaemon) {
			err = nil // it left while it was asked, and is told to have left next
		}
		if err != nil {
			return err
		}
	}
}

func current(values map[string]dbus.Variant) string {
	s, _ := values["Current"].Value().(string)
	return s
}

// tell makes events of what changed, what happened first in front.
func (w *watched) tell(changed map[string]dbus.Variant, say func(Event) error) error {
	maps.Copy(w.values, changed)
	now := view(w.values)
	text := func(name string) string {
		s, _ := w.values[name].Value().(string)
		return s
	}
	_, verdict := changed["LastTimestamp"]
	_, transferred := changed["Progress"]
	_, troubled := changed["Trouble"]
	_, moved := changed["State"]
	_, led := changed["To"]
	_, release := changed["Current"]
	var events []Event
	if release {
		events = append(events, Event{Kind: KindRelease, Release: text("Current")})
	}
	if verdict && text("LastVerdict") != "" {
		events = append(events, Event{Kind: KindVerdict, Verdict: text("LastVerdict"), From: text("LastFrom"), To: text("LastTo"), Reason: text("LastReason")})
	}
	if moved || led && now.To != "" {
		events = append(events, Event{Kind: KindState, State: now.State, To: now.To})
	}
	if transferred && now.Progress != nil {
		events = append(events, Event{Kind: KindProgress, State: now.State, To: now.To, Progress: now.Progress})
	}
	if troubled {
		events = append(events, Event{Kind: KindTrouble, Reason: now.Trouble})
	}
	for _, e := range events {
		e.Target = w.name
		if err := say(e); err != nil {
			return err
		}
	}
	return nil
}

// String is the event as a person reads it.
func (e Event) String() string {
	text := e.text()
	if e.Target != "" {
		text = e.Target + ": " + text
	}
	return text
}

func (e Event) text() string {
	why := func(text string) string {
		if e.Reason != "" {
			text += ": " + e.Reason
		}
		return text
	}
	switch e.Kind {
	case KindDaemonCame:
		return "upgraderd is on the bus"
	case KindDaemonLeft:
		return "upgraderd left the bus; it is waited for"
	case KindFollowed:
		text := state(e)
		if e.Release != "" {
			text += ", " + e.Release + " is current"
		}
		return why(text)
	case KindDropped:
		return "no longer followed"
	case KindState:
		return state(e)
	case KindProgress:
		return state(e) + " " + e.Progress.String()
	case KindRelease:
		if e.Release == "" {
			return "no release is current"
		}
		return e.Release + " is current"
	case KindTrouble:
		if e.Reason == "" {
			return "the trouble is over"
		}
		return e.Reason
	case KindVerdict:
		change := e.To
		if e.From != "" {
			change = e.From + " → " + e.To
		}
		return why(change + " " + e.Verdict)
	case KindJobBegan:
		return fmt.Sprintf("job %d began", e.Job)
	case KindJobEnded:
		text := fmt.Sprintf("job %d ended: %s", e.Job, e.Result)
		if e.Result == ResultFailed && e.Verdict != "" {
			text += " (" + e.Verdict + ")"
		}
		return why(text)
	}
	return string(e.Kind)
}

// state is one, with the release it is about.
func state(e Event) string {
	if e.To == "" || e.State == string(upgrader.Idle) {
		return e.State
	}
	return e.State + " " + e.To
}
