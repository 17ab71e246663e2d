// Package sourcetest is the contract of package source as tests: each source
// passes Conform against the real server that it is for.
package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// Publisher is the other side of a source under test.
type Publisher interface {
	// Publish puts a file there, in place of one of that name.
	Publish(name string, content []byte)
	// Remove takes it away.
	Remove(name string)
}

// Conform is what every source must pass. open gives a new, empty one.
func Conform(t *testing.T, open func(t *testing.T) (source.Source, Publisher)) {
	ctx := context.Background()
	made := open
	open = func(t *testing.T) (source.Source, Publisher) {
		s, p := made(t)
		if l, ok := s.(source.Looker); ok {
			s = looking{s, l}
		}
		return s, p
	}

	t.Run("read", func(t *testing.T) {
		s, p := open(t)
		p.Publish("SHA256SUMS", []byte("one\n"))
		raw, mark, err := s.Read(ctx, "SHA256SUMS", 4, "")
		if err != nil || string(raw) != "one\n" {
			t.Fatalf("read %q, %v; a file of exactly the limit is to be had", raw, err)
		}
		if mark == "" {
			t.Fatal("no mark: every later read would transfer the file")
		}
		if raw, again, err := s.Read(ctx, "SHA256SUMS", 4, mark); !errors.Is(err, source.ErrUnchanged) || raw != nil || again != mark {
			t.Fatalf("second read: %q, %q, %v; want source.ErrUnchanged and the same mark", raw, again, err)
		}
		p.Publish("SHA256SUMS", []byte("two\n"))
		if raw, _, err := s.Read(ctx, "SHA256SUMS", 4, mark); err != nil || string(raw) != "two\n" {
			t.Fatalf("read after a change: %q, %v", raw, err)
		}
		p.Publish("empty", nil)
		if raw, _, err := s.Read(ctx, "empty", 4, ""); err != nil || len(raw) != 0 {
			t.Fatalf("read an empty file: %q, %v", raw, err)
		}
	})

	t.Run("read limits", func(t *testing.T) {
		s, p := open(t)
		p.Publish("SHA256SUMS", []byte("12345"))
		_, _, err := s.Read(ctx, "SHA256SUMS", 4, "")
		WantCode(t, err, fault.MetaTooLarge, false)
	})

	t.Run("missing", func(t *testing.T) {
		s, p := open(t)
		_, _, err := s.Read(ctx, "SHA256SUMS", 4, "")
		WantCode(t, err, fault.NotFound, true)
		_, err = s.Open(ctx, "app", source.Position{})
		WantCode(t, err, fault.NotFound, true)
		p.Publish("app", []byte("x"))
		p.Remove("app")
		_, err = s.Open(ctx, "app", source.Position{})
		WantCode(t, err, fault.NotFound, true)
	})

	t.Run("open", func(t *testing.T) {
		s, p := open(t)
		content := bytes.Repeat([]byte("0123456789"), 100_000)
		p.Publish("app", content)
		stream := MustOpen(t, s, "app", source.Position{})
		if stream.Offset != 0 || stream.Size != int64(len(content)) || stream.Mark == "" {
			t.Fatalf("offset %d, size %d, mark %q", stream.Offset, stream.Size, stream.Mark)
		}
		if got := MustReadAll(t, stream); !bytes.Equal(got, content) {
			t.Fatalf("got %d bytes, want those %d", len(got), len(content))
		}
		for _, c := range []struct {
			name string
			from source.Position
			want int64
		}{
			{"middle, same mark", source.Position{Offset: 500_000, Mark: stream.Mark}, 500_000},
			{"middle, no mark", source.Position{Offset: 500_000, Mark: ""}, 500_000},
			{"last byte", source.Position{Offset: 999_999, Mark: stream.Mark}, 999_999},
			{"another mark", source.Position{Offset: 500_000, Mark: `"no-such-tag"`}, 0},
			{"the end", source.Position{Offset: 1_000_000, Mark: stream.Mark}, 0},
			{"behind the end", source.Position{Offset: 2_000_000, Mark: stream.Mark}, 0},
		} {
			again := MustOpen(t, s, "app", c.from)
			if again.Offset != c.want || again.Size != int64(len(content)) || again.Mark != stream.Mark {
				t.Errorf("%s: offset %d, size %d, mark %q; want offset %d", c.name, again.Offset, again.Size, again.Mark, c.want)
			}
			if got := MustReadAll(t, again); !bytes.Equal(got, content[again.Offset:]) {
				t.Errorf("%s: got %d bytes, want the last %d", c.name, len(got), len(content)-int(again.Offset))
			}
		}
		p.Publish("app", []byte("a new file, shorter"))
		again := MustOpen(t, s, "app", source.Position{Offset: 5, Mark: stream.Mark})
		if got := MustReadAll(t, again); again.Offset != 0 || string(got) != "a new file, shorter" {
			t.Errorf("after a change: offset %d, %q; want the new file from its start", again.Offset, got)
		}
	})

	t.Run("names", func(t *testing.T) {
		s, p := open(t)
		for _, name := range []string{"a b", "100%25", "a#b?c=d", "ünï", "a+b~c^d", "-rf", "a&b;c"} {
			p.Publish(name, []byte(name))
			if got := MustReadAll(t, MustOpen(t, s, name, source.Position{})); string(got) != name {
				t.Errorf("file %q holds %q", name, got)
			}
		}
		for _, name := range []string{"../outside", "..", ".", "", "sub/inside", "/etc/passwd"} {
			if stream, err := s.Open(ctx, name, source.Position{}); err == nil {
				got, _ := io.ReadAll(stream.Body)
				stream.Body.Close()
				t.Errorf("opened %q: %q", name, got)
			}
		}
	})

	t.Run("list", func(t *testing.T) {
		s, p := open(t)
		lister, ok := s.(source.Lister)
		if !ok {
			return // it need not be one
		}
		if files, err := lister.List(ctx, 10); err != nil && fault.CodeOf(err) != fault.NotFound || len(files) != 0 {
			t.Fatalf("an empty source lists %v, %v", files, err)
		}
		want := map[string]int64{"app_1": 10, "app_2.zst": 20, "a b&c+d%25": 3, "ünï": 0}
		for name, size := range want {
			p.Publish(name, make([]byte, size))
		}
		files, err := lister.List(ctx, 100)
		if err != nil || len(files) != len(want) {
			t.Fatalf("%v, %v; want %v", files, err, want)
		}
		for _, f := range files {
			if size, ok := want[f.Name]; !ok || f.Size != size && f.Size != -1 {
				t.Errorf("listed %q with %d bytes; want %v", f.Name, f.Size, want)
			}
		}
		_, err = lister.List(ctx, 1)
		WantCode(t, err, fault.MetaTooLarge, false)
	})

	t.Run("canceled", func(t *testing.T) {
		s, p := open(t)
		p.Publish("app", make([]byte, 8<<20))
		ended, cancel := context.WithCancel(ctx)
		stream, err := s.Open(ended, "app", source.Position{})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Body.Close()
		if _, err := io.ReadFull(stream.Body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		cancel()
		_, err = io.Copy(io.Discard, stream.Body)
		WantCode(t, err, fault.Canceled, true)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v is not context.Canceled", err)
		}
	})

	t.Run("leaves nothing", func(t *testing.T) {
		s, p := open(t)
		p.Publish("app", make([]byte, 1<<20))
		before := OpenFiles(t)
		for range 5 {
			stream := MustOpen(t, s, "app", source.Position{})
			io.ReadFull(stream.Body, make([]byte, 10))
			stream.Body.Close() // in the middle
			MustReadAll(t, MustOpen(t, s, "app", source.Position{}))
			s.Read(ctx, "app", 2<<20, "")
			s.Read(ctx, "none", 10, "")
		}
		Settled(t, before)
	})

	t.Run("text", func(t *testing.T) {
		s, _ := open(t)
		if text := s.String(); text == "" || strings.ContainsAny(text, "\n@") || strings.Contains(text, Canary) {
			t.Errorf("source prints as %q", text)
		}
	})
}

