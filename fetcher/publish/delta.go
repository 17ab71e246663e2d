package publish

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/fetcher/internal/delta"
)

// Deltas says with which tool patches are made.
type Deltas string

const (
	DeltasNone   Deltas = "none"
	DeltasBSDiff Deltas = "bsdiff" // bsdiff(1): the smallest patches, takes 17 times the program in memory
	DeltasZstd   Deltas = "zstd"   // zstd(1) --patch-from
	DeltasAuto   Deltas = "auto"   // bsdiff where it is installed and the program is not too large for it, else zstd
)

const (
	deltasFromDefault = 3
	// DeltasFromMax bounds Options.DeltasFrom.
	DeltasFromMax = 16
	// worth is how many times smaller than the artifact a patch has to be. One that
	// saves less costs the source a file and the host a second way to fail.
	worth = 2
	// bsdiffMax is the largest program for which auto takes bsdiff, in bytes: it
	// needs some 2 GiB of memory and a few minutes.
	bsdiffMax = 128 << 20
	// contentMax is what a host unpacks at most, in bytes.
	contentMax = 4 << 30
	// patchesMax bounds what an index says, older patches too.
	patchesMax = 64
)

// compressed are the ends of names, and those of what is in such a file.
func compressed() []struct{ end, inner string } {
	return []struct{ end, inner string }{
		{".tgz", ".tar"}, {".tzst", ".tar"}, {".txz", ".tar"}, {".gz", ""}, {".zst", ""}, {".xz", ""},
	}
}

// contentName is the name of what an artifact is once it is decompressed.
func contentName(artifact string) (string, error) {
	for _, c := range compressed() {
		stem, ok := strings.CutSuffix(artifact, c.end)
		if !ok {
			continue
		}
		inner := stem + c.inner
		if again, _ := contentName(inner); again != inner {
			return "", fmt.Errorf("%s is compressed twice, and hosts decompress once", artifact)
		}
		return inner, nil
	}
	return artifact, nil
}

// decompress reads the content of an artifact, by its name.
func decompress(name string, r io.Reader) (io.ReadCloser, error) {
	inner, err := contentName(filepath.Base(name))
	switch {
	case err != nil || inner == filepath.Base(name):
		return io.NopCloser(r), err
	case strings.HasSuffix(name, "gz"):
		return gzip.NewReader(r)
	case strings.HasSuffix(name, "zst"):
		d, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(128<<20)) // as hosts do
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	x, err := xz.NewReader(r)
	return io.NopCloser(x), err
}

// patchwork makes the patches to one artifact that is in the staging directory.
type patchwork struct {
	a       *addition
	name    string // of the artifact
	pattern string
	dir     string // for what is not published
	content string // the artifact, decompressed
	index   delta.Index
	bases   map[[32]byte]string // what the patches start from
}

// older is a release that is published already.
type older struct {
	version fetcher.Version
	name    string
}

// patch publishes patches to the artifact, where there are releases to start from
// and they pay, unless that was done before.
func (a *addition) patch(ctx context.Context, artifact string) error {
	name, pattern, err := Name(filepath.Base(artifact), a.o.Version)
	if err != nil {
		return err
	}
	if _, done := a.listed[name+delta.IndexEnd]; done {
		return nil
	}
	w := patchwork{a: a, name: name, pattern: pattern, dir: filepath.Join(a.staging.path, "deltas"), bases: map[[32]byte]string{}}
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(w.dir)
	before, err := w.before()
	if err != nil || len(before) == 0 {
		return err
	}
	if err := w.readContent(ctx); err != nil {
		return err
	}
	for i, o := range before {
		if err := w.from(ctx, o, i); err != nil {
			return fmt.Errorf("patch from %s: %w", o.name, err)
		}
	}
	if len(w.index.Patches) == 0 {
		return nil
	}
	direct := len(w.index.Patches)
	w.addOlder(ctx, before)
	return w.publish(ctx, direct)
}

// before are the newest of the older releases that the same pattern finds, and that
// are whole.
func (w *patchwork) before() ([]older, error) {
	p, err := fetcher.ParsePattern(w.pattern)
	if err != nil {
		return nil, err
	}
	var all []older
	for name := range w.a.listed {
		if v, ok := p.Match(name); ok && v.Compare(fetcher.Version(w.a.o.Version)) < 0 {
			all = append(all, older{v, name})
		}
	}
	slices.SortFunc(all, func(a, b older) int { return cmp.Or(b.version.Compare(a.version), cmp.Compare(a.name, b.name)) })
	most := w.a.o.DeltasFrom
	if most == 0 {
		most = deltasFromDefault
	}
	return all[:min(len(all), most)], nil
}

