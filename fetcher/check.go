package fetcher

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/signature"
)

// Candidate is a file of the source that matches a pattern.
type Candidate struct {
	// Version is what the file's name says.
	Version Version
	// Name is the file's name, one element of a path.
	Name string
	// Digest is the SHA-256 that the manifest promises. It is zero where
	// there is none, for a file of a directory (Verify=no only) or with
	// NoManifest: its digest is known once it is fetched.
	Digest [32]byte
	// Config is the name of a second file, the program's configuration, that is
	// part of the release: Options.Current named both. Empty: there is none.
	// Digest is then that of both digests.
	Config string
	// Size in bytes, -1 unknown. TUF metadata promises it.
	Size int64
}

// HasDigest tells that the digest is known.
func (c Candidate) HasDigest() bool { return c.Digest != [32]byte{} }

// String gives name and the first 12 digits of the digest.
func (c Candidate) String() string {
	if !c.HasDigest() {
		return c.Name
	}
	return c.Name + " (" + hex.EncodeToString(c.Digest[:6]) + ")"
}

// Listing is what a source offers, at one moment.
type Listing struct {
	// Candidates are the files that match a pattern, newest version first;
	// of two with an equal version that of the earlier pattern first.
	Candidates []Candidate
	// Files counts all files, matching or not.
	Files int
	// Current is the candidate that the source names as the one to run, with
	// Options.Current. Its name is empty: it names none.
	Current Candidate
	// Commanded tells that whoever may decide it named Current, so that it is
	// wanted even if it is older than what runs.
	Commanded bool
	// Unchanged tells that the source is as it was at the last Check that
	// succeeded. Candidates are given all the same.
	Unchanged bool
	// Signers are the keys that signed, as their tools print them: as many as
	// had to sign. With VerifyTUF they are the roles and their versions.
	// Empty: unsigned, or with NoManifest not known before the bytes are.
	Signers []string
	// Signed is when the first of them did, by the signatures' own word. Zero:
	// it is not known.
	Signed time.Time
	// List is the SHA-256 of the manifest. Zero: there is none.
	List [32]byte
	// Until is when the manifest stops to count, by its own words. Zero: never.
	Until time.Time
}

// Newest gives the first candidate.
func (l Listing) Newest() (Candidate, bool) {
	if len(l.Candidates) == 0 {
		return Candidate{}, false
	}
	return l.Candidates[0], true
}

// cache is what the last successful Check saw. With it the next one asks only
// for what changed.
type cache struct {
	manifest     []byte
	manifestMark source.Mark
	signatures   map[string]signed   // by file name
	state        source.Mark         // of a source listed without manifest
	tag          string              // of the release that a source.Looker found
	places       map[Candidate]place // of TUF targets
	listing      Listing
	filled       bool
}

const (
	// filesMax bounds a directory without a manifest.
	filesMax = 32768
	// secondLook is how long a publisher or a mirror may need between the
	// manifest and its signature before a mismatch counts.
	secondLook = time.Second
)

// Check asks what the source offers. The signature holds before a line of the
// manifest is looked at. A source that did not change costs no transfer.
func (f *Fetcher) Check(ctx context.Context) (Listing, error) {
	state := source.Mark("")
	if w, ok := f.mirrors[0].lists.(source.Watcher); ok {
		state = w.State() // before reading, so that Wait sees what comes after
	}
	listing, err := f.check(ctx, state)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rhythm.looked(state)
	if err != nil {
		e := f.explain("list releases", err)
		f.rhythm.failed(e)
		return Listing{}, e
	}
	return listing, nil
}

func (f *Fetcher) check(ctx context.Context, state source.Mark) (listing Listing, err error) {
	err = f.each(ctx, nil, func(m *mirror) (err error) {
		listing, err = f.checkAt(ctx, m, state)
		return err
	})
	return listing, err
}

func (f *Fetcher) checkAt(ctx context.Context, m *mirror, state source.Mark) (Listing, error) {
	f.mu.Lock()
	old := m.cache
	f.mu.Unlock()
	if !old.filled {
		old = cache{}
	}
	now, err := f.look(ctx, m, old, state)
	switch fault.CodeOf(err) {
	case fault.SigBad, fault.SigMissing, fault.SigThreshold, fault.TUFMixed, fault.TUFMissing:
		// Perhaps caught between two steps of publishing.
		if err := sleep(ctx, secondLook); err != nil {
			return Listing{}, err
		}
		now, err = f.look(ctx, m, cache{}, state)
	}
	if err == nil && f.o.Verify != VerifyTUF && !f.o.NoManifest { // which were asked
		err = f.fresh(now.listing, f.now())
	}
	if err != nil {
		return Listing{}, err
	}
	now.filled = true
	f.mu.Lock()
	now.listing.Unchanged = now.listing.Unchanged && f.listed == m
	m.cache, f.listed = now, m
	f.seen = f.seen.With(now.listing, time.Now())
	f.mu.Unlock()
	listing := now.listing
	listing.Candidates = slices.Clone(listing.Candidates)
	return f.named(ctx, m.source, listing, now.manifest)
}

