// Package wish is what an operator forbids of one target: a hold, that any upgrade
// begins; a pin, that any version but some comes into question; a skip, that one
// version ever does. A wish counts from the moment that its change returned, through
// restarts and reboots, until it is taken back, or until the time of a hold is over.
//
// The wishes are a file in the target's directory, so that they can be made known,
// and seen, with no daemon there. The package knows what they say, and nothing of who
// obeys them.
package wish

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// Limits. The file has to stay small: it is read at each look.
const (
	skipsMax  = 32
	reasonMax = 256 // bytes
	byMax     = 64
	holdMost  = 10 * 365 * 24 * time.Hour
)

// Wishes are all that is forbidden of a target.
type Wishes struct {
	Hold  *Hold  `json:"hold,omitempty"`
	Pin   *Pin   `json:"pin,omitempty"`
	Skips []Skip `json:"skips,omitempty"`
}

// Hold forbids that an upgrade begins.
type Hold struct {
	// ID tells one hold from the next.
	ID string `json:"id"`
	// ForSec is how long it lasts, in seconds of a daemon that runs: no clock that
	// is set ends it early, or keeps it. Zero: until it is taken back.
	ForSec int64 `json:"for_sec,omitempty"`
	// Until is when that will be, by the clock that this host had When it began.
	Until time.Time `json:"until,omitzero"`
	Mark
}

// Pin forbids every version that it does not match.
type Pin struct {
	// Version is a version, or a pattern of versions, in which * stands for
	// anything and ? for one character.
	Version string `json:"version"`
	Mark
}

// Skip forbids one version.
type Skip struct {
	Version string `json:"version"`
	Mark
}

// Mark is who made a wish, why and when. By and Reason may be empty.
type Mark struct {
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	When   time.Time `json:"when"`
}

// NewHold is a hold for a time, or with zero until it is taken back.
func NewHold(d time.Duration, m Mark) (Hold, error) {
	h := Hold{ID: rand.Text(), ForSec: int64((d + time.Second - 1) / time.Second), Mark: m}
	if d > 0 {
		h.Until = m.When.Add(d).UTC()
	}
	return h, h.check()
}

// For is how long a hold lasts, zero if until it is taken back.
func (h Hold) For() time.Duration { return time.Duration(h.ForSec) * time.Second }

// String is the hold in words: "held until 2026-11-28 08:00 UTC by anna because …".
func (h Hold) String() string {
	text := "held"
	if h.ForSec > 0 {
		text += " until " + h.Until.UTC().Format("2006-01-02 15:04 UTC")
	}
	return text + h.words()
}

// String is the pin in words.
func (p Pin) String() string { return "pinned to " + p.Version + p.words() }

// String is the skip in words.
func (s Skip) String() string { return s.Version + " skipped" + s.words() }

func (m Mark) words() string {
	text := ""
	if m.By != "" {
		text += " by " + m.By
	}
	if m.Reason != "" {
		text += " because " + m.Reason
	}
	return text
}

// Matches reports whether a version may come into question.
func (p Pin) Matches(v fetcher.Version) bool {
	if !p.pattern() {
		return fetcher.Version(p.Version).Compare(v) == 0
	}
	ok, err := path.Match(p.Version, string(v))
	return ok && err == nil
}

// LeadsBelow reports whether the pin rules a version out, and may match older ones.
func (p Pin) LeadsBelow(v fetcher.Version) bool {
	return !p.Matches(v) && (p.pattern() || fetcher.Version(p.Version).Compare(v) < 0)
}

func (p Pin) pattern() bool { return strings.ContainsAny(p.Version, "*?") }

// Allows reports whether a version may come into question, as far as the pin goes.
func (w Wishes) Allows(v fetcher.Version) bool { return w.Pin == nil || w.Pin.Matches(v) }

// Skipped is the skip of a version.
func (w Wishes) Skipped(v fetcher.Version) (Skip, bool) {
	i := slices.IndexFunc(w.Skips, func(s Skip) bool { return fetcher.Version(s.Version).Compare(v) == 0 })
	if i < 0 {
		return Skip{}, false
	}
	return w.Skips[i], true
}

