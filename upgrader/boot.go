package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// RevertUnproven makes every target's links name the release that proved itself
// last, where the record says that another was on trial: after a reboot in the
// middle of it the units start with what is good, and whether the release was
// what brought the host down is asked later. It only moves links, so it needs
// neither bus nor network, and can run before ordinary units do. The daemon finds
// by record and links what happened.
//
// Of the options only StateDir and Log are used. A target whose lock is held is
// left alone: somebody watches it. An error of one target keeps none of the
// others from being reverted.
func RevertUnproven(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	entries, err := os.ReadDir(o.StateDir)
	if err != nil {
		return fmt.Errorf("list the targets: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || ctx.Err() != nil {
			continue
		}
		if err := revertUnproven(ctx, filepath.Join(o.StateDir, e.Name()), o.Log); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.Name(), err))
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func revertUnproven(ctx context.Context, dir string, log *slog.Logger) error {
	s, err := store.View(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil // not a target's
	}
	if err != nil {
		return err
	}
	unlock, err := s.Lock()
	if errors.Is(err, store.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	if filepath.Base(dir) == OwnTarget { // its current has proved itself always
		return s.ClearLink(store.Next)
	}
	m := &machine{plain: log, store: s, wall: time.Now}
	if _, err := s.LoadRecord(&m.record); err != nil {
		return err
	}
	// The first release has nothing before it, and stays.
	if !m.record.State.pending() || m.record.From == "" {
		return nil
	}
	m.use(&Target{Name: filepath.Base(dir), Unit: m.record.Unit})
	m.state = m.record.State
	current, has, err := s.Link(store.Current)
	if err == nil && has && current.Name != m.record.To {
		// The one before, or what a person chose.
		return errors.Join(s.ClearLink(store.Next), s.ClearLink(store.Beside))
	}
	if m.record.State == RollingBack {
		m.record.Previous = "" // as the rollback leaves it
	}
	if err := m.revert(); err != nil {
		return err
	}
	m.emit(ctx, journal.TrialInterrupted)
	return nil
}

// cameBack reports that another release than the one on trial is current: a
// reboot came in between, see [RevertUnproven], or a person. That ends the attempt.
func (m *machine) cameBack(ctx context.Context) (bool, error) {
	current, has, err := m.store.Link(store.Current)
	if err != nil || !has || current.Name == m.record.To {
		return false, err
	}
	m.resume(ctx, current.Version+" is current again")
	m.conclude(VerdictInconclusive, current.Version+" became current again while it was on trial, as after a reboot")
	return true, nil
}