// readContent decompresses the artifact.
func (w *patchwork) readContent(ctx context.Context) error {
	var err error
	if w.index.ContentName, err = contentName(w.name); err != nil {
		return err
	}
	artifact := filepath.Join(w.a.staging.path, w.name)
	st, err := os.Stat(artifact)
	if err != nil {
		return err
	}
	w.index.Artifact, w.index.ArtifactSize = w.name, st.Size()
	w.content = filepath.Join(w.dir, "new")
	w.index.Content, err = w.unpack(ctx, artifact, w.content)
	return err
}

// unpack decompresses a file into another.
func (w *patchwork) unpack(ctx context.Context, from, to string) (delta.File, error) {
	f, err := os.Open(from)
	if err != nil {
		return delta.File{}, err
	}
	defer f.Close()
	r, err := decompress(from, reader{ctx, f})
	if err != nil {
		return delta.File{}, err
	}
	defer r.Close()
	return keep(r, to)
}

// keep writes what r has into a file.
func keep(r io.Reader, to string) (delta.File, error) {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return delta.File{}, err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, contentMax+1))
	if err = errors.Join(err, f.Close()); err == nil && n > contentMax {
		err = fmt.Errorf("it unpacks to more than the %d bytes that hosts take", int64(contentMax))
	}
	return delta.File{Digest: [32]byte(h.Sum(nil)), Size: n}, err
}

// from makes the patch that starts from an older release.
func (w *patchwork) from(ctx context.Context, o older, number int) error {
	file := filepath.Join(w.a.o.Dir, o.name)
	if have, err := digestOf(ctx, file); err != nil || have != w.a.listed[o.name] {
		return ctx.Err() // withdrawn, or damaged: no host would take it either
	}
	base := filepath.Join(w.dir, fmt.Sprint("old", number))
	of, err := w.base(ctx, file, base)
	if err != nil {
		return err
	}
	if _, twice := w.bases[of.Digest]; twice || of.Size == 0 || of.Digest == w.index.Content.Digest {
		return nil
	}
	format, err := w.a.o.Deltas.format(max(of.Size, w.index.Content.Size))
	if err != nil {
		return err
	}
	end := delta.BSDiffEnd
	if format == delta.Zstd {
		end = delta.ZstdEnd
	}
	name := w.name + ".from-" + string(o.version) + end
	patch := filepath.Join(w.dir, fmt.Sprint("patch", number))
	if err := diff(ctx, format, base, w.content, patch); err != nil {
		return err
	}
	st, err := os.Stat(patch)
	if err != nil {
		return err
	}
	size := st.Size()
	switch {
	case size*worth >= w.index.ArtifactSize:
		w.a.result.LeftOut = append(w.a.result.LeftOut, fmt.Sprintf("%s: %d bytes, the whole file has %d", name, size, w.index.ArtifactSize))
		return nil
	case format == delta.Zstd && of.Size+size+w.index.Content.Size > delta.MemoryMax:
		w.a.result.LeftOut = append(w.a.result.LeftOut, fmt.Sprintf("%s: a host would need more than %d MiB of memory; bsdiff needs little", name, delta.MemoryMax>>20))
		return nil
	}
	if err := os.Rename(patch, filepath.Join(w.a.staging.path, name)); err != nil {
		return err
	}
	w.index.Patches = append(w.index.Patches, delta.Patch{Format: format, Base: of.Digest, Result: w.index.Content, Size: size, Name: name})
	w.bases[of.Digest] = base
	return nil
}

// base gives the file of an older release that hosts have: the program, or of an
// archive the largest file, which is likely to be it.
func (w *patchwork) base(ctx context.Context, artifact, to string) (delta.File, error) {
	inner, err := contentName(filepath.Base(artifact))
	if err != nil || !strings.HasSuffix(inner, ".tar") {
		return w.unpack(ctx, artifact, to)
	}
	archive := to + ".tar"
	if _, err := w.unpack(ctx, artifact, archive); err != nil {
		return delta.File{}, err
	}
	f, err := os.Open(archive)
	if err != nil {
		return delta.File{}, err
	}
	defer f.Close()
	largest, at := int64(0), -1
	for i, r := 0, tar.NewReader(reader{ctx, f}); ; i++ {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return delta.File{}, err
		}
		if h.Typeflag == tar.TypeReg && h.Size > largest {
			largest, at = h.Size, i
		}
	}
	if at < 0 {
		return delta.File{}, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return delta.File{}, err
	}
	r := tar.NewReader(reader{ctx, f})
	for range at + 1 {
		if _, err := r.Next(); err != nil {
			return delta.File{}, err
		}
	}
	return keep(r, to)
}

