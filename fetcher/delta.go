package fetcher

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/delta"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// Bases finds files of this host by their SHA-256: of those that are wanted, it
// gives the absolute names of the ones that are here. Fetch asks it at most once,
// on its caller's goroutine. What is in a file is hashed before it is used, so what
// is given needs not be true; the files are read only, and may go away meanwhile.
type Bases func(ctx context.Context, wanted [][32]byte) (map[[32]byte]string, error)

// shortcut is the attempt of one Fetch to do with patches.
//
//	dir/app_1.5.0.zst.deltas             what leads there; listed in SHA256SUMS
//	dir/app_1.5.0.zst.from-1.4.2.bsdiff  a patch, as verified; a later Fetch finds it
//	dir/<digest12>.built                 what a patch made; the last one is the content
type shortcut struct {
	f     *Fetcher
	first *mirror // whose list the artifact is from
	whole *transfer

	index    delta.Index
	listed   map[string][32]byte // what SHA256SUMS lists
	received int64
}

// builtEnd ends the names of what patches made. No artifact's name has it, since
// its beginning has the digest's.
const builtEnd = ".built"

// take gives the content of the artifact, or nil where the artifact itself has to
// come: nothing leads there from what is here, or what seemed to was of no use. The
// only error is that ctx ended.
func (s *shortcut) take(ctx context.Context) (*Verified, error) {
	v, err := s.try(ctx)
	if ctx.Err() != nil && v == nil {
		return nil, fault.Context(ctx)
	}
	if err != nil {
		s.f.log.WarnContext(ctx, "patches are of no use, fetching the whole file", "file", s.whole.candidate.Name, "received", s.received, "reason", err.Error())
		return nil, nil
	}
	if v != nil {
		s.f.log.InfoContext(ctx, "patched", "file", s.whole.candidate.Name, "patches", v.patches, "received", v.received, "instead_of", v.candidate.Size)
		s.clean(v)
	}
	return v, nil
}

func (s *shortcut) try(ctx context.Context) (*Verified, error) {
	bases, err := s.survey(ctx)
	if err != nil || bases == nil {
		return nil, err
	}
	return s.follow(ctx, bases)
}

// survey reads what leads to the content, and finds what is here of that, by digest;
// nil where nothing is published.
func (s *shortcut) survey(ctx context.Context) (map[[32]byte]string, error) {
	c := s.whole.candidate
	s.f.mu.Lock()
	manifest := s.first.cache.manifest
	s.f.mu.Unlock()
	if s.f.o.Bases == nil || s.f.o.NoManifest || !c.HasDigest() || len(manifest) == 0 {
		return nil, nil
	}
	m, err := parseManifest(manifest)
	if err != nil {
		return nil, err
	}
	s.listed = map[string][32]byte{}
	for _, e := range m.entries {
		if e.name == c.Name || delta.IsName(e.name) {
			s.listed[e.name] = e.digest
		}
	}
	if s.listed[c.Name] != c.Digest { // a target of TUF, or a name of an older list
		return nil, nil
	}
	if _, ok := s.listed[c.Name+delta.IndexEnd]; !ok {
		return nil, nil
	}
	if err := s.readIndex(ctx); err != nil {
		return nil, err
	}
	return s.bases(ctx)
}