// look gives what the source says, by the scheme that makes it trusted.
func (f *Fetcher) look(ctx context.Context, m *mirror, old cache, state source.Mark) (cache, error) {
	if f.o.Verify == VerifyTUF {
		return f.lookAtTargets(ctx, m, old)
	}
	if f.o.NoManifest {
		return f.lookAtArtifact(ctx, m, old)
	}
	return f.lookAtManifest(ctx, m, old, state)
}

// lookAtManifest reads manifest and signature, and gives what they say, unless
// both are what they were.
func (f *Fetcher) lookAtManifest(ctx context.Context, m *mirror, old cache, state source.Mark) (cache, error) {
	now := old
	if looker, ok := m.source.(source.Looker); ok {
		view, err := looker.Look(ctx)
		if err != nil {
			return cache{}, err
		}
		state, now.tag = view.Mark, view.Tag
	}
	manifestSame, err := m.readInto(ctx, manifestName, manifestMax, &now.manifest, &now.manifestMark)
	if isMissing(err) {
		if lister, ok := m.source.(source.Lister); ok && f.Unsigned() {
			return f.lookAtFiles(ctx, lister, old, state, now.tag)
		}
		return cache{}, fault.Passing(fault.MetaMissing, errors.New("no "+manifestName+ofRelease(now.tag)), "publish it beside the files: sha256sum * > "+manifestName)
	}
	if err != nil {
		return cache{}, err
	}
	now.state = ""
	if looksLikeWebPage(now.manifest) {
		return cache{}, webPage(manifestName)
	}
	var by signature.Signed
	signaturesSame := true
	if !f.Unsigned() {
		by, now.signatures, signaturesSame, err = f.verify(ctx, m, now.manifest, old.signatures)
		if err != nil {
			return cache{}, err
		}
	}
	if manifestSame && signaturesSame && old.filled && now.tag == old.tag {
		now.listing.Unchanged, now.listing.Signers, now.listing.Signed = true, by.By, by.When
		return now, nil
	}
	now.listing, err = f.read(now.manifest, now.tag)
	now.listing.Signers, now.listing.Signed = by.By, by.When
	return now, err
}

// readInto replaces raw and mark when the file is not as it was, and tells
// whether it is.
func (m *mirror) readInto(ctx context.Context, name string, max int64, raw *[]byte, mark *source.Mark) (same bool, err error) {
	got, now, err := m.source.Read(ctx, name, max, *mark)
	if errors.Is(err, source.ErrUnchanged) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	*raw, *mark = got, now
	return false, nil
}

func ofRelease(tag string) string {
	if tag == "" {
		return ""
	}
	return " in release " + tag
}

// read lists what the manifest of a release names. Whoever calls it has it
// verified.
func (f *Fetcher) read(manifest []byte, tag string) (Listing, error) {
	var listing Listing
	m, err := parseManifest(manifest)
	if err != nil {
		return Listing{}, err
	}
	listing.Files, listing.Until, listing.List = len(m.entries), m.until, sha256.Sum256(manifest)
	var found []ranked
	for _, e := range m.entries {
		if r, ok := f.rank(tag, e.name); ok {
			r.Digest, r.Size = e.digest, -1
			found = append(found, r)
		}
	}
	listing.Candidates = newestFirst(found)
	return listing, nil
}

// lookAtFiles believes a directory without a manifest.
func (f *Fetcher) lookAtFiles(ctx context.Context, lister source.Lister, old cache, state source.Mark, tag string) (cache, error) {
	now := cache{state: state, tag: tag}
	if old.filled && old.manifest == nil && state != "" && old.state == state {
		now.listing = old.listing
		now.listing.Unchanged = true
		return now, nil
	}
	files, err := lister.List(ctx, filesMax)
	if err != nil {
		return cache{}, err
	}
	now.listing.Files = len(files)
	var found []ranked
	for _, file := range files {
		if r, ok := f.rank(tag, file.Name); ok && checkName(file.Name) == nil {
			r.Size, r.Digest = file.Size, file.Digest
			found = append(found, r)
		}
	}
	now.listing.Candidates = newestFirst(found)
	now.listing.Unchanged = old.filled && slices.Equal(old.listing.Candidates, now.listing.Candidates)
	return now, nil
}

// ranked is a candidate and the pattern that found it.
type ranked struct {
	Candidate
	pattern int
}

// rank finds the pattern for a file of the release that has this tag, "" for
// none.
func (f *Fetcher) rank(tag, name string) (ranked, bool) {
	for i, p := range f.patterns {
		whole := name
		if p.tagged {
			whole = tag + "/" + name
		}
		if v, ok := p.Match(whole); ok {
			return ranked{Candidate{Version: v, Name: name}, i}, true
		}
	}
	return ranked{}, false
}

func newestFirst(found []ranked) []Candidate {
	slices.SortFunc(found, func(a, b ranked) int {
		return cmp.Or(b.Version.Compare(a.Version), cmp.Compare(a.pattern, b.pattern), cmp.Compare(a.Name, b.Name))
	})
	candidates := make([]Candidate, len(found))
	for i, r := range found {
		candidates[i] = r.Candidate
	}
	return candidates
}

func isMissing(err error) bool { return fault.CodeOf(err) == fault.NotFound }
