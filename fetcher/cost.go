package fetcher

import (
	"context"
	"os"

	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// Cost is what a Fetch brings over the line, beside signatures and lists.
type Cost struct {
	// Bytes of the artifact, or of the patches that lead to its content; -1 where
	// the source does not say.
	Bytes int64
	// Patched tells that they are those of patches, of which there may be none: what
	// is here is the content already.
	Patched bool
}

// Cost foresees what a Fetch of c, one of the candidates of the last Check, would
// bring into an empty directory. It asks for no more than how large c is, and for
// the list of what leads to its content, which it keeps in the directory for
// temporary files meanwhile. A list that is of no use counts as none, as in Fetch.
func (f *Fetcher) Cost(ctx context.Context, c Candidate) (Cost, error) {
	f.mu.Lock()
	first := f.listed
	f.mu.Unlock()
	if first != nil && c.HasDigest() {
		if cost, ok := f.patchCost(ctx, first, c); ok {
			return cost, nil
		}
	}
	if c.Size >= 0 {
		return Cost{Bytes: c.Size}, nil
	}
	size := int64(-1)
	err := f.each(ctx, first, func(m *mirror) error {
		from, name, done, err := f.holder(m, c)
		if err != nil {
			return err
		}
		defer done()
		stream, err := from.Open(ctx, name, source.Position{})
		if err != nil {
			return err
		}
		stream.Body.Close()
		size = stream.Size
		return nil
	})
	if err != nil {
		return Cost{}, f.explain("ask for "+c.Name, err)
	}
	return Cost{Bytes: size}, nil
}

// patchCost is false where the artifact itself would come.
func (f *Fetcher) patchCost(ctx context.Context, first *mirror, c Candidate) (Cost, bool) {
	dir, err := os.MkdirTemp("", "upgraderd-cost-*")
	if err != nil {
		return Cost{}, false
	}
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Cost{}, false
	}
	defer func() { _ = root.Close() }() // a directory: nothing is lost
	s := shortcut{f: f, first: first, whole: &transfer{root: root, candidate: c, part: partName(c)}}
	bases, err := s.survey(ctx)
	if err != nil || bases == nil {
		return Cost{}, false
	}
	chain, ok := s.cheapest(bases)
	return Cost{Bytes: chain.Size, Patched: true}, ok
}