// looking is a source.Looker that looks each time, as a check does.
type looking struct {
	source.Source
	looker source.Looker
}

func (l looking) Read(ctx context.Context, name string, max int64, since source.Mark) ([]byte, source.Mark, error) {
	if _, err := l.looker.Look(ctx); err != nil {
		return nil, "", err
	}
	return l.Source.Read(ctx, name, max, since)
}

func (l looking) Open(ctx context.Context, name string, from source.Position) (*source.Stream, error) {
	if _, err := l.looker.Look(ctx); err != nil {
		return nil, err
	}
	return l.Source.Open(ctx, name, from)
}

// List is of the source inside: each that looks lists, too.
func (l looking) List(ctx context.Context, max int) ([]source.File, error) {
	if _, err := l.looker.Look(ctx); err != nil {
		return nil, err
	}
	return l.Source.(source.Lister).List(ctx, max)
}

// Canary stands wherever a secret may stand in what a test gives to a source.
const Canary = "s3cr3t-canary"

// MustOpen opens name, or ends the test.
func MustOpen(t *testing.T, s source.Source, name string, from source.Position) *source.Stream {
	t.Helper()
	stream, err := s.Open(context.Background(), name, from)
	if err != nil {
		t.Fatalf("open %q at %d: %v", name, from.Offset, err)
	}
	return stream
}

// MustReadAll reads stream to its end and closes it, or ends the test.
func MustReadAll(t *testing.T, stream *source.Stream) []byte {
	t.Helper()
	defer stream.Body.Close()
	got, err := io.ReadAll(stream.Body)
	if err != nil {
		t.Fatalf("read all: %v", err)
	}
	return got
}

// WantCode ends the test unless err is a bare *fault.Error with code, of a text
// that can be logged.
func WantCode(t *testing.T, err error, code fault.Code, temporary bool) {
	t.Helper()
	f, ok := err.(*fault.Error) //nolint:errorlint // bare is what sources promise
	if !ok {
		t.Fatalf("got %T %v, want a *fault.Error with %s", err, err, code)
	}
	if f.Code != code || f.Temporary != temporary {
		t.Fatalf("got %v (temporary %v), want %s (temporary %v)", err, f.Temporary, code, temporary)
	}
	if strings.Contains(err.Error(), Canary) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("error is not fit for a log: %q", err)
	}
}

// OpenFiles counts the descriptors of this process.
func OpenFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Settled waits until there are no more descriptors than before: the other end
// of a closed connection takes a moment.
func Settled(t *testing.T, before int) {
	t.Helper()
	for range 100 {
		if OpenFiles(t) <= before {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d descriptors are open, %d were before", OpenFiles(t), before)
}
