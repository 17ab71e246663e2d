package fetcher

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/activation/overseer/origin"
)

// What a fetcher tells of itself, and that no secret is in it.
func TestOriginOf(t *testing.T) {
	for name, c := range map[string]struct {
		f    Interface
		want origin.Origin
	}{
		"file": {&File{Path: "/srv/app.next"}, origin.Origin{Kind: "file", Path: "/srv/app.next", Interval: time.Second}},
		"http": {&HTTP{URL: "https://me:secret@example.org/app", Token: "secret"},
			origin.Origin{Kind: "http", Path: "https://example.org/app", Interval: 5 * time.Minute, Authorized: true}},
		"url by a function": {&HTTP{URLFunc: func() (string, error) { return "https://example.org", nil }, Interval: time.Hour},
			origin.Origin{Kind: "http", Interval: time.Hour}},
		"s3": {&S3{Bucket: "b", Key: "dir/app", Region: "eu-north-1", Endpoint: "https://s3.example.org", Access: "secret", Secret: "secret"},
			origin.Origin{Kind: "s3", Path: "s3://b/dir/app", Region: "eu-north-1", Endpoint: "https://s3.example.org", Interval: 5 * time.Minute, Authorized: true}},
		"github": {&Github{User: "acme", Repo: "app", Token: "secret"}, origin.Origin{Kind: "github", Path: "github://acme/app", Interval: 5 * time.Minute, Authorized: true}},
		"another github": {&Github{User: "acme", Repo: "app", Endpoint: "https://ghe.example.org/api/v3"},
			origin.Origin{Kind: "github", Path: "github://acme/app", Endpoint: "https://ghe.example.org/api/v3", Interval: 5 * time.Minute}},
		"function": {Func(func() (io.Reader, error) { return nil, nil }), origin.Origin{Kind: "function"}},
	} {
		if err := c.f.Init(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got := OriginOf(c.f)
		if got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
		text, _ := json.Marshal(got)
		if strings.Contains(string(text), "secret") {
			t.Errorf("%s: tells a secret: %s", name, text)
		}
		f, err := got.Tell()
		if err != nil {
			t.Fatal(err)
		}
		link := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		if to, err := os.Readlink(link); err != nil || to != origin.Link {
			t.Errorf("%s: the link reads %q, %v", name, to, err)
		}
		if back, err := origin.Read(link); err != nil || back != got {
			t.Errorf("%s: read %+v, %v", name, back, err)
		}
		f.Close()
	}
}
