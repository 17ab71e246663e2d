// Package source reads files from where releases are published. A source
// promises nothing about what it hands out: whoever reads checks. It does
// promise limits: no read is endless, larger than asked for, or blocks beyond
// its context; and that no error or name it gives holds a secret.
package source

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// Source is a place that publishes files under flat names. Every error is a
// *fault.Error. Methods may be called from several goroutines.
type Source interface {
	// String names the place for messages, without user, password and query.
	String() string
	// Read gives the file name whole when it has at most max bytes, and a
	// mark of this state of it. Unless since is empty and when the file is
	// still as it was at that mark, Read gives ErrUnchanged and no bytes.
	// A name that is not there is fault.NotFound.
	Read(ctx context.Context, name string, max int64, since Mark) ([]byte, Mark, error)
	// Open starts to read the file name at byte from.Offset if the file is
	// still as it was at from.Mark (an empty mark is not compared), else at
	// 0: see Stream.Offset. The caller closes the stream. Reads end when ctx
	// does.
	//
	// Neither takes a name that is more than one element of a path, nor
	// leaves anything open once it failed or the stream is closed.
	Open(ctx context.Context, name string, from Position) (*Stream, error)
}

// Lister is a source that can name its files.
type Lister interface {
	// List names the complete regular files, in no order, at most max.
	List(ctx context.Context, max int) ([]File, error)
}

// Looker is a source whose files are those of one release, which it has to find
// first. Read, Open and List are of what the last Look found, even if there is
// a newer one; before the first Look they look themselves.
type Looker interface {
	// Look finds the release that is to be had now. One that is not there is
	// fault.NotFound; what was found before then stays.
	Look(ctx context.Context) (View, error)
}

// View is what a Look found.
type View struct {
	// Mark is another one whenever anything of the release is another.
	Mark Mark
	// Tag is the name of the release, which may hold the version where the
	// names of its files do not. Nobody has signed it.
	Tag string
}

// Stater is a source that can tell of a file without its bytes.
type Stater interface {
	// Stat tells of the file name, and gives a mark of this state of it, which
	// is the one that Open would give.
	Stat(ctx context.Context, name string) (File, Mark, error)
}

// Linker is a source that has symbolic links.
type Linker interface {
	// Link gives the name of the file beside it that name, a link, leads to, be it
	// there or not. It is false for all that is no such link.
	Link(name string) (to string, ok bool)
}

// Watcher is a source that can tell that it changed.
type Watcher interface {
	// State marks the source as it is now; the empty mark means that it
	// cannot be read.
	State() Mark
	// Watch returns nil once the source is not in the state since, and an
	// error when ctx ended.
	Watch(ctx context.Context, since Mark) error
}

// Closer is a source that holds something beyond its calls.
type Closer interface {
	Close()
}

// Mark identifies one state of a file or of a whole source: an ETag, a
// modification time. It is one line of text, may be kept on disk, and is good
// only for the source that gave it.
type Mark string

// Position is where to go on reading.
type Position struct {
	Offset int64
	Mark   Mark
}

// File is a file of a source.
type File struct {
	Name string
	// Size in bytes, -1 unknown.
	Size int64
	// Digest is the SHA-256 that the source gives for the file. Zero: it
	// gives none.
	Digest [32]byte
	// Modified is when it was last changed. Zero: not known, or not asked for.
	Modified time.Time
}

// Stream is a file being read.
type Stream struct {
	// Body gives the bytes from Offset on. A failed read is a *fault.Error;
	// io.EOF means that all announced bytes came.
	Body io.ReadCloser
	// Offset is where the first byte of Body stands in the file.
	Offset int64
	// Size is the length of the whole file in bytes, -1 where unknown.
	Size int64
	// Mark is the file's state.
	Mark Mark
	// Digest is the SHA-256 that the source gives for the whole file. Zero: it
	// gives none.
	Digest [32]byte
	// Note is what a person should know if the bytes turn out wrong.
	Note string
}

// ErrUnchanged is what Read gives for a file that is as it was.
var ErrUnchanged = unchanged{}

type unchanged struct{}

func (unchanged) Error() string { return "unchanged" }

// CheckName keeps a name inside the source.
func CheckName(name string) error {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return fault.New(fault.SourceNotFile, fmt.Errorf("%q is not the name of a file", name), "")
	}
	return nil
}

// TooLarge is for a small file that is not small. size is -1 where only that is
// known.
func TooLarge(name string, size, max int64) error {
	err := fmt.Errorf("%s has more than the %d bytes that are read", name, max)
	if size >= 0 {
		err = fmt.Errorf("%s has %d bytes, at most %d are read", name, size, max)
	}
	return fault.New(fault.MetaTooLarge, err, "check Path=, or remove old releases from the source")
}
