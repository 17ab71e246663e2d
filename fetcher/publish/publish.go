package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const (
	manifestName = "SHA256SUMS"
	bestBefore   = "BEST-BEFORE-"
	manifestMax  = 4 << 20
	signatureMax = 32 << 10
)

// Signer signs lists of releases.
type Signer interface {
	// Sign leaves its signature of the list beside it, in a file whose name
	// begins with SHA256SUMS and a dot. It changes nothing else there.
	Sign(ctx context.Context, manifest string) error
}

// Options say what to publish, and who vouches for it.
type Options struct {
	// Dir is the directory. It must exist.
	Dir string
	// Artifacts are files to publish as Version, under their own names with
	// the version in them; see Name. None: only the list is made anew.
	Artifacts []string
	Version   string
	// BestBefore is the last day of the list, in UTC. Zero: as long as no newer
	// list is there, hosts believe this one.
	BestBefore time.Time
	// Signers sign the list; at least one is required.
	Signers []Signer
	// Keys are what a host has as Key=, by which the result is verified, and
	// what is in the directory already. Required.
	Keys []string
	// Adopt takes over a list that none of Keys signed.
	Adopt bool
	// Deltas makes patches to each of Artifacts from what hosts have of the
	// releases before, DeltasFrom of them, at most DeltasFromMax, and keeps those
	// that have less than half of its bytes. Default: none; from 3.
	Deltas     Deltas
	DeltasFrom int
}

// Result is what Add did.
type Result struct {
	// Added are the artifacts that are new, by their names in Dir.
	Added []string
	// Patterns are what a host has as MatchPattern= for Artifacts.
	Patterns []string
	// LeftOut are patches that are not published, and why.
	LeftOut []string
	// Unchanged tells that all of it was there, signed and listed.
	Unchanged bool
}

// Add publishes artifacts beside those that are there. Doing it again changes
// nothing. A version that is there with other bytes is refused: hosts that have
// it would never take the new ones. It holds a lock on the directory, and returns
// when all is on disk; killed anywhere it leaves what hosts can read, and a
// directory .publishing-… that the next Add removes.
func Add(ctx context.Context, o Options) (Result, error) {
	switch {
	case len(o.Signers) == 0:
		return Result{}, &advised{errors.New("nobody signs the list"), "name a key"}
	case len(o.Keys) == 0:
		return Result{}, errors.New("no key to verify the list by")
	case o.DeltasFrom < 0 || o.DeltasFrom > DeltasFromMax:
		return Result{}, fmt.Errorf("deltas from %d releases, want 1 to %d", o.DeltasFrom, DeltasFromMax)
	}
	if _, err := fetcher.ParseVersion(o.Version); err != nil && len(o.Artifacts) > 0 {
		return Result{}, err
	}
	s, err := openStaging(o.Dir)
	if err != nil {
		return Result{}, err
	}
	defer s.Close()
	a := addition{o: o, staging: s, listed: map[string]string{}}
	return a.run(ctx)
}

// addition is one Add.
type addition struct {
	o       Options
	staging *staging
	old     []byte            // the list as it is
	listed  map[string]string // name → digest, of the new list
	result  Result
}

func (a *addition) run(ctx context.Context) (Result, error) {
	signed, err := a.readOld(ctx)
	if err != nil {
		return Result{}, err
	}
	for _, artifact := range a.o.Artifacts {
		if err := a.take(ctx, artifact); err != nil {
			return Result{}, fmt.Errorf("publish %s: %w", artifact, err)
		}
	}
	if a.o.Deltas != "" && a.o.Deltas != DeltasNone {
		for _, artifact := range a.o.Artifacts {
			if err := a.patch(ctx, artifact); err != nil {
				return Result{}, fmt.Errorf("make deltas to %s: %w", artifact, err)
			}
		}
	}
	if len(a.listed) == 0 {
		return Result{}, fmt.Errorf("%s lists nothing, and nothing is to be added", a.o.Dir)
	}
	a.setLastDay()
	manifest := a.manifest()
	if signed && len(a.result.Added) == 0 && bytes.Equal(manifest, a.old) {
		a.result.Unchanged = true
		return a.result, nil
	}
	if err := a.sign(ctx, manifest); err != nil {
		return Result{}, err
	}
	if err := a.rehearse(ctx); err != nil {
		return Result{}, fmt.Errorf("not published, a host would refuse it: %w", err)
	}
	return a.result, a.appear()
}

// readOld goes on with what the directory lists, if it is ours, and reports
// whether its signature holds. All of it is copied first, so that what is checked
// is what is used.
func (a *addition) readOld(ctx context.Context) (signed bool, err error) {
	old, err := readSmall(filepath.Join(a.o.Dir, manifestName), manifestMax)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	copied := filepath.Join(a.staging.path, "old")
	if err := os.Mkdir(copied, 0o700); err != nil {
		return false, err
	}
	signatures, err := signatureFiles(a.o.Dir)
	if err != nil {
		return false, err
	}
	if err := os.WriteFile(filepath.Join(copied, manifestName), old, 0o600); err != nil {
		return false, err
	}
	for _, name := range signatures {
		data, err := readSmall(filepath.Join(a.o.Dir, name), signatureMax)
		if err != nil {
			return false, err
		}
		if err := os.WriteFile(filepath.Join(copied, name), data, 0o600); err != nil {
			return false, err
		}
	}
	signed = true
	_, err = a.check(ctx, copied, "@v", a.o.Keys)
	var known *fetcher.Error
	switch code := fault.CodeOf(err); {
	case err == nil || code == fault.MetaExpired: // which it says only of what is signed
	case errors.As(err, &known) && a.o.Adopt && strings.HasPrefix(string(code), "SIG_"):
		signed = false
		if _, err := a.check(ctx, copied, "@v", nil); err != nil && fault.CodeOf(err) != fault.MetaExpired {
			return false, err
		}
	case strings.HasPrefix(string(code), "SIG_"):
		return false, fmt.Errorf("what %s lists already would be signed anew, but nobody here vouches for it (say --adopt if you do): %w", a.o.Dir, err)
	default:
		return false, err
	}
	a.old = old
	for line := range strings.Lines(string(old)) { // checked above
		line = strings.TrimSuffix(line, "\n")
		a.listed[line[66:]] = strings.ToLower(line[:64])
	}
	return signed, nil
}

