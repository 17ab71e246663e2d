package fetcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/signature"
)

// With NoManifest the source is one file that always has the same name, and no list
// says which release it is. What says so is when it was made: the time in its own
// signature, which is signed too, so that whoever shows an older file shows an
// older version; with Verify=no the date that the server gives. An ETag or a digest
// has no order, and a source that is put back could not be told from one that goes
// on.

// versionOf makes a version of a time, to the second: 2027.01.31.235959.
func versionOf(t time.Time) Version { return Version(t.UTC().Format("2006.01.02.150405")) }

// splitFile takes the last name off a URL.
func splitFile(path string) (dir, name string, err error) {
	u, err := url.Parse(path)
	if err == nil {
		name, err = url.PathUnescape(u.EscapedPath()[strings.LastIndexByte(u.EscapedPath(), '/')+1:])
	}
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https":
		return "", "", fault.New(fault.ConfigSource, errors.New("without a list Path= is one file, and this is no http(s) URL of one"),
			"leave Manifest=no out, or name the URL of the artifact itself")
	case name == "" || checkName(name) != nil:
		return "", "", fault.New(fault.ConfigSource, errors.New("the URL does not end in the name of a file"), "with Manifest=no Path= is the URL of the artifact itself")
	}
	u.Path, u.RawPath = u.Path[:len(u.Path)-len(name)], ""
	return u.String(), name, nil
}

// lookAtArtifact tells the version of the one file there is. What a signature says is
// believed no further than to ask for the bytes: see proof.
func (f *Fetcher) lookAtArtifact(ctx context.Context, m *mirror, old cache) (cache, error) {
	now := cache{}
	when, same, size, err := time.Time{}, false, int64(-1), error(nil)
	if f.Unsigned() {
		var st source.File
		st, now.manifestMark, err = m.source.(source.Stater).Stat(ctx, m.file)
		when, size, same = st.Modified, st.Size, now.manifestMark != "" && now.manifestMark == old.manifestMark
		if err == nil && when.IsZero() {
			err = fault.New(fault.MetaUndated, fmt.Errorf("the server does not say when %s was changed, so nothing tells which release it is", m.file),
				"have the server send Last-Modified, or publish a list and leave Manifest=no out")
		}
	} else {
		when, now.signatures, same, err = f.claims(ctx, m, old.signatures)
		if err == nil {
			err = f.fresh(Listing{Signed: when}, f.now())
		}
	}
	if err != nil {
		return cache{}, err
	}
	now.listing.Files = 1
	now.listing.Candidates = []Candidate{{Version: versionOf(when), Name: m.file, Size: size}}
	now.listing.Unchanged = same && old.filled
	return now, nil
}

// claims reads the files that may hold signatures of the artifact, until there are
// as many as must sign.
func (f *Fetcher) claims(ctx context.Context, m *mirror, old map[string]signed) (when time.Time, now map[string]signed, same bool, err error) {
	files := f.ring.Files(m.file)
	slices.SortStableFunc(files, func(a, b string) int { return known(old, b) - known(old, a) })
	count := f.ring.Count(m.file, nil, f.now())
	now = map[string]signed{}
	for _, file := range files {
		s := old[file]
		_, err := m.readInto(ctx, file, signatureMax, &s.raw, &s.mark)
		switch fault.CodeOf(err) {
		case "":
		case fault.NotFound:
			continue
		case fault.Denied, fault.MetaTooLarge:
			count.Note(err) // some servers say 403 for what is not there
			continue
		default:
			return when, nil, false, err
		}
		if looksLikeWebPage(s.raw) {
			count.Note(webPage(file))
			continue
		}
		if len(bytes.TrimSpace(s.raw)) == 0 {
			count.Add(file, s.raw) // which says so
			continue
		}
		claimed := signature.Claimed(s.raw)
		if claimed.IsZero() {
			return when, nil, false, fault.New(fault.MetaUndated, fmt.Errorf("%s does not say when it was made, so nothing tells which release %s is", file, m.file),
				"sign with minisign, without a comment of your own, or with OpenPGP; or publish a list and leave Manifest=no out")
		}
		if when.IsZero() || claimed.Before(when) {
			when = claimed
		}
		if now[file] = s; len(now) >= f.o.Threshold {
			break
		}
	}
	if len(now) == 0 {
		_, err := count.Result()
		return when, nil, false, err
	}
	same = maps.EqualFunc(now, old, func(a, b signed) bool { return bytes.Equal(a.raw, b.raw) })
	return when, now, same, nil
}

// proof gives what tells right bytes from wrong ones, where no digest does: the
// signatures that the last Check found beside the file c. It is asked before anything
// else is done with the bytes.
func (f *Fetcher) proof(ctx context.Context, c Candidate) func(raw []byte) error {
	f.mu.Lock()
	signatures := f.listed.cache.signatures
	f.mu.Unlock()
	return func(raw []byte) error {
		count := f.ring.Count(c.Name, raw, f.now())
		for _, file := range f.ring.Files(c.Name) {
			if s, ok := signatures[file]; ok {
				count.Add(file, s.raw)
			}
		}
		by, err := count.Result()
		if err != nil {
			return err
		}
		if v := versionOf(by.When); v != c.Version {
			return fault.New(fault.SigBad, fmt.Errorf("the signatures of %s that count are of %s, and another beside them is of %s", c.Name, v, c.Version), "remove signatures of keys that hosts do not trust")
		}
		f.log.InfoContext(ctx, "verified by signature", "file", c.Name, "signers", strings.Join(by.By, ", "))
		return nil
	}
}
