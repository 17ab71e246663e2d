package fetcher

import (
	"context"

	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// Size asks how many bytes a Fetch of c, one of the candidates of the last Check,
// would bring, -1 where the source does not say. Nothing is fetched.
func (f *Fetcher) Size(ctx context.Context, c Candidate) (int64, error) {
	if c.Size >= 0 {
		return c.Size, nil
	}
	size := int64(-1)
	f.mu.Lock()
	first := f.listed
	f.mu.Unlock()
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
		return -1, f.explain("ask for "+c.Name, err)
	}
	return size, nil
}
