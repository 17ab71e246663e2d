package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
)

// isSource tells a place of releases from a target and from an .upgrade file.
func isSource(arg string) bool {
	if strings.Contains(arg, "://") {
		return true
	}
	st, err := os.Stat(arg)
	return err == nil && st.IsDir()
}

// verifySource says what a host that trusts these keys would make of a source.
func verifySource(ctx context.Context, w io.Writer, place string, o fetcher.Options) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if !strings.Contains(place, "://") {
		abs, err := filepath.Abs(place)
		if err != nil {
			return err
		}
		place = abs
	}
	o.Target, o.Path = "verify", place
	named := len(o.Patterns) > 0
	if !named {
		o.Patterns = []string{"@v"} // what is listed is counted all the same
	}
	for i, key := range o.Keys {
		if _, err := os.Stat(key); err == nil { // at a prompt a name may be relative
			if o.Keys[i], err = filepath.Abs(key); err != nil {
				return err
			}
		}
	}
	switch {
	case o.Root != "":
		root, err := filepath.Abs(o.Root)
		if err != nil {
			return err
		}
		state, err := os.MkdirTemp("", "upgraderd-verify-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(state)
		o.Verify, o.Root, o.StateDir = fetcher.VerifyTUF, root, filepath.Join(state, "tuf")
	case len(o.Keys) == 0:
		o.Verify = fetcher.VerifyNo
	}
	f, err := fetcher.New(o, nil)
	if err != nil {
		return plain(err)
	}
	defer f.Close()
	listing, err := f.Check(ctx)
	if err != nil {
		return plain(err)
	}
	if o.Verify == fetcher.VerifyNo {
		fmt.Fprintln(w, "signed by: not looked at; say whom hosts trust with --key= or --tuf-root=")
	} else {
		fmt.Fprintf(w, "signed by: %s\n", strings.Join(listing.Signers, ", "))
	}
	if !listing.Until.IsZero() {
		fmt.Fprintf(w, "counts until: %s\n", listing.Until.Format(time.DateOnly))
	}
	fmt.Fprintf(w, "files: %d\n", listing.Files)
	if !named {
		fmt.Fprintln(w, "releases: say which files they are with --pattern=, as MatchPattern=")
		return nil
	}
	c, ok := listing.Newest()
	if !ok {
		return fmt.Errorf("none of the files matches %s", strings.Join(o.Patterns, " or "))
	}
	return verifyNewest(ctx, w, f, c, len(listing.Candidates))
}

// verifyNewest fetches what a host would take.
func verifyNewest(ctx context.Context, w io.Writer, f *fetcher.Fetcher, c fetcher.Candidate, count int) error {
	dir, err := os.MkdirTemp("", "upgraderd-verify-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	v, err := f.Fetch(ctx, c, dir, nil)
	if err != nil {
		return plain(err)
	}
	defer func() { _ = v.Close() }() // read only
	got := v.Candidate()
	fmt.Fprintf(w, "releases: %d\na host takes: %s (%s, %d bytes)\nSHA-256: %x\n", count, got.Version, got.Name, got.Size, got.Digest)
	return nil
}

// plain leaves out the target's name, which is nobody's here.
func plain(err error) error {
	var e *fetcher.Error
	if !errors.As(err, &e) {
		return err
	}
	short := *e
	short.Target = ""
	return &short
}
