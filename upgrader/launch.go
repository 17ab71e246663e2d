package upgrader

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/upgraderd/upgraderd/upgrader/journal"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// Launch starts the release of upgraderd that upgraderd.service is to run, by
// handing its program to run: first the one on trial, which gets this one start
// and no other, then the one that proved itself. It is what the installed program
// does before it becomes the daemon itself, and does not return unless there is no
// release, or none that starts: a store that is empty, damaged or away is no
// reason to have no daemon. The journal tells why.
//
// It reads links and files only, and no record: a release may write one that the
// installed program does not know yet. Of the options only StateDir and Log are
// used. run executes a program in this process, and returns only if that failed.
func Launch(ctx context.Context, o Options, run func(program string) error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	log := o.Log.With("target", OwnTarget)
	failed := func(release string, err error) {
		journal.Emit(ctx, log, journal.LaunchFailed, slog.String("release", release), slog.String("error", journal.Clean(err.Error())))
	}
	s, err := store.View(filepath.Join(o.StateDir, OwnTarget))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			failed("in the store", err)
		}
		return
	}
	for _, choose := range []func(*store.Store) (store.Release, bool, error){takeTrial, proven} {
		r, ok, err := choose(s)
		if err == nil && ok {
			err = launch(ctx, s, r, run)
		}
		if err != nil {
			failed(r.Name, err)
		}
	}
}

// takeTrial is the release that is to be tried now. It says so on disk first, so
// that however this start ends, the next one is not a trial.
func takeTrial(s *store.Store) (store.Release, bool, error) {
	r, ok, err := s.Link(store.Next)
	if err != nil || !ok {
		return r, false, err
	}
	unlock, err := s.Lock()
	if err != nil {
		return r, false, err
	}
	defer unlock()
	return r, true, s.MoveLink(store.Next, store.Tried)
}

func proven(s *store.Store) (store.Release, bool, error) { return s.Link(store.Current) }

// launch runs what was verified when it came, and still is that.
func launch(ctx context.Context, s *store.Store, r store.Release, run func(string) error) error {
	if err := s.Verify(ctx, r); err != nil {
		return err
	}
	program, err := s.Program(r, OwnProgram)
	if err != nil {
		return err
	}
	return run(program)
}
