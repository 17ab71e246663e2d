package versity_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/activation/overseer/fetcher"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest/versity"
)

// The bucket's other reader: overseer's S3, which cannot see this package from
// where it is.
func TestOverseerS3(t *testing.T) {
	g := versity.Start(t)
	g.Bucket("releases")
	put := func(text string) { g.Put("releases", "a folder/app+1", []byte(text)) }
	put("one")
	open := func(id, secret string) *fetcher.S3 {
		f := &fetcher.S3{
			Access: id, Secret: secret, Region: versity.Region, Endpoint: g.URL,
			Bucket: "releases", Key: "a folder/app+1", Interval: time.Millisecond, HeadTimeout: time.Minute,
		}
		if err := f.Init(); err != nil {
			t.Fatal(err)
		}
		return f
	}
	read := func(f *fetcher.S3) string {
		r, err := f.Fetch()
		if err != nil {
			t.Fatal(err)
		}
		if r == nil {
			return ""
		}
		defer r.(io.Closer).Close()
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	f := open(versity.ID, versity.Secret)
	for i, want := range []string{"one", "", "two", ""} {
		if i == 2 {
			put("two")
		}
		if got := read(f); got != want {
			t.Errorf("turn %d: got %q, want %q", i, got, want)
		}
	}
	for _, keys := range [][2]string{{versity.ID, "wrong"}, {"", ""}} {
		_, err := open(keys[0], keys[1]).Fetch()
		if err == nil || !strings.Contains(err.Error(), "HEAD: got 403 Forbidden: check the token, or the keys") {
			t.Errorf("with other keys: got %v, want 403", err)
		}
	}
}
