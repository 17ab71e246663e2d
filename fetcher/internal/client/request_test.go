package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// TestMarkOfTheRequest has marks of a tag and more: the server gets the tag, and
// a part is of use only while the rest is the same too.
func TestMarkOfTheRequest(t *testing.T) {
	version := "1"
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("If-None-Match") + r.Header.Get("If-Range")
		w.Header().Set("ETag", `"a"`)
		w.Header().Set("Version", version)
		switch {
		case r.Header.Get("If-None-Match") == `"a"`:
			w.WriteHeader(http.StatusNotModified)
		case r.Header.Get("Range") != "":
			w.Header().Set("Content-Range", "bytes 3-5/6")
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, "def")
		default:
			io.WriteString(w, "abcdef")
		}
	}))
	defer server.Close()
	s := newSite(t, server.URL, Options{})
	r := s.request("app")
	r.Mark = func(h http.Header) source.Mark { return source.Mark(h.Get("ETag") + " " + h.Get("Version")) }
	_, mark, err := s.Client.Read(context.Background(), r, 10, "")
	if err != nil || mark != `"a" 1` {
		t.Fatalf("mark %q, %v", mark, err)
	}
	if _, _, err := s.Client.Read(context.Background(), r, 10, mark); !errors.Is(err, source.ErrUnchanged) || asked != `"a"` {
		t.Errorf("%v, asked with %q", err, asked)
	}
	for _, want := range []int64{3, 0} {
		stream, err := s.Client.Open(context.Background(), r, source.Position{Offset: 3, Mark: mark})
		if err != nil {
			t.Fatal(err)
		}
		if stream.Offset != want || want == 3 && asked != `"a"` {
			t.Errorf("offset %d, want %d; asked with %q", stream.Offset, want, asked)
		}
		sourcetest.MustReadAll(t, stream)
		version = "2"
	}
}

func TestExplains(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, "come back later")
	}))
	defer server.Close()
	s := newSite(t, server.URL, Options{Explain: func(a *Answer, f *fault.Error) *fault.Error {
		said, err := io.ReadAll(a)
		if err != nil {
			return fault.New(fault.Protocol, err, "")
		}
		return fault.Passing(fault.Throttled, fmt.Errorf("%w: %s", f.Err, said), f.Hint)
	}})
	before := sourcetest.OpenFiles(t)
	_, _, read := s.Read(context.Background(), "app", 10, "")
	_, open := s.Open(context.Background(), "app", source.Position{})
	for _, err := range []error{read, open} {
		sourcetest.WantCode(t, err, fault.Throttled, true)
		if want := "app: 403 Forbidden: come back later"; !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to say %q", err, want)
		}
	}
	sourcetest.Settled(t, before)
}

// TestStaysWithItsServer follows no redirect and no proxy where it may not.
func TestStaysWithItsServer(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}))
	defer server.Close()
	s := newSite(t, server.URL, Options{NoRedirect: true, NoProxy: true})
	_, _, err := s.Read(context.Background(), "app", 10, "")
	sourcetest.WantCode(t, err, fault.Redirect, false)
	if fmt.Sprint(asked) != "[/app]" {
		t.Errorf("asked for %q", asked)
	}
	// The environment never names a proxy for loopback, and is read once.
	if s.http.Transport.(*http.Transport).Proxy != nil {
		t.Error("a proxy of the environment would be used")
	}
}