// readIndex brings the index of the candidate, and takes out of it what the manifest
// does not list.
func (s *shortcut) readIndex(ctx context.Context) error {
	c := s.whole.candidate
	v, err := s.fetch(ctx, c.Name+delta.IndexEnd, -1, delta.IndexMax, nil)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", c.Name+delta.IndexEnd, err)
	}
	defer func() { _ = v.Close() }() // read only
	raw, err := io.ReadAll(io.NewSectionReader(v.File(), 0, delta.IndexMax))
	if err == nil {
		s.index, err = delta.ParseIndex(raw)
	}
	if err == nil {
		err = checkName(s.index.ContentName)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", c.Name+delta.IndexEnd, err)
	case s.index.Artifact != c.Name:
		return fmt.Errorf("%s is about %q", c.Name+delta.IndexEnd, s.index.Artifact)
	case s.index.Content.Size > s.f.o.SizeMax:
		return fmt.Errorf("the content has %d bytes, at most %d are made: raise SizeMax= if it is meant to be that large", s.index.Content.Size, s.f.o.SizeMax)
	}
	s.index.Patches = slices.DeleteFunc(s.index.Patches, func(p delta.Patch) bool {
		_, ok := s.listed[p.Name]
		return !ok || !delta.IsName(p.Name) || p.Result.Size > s.f.o.SizeMax
	})
	return nil
}

// bases are the files to start from, by digest: those of the caller, and what an
// earlier Fetch made before it was killed.
func (s *shortcut) bases(ctx context.Context) (map[[32]byte]string, error) {
	bases, err := s.f.o.Bases(ctx, s.index.Digests())
	if err != nil {
		return nil, fmt.Errorf("look for files to patch: %w", err)
	}
	here := map[[32]byte]string{}
	for _, digest := range s.index.Digests() {
		if name, ok := bases[digest]; ok {
			here[digest] = name
		}
		if st, err := s.whole.root.Lstat(builtName(digest)); here[digest] == "" && err == nil && st.Mode().IsRegular() {
			here[digest] = filepath.Join(s.whole.root.Name(), builtName(digest))
		}
	}
	return here, nil
}

func builtName(digest [32]byte) string { return hex.EncodeToString(digest[:6]) + builtEnd }

// follow takes the cheapest way, and without a base that turns out wrong the next.
func (s *shortcut) follow(ctx context.Context, bases map[[32]byte]string) (*Verified, error) {
	var wrong error
	for {
		chain, ok := s.cheapest(bases)
		if !ok {
			return nil, wrong
		}
		v, err := s.build(ctx, chain, bases[chain.From])
		if err == nil || !errors.Is(err, delta.ErrBase) {
			return v, err
		}
		delete(bases, chain.From)
		wrong = err
	}
}

// cheapest is the chain of fewest bytes, if it takes fewer than are left of the
// artifact.
func (s *shortcut) cheapest(bases map[[32]byte]string) (delta.Chain, bool) {
	limit := s.index.ArtifactSize
	if st, err := s.whole.root.Lstat(s.whole.part); err == nil && st.Mode().IsRegular() {
		limit -= st.Size()
	}
	return s.index.Cheapest(func(digest [32]byte) bool { return bases[digest] != "" }, limit)
}

// build fetches the patches of a chain, and then applies them one after the other.
func (s *shortcut) build(ctx context.Context, chain delta.Chain, base string) (*Verified, error) {
	patches := make([]*os.File, 0, len(chain.Patches))
	defer func() {
		for _, p := range patches {
			p.Close()
		}
	}()
	var done int64
	for _, p := range chain.Patches {
		var show func(done, total int64)
		if s.whole.progress != nil {
			before := done
			show = func(done, _ int64) { s.whole.progress(before+done, chain.Size) }
		}
		v, err := s.fetch(ctx, p.Name, p.Size, s.f.o.SizeMax, show)
		if err != nil {
			return nil, fmt.Errorf("fetch %s: %w", p.Name, err)
		}
		patches = append(patches, v.File())
		done += p.Size
	}
	from, err := openBase(base)
	if err != nil {
		return nil, err
	}
	digest := chain.From
	for i, p := range chain.Patches {
		v, err := s.apply(ctx, p.Result, func(ctx context.Context, old *io.SectionReader) (io.Reader, error) {
			return delta.Open(ctx, p.Format, old, digest, io.NewSectionReader(patches[i], 0, p.Size), p.Result)
		}, from)
		from.Close()
		if err != nil {
			return nil, fmt.Errorf("apply %s: %w", p.Name, err)
		}
		from, digest = v.File(), p.Result.Digest
		if i == len(chain.Patches)-1 {
			return s.verified(v, len(patches)), nil
		}
	}
	defer from.Close()
	v, err := s.apply(ctx, s.index.Content, func(ctx context.Context, old *io.SectionReader) (io.Reader, error) {
		return delta.Copy(ctx, old, s.index.Content)
	}, from)
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", base, err)
	}
	return s.verified(v, 0), nil
}