// Skip adds a version to those that are skipped. One that is already gets the newer
// mark.
func (w *Wishes) Skip(version string, m Mark) error {
	v, err := fetcher.ParseVersion(version)
	if err != nil {
		return err
	}
	w.Skips = slices.DeleteFunc(w.Skips, func(s Skip) bool { return fetcher.Version(s.Version).Compare(v) == 0 })
	if len(w.Skips) >= skipsMax {
		return advice.Give(fmt.Errorf("%d versions are skipped already", skipsMax), "take those back that are of no interest any more")
	}
	w.Skips = append(w.Skips, Skip{Version: version, Mark: m})
	return nil
}

// Read gives the wishes that a store holds.
func Read(s interface{ Wishes(v any) (bool, error) }) (Wishes, error) {
	var w Wishes
	if _, err := s.Wishes(&w); err != nil {
		return Wishes{}, err
	}
	if err := w.check(); err != nil {
		return Wishes{}, &store.Error{Op: "read wishes", Code: store.CodeRecordCorrupt, Err: err, Hint: "remove wishes.json of the target, then hold, pin and skip again what shall be"}
	}
	return w, nil
}

// Change has f change the wishes of a store. Nothing is changed where f fails.
func Change(s interface {
	ChangeWishes(change func(data []byte) ([]byte, error)) error
}, f func(*Wishes) error) error {
	return s.ChangeWishes(func(data []byte) ([]byte, error) {
		var w Wishes
		if data != nil {
			if err := json.Unmarshal(data, &w); err != nil {
				return nil, &store.Error{Code: store.CodeRecordCorrupt, Err: fmt.Errorf("wishes.json: %w", err), Hint: "remove it, then hold, pin and skip again what shall be"}
			}
		}
		if err := f(&w); err != nil {
			return nil, err
		}
		if err := w.check(); err != nil {
			return nil, err
		}
		if w.Hold == nil && w.Pin == nil && len(w.Skips) == 0 {
			return nil, nil
		}
		after, err := json.Marshal(w)
		return append(after, '\n'), err
	})
}

// Try tells whether f makes something of no wishes that somebody can have wished.
func Try(f func(*Wishes) error) error {
	var w Wishes
	if err := f(&w); err != nil {
		return err
	}
	return w.check()
}

// check refuses what nobody can have wished.
func (w Wishes) check() error {
	if w.Hold != nil {
		if err := w.Hold.check(); err != nil {
			return err
		}
	}
	if w.Pin != nil {
		if err := w.Pin.check(); err != nil {
			return err
		}
	}
	if len(w.Skips) > skipsMax {
		return fmt.Errorf("%d versions are skipped, want at most %d", len(w.Skips), skipsMax)
	}
	for _, s := range w.Skips {
		if _, err := fetcher.ParseVersion(s.Version); err != nil {
			return err
		}
		if err := s.Mark.check(); err != nil {
			return err
		}
	}
	return nil
}

func (h Hold) check() error {
	switch {
	case h.ID == "" || len(h.ID) > byMax:
		return errors.New("a hold has no ID")
	case h.ForSec < 0 || h.ForSec > int64(holdMost/time.Second):
		return advice.Give(fmt.Errorf("a hold of %d seconds: want more than none, and at most ten years", h.ForSec), "without a time it lasts until it is taken back")
	}
	return h.Mark.check()
}

func (p Pin) check() error {
	// A wildcard stands where a letter may.
	if _, err := fetcher.ParseVersion(strings.NewReplacer("*", "x", "?", "x").Replace(p.Version)); err != nil {
		return fmt.Errorf("%q is neither a version nor a pattern of versions such as 1.4.*: %w", p.Version, err)
	}
	if strings.Trim(p.Version, "*") == "" {
		return advice.Give(errors.New("a pin to every version is none"), "take it back instead")
	}
	return p.Mark.check()
}

func (m Mark) check() error {
	switch {
	case len(m.Reason) > reasonMax:
		return fmt.Errorf("the reason has %d bytes, want at most %d", len(m.Reason), reasonMax)
	case !line(m.Reason) || !line(m.By) || len(m.By) > byMax:
		return errors.New("the reason is not one line of text")
	}
	return nil
}

// line tells that a text can stand in a line.
func line(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) }) < 0
}
