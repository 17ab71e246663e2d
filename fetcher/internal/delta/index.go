package delta

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The ends of the names by which deltas are published. A name that ends so is no
// release, whatever a pattern says.
const (
	IndexEnd  = ".deltas"
	BSDiffEnd = ".bsdiff"
	ZstdEnd   = ".zstd-patch"
)

// IsName tells whether name is that of an index or a patch.
func IsName(name string) bool {
	return strings.HasSuffix(name, IndexEnd) || strings.HasSuffix(name, BSDiffEnd) || strings.HasSuffix(name, ZstdEnd)
}

const (
	// IndexMax bounds an index, in bytes.
	IndexMax = 128 << 10
	// PatchesMax bounds the patches that an index names.
	PatchesMax = 256
	// ChainMax is how many patches may follow each other. Each of them is read
	// once and written once; eight are as many as anybody should wait for.
	ChainMax = 8
)

// Index says how to come to an artifact by patches. It is text, one fact a line:
//
//	artifact SIZE NAME
//	content SHA256 SIZE NAME
//	bsdiff BASE RESULT RESULT-SIZE SIZE NAME
//	zstd BASE RESULT RESULT-SIZE SIZE NAME
//
// Sizes are bytes in decimal, digests SHA-256 in hexadecimal. The first two lines
// stand once each. A line that begins with another word is for readers to come
// and passed over.
type Index struct {
	// Artifact is the file that the patches save, and its size.
	Artifact     string
	ArtifactSize int64
	// Content is what is in it once it is decompressed: what the last patch has
	// to make; and a name that says what that is.
	Content     File
	ContentName string
	// Patches are the ways to it. They may follow each other.
	Patches []Patch
}

// Patch is a file that makes one file of another.
type Patch struct {
	Format Format
	Base   [sha256.Size]byte
	Result File
	// Size is that of the patch in bytes, and Name where it lies.
	Size int64
	Name string
}

// ParseIndex reads an index. Names are given as they are: whoever makes files of
// them checks them.
func ParseIndex(raw []byte) (Index, error) {
	var x Index
	if len(raw) > IndexMax {
		return Index{}, fmt.Errorf("%d bytes, at most %d are read", len(raw), IndexMax)
	}
	number := 0
	for line := range bytes.Lines(raw) {
		number++
		if err := x.line(string(bytes.TrimSuffix(line, []byte("\n")))); err != nil {
			return Index{}, fmt.Errorf("line %d: %w", number, err)
		}
	}
	switch {
	case x.Artifact == "":
		return Index{}, errors.New("no line names the artifact")
	case x.ContentName == "":
		return Index{}, errors.New("no line says what its content is")
	}
	return x, nil
}

func (x *Index) line(text string) error {
	f := fields{rest: text}
	switch word := f.word(); word {
	case "artifact":
		if x.Artifact != "" {
			return errors.New("the artifact is named twice")
		}
		x.ArtifactSize, x.Artifact = f.size(), f.name()
	case "content":
		if x.ContentName != "" {
			return errors.New("the content is named twice")
		}
		x.Content.Digest, x.Content.Size, x.ContentName = f.digest(), f.size(), f.name()
	case string(BSDiff), string(Zstd):
		if len(x.Patches) == PatchesMax {
			return fmt.Errorf("more than %d patches", PatchesMax)
		}
		x.Patches = append(x.Patches, Patch{
			Format: Format(word), Base: f.digest(), Result: File{Digest: f.digest(), Size: f.size()}, Size: f.size(), Name: f.name(),
		})
	}
	return f.err
}

// fields reads a line from its begin, and keeps the first error.
type fields struct {
	rest string
	err  error
}

func (f *fields) word() string {
	word, rest, _ := strings.Cut(f.rest, " ")
	f.rest = rest
	return word
}

func (f *fields) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

func (f *fields) digest() (d [sha256.Size]byte) {
	word := f.word()
	if raw, err := hex.DecodeString(word); err == nil && len(raw) == len(d) {
		copy(d[:], raw)
		return d
	}
	f.fail(fmt.Errorf("%.70q is not a SHA-256", word))
	return d
}

// sizeMax keeps sums of sizes far from overflow.
const sizeMax = 1 << 48

func (f *fields) size() int64 {
	word := f.word()
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil || n < 1 || n > sizeMax {
		f.fail(fmt.Errorf("%.20q is not a size in bytes", word))
		return 0
	}
	return n
}

func (f *fields) name() string {
	if f.rest == "" {
		f.fail(errors.New("a name is missing at its end"))
	}
	return f.rest
}

// Bytes is the index as it is published.
func (x Index) Bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "artifact %d %s\n", x.ArtifactSize, x.Artifact)
	fmt.Fprintf(&b, "content %x %d %s\n", x.Content.Digest, x.Content.Size, x.ContentName)
	for _, p := range x.Patches {
		fmt.Fprintf(&b, "%s %x %x %d %d %s\n", p.Format, p.Base, p.Result.Digest, p.Result.Size, p.Size, p.Name)
	}
	return b.Bytes()
}

// Digests are those of the files from which a chain may start, each once.
func (x Index) Digests() [][sha256.Size]byte {
	all := [][sha256.Size]byte{x.Content.Digest}
	seen := map[[sha256.Size]byte]bool{x.Content.Digest: true}
	for _, p := range x.Patches {
		if !seen[p.Base] {
			seen[p.Base] = true
			all = append(all, p.Base)
		}
	}
	return all
}

// Chain is a way to a content.
type Chain struct {
	// From is the digest of the file to start from.
	From [sha256.Size]byte
	// Patches follow each other. None: From is the content itself.
	Patches []Patch
	// Size is the sum of theirs, in bytes.
	Size int64
}

// Cheapest is the chain of the fewest bytes that starts from a file that is here:
// of at most ChainMax patches, and less than limit bytes.
func (x Index) Cheapest(here func(digest [sha256.Size]byte) bool, limit int64) (Chain, bool) {
	// From the content backwards, by one patch more each time: the cheapest ways
	// from each file with that many.
	ways := map[[sha256.Size]byte]Chain{x.Content.Digest: {From: x.Content.Digest}}
	best, found := Chain{Size: limit}, false
	for range ChainMax + 1 {
		for _, from := range x.Digests() {
			if way, ok := ways[from]; ok && way.Size < best.Size && here(from) {
				best, found = way, true
			}
		}
		longer := map[[sha256.Size]byte]Chain{}
		for _, p := range x.Patches {
			way, ok := ways[p.Result.Digest]
			if !ok || way.Size+p.Size >= best.Size {
				continue
			}
			if known, ok := longer[p.Base]; ok && known.Size <= way.Size+p.Size {
				continue
			}
			longer[p.Base] = Chain{From: p.Base, Patches: append([]Patch{p}, way.Patches...), Size: way.Size + p.Size}
		}
		ways = longer
	}
	return best, found
}
