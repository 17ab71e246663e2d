package fetcher

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/intake"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// Fetch brings c, one of the candidates of the last Check, into dir, and gives
// it when its digest is the promised one:
//
//	dir/<digest12>.part       bytes so far; a later Fetch goes on from here
//	dir/<digest12>.part.mark  the state of the source's file they are from
//	dir/<c.Name>              the artifact: complete, on disk, mode 0400
//
// A failed transfer leaves the part; a wrong digest, a full or failing disk
// removes it. dir must exist, be on the file system where the release will
// be, and be the caller's alone (0700). When the artifact is there already it
// is hashed again and nothing is transferred.
//
// Where patches that are published beside c lead to its content from a file that
// [Options.Bases] finds, with fewer bytes than are left of c, they are fetched
// instead, and on any doubt c after all; see package doc.
//
// progress, unless nil, gets the bytes so far and the total, -1 if unknown: first
// what an earlier Fetch left, then at most ten times a second. It is called on the
// caller's goroutine.
func (f *Fetcher) Fetch(ctx context.Context, c Candidate, dir string, progress func(done, total int64)) (*Verified, error) {
	v, err := f.fetch(ctx, c, dir, progress)
	if err != nil {
		e := f.explain("fetch "+c.Name, err)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.rhythm.failed(e)
		return nil, e
	}
	return v, nil
}

func (f *Fetcher) fetch(ctx context.Context, c Candidate, dir string, progress func(done, total int64)) (*Verified, error) {
	if c.Config != "" {
		return f.fetchPair(ctx, c, dir, progress)
	}
	f.mu.Lock()
	first := f.listed
	listed := first != nil && slices.Contains(first.cache.listing.Candidates, c)
	state := source.Mark("")
	if listed {
		state = first.cache.manifestMark
	}
	f.mu.Unlock()
	if !listed {
		return nil, unlisted()
	}
	return f.fetchListed(ctx, first, c, state, dir, progress)
}

// fetchListed brings a file that the last Check listed. state is that of the file
// which stands for it with NoManifest.
func (f *Fetcher) fetchListed(ctx context.Context, first *mirror, c Candidate, state source.Mark, dir string, progress func(done, total int64)) (*Verified, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // a directory: nothing is lost
	t := transfer{root: root, candidate: c, part: partName(c), max: f.o.SizeMax, rate: f.o.BandwidthMax, progress: progress}
	if v, err := t.found(ctx); v != nil || err != nil {
		return v, err
	}
	if f.o.NoManifest {
		t.part = "artifact.part"
		if f.Unsigned() {
			t.state = state
		} else {
			t.proof = f.proof(ctx, c)
		}
	}
	if !t.telling() { // that another mirror has the same
		return f.fetchFrom(ctx, first, t)
	}
	if !c.HasDigest() {
		return f.bring(ctx, first, t)
	}
	s := shortcut{f: f, first: first, whole: &t}
	if v, err := s.take(ctx); v != nil || err != nil {
		return v, err
	}
	v, err := f.bring(ctx, first, t)
	if err != nil {
		return nil, err
	}
	v.received += s.received
	s.clean(v)
	return v, nil
}

// bring fetches from one mirror after the other, first before the others.
func (f *Fetcher) bring(ctx context.Context, first *mirror, t transfer) (v *Verified, err error) {
	err = f.each(ctx, first, func(m *mirror) (err error) {
		v, err = f.fetchFrom(ctx, m, t)
		return err
	})
	return v, err
}

// fetchFrom brings the bytes from m, or what is missing of them: a part from
// another mirror will do, since the digest decides.
func (f *Fetcher) fetchFrom(ctx context.Context, m *mirror, t transfer) (*Verified, error) {
	from, name, done, err := f.holder(m, t.candidate)
	if err != nil {
		return nil, err
	}
	defer done()
	t.source, t.file = from, name
	v, resumed, err := t.run(ctx)
	if resumed > 0 {
		f.log.InfoContext(ctx, "went on with a part", "file", t.candidate.Name, "from", resumed)
	}
	if code := fault.CodeOf(err); resumed > 0 && (code == fault.ArtifactDigest || code == fault.SigBad) {
		// The part may be what is wrong: damaged by a power cut, or of a file
		// that the source has replaced.
		f.log.WarnContext(ctx, "part was of no use, fetching anew", "file", t.candidate.Name)
		v, _, err = t.run(ctx)
	}
	if err == nil && len(f.mirrors) > 1 {
		f.log.InfoContext(ctx, "fetched", "file", t.candidate.Name, "mirror", m.source.String())
	}
	return v, err
}