// check looks at a directory as a host would. No keys: it believes all.
func (a *addition) check(ctx context.Context, dir, pattern string, keys []string) (fetcher.Listing, error) {
	f, err := host(dir, pattern, keys, nil)
	if err != nil {
		return fetcher.Listing{}, err
	}
	defer f.Close()
	return f.Check(ctx)
}

func host(dir, pattern string, keys []string, bases fetcher.Bases) (*fetcher.Fetcher, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	o := fetcher.Options{Target: "publish", Path: dir, Patterns: []string{pattern}, Keys: keys, Bases: bases}
	if len(keys) == 0 {
		o.Verify = fetcher.VerifyNo
	}
	return fetcher.New(o, nil)
}

// take copies one artifact to where it is prepared, unless it is there.
func (a *addition) take(ctx context.Context, artifact string) error {
	name, pattern, err := Name(filepath.Base(artifact), a.o.Version)
	if err != nil {
		return err
	}
	a.result.Patterns = append(a.result.Patterns, pattern)
	digest, err := copyFile(ctx, artifact, filepath.Join(a.staging.path, name))
	if err != nil {
		return err
	}
	was, known := a.listed[name]
	if known && was != digest {
		return &advised{fmt.Errorf("%s is published with other bytes", name), "a version names one set of bytes, so raise the version"}
	}
	if have, err := digestOf(ctx, filepath.Join(a.o.Dir, name)); known && err == nil && have == digest {
		return nil
	}
	a.listed[name] = digest
	a.result.Added = append(a.result.Added, name)
	return nil
}

// setLastDay replaces what the list says of its end.
func (a *addition) setLastDay() {
	maps.DeleteFunc(a.listed, func(name, _ string) bool { return strings.HasPrefix(name, bestBefore) })
	if !a.o.BestBefore.IsZero() {
		a.listed[bestBefore+a.o.BestBefore.UTC().Format(time.DateOnly)] = hex.EncodeToString(empty[:])
	}
}

var empty = sha256.Sum256(nil)

func (a *addition) manifest() []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(a.listed)) {
		fmt.Fprintf(&b, "%s  %s\n", a.listed[name], name)
	}
	return b.Bytes()
}

func (a *addition) sign(ctx context.Context, manifest []byte) error {
	name := filepath.Join(a.staging.path, manifestName)
	if err := writeFile(name, bytes.NewReader(manifest)); err != nil {
		return err
	}
	for _, s := range a.o.Signers {
		if err := s.Sign(ctx, name); err != nil {
			return fmt.Errorf("sign %s: %w", manifestName, err)
		}
	}
	now, err := readSmall(name, manifestMax)
	if err == nil && !bytes.Equal(now, manifest) {
		err = fmt.Errorf("sign %s: a signer changed it", manifestName)
	}
	return err
}

// rehearse is a host that follows the staging directory: each artifact has to be
// found, fetched and verified.
func (a *addition) rehearse(ctx context.Context) error {
	if len(a.o.Artifacts) == 0 {
		_, err := a.check(ctx, a.staging.path, "@v", a.o.Keys)
		return err
	}
	for _, pattern := range a.result.Patterns {
		if err := a.rehearseOne(ctx, pattern); err != nil {
			return err
		}
	}
	return nil
}

func (a *addition) rehearseOne(ctx context.Context, pattern string) error {
	f, err := host(a.staging.path, pattern, a.o.Keys, nil)
	if err != nil {
		return err
	}
	defer f.Close()
	listing, err := f.Check(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(listing.Candidates, func(c fetcher.Candidate) bool { return string(c.Version) == a.o.Version })
	if i < 0 {
		return fmt.Errorf("MatchPattern=%s finds no version %s", pattern, a.o.Version)
	}
	into := filepath.Join(a.staging.path, "fetched")
	if err := os.Mkdir(into, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(into)
	v, err := f.Fetch(ctx, listing.Candidates[i], into, nil)
	if err != nil {
		return err
	}
	return v.Close()
}

// appear moves all of it to where hosts look: what is listed, then the
// signatures, then the list. A host between the last two steps sees signatures
// of another list, and looks again.
func (a *addition) appear() error {
	signatures, err := signatureFiles(a.staging.path)
	if err != nil {
		return err
	}
	old, err := signatureFiles(a.o.Dir)
	if err != nil {
		return err
	}
	steps := [][]string{a.result.Added, signatures, {manifestName}}
	for _, names := range steps {
		for _, name := range names {
			if err := a.staging.appear(name); err != nil {
				return err
			}
		}
		if err := a.staging.dir.Sync(); err != nil {
			return err
		}
	}
	for _, name := range old { // of the old list, by somebody who did not sign the new one
		if !slices.Contains(signatures, name) {
			if err := os.Remove(filepath.Join(a.o.Dir, name)); err != nil {
				return err
			}
		}
	}
	return a.staging.dir.Sync()
}

// signatureFiles are the names of signatures of the list in dir.
func signatureFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), manifestName+".") && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func readSmall(name string, max int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(data)) > max {
		err = fmt.Errorf("%s is larger than %d bytes", name, max)
	}
	return data, err
}