// format chooses the tool for files of up to size bytes.
func (d Deltas) format(size int64) (delta.Format, error) {
	tools := map[Deltas][]delta.Format{DeltasBSDiff: {delta.BSDiff}, DeltasZstd: {delta.Zstd}, DeltasAuto: {delta.BSDiff, delta.Zstd}}[d]
	for _, tool := range tools {
		if _, err := exec.LookPath(string(tool)); err != nil || d == DeltasAuto && tool == delta.BSDiff && size > bsdiffMax {
			continue
		}
		return tool, nil
	}
	if len(tools) == 0 {
		return "", &advised{fmt.Errorf("no tool is called %q", d), "deltas are made by bsdiff, zstd or auto"}
	}
	return "", fmt.Errorf("%s is not installed, so no patch can be made", tools[len(tools)-1])
}

// diff runs the tool.
func diff(ctx context.Context, format delta.Format, from, to, patch string) error {
	line := []string{"bsdiff", from, to, patch}
	if format == delta.Zstd {
		line = []string{"zstd", "-q", "-19", "--patch-from=" + from, to, "-o", patch}
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", line[0], errors.Join(ctx.Err(), err), strings.TrimSpace(said.String()))
	}
	return nil
}

// addOlder takes over what the newest older release knows of patches to itself, so
// that a host further behind finds its way, too.
func (w *patchwork) addOlder(ctx context.Context, before []older) {
	if strings.HasSuffix(w.index.ContentName, ".tar") {
		return // a patch makes an archive, and the next one starts from a file in it
	}
	for _, o := range before {
		name := o.name + delta.IndexEnd
		file := filepath.Join(w.a.o.Dir, name)
		if have, err := digestOf(ctx, file); err != nil || have != w.a.listed[name] {
			continue
		}
		raw, err := readSmall(file, delta.IndexMax)
		if err != nil {
			continue
		}
		x, err := delta.ParseIndex(raw)
		if err != nil {
			continue
		}
		for _, p := range x.Patches {
			known := slices.ContainsFunc(w.index.Patches, func(q delta.Patch) bool { return q.Name == p.Name })
			if _, listed := w.a.listed[p.Name]; listed && !known && len(w.index.Patches) < patchesMax {
				w.index.Patches = append(w.index.Patches, p)
			}
		}
	}
}

// publish lists the index and the patches that are new, once a host could use them.
func (w *patchwork) publish(ctx context.Context, direct int) error {
	files := []string{w.name + delta.IndexEnd}
	if err := writeFile(filepath.Join(w.a.staging.path, files[0]), bytes.NewReader(w.index.Bytes())); err != nil {
		return err
	}
	for _, p := range w.index.Patches[:direct] {
		files = append(files, p.Name)
	}
	for _, name := range files {
		digest, err := digestOf(ctx, filepath.Join(w.a.staging.path, name))
		if err != nil {
			return err
		}
		w.a.listed[name] = digest
		w.a.result.Added = append(w.a.result.Added, name)
	}
	return w.rehearse(ctx, direct)
}

// rehearse is a host with each of the bases, one after the other, that believes a
// list of the files at hand.
func (w *patchwork) rehearse(ctx context.Context, direct int) error {
	shop := filepath.Join(w.dir, "shop")
	if err := os.Mkdir(shop, 0o700); err != nil {
		return err
	}
	var list bytes.Buffer
	for _, name := range append([]string{w.name}, append([]string{w.name + delta.IndexEnd}, patchNames(w.index.Patches[:direct])...)...) {
		digest, err := digestOf(ctx, filepath.Join(w.a.staging.path, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&list, "%s  %s\n", digest, name)
		if err := os.Link(filepath.Join(w.a.staging.path, name), filepath.Join(shop, name)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(shop, manifestName), list.Bytes(), 0o600); err != nil {
		return err
	}
	for _, p := range w.index.Patches[:direct] {
		if err := w.rehearseOne(ctx, shop, p); err != nil {
			return fmt.Errorf("rehearse %s: %w", p.Name, err)
		}
	}
	return nil
}

func (w *patchwork) rehearseOne(ctx context.Context, shop string, p delta.Patch) error {
	f, err := host(shop, w.pattern, nil, func(context.Context, [][32]byte) (map[[32]byte]string, error) {
		base, err := filepath.Abs(w.bases[p.Base])
		return map[[32]byte]string{p.Base: base}, err
	})
	if err != nil {
		return err
	}
	defer f.Close()
	listing, err := f.Check(ctx)
	if err != nil {
		return err
	}
	c, ok := listing.Newest()
	if !ok {
		return fmt.Errorf("MatchPattern=%s finds nothing", w.pattern)
	}
	into := filepath.Join(w.dir, "fetched-"+hex.EncodeToString(p.Base[:6]))
	if err := os.Mkdir(into, 0o700); err != nil {
		return err
	}
	v, err := f.Fetch(ctx, c, into, nil)
	if err != nil {
		return err
	}
	if v.Patches() != 1 {
		err = errors.New("a host could not use it")
	}
	return errors.Join(err, v.Close(), os.RemoveAll(into))
}

func patchNames(patches []delta.Patch) []string {
	names := make([]string, len(patches))
	for i, p := range patches {
		names[i] = p.Name
	}
	return names
}
