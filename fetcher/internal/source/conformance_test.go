package source

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
)

// publisher is the other side of a source under test.
type publisher interface {
	// publish puts a file there, in place of one of that name.
	publish(name string, content []byte)
	// remove takes it away.
	remove(name string)
}

// conform is what every source must pass. open gives a new, empty one.
func conform(t *testing.T, open func(t *testing.T) (Source, publisher)) {
	ctx := context.Background()

	t.Run("read", func(t *testing.T) {
		s, p := open(t)
		p.publish("SHA256SUMS", []byte("one\n"))
		raw, mark, err := s.Read(ctx, "SHA256SUMS", 4, "")
		if err != nil || string(raw) != "one\n" {
			t.Fatalf("read %q, %v; a file of exactly the limit is to be had", raw, err)
		}
		if mark == "" {
			t.Fatal("no mark: every later read would transfer the file")
		}
		if raw, again, err := s.Read(ctx, "SHA256SUMS", 4, mark); !errors.Is(err, ErrUnchanged) || raw != nil || again != mark {
			t.Fatalf("second read: %q, %q, %v; want ErrUnchanged and the same mark", raw, again, err)
		}
		p.publish("SHA256SUMS", []byte("two\n"))
		if raw, _, err := s.Read(ctx, "SHA256SUMS", 4, mark); err != nil || string(raw) != "two\n" {
			t.Fatalf("read after a change: %q, %v", raw, err)
		}
		p.publish("empty", nil)
		if raw, _, err := s.Read(ctx, "empty", 4, ""); err != nil || len(raw) != 0 {
			t.Fatalf("read an empty file: %q, %v", raw, err)
		}
	})

	t.Run("read limits", func(t *testing.T) {
		s, p := open(t)
		p.publish("SHA256SUMS", []byte("12345"))
		_, _, err := s.Read(ctx, "SHA256SUMS", 4, "")
		wantCode(t, err, fault.MetaTooLarge, false)
	})

	t.Run("missing", func(t *testing.T) {
		s, p := open(t)
		_, _, err := s.Read(ctx, "SHA256SUMS", 4, "")
		wantCode(t, err, fault.NotFound, true)
		_, err = s.Open(ctx, "app", Position{})
		wantCode(t, err, fault.NotFound, true)
		p.publish("app", []byte("x"))
		p.remove("app")
		_, err = s.Open(ctx, "app", Position{})
		wantCode(t, err, fault.NotFound, true)
	})

	t.Run("open", func(t *testing.T) {
		s, p := open(t)
		content := bytes.Repeat([]byte("0123456789"), 100_000)
		p.publish("app", content)
		stream := mustOpen(t, s, "app", Position{})
		if stream.Offset != 0 || stream.Size != int64(len(content)) || stream.Mark == "" {
			t.Fatalf("offset %d, size %d, mark %q", stream.Offset, stream.Size, stream.Mark)
		}
		if got := mustReadAll(t, stream); !bytes.Equal(got, content) {
			t.Fatalf("got %d bytes, want those %d", len(got), len(content))
		}
		for _, c := range []struct {
			name string
			from Position
			want int64
		}{
			{"middle, same mark", Position{500_000, stream.Mark}, 500_000},
			{"middle, no mark", Position{500_000, ""}, 500_000},
			{"last byte", Position{999_999, stream.Mark}, 999_999},
			{"another mark", Position{500_000, `"no-such-tag"`}, 0},
			{"the end", Position{1_000_000, stream.Mark}, 0},
			{"behind the end", Position{2_000_000, stream.Mark}, 0},
		} {
			again := mustOpen(t, s, "app", c.from)
			if again.Offset != c.want || again.Size != int64(len(content)) || again.Mark != stream.Mark {
				t.Errorf("%s: offset %d, size %d, mark %q; want offset %d", c.name, again.Offset, again.Size, again.Mark, c.want)
			}
			if got := mustReadAll(t, again); !bytes.Equal(got, content[again.Offset:]) {
				t.Errorf("%s: got %d bytes, want the last %d", c.name, len(got), len(content)-int(again.Offset))
			}
		}
		p.publish("app", []byte("a new file, shorter"))
		again := mustOpen(t, s, "app", Position{5, stream.Mark})
		if got := mustReadAll(t, again); again.Offset != 0 || string(got) != "a new file, shorter" {
			t.Errorf("after a change: offset %d, %q; want the new file from its start", again.Offset, got)
		}
	})

	t.Run("names", func(t *testing.T) {
		s, p := open(t)
		for _, name := range []string{"a b", "100%25", "a#b?c=d", "ünï", "a+b~c^d", "-rf", "a&b;c"} {
			p.publish(name, []byte(name))
			if got := mustReadAll(t, mustOpen(t, s, name, Position{})); string(got) != name {
				t.Errorf("file %q holds %q", name, got)
			}
		}
		for _, name := range []string{"../outside", "..", ".", "", "sub/inside", "/etc/passwd"} {
			if stream, err := s.Open(ctx, name, Position{}); err == nil {
				got, _ := io.ReadAll(stream.Body)
				stream.Body.Close()
				t.Errorf("opened %q: %q", name, got)
			}
		}
	})

	t.Run("canceled", func(t *testing.T) {
		s, p := open(t)
		p.publish("app", make([]byte, 8<<20))
		ended, cancel := context.WithCancel(ctx)
		stream, err := s.Open(ended, "app", Position{})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Body.Close()
		if _, err := io.ReadFull(stream.Body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		cancel()
		_, err = io.Copy(io.Discard, stream.Body)
		wantCode(t, err, fault.Canceled, true)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v is not context.Canceled", err)
		}
	})

	t.Run("leaves nothing", func(t *testing.T) {
		s, p := open(t)
		p.publish("app", make([]byte, 1<<20))
		before := openFiles(t)
		for range 5 {
			stream := mustOpen(t, s, "app", Position{})
			io.ReadFull(stream.Body, make([]byte, 10))
			stream.Body.Close() // in the middle
			mustReadAll(t, mustOpen(t, s, "app", Position{}))
			s.Read(ctx, "app", 2<<20, "")
			s.Read(ctx, "none", 10, "")
		}
		settled(t, before)
	})

	t.Run("text", func(t *testing.T) {
		s, _ := open(t)
		if text := s.String(); text == "" || strings.ContainsAny(text, "\n@") || strings.Contains(text, canary) {
			t.Errorf("source prints as %q", text)
		}
	})
}

