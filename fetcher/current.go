package fetcher

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// currentMax is a line that names a file, and some room to say that it is more.
const currentMax = 1 << 10

// named adds to a listing which candidate the source wants to run. Nobody has signed
// that, unless the manifest lists the very bytes: then, or where the source is
// believed in any case, an older release is wanted, too. But a list that does not
// say when it was signed may be one of long ago, which somebody kept.
func (f *Fetcher) named(ctx context.Context, at source.Source, l Listing, manifest []byte) (Listing, error) {
	if f.o.Current == "" {
		return l, nil
	}
	named, raw, err := f.readCurrent(ctx, at)
	if err != nil {
		return Listing{}, err
	}
	i := slices.IndexFunc(l.Candidates, func(c Candidate) bool { return c.Name == named.program || string(c.Version) == named.program })
	if i < 0 {
		return Listing{}, fault.Passing(fault.MetaUnlisted, fmt.Errorf("%s names %q, which is none of the %d releases there", f.o.Current, named.program, len(l.Candidates)),
			"write the name of a file that MatchPattern= matches, or its version")
	}
	l.Current, l.Commanded = l.Candidates[i], f.Unsigned()
	if named.config != "" {
		if l.Current, _, err = f.withConfig(l.Current, named.config, manifest); err != nil {
			return Listing{}, err
		}
		l.Candidates = []Candidate{l.Current} // the others are programs without one
	}
	if !f.Unsigned() && raw != nil {
		m, err := parseManifest(manifest)
		if err != nil {
			return Listing{}, err
		}
		l.Commanded = !l.Signed.IsZero() && slices.Contains(m.entries, manifestEntry{f.o.Current, sha256.Sum256(raw)})
	}
	return l, nil
}

// readCurrent gives what the link, the one line of the file, or its JSON says, and the
// file's bytes.
func (f *Fetcher) readCurrent(ctx context.Context, at source.Source) (named choice, raw []byte, err error) {
	if l, ok := at.(source.Linker); ok {
		if to, ok := l.Link(f.o.Current); ok {
			return choice{program: to}, nil, nil
		}
	}
	raw, _, err = at.Read(ctx, f.o.Current, currentMax, "")
	if err != nil {
		return choice{}, nil, err
	}
	if bytes.HasPrefix(bytes.TrimLeft(raw, " \t\r\n"), []byte("{")) { // half of it would have no end
		if named, err = parseChoice(raw); err != nil {
			return choice{}, nil, fault.Passing(fault.MetaSyntax, fmt.Errorf("%s: %w", f.o.Current, err),
				`write {"bin.file": "PROGRAM", "cfg.file": "CONFIGURATION"} with names of files beside it, or one line with the name of a release`)
		}
		return named, raw, nil
	}
	// A line without its end may be the first half of one that is being written.
	line, ok := bytes.CutSuffix(raw, []byte("\n"))
	bad := func(what string) (choice, []byte, error) {
		return choice{}, nil, fault.Passing(fault.MetaSyntax, errors.New(f.o.Current+what), "write one line with the name of a release, and its end")
	}
	switch {
	case len(raw) == 0:
		return bad(" is empty")
	case !ok:
		return bad(" does not end in a line feed, so it may be half written")
	case bytes.IndexByte(line, '\n') >= 0:
		return bad(" has more than one line")
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	if err := checkName(string(line)); err != nil {
		return bad(": " + err.Error())
	}
	return choice{program: string(line)}, raw, nil
}
