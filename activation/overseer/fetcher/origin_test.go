package fetcher

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a fetcher tells of itself, and that no secret is in it.
func TestOriginOf(t *testing.T) {
	for name, c := range map[string]struct {
		f    Interface
		want Origin
	}{
		"file": {&File{Path: "/srv/app.next"}, Origin{Kind: "file", Path: "/srv/app.next", Interval: time.Second}},
		"http": {&HTTP{URL: "https://me:secret@example.org/app", Token: "secret"},
			Origin{Kind: "http", Path: "https://example.org/app", Interval: 5 * time.Minute, Authorized: true}},
		"url by a function": {&HTTP{URLFunc: func() (string, error) { return "https://example.org", nil }, Interval: time.Hour},
			Origin{Kind: "http", Interval: time.Hour}},
		"s3": {&S3{Bucket: "b", Key: "dir/app", Region: "eu-north-1", Endpoint: "https://s3.example.org", Access: "secret", Secret: "secret"},
			Origin{Kind: "s3", Path: "s3://b/dir/app", Region: "eu-north-1", Endpoint: "https://s3.example.org", Interval: 5 * time.Minute, Authorized: true}},
		"github": {&Github{User: "acme", Repo: "app", Token: "secret"}, Origin{Kind: "github", Path: "github://acme/app", Interval: 5 * time.Minute, Authorized: true}},
		"another github": {&Github{User: "acme", Repo: "app", Endpoint: "https://ghe.example.org/api/v3"},
			Origin{Kind: "github", Path: "github://acme/app", Endpoint: "https://ghe.example.org/api/v3", Interval: 5 * time.Minute}},
		"function": {Func(func() (io.Reader, error) { return nil, nil }), Origin{Kind: "function"}},
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
		if to, err := os.Readlink(link); err != nil || to != OriginLink {
			t.Errorf("%s: the link reads %q, %v", name, to, err)
		}
		if back, err := ReadOrigin(link); err != nil || back != got {
			t.Errorf("%s: read %+v, %v", name, back, err)
		}
		f.Close()
	}
}

// What is no sealed memory file is not read; a pipe would be waited for.
func TestReadOriginRefuses(t *testing.T) {
	dir := t.TempDir()
	pipe, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"kind":"http"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	open, err := unix.MemfdCreate(originName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(open)
	memory := func(text string) string {
		fd, err := unix.MemfdCreate(originName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if _, err := unix.Write(fd, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, originSeals); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	for name, want := range map[string]string{
		pipe: "no small file", dir: "no small file", "/dev/zero": "no small file", file: "no sealed memory file",
		fmt.Sprintf("/proc/self/fd/%d", open): "no sealed memory file",
		memory(strings.Repeat(" ", 9<<10)):    "no small file",
		memory("{}"):                          "it says nothing",
		memory("kind"):                        "invalid character",
		filepath.Join(dir, "nothing"):         "no such file",
	} {
		if o, err := ReadOrigin(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %q", name, o, err, want)
		}
	}
}
