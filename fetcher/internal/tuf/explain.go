package tuf

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const (
	hintSyntax    = "publish metadata made by a TUF tool"
	hintMixed     = "publish all roles of one moment together; if it stays so, somebody mixes old files with new ones"
	hintTooLarge  = "check Path=; if it is the publisher's, remove old targets, or delegate to more roles"
	hintRollback  = "ask the publisher; if they did not take anything back, a mirror shows this host the past"
	hintThreshold = "ask the publisher; if they changed keys, the root that says so must be published, and if all root keys were changed, a new Root= is needed"
	hintExpired   = "have the publisher sign a new one; if there is one, a mirror hides it from this host; or this host's clock is wrong"
)

// known tells the errors of the library, of the source and of this host from a
// mere text.
func known(err error) bool {
	var ours *fault.Error
	var path *fs.PathError
	return errors.As(err, &ours) || errors.As(err, &path) || errors.Is(err, &metadata.ErrRepository{}) || errors.Is(err, &metadata.ErrDownload{}) ||
		errors.Is(err, &metadata.ErrRuntime{}) || errors.Is(err, &metadata.ErrValue{}) || errors.Is(err, &metadata.ErrType{})
}

// explain gives a code to what the library found.
func (l *look) explain(err error) error {
	var ours *fault.Error
	var path *fs.PathError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ours):
		return ours
	case errors.As(err, &path):
		return fault.Local(err)
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		return fault.Passing(fault.TUFExpired, l.expired(), hintExpired)
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		return fault.New(fault.TUFThreshold, fmt.Errorf("%s: %s", l.get.name, plain(err)), hintThreshold)
	case errors.Is(err, &metadata.ErrLengthOrHashMismatch{}):
		return fault.Passing(fault.TUFMixed, fmt.Errorf("%s is not the one that was named: %s", l.get.name, plain(err)), hintMixed)
	case errors.Is(err, &metadata.ErrBadVersionNumber{}), errors.Is(err, &metadata.ErrRepository{}) && strings.HasSuffix(l.get.name, "snapshot.json"):
		return l.version(err)
	}
	return fault.New(fault.TUFSyntax, fmt.Errorf("%s: %s", l.get.name, plain(err)), hintSyntax)
}

// version tells a step back in time from files of two times. The library has one
// error for both.
func (l *look) version(err error) error {
	mixed := !strings.HasSuffix(l.get.name, "timestamp.json")
	if strings.HasSuffix(l.get.name, "snapshot.json") {
		trusted := l.updater.GetTrustedMetadataSet()
		got, no := metadata.Snapshot().FromBytes(l.get.raw)
		if no != nil {
			return fault.New(fault.TUFSyntax, fmt.Errorf("%s: %s", l.get.name, plain(no)), hintSyntax)
		}
		mixed = got.Signed.Version != trusted.Timestamp.Signed.Meta["snapshot.json"].Version
	}
	if mixed {
		return fault.Passing(fault.TUFMixed, fmt.Errorf("%s is not the one that was named: %s", l.get.name, plain(err)), hintMixed)
	}
	return fault.Passing(fault.TUFRollback, fmt.Errorf("%s is older than what this host has seen: %s", l.get.name, plain(err)), hintRollback)
}

// expired says what of the trusted set is over, or else what came last.
func (l *look) expired() error {
	now := l.Now().UTC()
	trusted := l.updater.GetTrustedMetadataSet()
	name, end := l.get.name, time.Time{}
	switch {
	case trusted.Root.Signed.IsExpired(now):
		name, end = fmt.Sprintf("%d.root.json", trusted.Root.Signed.Version), trusted.Root.Signed.Expires
	case trusted.Timestamp != nil && trusted.Timestamp.Signed.IsExpired(now):
		name, end = "timestamp.json", trusted.Timestamp.Signed.Expires
	case trusted.Snapshot != nil && trusted.Snapshot.Signed.IsExpired(now):
		name, end = "snapshot.json", trusted.Snapshot.Signed.Expires
	default:
		if got, err := metadata.Targets().FromBytes(l.get.raw); err == nil {
			end = got.Signed.Expires
		}
	}
	return fmt.Errorf("%s counted until %s, and this host's clock says %s", name, end.Format(time.DateTime), now.Format(time.DateTime))
}

// plain leaves out what the library says before each text, and line breaks.
func plain(err error) string {
	text := err.Error()
	if _, rest, ok := strings.Cut(text, " error: "); ok {
		text = rest
	}
	return strings.Join(strings.Fields(text), " ")
}
