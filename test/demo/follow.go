package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// entry is what the journal says, of one message.
type entry struct {
	Microseconds text `json:"__REALTIME_TIMESTAMP"`
	Message      text `json:"MESSAGE"`
	ID           text `json:"MESSAGE_ID"`
	Priority     text `json:"PRIORITY"`
	Transport    text `json:"_TRANSPORT"`
	Unit         text `json:"_SYSTEMD_UNIT"`
	About        text `json:"UNIT"` // where systemd itself speaks of a unit
	From         text `json:"UPGRADERD_FROM"`
	To           text `json:"UPGRADERD_TO"`
}

// text is a field of an entry: a string, the bytes of one that is not UTF-8,
// or several values, of which the first counts.
type text string

func (t *text) UnmarshalJSON(raw []byte) error {
	var one string
	var bytes []int
	var several []text
	switch {
	case json.Unmarshal(raw, &one) == nil:
		*t = text(one)
	case json.Unmarshal(raw, &bytes) == nil:
		var b strings.Builder
		for _, c := range bytes {
			b.WriteByte(byte(c))
		}
		*t = text(strings.ToValidUTF8(b.String(), "?"))
	case json.Unmarshal(raw, &several) == nil && len(several) > 0:
		*t = several[0]
	}
	return nil // null stands for a field that is too long
}

// fromSystemd tells what systemd says of a unit from what the unit says.
func (e entry) fromSystemd() bool { return e.About != "" }

// when is the time of the entry.
func (e entry) when() time.Time {
	us, err := strconv.ParseInt(string(e.Microseconds), 10, 64)
	if err != nil {
		return time.Now()
	}
	return time.UnixMicro(us)
}

// unit is the unit's name, short enough for a column.
func (e entry) unit() string {
	name := e.Unit
	if e.fromSystemd() {
		name = e.About
	}
	return strings.TrimSuffix(string(name), ".service")
}

func (e entry) style() style {
	switch e.Priority {
	case "0", "1", "2", "3":
		return red
	case "4":
		return yellow
	case "5":
		return bold
	}
	return plain
}

// follower reads the journal while it grows.
type follower struct {
	mu      sync.Mutex
	entries []entry
	changed chan struct{} // closed and made anew at each entry
	ended   chan struct{}
	err     error // why it ended, once it has
}

// follow starts cmd, a "journalctl --follow --output=json", and hands each
// entry to show. It ends with the command; the caller ends that by its context,
// and takes its end with [follower.wait].
func follow(cmd *exec.Cmd, show func(entry)) (*follower, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("follow the journal: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("follow the journal: %w", err)
	}
	f := &follower{changed: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		f.err = errors.Join(f.read(out, show), cmd.Wait())
	}()
	return f, nil
}

func (f *follower) read(out io.Reader, show func(entry)) error {
	for dec := json.NewDecoder(out); ; {
		var e entry
		if err := dec.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if !f.repeats(e) {
			show(e)
		}
		f.mu.Lock()
		f.entries = append(f.entries, e)
		close(f.changed)
		f.changed = make(chan struct{})
		f.mu.Unlock()
	}
}

// repeats tells what "upgraderd handover" prints, as ExecReload=, after the
// supervisor has said it.
func (f *follower) repeats(e entry) bool {
	said := strings.TrimPrefix(string(e.Message), "upgraderd: handover: ")
	return e.Transport == "stdout" && slices.ContainsFunc(f.entries, func(earlier entry) bool {
		return earlier.Unit == e.Unit && strings.Contains(string(earlier.Message), said)
	})
}

// wait waits until the command has ended.
func (f *follower) wait() { <-f.ended }

// length is how many entries there are so far.
func (f *follower) length() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.entries)
}

// await waits for an entry behind the first n that is like this.
func (f *follower) await(ctx context.Context, n int, like func(entry) bool) error {
	for {
		f.mu.Lock()
		more, changed := f.entries[n:], f.changed
		f.mu.Unlock()
		for _, e := range more {
			if like(e) {
				return nil
			}
		}
		n += len(more)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.ended:
			return errors.Join(errors.New("follow the journal: it ended"), f.err)
		case <-changed:
		}
	}
}