// transfer brings one file.
type transfer struct {
	source    opener
	file      string // its name there
	root      *os.Root
	candidate Candidate
	part      string
	max       int64
	rate      int64
	progress  func(done, total int64)
	// Where the digest is not known, proof tells right bytes from wrong ones,
	// and state, unless empty, is that of the file which was looked at.
	proof func(raw []byte) error
	state source.Mark
}

// telling is whether right bytes can be told from wrong ones.
func (t *transfer) telling() bool { return t.candidate.HasDigest() || t.proof != nil }

// opener is the part of a source that a transfer needs.
type opener interface {
	String() string
	Open(ctx context.Context, name string, from source.Position) (*source.Stream, error)
}

// partName is the name of the unfinished file. Without a digest nothing tells
// whether a part belongs to what is at the source now, so it is not resumed.
func partName(c Candidate) string {
	if !c.HasDigest() {
		return "unsigned.part"
	}
	return hex.EncodeToString(c.Digest[:6]) + ".part"
}

func (t *transfer) markFile() string { return t.part + ".mark" }

// found gives the artifact if it is there already.
func (t *transfer) found(ctx context.Context) (*Verified, error) {
	if !t.candidate.HasDigest() {
		return nil, nil
	}
	st, err := t.root.Lstat(t.candidate.Name)
	if err != nil || !st.Mode().IsRegular() {
		return nil, nil
	}
	whole, err := intake.Find(ctx, t.root, t.candidate.Name)
	if err != nil {
		return nil, err
	}
	if whole.Sum() != t.candidate.Digest {
		return nil, whole.Discard()
	}
	v, err := t.commit(whole)
	if err != nil {
		whole.Keep()
	}
	return v, err
}

// run brings the bytes that are missing. It tells where it went on from.
func (t *transfer) run(ctx context.Context) (v *Verified, resumed int64, err error) {
	p, err := intake.Begin(ctx, t.root, t.part)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			err = t.giveUp(p, err)
		}
	}()
	if !t.telling() {
		if err := p.Reset(); err != nil {
			return nil, 0, err
		}
	}
	if t.candidate.HasDigest() && p.Size() > 0 && p.Sum() == t.candidate.Digest {
		resumed = p.Size() // and nothing was left to bring
		v, err = t.commit(p)
		return v, resumed, err
	}
	stream, err := t.source.Open(ctx, t.file, source.Position{Offset: p.Size(), Mark: t.loadMark()})
	if err != nil {
		return nil, 0, err
	}
	stream.Body = pace(ctx, stream.Body, t.rate)
	defer stream.Body.Close()
	if t.state != "" && stream.Mark != t.state {
		return nil, 0, fault.Passing(fault.SourceChanged, fmt.Errorf("%s is not the file that the last look saw", t.file), "it is looked at again by itself")
	}
	if stream.Offset != p.Size() {
		if err := p.Reset(); err != nil {
			return nil, 0, err
		}
	}
	resumed = p.Size()
	if err := t.receive(p, stream); err != nil {
		return nil, resumed, err
	}
	received := p.Size() - resumed
	if v, err = t.commit(p); err != nil {
		return nil, resumed, err
	}
	v.received = received
	return v, resumed, nil
}

const hintTogether = "publish a file together with the list that names it"