// apply makes a file by way of open, in a transfer like any other: counted, hashed,
// durable.
func (s *shortcut) apply(ctx context.Context, result delta.File, open func(context.Context, *io.SectionReader) (io.Reader, error), from *os.File) (*Verified, error) {
	st, err := from.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", delta.ErrBase, err)
	}
	name := builtName(result.Digest)
	t := &transfer{
		source: step{open, io.NewSectionReader(from, 0, st.Size()), result.Size},
		file:   name, root: s.whole.root, max: s.f.o.SizeMax,
		candidate: Candidate{Version: s.whole.candidate.Version, Name: name, Digest: result.Digest, Size: result.Size},
		part:      name + ".part", // not that of the artifact, which may be the same file
	}
	if v, err := t.found(ctx); v != nil || err != nil {
		return v, err
	}
	v, _, err := t.run(ctx)
	return v, err
}

// step is a source of the one file that comes of a base.
type step struct {
	open func(context.Context, *io.SectionReader) (io.Reader, error)
	base *io.SectionReader
	size int64
}

func (s step) String() string { return "what is here" }

func (s step) Open(ctx context.Context, _ string, _ source.Position) (*source.Stream, error) {
	r, err := s.open(ctx, s.base)
	if err != nil {
		return nil, err
	}
	return &source.Stream{Body: io.NopCloser(r), Size: s.size}, nil
}

// verified says of the last thing that was made what it is.
func (s *shortcut) verified(v *Verified, patches int) *Verified {
	v.candidate = s.whole.candidate
	v.candidate.Size = s.index.ArtifactSize
	v.name, v.patches, v.received = s.index.ContentName, patches, s.received
	return v
}

// fetch brings a file that the manifest lists beside the artifact; size is -1 where
// it is not known.
func (s *shortcut) fetch(ctx context.Context, name string, size, max int64, progress func(done, total int64)) (*Verified, error) {
	c := Candidate{Version: s.whole.candidate.Version, Name: name, Digest: s.listed[name], Size: size}
	t := transfer{root: s.whole.root, candidate: c, part: partName(c), max: max, rate: s.f.o.BandwidthMax, progress: progress}
	v, err := t.found(ctx)
	if v == nil && err == nil {
		v, err = s.f.bring(ctx, s.first, t)
	}
	if err != nil {
		return nil, err
	}
	s.received += v.received
	return v, nil
}

// clean removes what only helped on the way, and keeps v's file. What cannot be
// removed goes with the directory, which is its caller's.
func (s *shortcut) clean(v *Verified) {
	forget := func(name, part string) {
		t := transfer{part: part}
		for _, name := range []string{name, t.part, t.markFile()} {
			if name != filepath.Base(v.path) {
				_ = s.whole.root.Remove(name)
			}
		}
	}
	fetched := func(name string) { forget(name, partName(Candidate{Digest: s.listed[name]})) }
	built := func(digest [32]byte) { forget(builtName(digest), builtName(digest)+".part") }
	c := s.whole.candidate
	if _, ok := s.listed[c.Name+delta.IndexEnd]; ok {
		fetched(c.Name)
		fetched(c.Name + delta.IndexEnd)
		built(s.index.Content.Digest)
	}
	for _, p := range s.index.Patches {
		fetched(p.Name)
		built(p.Result.Digest)
	}
}

// openBase opens a file of somebody else, whose name may mean anything by now.
func openBase(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", delta.ErrBase, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %w", delta.ErrBase, err)
	}
	return f, nil
}
