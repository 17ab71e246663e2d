package client

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// TestAccess asks a server that lets in whoever has the token of the day, by way
// of itself, of another port and of another name.
func TestAccess(t *testing.T) {
	var want string
	var strangers []string
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		strangers = append(strangers, r.Header.Get("Authorization"))
	}))
	defer stranger.Close()
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != want:
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/away":
			http.Redirect(w, r, strings.Replace(stranger.URL, "127.0.0.1", r.URL.RawQuery, 1), http.StatusFound)
		case r.URL.Path == "/around":
			http.Redirect(w, r, "/file", http.StatusFound)
		}
	}))
	defer home.Close()

	file := filepath.Join(t.TempDir(), "token")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(canary + "1\n")
	s := newSite(t, home.URL, Options{Access: credential.Access{TokenFile: file}})
	ask := func(address string) error {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.Client.Read(context.Background(), Request{URL: u, Name: "file"}, 10, "")
		return err
	}
	want = "Bearer " + canary + "1"
	other := strings.Replace(stranger.URL, "127.0.0.1", "localhost", 1)
	for _, address := range []string{home.URL + "/file", home.URL + "/around", home.URL + "/away?127.0.0.1", home.URL + "/away?localhost", other} {
		if err := ask(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	if got := strings.Join(strangers, ""); got != "" || len(strangers) != 3 {
		t.Errorf("strangers got %q", strangers)
	}

	want = "Bearer " + canary + "2"
	err := ask(home.URL + "/file")
	sourcetest.WantCode(t, err, fault.Denied, false)
	if !strings.Contains(err.Error(), "TokenFile=") {
		t.Error(err)
	}
	put(canary + "2\n")
	if err := ask(home.URL + "/file"); err != nil {
		t.Errorf("with the new token: %v", err)
	}
	put("")
	before := sourcetest.OpenFiles(t)
	sourcetest.WantCode(t, ask(home.URL+"/file"), fault.ConfigSource, false)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	sourcetest.WantCode(t, ask(home.URL+"/file"), fault.ConfigSource, false)
	_, err = s.Open(context.Background(), "file", source.Position{})
	sourcetest.WantCode(t, err, fault.ConfigSource, false)
	sourcetest.Settled(t, before)
	if _, err := New("localhost", s.Client.o); fault.CodeOf(err) != fault.ConfigSource {
		t.Errorf("a client without its token: %v", err)
	}
}