// receive adds the stream to the part and compares length and digest.
func (t *transfer) receive(p *intake.Part, stream *source.Stream) error {
	promised, limit := int64(-1), t.max
	if t.candidate.HasDigest() {
		promised = t.candidate.Size
	}
	if max(promised, stream.Size) > t.max {
		return fault.New(fault.TooLarge, fmt.Errorf("%d bytes, at most %d are fetched", max(promised, stream.Size), t.max), "raise SizeMax= if the artifact is meant to be that large")
	}
	if promised >= 0 {
		if stream.Size >= 0 && stream.Size != promised {
			return fault.Passing(fault.ArtifactDigest, fmt.Errorf("%s has %d bytes, want %d", t.file, stream.Size, promised), hintTogether)
		}
		limit = promised
	}
	if vouched := stream.Digest; vouched != [32]byte{} && t.candidate.HasDigest() && vouched != t.candidate.Digest {
		return fault.Passing(fault.ArtifactDigest, fmt.Errorf("the source says that %s has SHA-256 %x, want %x", t.file, vouched, t.candidate.Digest), hintTogether)
	}
	if err := p.Reserve(max(promised, stream.Size)); err != nil {
		return err
	}
	t.saveMark(stream.Mark)
	var show func(int64)
	if t.progress != nil {
		show = func(done int64) { t.progress(done, stream.Size) }
		show(p.Size())
	}
	if err := p.Append(stream.Body, limit, show); err != nil {
		if promised >= 0 && fault.CodeOf(err) == fault.TooLarge {
			return fault.Passing(fault.ArtifactDigest, fmt.Errorf("%s has more than the %d bytes that are wanted", t.file, promised), hintTogether)
		}
		return err
	}
	switch got := p.Sum(); {
	case p.Size() == 0:
		return fault.Passing(fault.ArtifactEmpty, errors.New("the file is empty"), "publish it anew")
	case stream.Size >= 0 && p.Size() != stream.Size:
		return fault.Passing(fault.Size, fmt.Errorf("got %d bytes, want %d", p.Size(), stream.Size), "it is tried again by itself; if it stays so, publish the file anew")
	case !t.candidate.HasDigest():
		if t.proof != nil {
			if err := p.Inspect(t.proof); err != nil {
				return err
			}
		}
		t.candidate.Digest = got
	case got != t.candidate.Digest:
		err := fmt.Errorf("got SHA-256 %x, want %x (%d bytes)", got, t.candidate.Digest, p.Size())
		if stream.Note != "" {
			err = fmt.Errorf("%w; %s", err, stream.Note)
		}
		return fault.Passing(fault.ArtifactDigest, err, hintTogether)
	}
	return nil
}

// commit makes the artifact durable, and is the one place where a Verified is
// made.
func (t *transfer) commit(p *intake.Part) (*Verified, error) {
	size := p.Size()
	if err := t.forgetMark(); err != nil {
		return nil, err
	}
	file, err := p.Commit(t.candidate.Name)
	if err != nil {
		return nil, err
	}
	t.candidate.Size = size
	return &Verified{candidate: t.candidate, name: t.candidate.Name, path: filepath.Join(t.root.Name(), t.candidate.Name), file: file}, nil
}

// giveUp keeps the part only where it is of use to a later Fetch: when the way
// to the source failed, not the bytes or the disk.
func (t *transfer) giveUp(p *intake.Part, err error) error {
	switch fault.CodeOf(err) {
	case fault.Canceled, fault.DNS, fault.Connect, fault.Proxy, fault.TLS, fault.Redirect, fault.Protocol,
		fault.Stalled, fault.TooSlow, fault.Broken, fault.Size, fault.NotFound, fault.Denied, fault.Throttled, fault.Server,
		fault.Status, fault.SourceMissing, fault.SourceDenied, fault.SourceIO:
		if p.Size() > 0 && t.telling() {
			p.Keep()
			return err
		}
	}
	if undo := errors.Join(p.Discard(), t.forgetMark()); undo != nil {
		return fault.Bare(err, fault.Local).Also(undo)
	}
	return err
}

// loadMark gives the state of the source's file that the part is from, if it is
// from this source: a mark of another means nothing. A file that is not one line of
// plain text is as good as none: the digest decides.
func (t *transfer) loadMark() source.Mark {
	raw, err := t.root.ReadFile(t.markFile())
	if err != nil || len(raw) > markMax {
		return ""
	}
	for _, c := range raw {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	mark, ok := strings.CutPrefix(string(raw), t.giver())
	if !ok {
		return ""
	}
	return source.Mark(mark)
}

// giver tells sources apart in the file of a mark.
func (t *transfer) giver() string {
	sum := sha256.Sum256([]byte(t.source.String()))
	return hex.EncodeToString(sum[:6]) + " "
}

// markMax is larger than any mark a source gives.
const markMax = 1 << 10

// saveMark is an aid for a later Fetch, so its failure is none of this one's.
func (t *transfer) saveMark(m source.Mark) {
	f, err := t.root.OpenFile(t.markFile(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString(t.giver() + string(m))
}

func (t *transfer) forgetMark() error {
	if err := t.root.Remove(t.markFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