// canary stands wherever a secret may stand in what a test gives to a source.
const canary = "s3cr3t-canary"

func mustOpen(t *testing.T, s Source, name string, from Position) *Stream {
	t.Helper()
	stream, err := s.Open(context.Background(), name, from)
	if err != nil {
		t.Fatalf("open %q at %d: %v", name, from.Offset, err)
	}
	return stream
}

func mustReadAll(t *testing.T, stream *Stream) []byte {
	t.Helper()
	defer stream.Body.Close()
	got, err := io.ReadAll(stream.Body)
	if err != nil {
		t.Fatalf("read all: %v", err)
	}
	return got
}

func wantCode(t *testing.T, err error, code fault.Code, temporary bool) {
	t.Helper()
	f, ok := err.(*fault.Error) //nolint:errorlint // bare is what sources promise
	if !ok {
		t.Fatalf("got %T %v, want a *fault.Error with %s", err, err, code)
	}
	if f.Code != code || f.Temporary != temporary {
		t.Fatalf("got %v (temporary %v), want %s (temporary %v)", err, f.Temporary, code, temporary)
	}
	if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("error is not fit for a log: %q", err)
	}
}

// openFiles counts the descriptors of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// settled waits until there are no more descriptors than before: the other end
// of a closed connection takes a moment.
func settled(t *testing.T, before int) {
	t.Helper()
	for range 100 {
		if openFiles(t) <= before {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d descriptors are open, %d were before", openFiles(t), before)
}
