package upgrader

import (
	"context"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

// disk is what the machine asks of a [store.Store]. A test's disk fails, or
// ends the world, at any one of these calls.
type disk interface {
	links
	Path() string
	SetLink(store.LinkName, store.Release) error
	ClearLink(store.LinkName) error
	SaveRecord(any) error
	LoadRecord(any) (bool, error)
	SaveHistory(any) error
	LoadHistory(any) (bool, error)
	Order(any) (bool, error)
	ClearOrder(over func(data []byte) bool) error
	ChangeWishes(change func(data []byte) ([]byte, error)) error
	Spool(order string) (dir string, err error)
	CleanSpools(keep func(id string) bool) error
	SaveProgress(any) error
	ClearProgress() error
	SaveLook(any) error
	MarkBad(store.Digest, store.Bad) error
	Forgive(store.Digest) error
	Preflight(bytes int64) error
	Incoming(store.Digest) (string, error)
	IncomingTree(store.Digest) (string, error)
	CleanIncoming(keep func(digest12 string) bool) error
	Install(ctx context.Context, tree string, r store.Release, d store.Digest) error
	Copy(ctx context.Context, from *store.Store, r store.Release, d store.Digest) error
	Releases() ([]store.Release, error)
	Find(ctx context.Context, wanted [][32]byte) (map[[32]byte]string, error)
	Remove(store.Release) error
	Digest(store.Release) (store.Digest, error)
	Verify(context.Context, store.Release) error
}

// links is the part that a status is made from; it only reads.
type links interface {
	Link(store.LinkName) (store.Release, bool, error)
	KnownBad() ([]store.Digest, error)
	Bad(store.Digest) (store.Bad, bool, error)
	Wishes(any) (bool, error)
}

var _ disk = (*store.Store)(nil)
