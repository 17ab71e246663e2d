package credential

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const canary = "s3cr3t-canary"

func TestAuthorize(t *testing.T) {
	for _, c := range []struct {
		name  string
		of    func(file string) Access
		file  string
		want  string
		error string // "" when want must be the header
	}{
		{"nothing", func(string) Access { return Access{} }, "", "", ""},
		{"token", token, canary + "\n", "Bearer " + canary, ""},
		{"token without an end", token, canary, "Bearer " + canary, ""},
		{"token of another system", token, canary + "\r\n", "Bearer " + canary, ""},
		{"empty", token, "", "", "is empty"},
		{"empty line", token, "\n", "", "is empty"},
		{"two lines", token, canary + "\n" + canary + "\n", "", "more than one line"},
		{"space", token, "Bearer " + canary, "", "a token has none"},
		{"control character", token, canary + "\x1b", "", "control character"},
		{"header of its own", token, canary + "\rX: y", "", "control character"},
		{"largest", token, strings.Repeat("x", Max), "Bearer " + strings.Repeat("x", Max), ""},
		{"too large", token, canary + strings.Repeat("x", Max), "", "more than 16384 bytes"},
		{"login", login, "user:" + canary + "\n", "Basic dXNlcjpzM2NyM3QtY2FuYXJ5", ""},
		{"colon in the password", login, "u:a:b", "Basic dTphOmI=", ""},
		{"space in the password", login, "u:a b", "Basic dTphIGI=", ""},
		{"no password", login, "u:", "Basic dTo=", ""},
		{"no user", login, ":" + canary, "", "user:password"},
		{"no colon", login, canary, "", "user:password"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			h := http.Header{}
			err := c.of(file).Authorize(h)
			if got := h.Get("Authorization"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if (err == nil) != (c.error == "") {
				t.Fatal(err)
			}
			if c.error != "" {
				wantConfig(t, err, c.error)
			}
		})
	}
}

func token(file string) Access { return Access{TokenFile: file} }
func login(file string) Access { return Access{LoginFile: file} }

func wantConfig(t *testing.T, err error, says string) {
	t.Helper()
	if fault.CodeOf(err) != fault.ConfigSource || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), canary) {
		t.Errorf("got %v, want %s that says %q", err, fault.ConfigSource, says)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := os.WriteFile(good, []byte("user:"+canary), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		a    Access
		says string
	}{
		{Access{TokenFile: good, LoginFile: good}, "both given"},
		{token(filepath.Join(dir, "none")), "no such file"},
		{token(dir), "not a regular file"},
		{login(fifo), "not a regular file"},
	} {
		wantConfig(t, c.a.Check(), c.says)
	}
	for _, a := range []Access{{}, token(good), login(good)} {
		if err := a.Check(); err != nil || a.Given() != (a != Access{}) {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

// TestReplaced rotates a token the way secret stores do, by rename.
func TestReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	for _, text := range []string{"one", "two"} {
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		if got, err := token(file).Token(); err != nil || got.Reveal() != text {
			t.Errorf("got %q, %v; want %q", got.Reveal(), err, text)
		}
	}
}

func TestSecretPrintsAsStars(t *testing.T) {
	s := Secret(canary)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb, s)
		fmt.Fprintf(&out, verb, struct{ S Secret }{s})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", s)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", s)
	raw, err := json.Marshal(map[string]Secret{"secret": s})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(raw)
	if text := out.String(); strings.Contains(text, canary) || !strings.Contains(text, hidden) {
		t.Error(text)
	}
}
